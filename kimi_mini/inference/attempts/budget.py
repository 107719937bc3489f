"""Equal tokens: what a way to choose spends, and comparisons that refuse arms which did not spend the same.

The price of an arm is what the model wrote for it, all attempts, aggregations and revisions together; tokens that it
only read are reported beside it. Attempts come whole, so two arms seldom cost the same by themselves: `matched` gives a
share of the tasks one attempt more than the others, until the mean over tasks is that of the other arm. Which tasks
these are is decided by a fixed order of the tasks, before anybody looks at a verdict.

`compare` takes two scores within 1% of each other: a vote over eight attempts against a verifier over four shows
nothing.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from kimi_mini.inference.attempts.choices import Attempt, Chooser, Chosen

TOLERANCE = 0.01


@dataclass(frozen=True)
class Score:
    """A way to choose, over all tasks: success rate and tokens spent a task."""

    name: str
    value: float
    tokens: float


def score(choose: Chooser, groups: Sequence[Sequence[Attempt]]) -> Score:
    """`choose` on every task's attempts. Raises ValueError without any."""
    return per_task(choose.__name__, chosen_by(choose, groups))


def chosen_by(choose: Chooser, groups: Sequence[Sequence[Attempt]]) -> list[Chosen]:
    """What `choose` makes of every task's attempts. Raises ValueError without any."""
    if not groups or not all(groups):
        raise ValueError("every task needs at least one attempt")
    return [choose(list(group)) for group in groups]


def per_task(name: str, chosen: Sequence[Chosen]) -> Score:
    """The score of outcomes that are known already, one a task. Raises ValueError without any."""
    if not chosen:
        raise ValueError(f"{name} was tried on no task")
    count = len(chosen)
    return Score(name, sum(c.passed for c in chosen) / count, sum(c.tokens for c in chosen) / count)


def compare(first: Score, second: Score) -> float:
    """Difference of two success rates, first - second. Raises ValueError unless both spent the same tokens."""
    if abs(first.tokens - second.tokens) > TOLERANCE * max(first.tokens, second.tokens):
        raise ValueError(
            f"{first.name} spent {first.tokens:.0f} tokens a task and {second.name} {second.tokens:.0f}: "
            f"give both the same before comparing them"
        )
    return first.value - second.value


def matched(
    choose: Chooser, groups: Sequence[Sequence[Attempt]], tokens: float, seed: int = 0
) -> list[list[Attempt]]:
    """The first attempts at each task, so many that `choose` spends `tokens` a task, as nearly as whole attempts can:
    n at some tasks and n + 1 at the others, or more at a few where a long one is too dear. Raises ValueError where all
    attempts together spend less."""
    most, aim = min(map(len, groups)), tokens * len(groups)
    costs = [[choose(list(group[:n])).tokens for group in groups] for n in range(1, most + 1)]
    size = sum(sum(cost) <= aim for cost in costs)  # this many whole attempts are paid for
    if size == most and sum(costs[-1]) < aim * (1 - TOLERANCE):
        raise ValueError(
            f"{choose.__name__} over {most} attempts spends {sum(costs[-1]) / len(groups):.0f} tokens a task, "
            f"and {tokens:.0f} are asked for: make more attempts"
        )
    sizes = _one_more(costs, size, aim, seed) if 0 < size < most else [max(size, 1)] * len(groups)
    return [list(group[:n]) for group, n in zip(groups, sizes)]


def _one_more(costs: Sequence[Sequence[int]], size: int, aim: float, seed: int) -> list[int]:
    """How many attempts each task gets: `size`, and one more where the tokens that are left pay for it. If too many are
    left over then, since what comes next is long, others get a further one. costs[n - 1]: of n attempts, by task."""
    count, left = len(costs[0]), aim - sum(costs[size - 1])
    order = random.Random(f"{seed}/who gets one more").sample(range(count), count)
    sizes = [size] * count
    for n in range(size, len(costs)):
        more = [after - before for before, after in zip(costs[n - 1], costs[n])]
        for task in order:
            if sizes[task] == n and more[task] <= left:
                sizes[task], left = n + 1, left - more[task]
        others = [task for task in order if sizes[task] == n]
        last = min(others, key=more.__getitem__, default=None)
        if last is not None and more[last] < 2 * left:  # nearer with it than without
            sizes[last], left = n + 1, left - more[last]
        if left <= TOLERANCE * aim:
            break
    return sizes
