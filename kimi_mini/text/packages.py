"""Text without a network: the Python packages of this machine, code and what is written about it."""

from __future__ import annotations

import hashlib
import os
import sysconfig
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from kimi_mini.text import corpus
from kimi_mini.text.tokenizer import Tokenizer

KINDS = (".py", ".md", ".rst")
AT_ONCE = 256  # documents that are encoded side by side


def files() -> list[tuple[str, Path]]:
    """(name, file) of all texts in the standard library and the installed packages, in the order of their names'
    hashes: any part of it is a fair sample."""
    paths = sysconfig.get_paths()
    found = {}
    for kind in ("stdlib", "purelib", "platlib"):
        root = Path(paths[kind])
        for folder, subfolders, names in os.walk(root):
            skipped = {"__pycache__"} | ({"site-packages", "dist-packages"} if kind == "stdlib" else set())
            subfolders[:] = [name for name in subfolders if name not in skipped]
            for file in (Path(folder) / name for name in names if name.endswith(KINDS)):
                label = "stdlib" if kind == "stdlib" else "packages"
                found[file.resolve()] = f"{label}/{file.relative_to(root).as_posix()}"
    return sorted(
        ((name, file) for file, name in found.items()),
        key=lambda pair: hashlib.sha256(pair[0].encode()).digest(),
    )


def documents(found: Iterable[tuple[str, Path]], most: int) -> list[corpus.Document]:
    """Up to `most` bytes of them, whole files; of texts that differ in white space alone the first."""
    kept: dict[int, corpus.Document] = {}
    size = 0
    for name, file in found:
        text = file.read_text(encoding="utf-8", errors="replace")
        key = hash(" ".join(text.split()))
        if not text.strip() or key in kept:
            continue
        size += len(text.encode("utf-8"))
        if size > most:
            break
        kept[key] = corpus.Document(name, text)
    return list(kept.values())


def stream(tokenizer: Tokenizer, texts: list[corpus.Document]) -> np.ndarray:
    """(N,) uint16: as `corpus.token_stream`, on all cores."""
    end, parts = tokenizer.special["[EOS]"], []
    for start in range(0, len(texts), AT_ONCE):
        batch = [document.text for document in texts[start : start + AT_ONCE]]
        for encoding in tokenizer.plain.encode_batch(batch, add_special_tokens=False):
            parts.append(np.array([*encoding.ids, end], np.uint16))
    return np.concatenate(parts)
