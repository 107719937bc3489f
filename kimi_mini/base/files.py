"""Files that appear whole or not at all, and readers that name the file that is broken."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kimi_mini.base.errors import BadFile, KimiError, explain_os_error

AGAIN = "delete it and run the command that makes it"  # what to do about a file that is not as it was written

if TYPE_CHECKING:  # the command line answers --help without numpy
    import numpy as np


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
    except Exception as error:
        if type(error).__name__ != "SafetensorError" and "inline_container" not in str(error):
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
    """An npz file with a checksum of what is in it, written whole or not at all."""
    import numpy as np

    with replacing(file) as part, part.open("wb") as stream:
        np.savez_compressed(stream, **arrays, checksum=_checksum(arrays))


def _checksum(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """SHA-256 of names, types, shapes and numbers."""
    import numpy as np

    digest = hashlib.sha256()
    for name, array in sorted((name, np.asarray(array)) for name, array in arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape} ".encode() + array.tobytes())
    return np.frombuffer(digest.digest(), np.uint8)


# ---------------------------------------------------------------------------------------------- reading
class _Contents(dict):
    """What a file holds. An entry that is not there is a fault of the file, which the error names."""

    def __init__(self, path: str | Path, values: dict):
        super().__init__(values)
        self.path = path

    def __missing__(self, name: str):
        raise BadFile(f"{self.path} holds no {name!r}; {AGAIN}")


def read_json(path: str | Path, kind: type = dict) -> Any:
    """Read a results file that holds one `kind` of thing, a dict or a list.

    Raises KimiError when it is missing, unreadable, cut short or of another kind; so does an entry of a dict that is
    asked for and not there.
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise KimiError(explain_os_error(error, path)) from error
    except (ValueError, RecursionError) as error:
        raise BadFile(f"{path} is not valid JSON ({error}); {AGAIN}") from error
    if not isinstance(value, kind):
        raise BadFile(f"{path} holds a {type(value).__name__} where a {kind.__name__} belongs; {AGAIN}")
    return _Contents(path, value) if kind is dict else value


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """All arrays of a file that `save_arrays` wrote. Raises KimiError when it is missing or not as it was written; so
    does an array that is asked for and not there."""
    import numpy as np

    try:
        with np.load(path) as stored:
            arrays = dict(stored)
        whole = np.array_equal(arrays.pop("checksum"), _checksum(arrays))
    except Exception as error:  # zip, zlib and numpy have a dozen kinds of errors for a wrong byte
        raise BadFile(f"{path} cannot be read ({error}); {AGAIN}") from error
    if not whole:
        raise BadFile(f"{path} is damaged: its checksum is another one; {AGAIN}")
    return _Contents(path, arrays)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Context: this process alone works in `folder`. KimiError when another one does. The system lets go of the lock of
    a process that was killed; where files cannot be locked (Windows) nothing is locked."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise KimiError(
                f"another run is at work in {folder}: wait for its end, or use --folder for this one"
            ) from None
        yield
