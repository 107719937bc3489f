"""A process per core, started by the command itself: no torchrun to type.

Threads of one process wait for each other at every small product; processes meet once a step. Beside a busy program two
processes are 2.1 times as fast as two threads; on a quiet machine they were 0.91 times as fast in pre-training and 1.12
times in evaluation (data/results/sharing.json, one machine).

`start` runs one command as several ranks, which find each other through the same variables that torchrun sets (see
`distributed`). The first rank talks: bars, lines and errors are its own, the others are silent. When one dies all are
ended, for the others would wait for ever in the next sum; one line says so, and what was saved is safe.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

import psutil

from kimi_mini.base.command import SAVED, Terminated

MOST = 8  # processes that start without being asked for
MEMORY = 1.5e9  # bytes that a process of the nano wants, with room
PATIENCE = 10  # seconds that the first rank has to stop in: it may be waiting for the slowest in a sum
REFUSED = 2  # exit status of a command that says in one line why it will not
ENDING = 3  # seconds in which a first rank that refuses as well has ended
PARENT = "KIMI_MINI_PARENT"  # process id of the command that started a rank


def default_count() -> int:
    """One process a physical core, at most MOST, and no more than the free memory holds; 1 inside another launcher."""
    if "WORLD_SIZE" in os.environ:
        return 1
    cores = min(psutil.cpu_count(logical=False) or 1, _allowed())
    room = int(psutil.virtual_memory().available / MEMORY)
    return max(1, min(MOST, cores, room))


def _allowed() -> int:
    """Processors that this process may use; a container or taskset may allow fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def start(command: Sequence[str], count: int, threads: int = 1) -> int:
    """Run `command` as `count` ranks of `threads` threads each until all have ended; returns the exit status.

    A rank that fails or is killed ends the others within seconds; its own last line, or the signal, is the one
    line that is said. Ctrl-C and SIGTERM are passed on to the first rank, which saves nothing more and says so; when
    that takes it longer than PATIENCE seconds it is killed, and KeyboardInterrupt or Terminated is raised here.
    """
    with tempfile.TemporaryDirectory() as folder:
        errors = [None, *(open(os.path.join(folder, str(rank)), "w+") for rank in range(1, count))]  # noqa: SIM115
        port = _free_port()
        ranks = [
            subprocess.Popen(
                list(command),
                env=_environment(rank, count, port, threads),
                stdout=None if rank == 0 else subprocess.DEVNULL,
                stderr=errors[rank],
                start_new_session=True,  # Ctrl-C reaches us alone
            )
            for rank in range(count)
        ]
        passed_on = _pass_on_signals(ranks[0])
        try:
            return _watch(ranks, errors, passed_on)
        finally:
            for rank in ranks:
                rank.kill()
                rank.wait()
            for file in errors[1:]:
                file.close()


def _environment(rank: int, count: int, port: int, threads: int) -> dict[str, str]:
    """What torchrun tells its ranks, and who has started them."""
    more = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": count,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "OMP_NUM_THREADS": threads,
        PARENT: os.getpid(),
    }
    if sys.platform == "linux":
        more["GLOO_SOCKET_IFNAME"] = "lo"
    if rank:
        more["TQDM_DISABLE"] = 1
    return {**os.environ, **{name: str(value) for name, value in more.items()}}


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _pass_on_signals(first: subprocess.Popen) -> list[int]:
    """From now on Ctrl-C and SIGTERM go to the first rank; the list says which came."""
    came: list[int] = []

    def pass_on(number: int, _) -> None:
        came.append(number)
        first.send_signal(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, pass_on)
    return came


def _watch(ranks: Sequence[subprocess.Popen], errors: Sequence, passed_on: Sequence[int]) -> int:
    """Wait for the end of all, or for the first that fails."""
    while True:
        statuses = [rank.poll() for rank in ranks]
        if all(status == 0 for status in statuses):
            return 0
        if passed_on:
            try:
                return _status(ranks[0].wait(PATIENCE))
            except subprocess.TimeoutExpired:  # a save that is cut off leaves the one before
                raise (Terminated if passed_on[0] == signal.SIGTERM else KeyboardInterrupt) from None
        if any(statuses):
            with suppress(subprocess.TimeoutExpired):  # what all refuse, the first rank says itself
                ranks[0].wait(ENDING if REFUSED in statuses else 0.5)
            statuses = [rank.poll() for rank in ranks]
            failed = [rank for rank, status in enumerate(statuses) if status]
            return _say(failed[0], statuses[failed[0]], errors[failed[0]], len(ranks))
        time.sleep(0.05)


def _say(rank: int, status: int, errors, count: int) -> int:
    """One line about the rank that failed; the first has said its own unless it was killed."""
    said = ""
    if errors is not None:
        errors.seek(0)
        said = errors.read().strip()
    if status < 0:
        said = (
            f"kimi_mini: process {rank + 1} of {count} was killed ({signal.Signals(-status).name}); {SAVED}"
        )
    if said:
        print(said if "KIMI_MINI_DEBUG" in os.environ else said.splitlines()[-1], file=sys.stderr)
    return _status(status)


def _status(code: int) -> int:
    """An exit status as a shell reports it: 128 and the number of the signal."""
    return code if code >= 0 else 128 - code


def end_with_parent() -> None:
    """In a rank: end as soon as the command that started it is gone, also when it was killed."""
    parent = int(os.environ.get(PARENT, 0))

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    if parent:
        threading.Thread(target=look, daemon=True).start()
