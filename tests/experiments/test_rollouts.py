"""Where the seconds of a round of RL go: the parts are all of it, and each is counted once."""

from __future__ import annotations

import argparse
import json
from functools import partial

import pytest

from kimi_mini.agent.policy import LocalPolicy
from kimi_mini.base.evidence import Log
from kimi_mini.experiments.deployment import rollouts, speed


@pytest.mark.slow
def test_the_shares_are_the_whole_and_each_part_costs_something():
    found = rollouts.measure("shop", rounds=2, tokens=2_000)
    parts = [found[name] for name in ("generation", "environment", "update")]
    assert sum(parts) == pytest.approx(1) and all(0 < part < 1 for part in parts)
    assert found["tokens_per_second"] > 0


def test_only_writing_is_generation(monkeypatch):
    now = [0.0]

    def reply(self, conversations, most):
        now[0] += 2.0
        return []

    monkeypatch.setattr(rollouts.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(LocalPolicy, "reply", reply)
    policy = rollouts.Timed.__new__(rollouts.Timed)
    policy.reply([], 1)
    now[0] += 5.0  # a tool at work
    policy.reply([], 1)
    assert policy.seconds == 4.0


def test_bench_ends_with_the_rows_of_rl(monkeypatch, tmp_path):
    """One world after the other, and both logs are written; with --threads there is neither."""
    monkeypatch.setattr(speed, "run", lambda threads: [])
    monkeypatch.setattr(speed, "Log", partial(Log, folder=tmp_path))
    said = {"tokens_per_second": 1.0, "generation": 0.5, "environment": 0.1, "update": 0.4}
    monkeypatch.setattr(rollouts, "measure", lambda world, rounds, tokens: said)
    speed.main(argparse.Namespace(threads=2))
    assert not list(tmp_path.iterdir())
    speed.main(argparse.Namespace(threads=None))
    assert (tmp_path / "bench.json").is_file()
    rows = json.loads((tmp_path / "bench_rl.json").read_text())["rows"]
    assert [row["world"] for row in rows] == ["chain", "shop", "repair"]
