"""Rollouts, updates and evaluation on one process and on two: the same results, and each wrong way of sharing shows."""

import os
import subprocess
import sys

import pytest
import torch

pytestmark = pytest.mark.slow
START = """
import sys
from kimi_mini.base import processes
sys.exit(processes.start([sys.executable, *sys.argv[2:]], int(sys.argv[1])))
"""


@pytest.fixture(scope="module")
def found(root, tmp_path_factory):
    """(number of processes, mistake) -> what came out, each once."""
    folder, known = tmp_path_factory.mktemp("shared"), {}

    def by(count, mistake="right"):
        if (count, mistake) not in known:
            file, script = folder / f"{count} {mistake}.pt", root / "tests" / "helpers" / "shared_work.py"
            command = [sys.executable, "-c", START, str(count), str(script), str(file), mistake]
            done = subprocess.run(
                command, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True
            )
            assert done.returncode == 0, done.stderr[-2000:]
            known[count, mistake] = torch.load(file, weights_only=False)
        return known[count, mistake]

    return by


def test_what_is_written_and_counted_does_not_depend_on_the_number_of_processes(found):
    one, two = found(1), found(2)
    assert one["written"] == two["written"] and one["board"] == two["board"]
    assert 0 < one["round"]["success"] < 1  # there was something to learn
    for name in one["round"].keys() - {"budgets"}:
        assert one["round"][name] == pytest.approx(two["round"][name], abs=1e-6), name


def test_an_update_by_two_is_that_of_one(found):
    torch.testing.assert_close(found(1)["weights"], found(2)["weights"], atol=2e-5, rtol=0)


@pytest.mark.parametrize(
    ("mistake", "shows"),
    [
        ("gradients of each rank", ["weights"]),
        ("dice of each rank", ["written"]),
        ("results in the order of the ranks", ["written", "weights"]),
    ],
)
def test_work_shared_out_wrongly_is_found_out(found, mistake, shows):
    one, wrong = found(1), found(2, mistake)
    for name in shows:
        if name == "weights":
            assert (one[name] - wrong[name]).abs().max() > 1e-4
        else:
            assert one[name] != wrong[name]
