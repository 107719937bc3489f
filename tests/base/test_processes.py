"""Ranks started by the command itself: one line whoever dies, nobody left behind, results in order whatever their number."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from kimi_mini.base import processes

pytestmark = pytest.mark.slow

# A rank: joins the others, then does what the test asks for.
RANK = """
import os, sys, time, pathlib
from kimi_mini.base.command import in_one_line
from kimi_mini.base.errors import KimiError
from kimi_mini.base import ranks
from kimi_mini.training.machine import distributed

def command():
    with distributed.joined("cpu"):
        rank, folder = ranks.rank(), pathlib.Path(sys.argv[2])
        (folder / f"{rank}.pid").write_text(str(os.getpid()))
        exec(sys.argv[1])

sys.exit(in_one_line(command))
"""
START = """
import sys
from kimi_mini.base import processes
from kimi_mini.base.command import in_one_line
ranks = [sys.executable, "-c", sys.argv[1], *sys.argv[3:]]
sys.exit(in_one_line(lambda: processes.start(ranks, int(sys.argv[2]))))
"""
FOR_EVER = "\nwhile True: ranks.total(1.0); time.sleep(0.05)"


def started(root, folder, body, count=2):
    command = [sys.executable, "-c", START, RANK, str(count), body, str(folder)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=root, stdout=pipe, stderr=pipe, text=True)


def pids(folder: Path, count=2) -> list[int]:
    """Process ids of all ranks, once they have joined."""
    until = time.monotonic() + 90
    while time.monotonic() < until:
        files = [folder / f"{rank}.pid" for rank in range(count)]
        if all(file.is_file() and file.read_text() for file in files):
            return [int(file.read_text()) for file in files]
        time.sleep(0.05)
    raise AssertionError("the ranks did not start")


def are_gone(pids: list[int], seconds: float = 8) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids):
            return True
        time.sleep(0.1)
    return False


def test_all_end_well_and_only_the_first_talks(root, tmp_path):
    process = started(root, tmp_path, "print('sum', int(ranks.total(rank + 1)[0]))", count=3)
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert out == "sum 6\n" and not errors


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_rank_ends_all_in_one_line(root, tmp_path, victim):
    process = started(root, tmp_path, FOR_EVER)
    ranks = pids(tmp_path)
    os.kill(ranks[victim], signal.SIGKILL)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 128 + 9
    assert errors.startswith(f"kimi_mini: process {victim + 1} of 2 was killed (SIGKILL); ")
    assert errors.count("\n") == 1 and "run the same command" in errors
    assert are_gone(ranks)


@pytest.mark.parametrize("culprit", [0, 1])
def test_the_reason_of_the_rank_that_failed_is_the_one_that_is_said(root, tmp_path, culprit):
    """The other one sees a broken connection, which is no reason."""
    body = f"if rank == {culprit}: raise KimiError('the disk is full')\nranks.total(1.0)"
    process = started(root, tmp_path, body)
    _, errors = process.communicate(timeout=90)
    assert (process.returncode, errors) == (2, "kimi_mini: the disk is full\n")


def test_what_all_refuse_is_said_once_though_the_first_rank_is_slow_to_end(root, tmp_path):
    body = "import atexit\nif rank == 0: atexit.register(time.sleep, 1.5)\nraise KimiError('no such folder')"
    process = started(root, tmp_path, body)
    _, errors = process.communicate(timeout=90)
    assert (process.returncode, errors) == (2, "kimi_mini: no such folder\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_is_one_line(root, tmp_path, number):
    process = started(root, tmp_path, FOR_EVER)
    ranks = pids(tmp_path)
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130 if number == signal.SIGINT else process.returncode
    assert errors.count("\n") <= 1 and "Traceback" not in errors
    assert are_gone(ranks)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_does_not_wait_for_the_slowest_rank(root, tmp_path, number, status):
    """The first one waits for it in a sum, and hears nothing meanwhile."""
    process = started(root, tmp_path, "time.sleep(90 * rank)\nranks.total(1.0)")
    ranks = pids(tmp_path)
    time.sleep(1)
    process.send_signal(number)
    _, errors = process.communicate(timeout=40)
    assert (process.returncode, errors.count("\n")) == (status, 1) and errors.startswith(
        "kimi_mini: stopped; "
    )
    assert are_gone(ranks)


def test_ranks_end_with_the_command_that_started_them(root, tmp_path):
    process = started(root, tmp_path, FOR_EVER)
    ranks = pids(tmp_path)
    process.kill()
    process.communicate(timeout=30)
    assert are_gone(ranks)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_work_shared_out_comes_back_in_order(root, tmp_path, count):
    body = "print(ranks.in_order(list(range(7)), lambda own: [item * item for item in own]))"
    process = started(root, tmp_path, body, count)
    assert process.communicate(timeout=120)[0] == f"{[i * i for i in range(7)]}\n"


def test_the_number_of_processes_is_that_of_cores_and_memory(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setattr(processes, "_allowed", lambda: 64)
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: 6)
    memory = lambda free: monkeypatch.setattr(
        psutil, "virtual_memory", lambda: type("M", (), {"available": free})
    )
    memory(64e9)
    assert processes.default_count() == 6
    memory(3.1e9)
    assert processes.default_count() == 2
    memory(1e8)
    assert processes.default_count() == 1
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: 64)
    memory(640e9)
    assert processes.default_count() == processes.MOST
    monkeypatch.setattr(processes, "_allowed", lambda: 3)
    assert processes.default_count() == 3
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert processes.default_count() == 1
