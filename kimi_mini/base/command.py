"""What every command line here shares: errors in one line, options from a dataclass, and numbers that make sense.

A user error ends in one line on standard error and exit status 2, Ctrl-C in 130, SIGTERM in 143.
KIMI_MINI_DEBUG=1 shows the traceback instead. Needs nothing but the standard library, so that --help answers at once.
"""

import argparse
import errno
import json
import math
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import field, fields
from pathlib import Path
from typing import Any

from kimi_mini.base.errors import KimiError, explain_os_error
from kimi_mini.base.paths import short

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


MOST = 2**63 - 1  # what a seed may be
WARMEST = 2  # temperature, as OpenAI has it
SAVED = "stopped; what was saved is safe: run the same command to go on"


class Terminated(KeyboardInterrupt):
    """SIGTERM: ends what runs as Ctrl-C does."""


def in_one_line(command: Callable[[], int | None], stopped: str = SAVED) -> int:
    """Run a command and return its exit status. `stopped` is what Ctrl-C and SIGTERM are answered."""
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, _terminate)
    except ValueError:  # not the main thread: whoever runs it minds the signals
        pass
    try:
        return command() or 0
    except KeyboardInterrupt as stop:
        return _stop(stopped, 143 if isinstance(stop, Terminated) else 130)
    except BrokenPipeError:  # the reader of our output has left, as in `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KimiError as error:
        return _stop(str(error), 2)
    except OSError as error:
        if error.errno not in USER_ERRNOS:
            raise
        return _stop(explain_os_error(error), 2)


def _terminate(number: int, frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough
    raise Terminated


def _stop(line: str, status: int) -> int:
    """Say one line, below a progress bar if there is one, and give back the exit status; with KIMI_MINI_DEBUG=1 let the
    exception through."""
    if os.environ.get("KIMI_MINI_DEBUG") == "1":
        raise  # the exception that the calling except clause holds
    tqdm = sys.modules.get("tqdm")
    (tqdm.tqdm.write if tqdm else print)(f"kimi_mini: {line}", file=sys.stderr)
    return status


# ---- options from a dataclass ----------------------------------------------------------------------------


def option(default: Any, says: str, kind: Callable[[str], Any] = str, **more: Any) -> Any:
    """A field of a dataclass that is also an option of a command line; `more` goes to argparse."""
    return field(default=default, metadata={"help": says, "type": kind, **more})


def add_options(parser: argparse.ArgumentParser, options: type) -> None:
    """An option for each field of a dataclass: --step-tokens for `step_tokens`."""
    for entry in fields(options):
        shown = short(entry.default) if isinstance(entry.default, Path) else entry.default
        shown = "" if shown is None else f" (default {shown})"
        more = dict(entry.metadata) | {"help": entry.metadata["help"] + shown, "default": entry.default}
        parser.add_argument("--" + entry.name.replace("_", "-"), **more)


def read_options(args: argparse.Namespace, options: type) -> Any:
    """The dataclass with what was given."""
    return options(**{entry.name: getattr(args, entry.name) for entry in fields(options)})


# ---- types for argparse ----------------------------------------------------------------------------------
def positive(text: str) -> int:
    """A whole number from 1."""
    return _between(1, int(text), MOST)


def natural(text: str) -> int:
    """A whole number from 0."""
    return _between(0, int(text), MOST)


def port(text: str) -> int:
    """The number of a port; 0 is any that is free."""
    return _between(0, int(text), 65535)


def threads(text: str) -> int:
    """A number of threads: from 1, and not more than a machine can start."""
    return _between(1, int(text), 1024)


def folder(text: str) -> str:
    """The name of a folder, there or not: no empty one, which would be the current folder, and no file."""
    if not text.strip():
        raise argparse.ArgumentTypeError("a folder needs a name")
    if any(len(os.fsencode(part)) > 255 for part in text.split(os.sep)):
        raise argparse.ArgumentTypeError(f"{text[:20]}... is too long for a name: 255 letters are the most")
    if os.path.exists(text) and not os.path.isdir(text):
        raise argparse.ArgumentTypeError(f"{text} is a file, not a folder")
    return text


def new_file(text: str) -> str:
    """The name of a file to be written, there or not: no empty one and no folder."""
    if not text.strip() or text.endswith(os.sep) or os.path.isdir(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no file that could be written")
    return text


def above_zero(text: str) -> float:
    """A number above 0, and small enough to be meant."""
    value = float(text)
    if not (value > 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    if value > 1e6:
        raise argparse.ArgumentTypeError(f"{text} is more than a million")
    return value


def from_zero(text: str) -> float:
    """A number from 0, and small enough to be meant."""
    return 0.0 if float(text) == 0 else above_zero(text)


def warmth(text: str) -> float:
    """A temperature that a request to an endpoint may name: 0 to 2."""
    value = from_zero(text)
    if value > WARMEST:
        raise argparse.ArgumentTypeError(f"{text[:24]} is more than {WARMEST}")
    return value


def json_object(text: str) -> dict:
    """A JSON object, as {"top_p": 0.9}."""
    value = json.loads(text)
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"{text[:40]} is no JSON object")
    return value


def _between(least: int, value: int, most: int) -> int:
    if value < least:
        raise argparse.ArgumentTypeError(f"{value} is less than {least}")
    if value > most:
        raise argparse.ArgumentTypeError(f"{str(value)[:24]} is more than {most}")
    return value
