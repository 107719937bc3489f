"""What every command line here shares: errors in one line, and numbers that make sense.

A user error ends in one line on standard error and exit status 2, Ctrl-C in 130.
KIMI_MINI_DEBUG=1 shows the traceback instead. Needs nothing but the standard library, so that --help answers at once.
"""

import argparse
import errno
import math
import os
import sys
from collections.abc import Callable

from kimi_mini.base.errors import KimiError, explain_os_error

USER_ERRNOS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOENT,
    errno.ENOTDIR,
}


SAVED = "stopped; what was saved is safe: run the same command to go on"


def in_one_line(command: Callable[[], int | None], stopped: str = SAVED) -> int:
    """Run a command and return its exit status. `stopped` is what Ctrl-C is answered."""
    try:
        return command() or 0
    except KeyboardInterrupt:
        return _stop(stopped, 130)
    except BrokenPipeError:  # the reader of our output has left, as in `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KimiError as error:
        return _stop(str(error), 2)
    except OSError as error:
        if error.errno not in USER_ERRNOS:
            raise
        return _stop(explain_os_error(error), 2)


def _stop(line: str, status: int) -> int:
    """Say one line and give back the exit status; with KIMI_MINI_DEBUG=1 let the exception through."""
    if os.environ.get("KIMI_MINI_DEBUG") == "1":
        raise  # the exception that the calling except clause holds
    print(f"kimi_mini: {line}", file=sys.stderr)
    return status


# ---- types for argparse ----------------------------------------------------------------------------------
def positive(text: str) -> int:
    """A whole number from 1."""
    return _at_least(1, int(text))


def natural(text: str) -> int:
    """A whole number from 0."""
    return _at_least(0, int(text))


def folder(text: str) -> str:
    """The name of a folder, there or not: no empty one, which would be the current folder, and no file."""
    if not text.strip():
        raise argparse.ArgumentTypeError("a folder needs a name")
    if os.path.exists(text) and not os.path.isdir(text):
        raise argparse.ArgumentTypeError(f"{text} is a file, not a folder")
    return text


def above_zero(text: str) -> float:
    """A finite number above 0."""
    value = float(text)
    if not (value > 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value


def _at_least(least: int, value: int) -> int:
    if value < least:
        raise argparse.ArgumentTypeError(f"{value} is less than {least}")
    return value
