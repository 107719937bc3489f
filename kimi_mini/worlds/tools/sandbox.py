"""A place to run Python that a model wrote.

`run_python(code)` runs a program from a fresh start and returns what it printed and how it ended. Two engines:

monty (default)   pydantic-monty, a Python interpreter of its own, written in Rust for code by language models.
                  It runs in a worker process and offers its programs no system call: about 3000 small
                  programs a second on one core. It speaks a subset of Python (last point below).
bubblewrap        the full CPython of this machine inside new Linux namespaces, with a list of allowed system calls
                  and rlimits. Some twenty programs a second. Only on Linux (x86_64, aarch64), where `bwrap` 0.8 or
                  later is installed and a probe run finds no way out.

There is no silent fall-back: an engine that cannot run here, or cannot confine here, raises SandboxUnavailable and
says why. Neither engine needs root, and programs are confined by the same means when root runs kimi_mini.

Covered, by both engines unless one is named (tests/worlds/test_sandbox.py and test_hostile.py attack each):
  - endless loops: stopped at `timeout` seconds of execution; a worker that does not stop is killed
  - many programs at once: 32 run, each further call waits `timeout` seconds at most for one of them to end
  - memory bombs, recursion bombs, huge integers, huge output: stopped at a limit, an error is reported. Memory is
    limited for the whole program: monty 64 MB of heap, bubblewrap 256 MB of addresses (it is one process, and
    shared memory, files in memory and further processes are refused)
  - files: none of yours can be read, and none written, neither by open nor by os or pathlib, nor its rights changed
    (bubblewrap: the C libraries and this Python's own files can be read; there is no /proc and no /sys, so no
    setting of the kernel and no other process is in sight)
  - network and other sockets, further processes and threads, environment variables, the host's modules: not there
  - walks over __class__ and __subclasses__: monty has no such attributes; in bubblewrap they reach nothing more
  - exec and eval: they stay inside the same limits
  - one program seeing another's variables: every run begins with an empty interpreter
  - a crash of the worker: the program is tried once more in a new one, then it is an error (monty)
  - what outlives its program: nothing; timers, signals and children end with it
  - clocks and chance (monty): time.sleep returns at once, `random` starts from a fixed seed, the date is
    fixed, so that a run can be repeated exactly

There, in bubblewrap: ctypes, and with it any machine code and every system call of the list in seccomp.py; exec of
another program in its own place, under the same limits; a pair of connected sockets (asyncio needs one); signals to
itself; /dev/null, /dev/zero, /dev/urandom; the machine's clock, kernel version and number of processors. The modules
subprocess, threading and multiprocessing can be imported and start nothing.

Not covered:
  - a bug in monty's interpreter that lets a program write into its worker's memory (the worker is a separate
    process with your user's rights; for hostile code put the whole of kimi_mini into a container or VM)
  - bubblewrap: a bug in the Linux kernel; a program that digs the harness's token out of its frames and
    forges its own verdict; what the kernel keeps for a process beside its memory (64 open files, pipes of up to 1 MB)
  - how long a program took, as a side channel; processor time that others would have wanted: a program may
    use a whole core for `timeout` seconds
  - the meaning of what is printed: output is the program's word, control characters included, and a program may
    print "passed". Verifiers must look at `ok`, and keep their own test code after the model's
  - monty only: programs outside its subset. `yield`, `del`, class inheritance, @property and its kin, except*
    and most of the standard library end with an error (NotImplementedError, ModuleNotFoundError); loops,
    functions, closures, plain classes, comprehensions, match, try, f-strings, math, re, json, itertools,
    functools, collections run; a few texts differ (print(reversed([1])) shows a list)
"""

import os
import threading
from dataclasses import dataclass
from time import perf_counter

from kimi_mini.base.errors import SandboxUnavailable
from kimi_mini.worlds.tools import namespaces, workers
from kimi_mini.worlds.tools.arguments import shorten

__all__ = ["SandboxResult", "SandboxUnavailable", "run_python"]

MAX_OUTPUT = 64 * 2**10  # bytes printed by one program
MAX_ERROR = 300  # characters of an error message
MAX_CODE = 2**20  # characters of a program

_ENGINES = {"monty": workers.run, "bubblewrap": namespaces.run}
_places = threading.BoundedSemaphore(workers.MAX_WORKERS)


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

    It comes back within `timeout` seconds of waiting for a place, and `timeout` (and up to a second) of running.

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
    stdout, error, line = _run(code, timeout, engine)
    error = None if error is None else shorten(error, MAX_ERROR)
    return SandboxResult(error is None, stdout, error, line, perf_counter() - start, engine)


def _run(code: str, timeout: float, engine: str) -> tuple[str, str | None, int | None]:
    if len(code) > MAX_CODE:
        return "", f"MemoryError: the program is longer than {MAX_CODE} characters", None
    if not _places.acquire(timeout=timeout):
        return "", f"TimeoutError: {workers.MAX_WORKERS} other programs did not end in {timeout:g} s", None
    try:
        return _ENGINES[engine](code, timeout, MAX_OUTPUT)
    finally:
        _places.release()


def _after_fork() -> None:
    global _places  # what other threads of the parent held will not be given back here
    _places = threading.BoundedSemaphore(workers.MAX_WORKERS)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
