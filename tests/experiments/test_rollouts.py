"""Where the seconds of a round of RL go: the parts are all of it, and each is counted once."""

from __future__ import annotations

import time

import pytest

from kimi_mini.agent.policy import LocalPolicy
from kimi_mini.experiments.deployment import rollouts


@pytest.mark.slow
def test_the_shares_are_the_whole_and_each_part_costs_something():
    found = rollouts.measure("shop", rounds=2, tokens=2_000)
    parts = [found[name] for name in ("generation", "environment", "update")]
    assert sum(parts) == pytest.approx(1) and all(0 < part < 1 for part in parts)
    assert found["tokens_per_second"] > 0


def test_only_writing_is_generation(monkeypatch):
    policy = rollouts.Timed.__new__(rollouts.Timed)
    monkeypatch.setattr(LocalPolicy, "reply", lambda self, conversations, most: time.sleep(0.05) or [])
    policy.reply([], 1)
    policy.reply([], 1)
    time.sleep(0.05)
    assert 0.1 <= policy.seconds < 0.14
