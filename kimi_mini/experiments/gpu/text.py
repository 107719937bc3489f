"""Text without a network: the Python packages of this machine, code and what is written about it."""

from __future__ import annotations

import hashlib
import itertools
import os
import sysconfig
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from kimi_mini.base.files import read_arrays, save_arrays
from kimi_mini.experiments.gpu.site import Site
from kimi_mini.text import corpus
from kimi_mini.text.tokenizer import Tokenizer

KINDS = (".py", ".md", ".rst")
MOST_BYTES = 120_000_000
AT_ONCE = 256  # documents that are encoded side by side


def package_files() -> list[tuple[str, Path]]:
    """(name, file) of all texts in the standard library and the installed packages, in the order of their names'
    hashes: any part of it is a fair sample."""
    paths = sysconfig.get_paths()
    found = {}
    for kind in ("stdlib", "purelib", "platlib"):
        root = Path(paths[kind])
        for folder, subfolders, files in os.walk(root):
            skipped = {"__pycache__"} | ({"site-packages", "dist-packages"} if kind == "stdlib" else set())
            subfolders[:] = [name for name in subfolders if name not in skipped]
            for file in (Path(folder) / name for name in files if name.endswith(KINDS)):
                found[file.resolve()] = f"{kind}/{file.relative_to(root).as_posix()}"
    return sorted(
        ((name, file) for file, name in found.items()),
        key=lambda pair: hashlib.sha256(pair[0].encode()).digest(),
    )


def documents(files: Iterable[tuple[str, Path]], most: int) -> list[corpus.Document]:
    """Up to `most` bytes of them, whole files; of texts that differ in white space alone the first."""
    kept: dict[int, corpus.Document] = {}
    size = 0
    for name, file in files:
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


def machine_text(site: Site) -> dict[str, np.ndarray]:
    """Token streams `training` and `validation`, and how many `bytes` of how many `files` they came from; made once."""
    file = site.work / "text.npz"
    if not file.is_file():
        found = package_files()
        if site.rehearsal:
            found = list(itertools.islice((pair for pair in found if pair[0].startswith("stdlib")), 60))
        texts, tokenizer = documents(found, site.pick(MOST_BYTES, 300_000)), Tokenizer.load()
        training, validation = (stream(tokenizer, part) for part in corpus.split(texts, 0.05))
        size = sum(len(document.text.encode("utf-8")) for document in texts)
        save_arrays(file, training=training, validation=validation, bytes=size, files=len(texts))
    return read_arrays(file)


def machine_windows(site: Site, length: int) -> tuple[np.ndarray, np.ndarray]:
    """(training, validation) windows (N, length)."""
    text = machine_text(site)
    return corpus.pack(text["training"], length), corpus.pack(text["validation"], length)
