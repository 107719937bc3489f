"""The comparison of processes and threads divides the right times, and says what failed in one line."""

import contextlib
import json
import sys
import time

import psutil
import pytest

from kimi_mini.base.errors import KimiError
from kimi_mini.experiments.deployment import sharing


def test_ratios_are_threads_by_processes_and_busy_by_quiet(monkeypatch, tmp_path):
    """A machine on which one process of two threads takes 3 s, two processes 2 s, and a busy program doubles that."""
    busy = []

    @contextlib.contextmanager
    def program():
        busy.append(True)
        yield
        busy.pop()

    def work(processes, threads, scale):
        assert {processes, threads} == {1, 2} and scale == 0.5
        return (2.0 if processes == 2 else 3.0) * (2 if busy else 1)

    monkeypatch.setattr(sharing, "default_count", lambda: 2)
    monkeypatch.setattr(sharing, "busy_program", program)
    for name in ("pretraining", "evaluation", "whole_run"):
        monkeypatch.setattr(sharing, name, work)
    options = ["--scale", "0.5", "--log", "sharing_amd", "--folder", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["sharing", *options])
    sharing.main()
    log = json.loads((tmp_path / "sharing_amd.json").read_text())
    assert [row["ratio"] for row in log["rows"]] == [1.5, 1.5, 1.5, 2.0]
    assert [claim["verdict"] for claim in log["claims"]] == [
        "holds",
        "does not hold",
        "does not hold",
        "holds",
    ]
    assert log["processes"] == 2
    processor = log["versions"]["processor"]
    named = [(claim["name"].partition("/")[0], processor in claim["claim"]) for claim in log["claims"]]
    assert named == [("sharing_amd", True)] * 4


def test_a_command_that_fails_is_one_line():
    with pytest.raises(KimiError, match="pretrain --preset huge .*unknown preset"):
        sharing.command("pretrain", "--preset", "huge", "--processes", 1, "--device", "cpu")


def test_the_busy_program_computes_and_ends():
    with sharing.busy_program():
        program = next(c for c in psutil.Process().children() if sharing.BUSY in c.cmdline())
        until = time.monotonic() + 30
        while program.cpu_times().user < 0.2 and time.monotonic() < until:
            time.sleep(0.05)
        assert program.cpu_times().user >= 0.2
    assert not program.is_running()
