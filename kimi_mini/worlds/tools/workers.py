"""The first sandbox engine: pydantic-monty, an interpreter written in Rust, in a pool of worker processes.

A worker is started when a program needs one and is kept for the next; one that died while it waited is replaced.
"""

import atexit
import datetime
import os
import threading

import pydantic_monty as monty

from kimi_mini.base.errors import SandboxUnavailable

MAX_WORKERS = 32  # programs that run at the same time; a worker takes 9 MB and its program's heap
MAX_MEMORY = 64 * 2**20  # bytes of heap of one program
MAX_DEPTH = 200  # nested calls

_pool: monty.Monty | None = None
_pool_lock = threading.Lock()
_forked = False  # True in a process that was forked while its parent's pool was alive
_WORLD = {  # no waiting, no chance, no date: a run can be repeated exactly
    "sleep": "zero",
    "random_start": {"seed": 0},
    "datetime": datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC),
}


def run(code: str, timeout: float, max_output: int) -> tuple[str, str | None, int | None]:
    """Run a program -> (stdout, error or None, line or None). Raises SandboxUnavailable."""
    code = code.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate cannot cross to the worker
    limits = {
        "max_feed_duration_secs": float(timeout),
        "max_memory": MAX_MEMORY,
        "max_recursion_depth": MAX_DEPTH,
    }
    # a worker that was killed while it was idle is found dead by the next program, not by its own
    for _ in range(2):
        printed = monty.CollectString(max_bytes=max_output)
        session = pool().checkout(
            script_name="program.py", limits=limits, os_policy=_WORLD, assert_message_annotations=False
        )
        try:
            with session:
                session.feed_run(code, print_callback=printed)
            return printed.output, None, None
        except monty.MontyConversionError:  # the program ran; only its last value cannot leave the sandbox
            return printed.output, None, None
        except (monty.MontyRuntimeError, monty.MontySyntaxError) as error:
            frames = error.traceback()
            line = frames[-1].line if frames else None
            return printed.output, _in_words(error.display("type-msg"), timeout, max_output), line
        except monty.MontyCrashedError as error:
            if error.timed_out:
                return printed.output, f"TimeoutError: no end after {timeout:g} s", None
        except monty.MontyError as error:
            return printed.output, f"SystemError: {error}", None
    return printed.output, "SystemError: the interpreter crashed", None


def pool() -> monty.Monty:
    """This process's pool of workers, started on first use. Raises SandboxUnavailable."""
    global _pool
    if _forked:  # the pool's threads did not come along: waiting for them would never end
        raise SandboxUnavailable(
            "this process was forked after the sandbox had been used; start processes with the 'spawn' method"
        )
    with _pool_lock:
        if _pool is None:
            try:
                _pool = monty.Monty(max_processes=MAX_WORKERS).__enter__()
            except (OSError, RuntimeError, monty.MontyError) as error:
                raise SandboxUnavailable(f"monty cannot start its worker: {error}") from error
        return _pool


def _after_fork() -> None:
    global _forked, _pool_lock
    _forked, _pool_lock = _pool is not None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@atexit.register
def _close() -> None:
    if _pool is not None and not _forked:
        _pool.__exit__(None, None, None)


def _in_words(message: str, timeout: float, max_output: int) -> str:
    """Monty's own limits in the words that the other engine uses too."""
    kind, _, rest = message.partition(":")
    if kind == "TimeoutError" and "time limit exceeded" in rest:
        return f"TimeoutError: no end after {timeout:g} s"
    if kind == "MemoryError" and f"> {max_output} bytes" in rest:
        return f"OutputError: more than {max_output} bytes printed"
    if kind == "MemoryError" and "memory limit exceeded" in rest:
        return f"MemoryError: more than {MAX_MEMORY // 2**20} MB used"
    return message
