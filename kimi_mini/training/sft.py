"""Fine-tuning on what passed: the plan of which examples each step sees.

A plan is a list of steps, each a list of `(pool, index)` pairs, and a pure function of its arguments: a run can be
killed and resumed, and two runs with one seed see the same tokens. Three rules make it up:

    mixture      every step holds all sources, in proportion to their shares of the tokens (batches of one kind
                 alone are poison under Muon, which gives any gradient a full-size step)
    quota        each level of a family gets its turn, so that filtering cannot quietly remove the long episodes
    curriculum   short levels first; the longest join when `ramp` of the tokens are spent; reflex follows thinking; what
                 is varied comes in the order in which it was made, from few words to any. What an agent knows already
                 has no order: a level that is not shown AT_ONCE is forgotten, while the rate is at its highest
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np

from kimi_mini.training.batch import Batch, Example, shared_batches
from kimi_mini.training.synthesis import Source, Trajectory, widens

Pools = dict[tuple[Source, int], list[Example]]
AT_ONCE = (-1.0, 0.0)  # the ramp of a plan that opens every level with its first step


def pools_of(trajectories: dict[Source, Sequence[Trajectory]]) -> Pools:
    """Examples by source and level."""
    pools: Pools = {}
    for source, made in trajectories.items():
        for item in made:
            pools.setdefault((source, item.level), []).append(item.example)
    return pools


def open_levels(source: Source, progress: float, ramp: tuple[float, float]) -> int:
    """How many of a source's levels are open when `progress` (0 to 1) of the tokens are spent."""
    first, last = ramp
    share = (progress - first) / max(last - first, 1e-9)
    return int(np.clip(np.ceil(share * len(source.levels)), 1, len(source.levels)))


def make_plan(
    pools: Pools,
    total_tokens: int,
    step_tokens: int,
    seed: int,
    ramp: tuple[float, float] = (0.02, 0.30),
    reflex_after: float = 0.1,
) -> list[list[tuple[tuple[Source, int], int]]]:
    """Which examples each step sees. Raises ValueError for an empty pool, naming it."""
    rng = np.random.default_rng(seed)
    sources = sorted({source for source, _ in pools}, key=lambda s: (s.family, s.mode))
    for source in sources:
        for level in source.levels:
            if not pools.get((source, level)):
                raise ValueError(f"no examples for {source.family} level {level} ({source.mode})")
    shares = np.array([source.share for source in sources])
    spent = np.zeros(len(sources))
    queues = {key: _Queue(len(examples), rng, widens(key[0])) for key, examples in pools.items()}
    plan, done = [], 0
    while done < total_tokens:
        progress = done / total_tokens
        closed = np.array([s.mode == "reflex" and progress < reflex_after for s in sources])
        closed &= not closed.all()  # reflexes alone need not wait
        step, size = [], 0
        while size < step_tokens:
            pick = int(np.argmin(np.where(closed, np.inf, spent / shares)))
            source = sources[pick]
            level = source.levels[rng.integers(open_levels(source, progress, ramp))]
            index = queues[source, level].next()
            length = len(pools[source, level][index].ids)
            step.append(((source, level), index))
            spent[pick] += length
            size += length
        # a source that opens late starts level with the others
        spent[closed] = (spent / shares)[~closed].min() * shares[closed]
        plan.append(step)
        done += size
    return plan


class _Queue:
    """Indices of a pool in random order, again and again; `widens`: the first time in their own order."""

    def __init__(self, size: int, rng: np.random.Generator, widens: bool = False):
        self.size, self.rng, self.order = size, rng, []
        if widens:
            self.order = list(range(size))[::-1]

    def next(self) -> int:
        if not self.order:
            self.order = self.rng.permutation(self.size).tolist()
        return self.order.pop()


def tokens_of(pools: Pools, plan: Sequence[Sequence[tuple[tuple[Source, int], int]]]) -> int:
    """How many tokens the examples of a plan have together."""
    return sum(len(pools[key][index].ids) for step in plan for key, index in step)


def mixed(pools: Pools, tokens: int, micro_tokens: int, seed: int) -> Callable[[int], list[Batch]]:
    """index -> micro-batches of about `tokens` tokens, all pools mixed by the number of their examples: the
    pre-training side (PTX) of RL."""
    everything = [(key, index) for key, examples in pools.items() for index in range(len(examples))]

    def data(index: int) -> list[Batch]:
        rng, chosen, size = random.Random(f"{seed}/ptx/{index}"), [], 0
        while size < tokens:
            key, place = rng.choice(everything)
            chosen.append((key, place))
            size += len(pools[key][place].ids)
        return batches_of(pools, chosen, micro_tokens)

    return data


def batches_of(
    pools: Pools,
    step: Sequence[tuple[tuple[Source, int], int]],
    micro_tokens: int,
    more: Sequence[Example] = (),
) -> list[Batch]:
    """This rank's micro-batches of one step of a plan, with `more` examples among them."""
    return shared_batches([*(pools[key][index] for key, index in step), *more], micro_tokens)
