"""The one exception that the command line shows as a single line.

KimiError and its subclasses are user errors: an unknown preset, a missing or damaged checkpoint, a full disk. The text
is one line that says what is wrong and what to do. Programming errors keep their own types and their traceback.
"""

import errno
from pathlib import Path


class KimiError(Exception):
    """A problem that the user can solve; `str(error)` is one line that says how."""

    def __str__(self) -> str:
        return " ".join(super().__str__().split())


class MissingFile(KimiError, FileNotFoundError):
    """A file or folder that should be there is not."""


class BadFile(KimiError, ValueError):
    """A file that is cut short, damaged, or of a kind that this code does not read."""


class SandboxUnavailable(KimiError):
    """The sandbox engine asked for cannot run on this machine; the text says what is missing."""


def explain_os_error(error: OSError, path: str | Path | None = None) -> str:
    """One line for the errors of files and disks that a user can do something about."""
    place = path or error.filename or "a file"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"the disk is full: {place} was not written; free some space and run the same command again"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"no permission for {place}; choose another folder or change its permissions"
    if error.errno == errno.ENOENT:
        return f"{place} does not exist; check the path"
    if error.errno in (errno.ENOTDIR, errno.EISDIR):
        return f"{place}: {error.strerror}; check the path"
    return f"{place}: {error.strerror or error}"
