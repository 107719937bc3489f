"""Text to pre-train on without a download.

Two sources are always there: the standard library of the running Python (code and English comments) and Moby-Dick.
Names on the Hugging Face hub work when there is a network. A document belongs to training or to validation as a
whole, decided by a hash of its name: no page of a validation document is ever trained on, whatever else changes.

Source of the text: data/text/README.md.
"""

import hashlib
import itertools
import os
import sysconfig
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kimi_mini.base.errors import KimiError, MissingFile
from kimi_mini.base.paths import TEXT, in_clone
from kimi_mini.text.tokenizer import Tokenizer

# Tests and demos repeat themselves, packages are not the library, tables are not prose, and _sysconfigdata is
# a dump of this machine.
SKIPPED_FOLDERS = {
    "test",
    "tests",
    "idlelib",
    "lib2to3",
    "turtledemo",
    "ensurepip",
    "site-packages",
    "dist-packages",
    "encodings",
    "pydoc_data",
    "__phello__",
    "__pycache__",
}
LOCAL = "The standard library and Moby-Dick need no network."  # what is left without the hub
CHARACTERS = 4  # of a token, at most, in long text (2.4 in Python's standard library)
SKIPPED_FILES = {"html/entities.py", "_pydecimal.py", "tkinter/tix.py"}


class HubError(KimiError, ConnectionError):
    """A data set of the hub that cannot be read; the local sources still can."""


@dataclass(frozen=True)
class Document:
    """A text with a name that no other text has, such as "stdlib/json/decoder.py" or "moby-dick/12"."""

    name: str
    text: str


def _hash(text: str) -> int:
    """A stable 64-bit hash (Python's own differs between runs)."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest(), "big")


def _hash_of_words(document: Document) -> int:
    """The hash of a text whatever its white space is: by it copies are told."""
    return _hash(" ".join(document.text.split()))


# ---------------------------------------------------------------- documents


def stdlib_documents(max_bytes: int | None = None, folder: str | Path | None = None) -> list[Document]:
    """The .py files of the running interpreter's standard library, in the order of their names' hashes.

    That order is the same everywhere and mixes the packages, so that a cap of `max_bytes` (whole files, about 8 MB
    without it) takes a fair sample. Another Python version has another library: results name theirs.
    """
    root = Path(folder or sysconfig.get_paths()["stdlib"])
    documents, size = [], 0
    for name in sorted(_library_files(root), key=lambda name: (_hash(name), name)):
        text = (root / name).read_text(encoding="utf-8", errors="replace")
        if not text.strip():
            continue
        size += len(text.encode("utf-8"))
        if max_bytes is not None and size > max_bytes:
            break
        documents.append(Document(f"stdlib/{name}", text))
    return documents


def _library_files(root: Path) -> Iterator[str]:
    """Paths below `root`, with forward slashes."""
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = [name for name in subfolders if name not in SKIPPED_FOLDERS and name[:7] != "config-"]
        for file in files:
            name = (Path(folder) / file).relative_to(root).as_posix()
            if name.endswith(".py") and name not in SKIPPED_FILES and not name.startswith("_sysconfigdata"):
                yield name


def book_documents(file: str | Path = TEXT / "moby-dick.txt") -> list[Document]:
    """Moby-Dick: the 135 chapters and the epilogue, in order."""
    if not Path(file).is_file():
        raise MissingFile(f"{file} is missing; {in_clone('data/text/README.md says how to make it again')}")
    chapters = Path(file).read_text(encoding="ascii").rstrip("\n").split("\n\n\n")
    return [Document(f"moby-dick/{number}", text) for number, text in enumerate(chapters, start=1)]


def default_documents(max_stdlib_bytes: int | None = None) -> list[Document]:
    """Both local sources; a text that stands under two names is kept once."""
    return without_copies([*book_documents(), *stdlib_documents(max_stdlib_bytes)])


def without_copies(documents: Iterable[Document]) -> list[Document]:
    """The first of every group of texts that differ in white space at most. Copies would carry validation text into
    training."""
    seen: dict[int, Document] = {}
    for document in documents:
        seen.setdefault(_hash_of_words(document), document)
    return list(seen.values())


def split(
    documents: Iterable[Document], validation_share: float = 0.05
) -> tuple[list[Document], list[Document]]:
    """(training, validation), document by document; a name always falls on the same side for the same share.

    Raises KimiError when a text would stand on both sides."""
    if not 0 <= validation_share < 1:
        raise ValueError(f"validation_share must be in [0, 1), not {validation_share}")
    training, validation = [], []
    for document in documents:
        held_out = _hash(f"split {document.name}") < validation_share * 2**64
        (validation if held_out else training).append(document)
    refuse_leak(training, validation)
    return training, validation


def refuse_leak(training: Iterable[Document], validation: Iterable[Document]) -> None:
    """Raises KimiError when a validation document is also trained on, under its own name or another."""
    training = list(training)
    names = {document.name for document in training}
    texts = {_hash_of_words(document): document.name for document in training}
    for document in validation:
        twin = document.name if document.name in names else texts.get(_hash_of_words(document))
        if twin is not None:
            raise KimiError(
                f"{document.name} is held out for validation and also trained on (as {twin}): "
                "remove copies before splitting"
            )


# ---------------------------------------------------------------- datasets (imported on use: it takes seconds)


def as_dataset(documents: Iterable[Document]):
    """A `datasets.Dataset` with columns name and text."""
    import datasets

    return datasets.Dataset.from_list(
        [{"name": document.name, "text": document.text} for document in documents]
    )


def load_hub(
    name: str,
    /,
    split: str = "train",
    text_column: str = "text",
    max_documents: int | None = None,
    max_characters: int | None = None,
    **options,
) -> list[Document]:
    """Documents of a data set on the Hugging Face hub, streamed: only what is taken is downloaded.

    Args:
        max_characters: take no further document once so much text is there
        options: go to `datasets.load_dataset`, such as a configuration's name=... or data_files=...

    Raises:
        HubError: the hub or the data set cannot be reached, or is lost underway, or it has no such column.
    """
    from huggingface_hub.constants import ENDPOINT

    if "data_files" not in options and not _answers(ENDPOINT):  # datasets itself would try for half a minute
        raise HubError(f"cannot load {name!r}: no answer from {ENDPOINT}. {LOCAL}")
    documents, characters = [], 0
    for index, row in enumerate(itertools.islice(_rows(name, split=split, **options), max_documents)):
        if text_column not in row:
            raise HubError(f"{name!r} has no column {text_column!r}, only {', '.join(row)}")
        if not isinstance(row[text_column], str):
            raise HubError(
                f"row {index} of {name!r} has no text in {text_column!r}; columns: {', '.join(row)}"
            )
        documents.append(Document(f"{name}/{split}/{index}", row[text_column]))
        characters += len(row[text_column])
        if max_characters is not None and characters >= max_characters:
            break
    return documents


def _rows(name: str, /, **options) -> Iterator[dict]:
    """The rows of a data set as they come. HubError with the reason where one does not, the first or a later one."""
    import datasets

    try:
        yield from datasets.load_dataset(name, streaming=True, **options)
    except Exception as error:  # noqa: BLE001 - datasets, huggingface_hub and httpx each raise their own kinds
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise HubError(f"cannot load {name!r} from the hub: {reason}. {LOCAL}") from None


def _answers(address: str, timeout: float = 5.0) -> bool:
    """Does a web server answer there, whatever it says?"""
    try:
        urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=timeout).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


# ---------------------------------------------------------------- tokens


def token_stream(tokenizer: Tokenizer, documents: Iterable[Document]) -> np.ndarray:
    """All documents one after the other, [EOS] behind each; markers inside them stay plain text.

    Returns:
        (number of tokens,) int32
    """
    end = tokenizer.special["[EOS]"]
    parts = []
    for document in documents:
        parts.append(np.array([*tokenizer.encode(document.text, allow_special=False), end], dtype=np.int32))
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.int32)


def pack(stream: np.ndarray, length: int) -> np.ndarray:
    """Cut a stream into windows without padding; the rest, shorter than a window, is left out.

    A window may hold the end of one document and the start of the next, with [EOS] between them.

    Args:
        stream: (N,) int32
    Returns:
        (N // length, length) int32, a view of the stream
    """
    count = len(stream) // length
    return stream[: count * length].reshape(count, length)


def windows(
    tokenizer: Tokenizer, documents: Iterable[Document], length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Training and validation windows (N, length) int32, split by document. Raises KimiError where one is empty."""
    training, validation = (pack(token_stream(tokenizer, part), length) for part in split(documents))
    if not (len(training) and len(validation)):
        raise KimiError(
            f"{len(training)} windows of {length} tokens to train on and {len(validation)} to measure: "
            "take more text or a shorter window"
        )
    return training, validation
