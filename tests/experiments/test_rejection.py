"""Learning from one's own attempts: only what passed, only one's own tokens, only training tasks; quotas by episodes."""

import random

import numpy as np
import pytest
from tiny import Typist, typed

from kimi_mini import worlds
from kimi_mini.agent import conversation as conversation_
from kimi_mini.agent import loop
from kimi_mini.experiments.verifiers import quota, rejection
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training.batch import Example
from kimi_mini.training.synthesis import Source

SOURCES = [Source("buy", "think", 0.5, (1, 2)), Source("cheapest", "think", 0.5, (2, 3))]


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.load()


def wrong(task: worlds.Task) -> bool:
    """Whose attempts the typist spoils: every second task of the lower levels, all of cheapest 3."""
    return (task.family, task.level) == ("cheapest", 3) or int(task.key, 16) % 2 == 0


@pytest.fixture(scope="module")
def attempts(tokenizer):
    """Rollouts of a typist who now and then skips the work and says the usual words."""

    def spell(conversation, message):
        done = {"role": "assistant", "reasoning_content": "end", "content": "done"}
        return typed(tokenizer, done if wrong(conversation.task) else message)

    rng = random.Random(0)
    tasks = [task for source in SOURCES for task in rejection.training_tasks(source, 12, rng)]
    return loop.run(
        Typist(tokenizer, spell),
        tokenizer,
        tasks,
        conversation_.Limits(turn_tokens=160, turns=16, context=1024),
    )


def keys_of(pools):
    return {(source.family, level) for source, level in pools}


def test_only_attempts_that_passed_are_learned(attempts):
    """Mutant: the arm that keeps everything."""
    right = {tuple(c.ids) for c in attempts if not wrong(c.task)}

    def only_right(keep):
        pools = rejection.own_pools(SOURCES, attempts, keep)
        return {tuple(example.ids.tolist()) for examples in pools.values() for example in examples} == right

    assert 0 < len(right) < len(attempts)
    assert only_right(rejection.ARMS["passed"])
    assert not only_right(rejection.ARMS["everything"])


def test_a_level_where_nothing_passed_leaves_its_source(attempts):
    pools = rejection.own_pools(SOURCES, attempts, rejection.ARMS["passed"])
    assert keys_of(pools) == {("buy", 1), ("buy", 2), ("cheapest", 2)}
    assert {source.family: source.levels for source, _ in pools} == {"buy": (1, 2), "cheapest": (2,)}
    assert keys_of(rejection.own_pools(SOURCES, attempts, rejection.ARMS["everything"])) >= {("cheapest", 3)}


def learns_own_words_only(tokenizer, example: Example) -> bool:
    text = tokenizer.decode(example.ids[example.mask].tolist())
    return "Return of" not in text and "You are Kimi" not in text and text.endswith("<|im_end|>")


def test_the_words_of_the_environment_are_not_learned(tokenizer, attempts):
    """Mutant: a mask of ones."""
    pools = rejection.own_pools(SOURCES, attempts, rejection.ARMS["passed"])
    examples = [example for several in pools.values() for example in several]
    assert all(learns_own_words_only(tokenizer, example) for example in examples)
    assert not any(learns_own_words_only(tokenizer, Example(e.ids, np.ones_like(e.mask))) for e in examples)


def test_attempts_are_made_on_training_tasks(attempts, monkeypatch):
    """Mutant: the tasks of the exam."""
    assert not any(conversation.task.held_out for conversation in attempts)
    generate = worlds.generate
    monkeypatch.setattr(
        worlds, "generate", lambda rng, family, level: generate(rng, family, level, held_out=True)
    )
    assert all(task.held_out for task in rejection.training_tasks(SOURCES[0], 3, random.Random(0)))


def test_the_funnel_counts_each_stage(attempts):
    counts = rejection.counted(attempts)
    assert sum(stage["made"] for stage in counts.values()) == len(attempts)
    assert counts["cheapest/3"] == {"made": 6, "answered": 6, "passed": 0}
    assert all(stage["made"] >= stage["answered"] >= stage["passed"] for stage in counts.values())


# ---- the quota ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def passed(tokenizer):
    return quota.passed_episodes(tokenizer, (1, 3, 5), 60, seed=0)


def test_long_episodes_pass_less_often(passed):
    counts = [len(episodes) for episodes in passed.values()]
    assert all(0.4 * 60 * 0.7**level < count < 1.6 * 60 * 0.7**level for level, count in zip(passed, counts))
    assert all(
        episode.passed and not worlds.base.is_held_out(episode.key)
        for several in passed.values()
        for episode in several
    )


def by_episodes(shares: dict[int, float]) -> bool:
    return max(shares.values()) - min(shares.values()) < 0.05


def test_a_quota_gives_every_level_as_many_episodes(passed):
    """Mutants: no quota; equal tokens instead of equal episodes, which thins the long ones out again."""
    total = sum(map(len, passed.values()))
    come = quota.seen(quota.pools_of(passed, "as they come"), 100_000, seed=0)
    assert all(
        come[level] == pytest.approx(len(episodes) / total, abs=0.05) for level, episodes in passed.items()
    )
    assert not by_episodes(come)
    assert by_episodes(quota.seen(quota.pools_of(passed, "quota"), 100_000, seed=0))
    equal_tokens = {
        (Source(f"buy {level}", "think", 1.0, (level,)), level): [item.example for item in episodes]
        for level, episodes in passed.items()
    }
    assert not by_episodes(quota.seen(equal_tokens, 100_000, seed=0))


def test_means_are_the_same_from_a_run_and_from_its_log():
    rows = [
        {"arm": arm, "success": dict.fromkeys(quota.LEVELS, value)}
        for arm in ("before", *quota.ARMS)
        for value in (0, 1)
    ]
    read = [
        {"arm": entry["arm"], "success": {str(k): v for k, v in entry["success"].items()}} for entry in rows
    ]
    assert (
        quota.means(rows)
        == quota.means(read)
        == {arm: dict.fromkeys(quota.LEVELS, 0.5) for arm in ("before", *quota.ARMS)}
    )
