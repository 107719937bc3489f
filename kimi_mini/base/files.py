"""Files that appear whole or not at all, and readers that name the file that is broken."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    pass
import json
import os
import zipfile
from typing import Any

from safetensors import SafetensorError

from kimi_mini.base.errors import KimiError, explain_os_error


def save_arrays(file: Path, **arrays: np.ndarray) -> None:
    """An npz file, written whole or not at all."""
    with replacing(file) as part, part.open("wb") as stream:
        np.savez_compressed(stream, **arrays)


# ------------------------------------------------------------------------------------------------ files
def write_json(path: str | Path, value: Any) -> None:
    """Write JSON atomically. Raises ValueError on NaN (a result is a number), KimiError on a full disk."""
    write_atomic(path, json.dumps(value, indent=1, allow_nan=False, default=_plain) + "\n")


def write_atomic(path: str | Path, text: str) -> None:
    """Put `text` at `path` so that a crash at any moment leaves either the old file or the new one.

    Raises KimiError with one line on a full disk or a missing permission; the old file stays as it was.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise KimiError(explain_os_error(error, path.parent)) from error
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise KimiError(explain_os_error(error, path)) from error
    finally:
        _remove(temporary)


def read_json(path: str | Path) -> Any:
    """Read a results file. Raises KimiError when it is missing, unreadable or cut short."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise KimiError(explain_os_error(error, path)) from error
    except ValueError as error:
        raise KimiError(
            f"{path} is not valid JSON ({error}); delete it and run the command that makes it"
        ) from error


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """All arrays of an npz file. Raises KimiError when it is missing or damaged."""
    try:
        with np.load(path) as arrays:
            return dict(arrays)
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise KimiError(
            f"{path} cannot be read ({error}); delete it and run the same command again"
        ) from error


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable, where the system lets a folder be opened."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    try:
        path.unlink()
    except OSError:
        pass  # renamed already, or in a folder that we may not write to


def _plain(value: Any) -> Any:
    """numpy and torch values as Python numbers and lists."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"cannot write a {type(value).__name__} as JSON")


class replacing:
    """Context: a temporary path beside `path` that takes its place on success and is removed on failure."""

    def __init__(self, path: Path):
        self.path, self.temporary = path, path.with_name(f".{path.name}.{os.getpid()}.tmp")

    def __enter__(self) -> Path:
        return self.temporary

    def __exit__(self, kind, error, _):
        if error is None:
            with open(self.temporary, "rb") as file:
                os.fsync(file.fileno())  # a power cut must not leave a whole name on half a file
            os.replace(self.temporary, self.path)
            return
        self.temporary.unlink(missing_ok=True)
        if isinstance(error, SafetensorError) or (
            isinstance(error, RuntimeError) and "inline_container" in str(error)
        ):
            raise KimiError(
                f"{self.path} could not be written, probably because the disk is full: free some space and "
                "run the same command again"
            ) from error
