"""A place to run Python that a model wrote.

`run_python(code)` runs a program from a fresh start and returns what it printed and how it ended. Two engines:

monty (default)   pydantic-monty, a Python interpreter of its own, written in Rust for code by language models.
                  It runs in a worker process and offers its programs no system call: about 3000 small
                  programs a second on one core. It speaks a subset of Python (last point below).
bubblewrap        the full CPython of this machine inside new Linux namespaces, with rlimits. Some thirty
                  programs a second. Only where `bwrap` is installed and a probe run succeeds.

There is no silent fall-back: an engine that cannot run here raises SandboxUnavailable and says why.

Covered (tests/test_sandbox.py attacks each):
  - endless loops: stopped at `timeout` seconds of execution; a worker that does not stop is killed
  - memory bombs, recursion bombs, huge integers, huge output: stopped at a limit, an error is reported
  - files: none can be read or written, neither by open nor by os or pathlib (bubblewrap: the system
    directories that Python itself needs can be read)
  - network, subprocesses, environment variables, the host's modules, ctypes: not there
  - walks over __class__ and __subclasses__: monty has no such attributes
  - exec and eval: they stay inside the same limits
  - one program seeing another's variables: every run begins with an empty interpreter
  - a crash of the worker: reported as an error, and the next call gets a new worker
  - clocks and chance (monty): time.sleep returns at once, `random` starts from a fixed seed, the date is
    fixed, so that a run can be repeated exactly

Not covered:
  - a bug in monty's interpreter that lets a program write into its worker's memory (the worker is a separate
    process with your user's rights; for hostile code put the whole of kimi_mini into a container or VM)
  - bubblewrap: a bug in the Linux kernel; a program that digs the harness's token out of its frames and
    forges its own verdict; the number of processes, where kimi_mini runs as root (the kernel exempts root)
  - how long a program took, as a side channel; processor time that others would have wanted: a program may
    use a whole core for `timeout` seconds
  - the meaning of what is printed: output is the program's word, and a program may print "passed". Verifiers
    must look at `ok`, and keep their own test code after the model's
  - monty only: programs outside its subset. `yield`, `del`, class inheritance, @property and its kin, except*
    and most of the standard library end with an error (NotImplementedError, ModuleNotFoundError); loops,
    functions, closures, plain classes, comprehensions, match, try, f-strings, math, re, json, itertools,
    functools, collections run; a few texts differ (print(reversed([1])) shows a list)
"""

import atexit
import datetime
import os
import threading
from dataclasses import dataclass
from time import perf_counter

import pydantic_monty as monty

from kimi_mini.base.errors import SandboxUnavailable
from kimi_mini.worlds.tools import namespaces

__all__ = ["SandboxResult", "SandboxUnavailable", "run_python"]

MAX_MEMORY = 64 * 2**20  # bytes of heap of one program
MAX_OUTPUT = 64 * 2**10  # bytes printed by one program
MAX_DEPTH = 200  # nested calls
MAX_ERROR = 300  # characters of an error message
MAX_CODE = 2**20  # characters of a program


@dataclass(frozen=True)
class SandboxResult:
    """How a program ended.

    ok       True when it ran to its end without an exception
    stdout   what it printed (up to MAX_OUTPUT bytes), also when it failed later
    error    None, or one line "Type: message"
    line     line number in the program where the error came up, or None if that is not known
    seconds  wall time of the call
    engine   "monty" or "bubblewrap"
    """

    ok: bool
    stdout: str
    error: str | None
    line: int | None = None
    seconds: float = 0.0
    engine: str = "monty"


def run_python(code: str, timeout: float = 2.0, engine: str = "monty") -> SandboxResult:
    """Run a program in isolation. Whatever the program does, a SandboxResult comes back.

    Raises SandboxUnavailable when the engine cannot run here, ValueError when it is not known or when timeout is not a
    number of seconds above 0 and up to a day, and TypeError when code is not text.
    """
    if not isinstance(code, str):
        raise TypeError(f"code must be text, not {type(code).__name__}")
    if engine not in _ENGINES:
        raise ValueError(f"unknown engine {engine!r}; known: {', '.join(_ENGINES)}")
    if not (isinstance(timeout, (int, float)) and 0 < timeout <= 86_400):
        raise ValueError(f"timeout must be seconds above 0 and up to a day, not {timeout!r}")
    start = perf_counter()
    if len(code) > MAX_CODE:
        outcome = (False, "", f"MemoryError: the program is longer than {MAX_CODE} characters", None)
    else:
        outcome = _ENGINES[engine](code, timeout)
    return SandboxResult(*outcome, seconds=perf_counter() - start, engine=engine)


# ------------------------------------------------------------------------------------------------ monty
_pool: monty.Monty | None = None
_pool_lock = threading.Lock()
_forked = False  # True in a process that was forked while its parent's pool was alive
_WORLD = {  # no waiting, no chance, no date: a run can be repeated exactly
    "sleep": "zero",
    "random_start": {"seed": 0},
    "datetime": datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC),
}


def _workers() -> monty.Monty:
    """This process's pool of interpreter workers, started on first use."""
    global _pool
    if _forked:  # the pool's threads did not come along: waiting for them would never end
        raise SandboxUnavailable(
            "this process was forked after the sandbox had been used; start processes with the 'spawn' method"
        )
    with _pool_lock:
        if _pool is None:
            try:
                _pool = monty.Monty().__enter__()
            except (OSError, RuntimeError, monty.MontyError) as error:
                raise SandboxUnavailable(f"monty cannot start its worker: {error}") from error
        return _pool


def _after_fork() -> None:
    global _forked
    _forked = _pool is not None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@atexit.register
def _close() -> None:
    if _pool is not None and not _forked:
        _pool.__exit__(None, None, None)


def _run_monty(code: str, timeout: float) -> tuple[bool, str, str | None, int | None]:
    printed = monty.CollectString(max_bytes=MAX_OUTPUT)
    limits = {
        "max_feed_duration_secs": float(timeout),
        "max_memory": MAX_MEMORY,
        "max_recursion_depth": MAX_DEPTH,
    }
    code = code.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate cannot cross to the worker
    session = _workers().checkout(
        script_name="program.py", limits=limits, os_policy=_WORLD, assert_message_annotations=False
    )
    try:
        with session:
            session.feed_run(code, print_callback=printed)
        return True, printed.output, None, None
    except monty.MontyCrashedError as error:
        reason = f"no end after {timeout:g} s" if error.timed_out else "the interpreter crashed"
        return (
            False,
            printed.output,
            ("TimeoutError: " if error.timed_out else "SystemError: ") + reason,
            None,
        )
    except monty.MontyConversionError:  # the program ran; only its last value cannot leave the sandbox
        return True, printed.output, None, None
    except (monty.MontyRuntimeError, monty.MontySyntaxError) as error:
        frames = error.traceback()
        line = frames[-1].line if frames else None
        return False, printed.output, one_line(error.display("type-msg"), timeout), line


def one_line(message: str, timeout: float) -> str:
    """An error as "Type: message" on one line, limits in words that a small model has seen before."""
    kind, _, rest = message.partition(":")
    if kind == "TimeoutError" and "time limit exceeded" in rest:
        return f"TimeoutError: no end after {timeout:g} s"
    if kind == "OutputError" or (kind == "MemoryError" and f"> {MAX_OUTPUT} bytes" in rest):
        return f"OutputError: more than {MAX_OUTPUT} bytes printed"
    if kind == "MemoryError" and "memory limit exceeded" in rest:
        return f"MemoryError: more than {MAX_MEMORY // 2**20} MB used"
    line = " ".join(message.split())
    return line if len(line) <= MAX_ERROR else line[: MAX_ERROR - 3] + "..."


# ------------------------------------------------------------------------------------------- bubblewrap
def _run_bubblewrap(code: str, timeout: float) -> tuple[bool, str, str | None, int | None]:
    stdout, error, line = namespaces.run(code, timeout, MAX_OUTPUT)
    return error is None, stdout, error and one_line(error, timeout), line


_ENGINES = {"monty": _run_monty, "bubblewrap": _run_bubblewrap}
