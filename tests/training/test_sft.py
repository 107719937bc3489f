"""The plan of fine-tuning: deterministic, in proportion, short before long, thoughts before reflexes, always mixed."""

from collections import Counter

import numpy as np
import pytest

from kimi_mini.training import sft
from kimi_mini.training.batch import Example
from kimi_mini.training.sft import make_plan
from kimi_mini.training.synthesis import Source

SOURCES = [
    Source("chain", "think", 0.4, (1, 2, 3, 4)),
    Source("buy", "think", 0.3, (1, 2)),
    Source("repair", "think", 0.2, (2, 3, 4)),
    Source("buy", "reflex", 0.1, (1, 2)),
]
TOTAL, STEP = 400_000, 4000


@pytest.fixture(scope="module")
def pools():
    """Examples of 40 to 200 tokens, longer at higher levels; every token of an example says whose it is."""
    rng = np.random.default_rng(0)
    made = {}
    for number, source in enumerate(SOURCES):
        for level in source.levels:
            lengths = rng.integers(30 * level, 30 * level + 60, 30)
            made[source, level] = [Example(np.full(n, number, np.uint16), np.ones(n, bool)) for n in lengths]
    return made


@pytest.fixture(scope="module")
def plan(pools):
    return make_plan(pools, TOTAL, STEP, seed=0)


def tokens_by_source(pools, steps):
    spent = Counter()
    for step in steps:
        for (source, level), index in step:
            spent[source] += len(pools[source, level][index].ids)
    return spent


def test_a_plan_is_a_function_of_its_arguments(pools, plan):
    """Whatever order the pools are in."""
    assert make_plan(pools, TOTAL, STEP, seed=0) == plan
    assert make_plan(dict(sorted(pools.items(), key=lambda item: item[0][1])), TOTAL, STEP, seed=0) == plan
    assert make_plan(pools, TOTAL, STEP, seed=1) != plan


def test_the_budget_is_met(pools, plan):
    sizes = [sum(tokens_by_source(pools, [step]).values()) for step in plan]
    assert TOTAL <= sum(sizes) < TOTAL + 2 * STEP
    assert all(STEP <= size < STEP + 200 for size in sizes)


def test_tokens_are_spent_in_proportion_to_the_shares(pools, plan):
    """Exact to an example while all sources are open; the reflexes do not catch up on what they waited for."""
    late = plan[len(plan) // 5 :]
    spent = tokens_by_source(pools, late)
    for source in SOURCES:
        assert spent[source] / sum(spent.values()) == pytest.approx(source.share, abs=0.005)


def test_every_step_is_mixed(pools, plan):
    """Mutant: steps of one source after the other have the same totals, and are poison under Muon."""

    def mixed(steps):
        shares = [tokens_by_source(pools, [step]) for step in steps]
        return all(max(s.values()) < 0.65 * sum(s.values()) and len(s) >= 3 for s in shares)

    assert mixed(plan)
    ordered = sorted((entry for step in plan for entry in step), key=lambda entry: SOURCES.index(entry[0][0]))
    assert not mixed([ordered[start : start + 40] for start in range(0, len(ordered), 40)])


def levels_seen(steps, source):
    return Counter(level for step in steps for (s, level), _ in step if s == source)


def test_short_levels_come_first(pools, plan):
    """At 2% of the tokens only the first level is open, at 30% all of them are."""
    chain, steps = SOURCES[0], len(plan)
    assert set(levels_seen(plan[: int(0.02 * steps)], chain)) == {1}
    assert set(levels_seen(plan[: int(0.15 * steps)], chain)) == {1, 2}
    assert 4 not in levels_seen(plan[: int(0.22 * steps)], chain)
    late = levels_seen(plan[int(0.31 * steps) :], chain)
    assert set(late) == {1, 2, 3, 4} and min(late.values()) > 0.7 * max(late.values())


@pytest.mark.parametrize(
    ("progress", "opened"),
    [(0.0, 1), (0.02, 1), (0.03, 1), (0.10, 2), (0.17, 3), (0.29, 4), (0.30, 4), (1.0, 4)],
)
def test_levels_open_one_after_the_other(progress, opened):
    assert sft.open_levels(SOURCES[0], progress, (0.02, 0.30)) == opened


def test_a_plan_can_show_every_level_at_once(pools, plan):
    """What is known already is replayed whole from the first steps on."""
    steps = make_plan(pools, TOTAL, STEP, 0, sft.AT_ONCE, 0.0)
    shown = {key for step in steps[: len(steps) // 8] for key, _ in step}
    assert shown == set(pools) and {key for step in plan[: len(plan) // 8] for key, _ in step} < shown


def test_reflexes_come_after_thoughts(pools, plan):
    reflex = SOURCES[-1]
    first = next(i for i, step in enumerate(plan) if levels_seen([step], reflex))
    assert first == pytest.approx(0.1 * len(plan), abs=1.5)
    early = tokens_by_source(pools, plan[first : first + 3])
    assert early[reflex] < 0.2 * sum(early.values()), "no catching up in a rush"


def test_a_pool_is_read_through_before_it_is_read_again(pools, plan):
    used = Counter(entry for step in plan for entry in step)
    for (source, level), examples in pools.items():
        counts = [used[(source, level), index] for index in range(len(examples))]
        assert max(counts) - min(counts) <= 1


def test_an_empty_pool_is_named(pools):
    missing = {key: examples for key, examples in pools.items() if key != (SOURCES[2], 3)}
    with pytest.raises(ValueError, match="no examples for repair level 3"):
        make_plan(missing, TOTAL, STEP, seed=0)


def test_reflexes_alone_need_not_wait_for_anything(pools):
    alone = {key: examples for key, examples in pools.items() if key[0].mode == "reflex"}
    plan = make_plan(alone, 20_000, STEP, seed=0)
    assert tokens_by_source(alone, plan).total() >= 20_000


def test_batches_hold_the_examples_of_the_step_and_the_text_beside_them(pools, plan):
    text = Example(np.full(100, 9, np.uint16), np.ones(100, bool))
    batches = sft.batches_of(pools, plan[50], 2048, [text])
    rows = Counter((int(row[0]), int(ok.sum())) for b in batches for row, ok in zip(b.ids, b.valid))
    wanted = Counter((SOURCES.index(key[0]), len(pools[key][index].ids)) for key, index in plan[50])
    assert rows == wanted + Counter({(9, 100): 1})
    assert len(batches) > 1 and all(batch.ids.numel() <= 2048 for batch in batches)


def test_what_is_varied_comes_first_in_its_own_order_and_the_rest_at_random():
    varied, plain = Source("ask", "think", 0.5, (1,), 100), Source("one of my own", "think", 0.5, (1,), 100)
    pools = {
        (source, 1): [Example(np.zeros(100, np.uint16), np.ones(100, bool))] * 40
        for source in (varied, plain)
    }
    steps = make_plan(pools, 40 * 2 * 100 * 3, 1000, seed=0)
    seen = {
        source: [index for step in steps for (of, _), index in step if of == source]
        for source in (varied, plain)
    }
    assert seen[varied][:40] == list(range(40)) != seen[plain][:40]
    assert sorted(seen[varied][40:80]) == list(range(40)) != seen[varied][40:80]
