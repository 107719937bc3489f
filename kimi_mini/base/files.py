"""Files that appear whole or not at all, and readers that name the file that is broken."""

import json
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from kimi_mini.base.errors import KimiError, explain_os_error


# ---------------------------------------------------------------------------------------------- writing
@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place on success and is removed on failure.

    A crash at any moment leaves the old file or the new one. Raises KimiError in one line on a full disk, which torch
    and safetensors report in their own ways, or a missing permission.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        _sync(part)  # a power cut must not leave a whole name on half a file
        os.replace(part, path)
        if os.name == "posix":  # make the rename itself durable, where a folder can be opened
            _sync(path.parent)
    except KimiError:
        raise
    except OSError as error:
        raise KimiError(explain_os_error(error, path)) from error
    except (SafetensorError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "inline_container" not in str(error):
            raise
        advice = "probably because the disk is full: free some space and run the same command again"
        raise KimiError(f"{path} could not be written, {advice}") from error
    finally:
        with suppress(OSError):  # renamed already, or in a folder that we may not write to
            part.unlink()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomic(path: str | Path, text: str) -> None:
    """Text, written whole or not at all. Raises KimiError as `replacing` does."""
    with replacing(Path(path)) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """JSON, written whole or not at all. Raises ValueError on NaN (a result is a number), KimiError as `replacing`."""
    write_atomic(path, json.dumps(value, indent=1, allow_nan=False, default=_plain) + "\n")


def _plain(value: Any) -> Any:
    """numpy and torch values as Python numbers and lists."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"cannot write a {type(value).__name__} as JSON")


def save_arrays(file: Path, **arrays: np.ndarray) -> None:
    """An npz file, written whole or not at all."""
    with replacing(file) as part, part.open("wb") as stream:
        np.savez_compressed(stream, **arrays)


# ---------------------------------------------------------------------------------------------- reading
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
