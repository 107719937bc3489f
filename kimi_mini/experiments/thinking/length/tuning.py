"""Fine-tuning on examples that are each seen once, until the tokens are spent, and positions with gaps in them."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch

from kimi_mini.model.kimi import KimiMini
from kimi_mini.pipeline.plan import Plan, Schedule
from kimi_mini.pipeline.shared import trained
from kimi_mini.training.batch import Batch, Example, micro_batches
from kimi_mini.training.loop import History

MOST = (1, 2, 4, 8)  # most positions left out at once, in a row
SCHEDULE = Schedule(warmup=10, decay_start=0.3)


def until(tokens: int, examples: Iterator[Sequence[Example]]) -> list[Example]:
    """As many as have `tokens` tokens together."""
    found, size = [], 0
    while size < tokens:
        for example in next(examples):
            found.append(example)
            size += len(example.ids)
    return found


def steps_of(examples: Sequence[Example], step_tokens: int, seed: int) -> list[list[Example]]:
    """The examples in random order, cut into steps of about so many tokens."""
    order, steps, size = list(examples), [[]], 0
    random.Random(f"{seed}/order").shuffle(order)
    for example in order:
        if size >= step_tokens:
            steps, size = [*steps, []], 0
        steps[-1].append(example)
        size += len(example.ids)
    return steps


def gapped(batch: Batch, rng: np.random.Generator, limit: int, before: Collection[int]) -> Batch:
    """The batch with positions left out before every token with one of the ids `before`: other gaps each time, small in
    some rows and wide in others. As in randomised positional encodings (arXiv 2305.16843), but what stands between
    stays together, and no row is without gaps: it would be told by that, and its places counted."""
    shape = batch.ids.shape
    most = rng.choice(MOST, (shape[0], 1))
    gaps = rng.integers(0, most + 1, shape) * np.isin(batch.ids.numpy(), list(before))
    positions = torch.from_numpy(np.arange(shape[1]) + gaps.cumsum(1))
    return replace(batch, positions=positions.clamp(max=limit - 1))


def tune(
    model: KimiMini,
    examples: Sequence[Example],
    seed: int,
    schedule: Schedule = SCHEDULE,
    gaps: Collection[int] = (),
) -> History:
    """Fine-tune `model` in place on the examples, each seen once; with gaps in the positions before the ids `gaps`."""
    plan, limit = Plan(seed=seed), model.config.max_position_embeddings
    steps = steps_of(examples, plan.step_tokens, seed)

    def data(step: int) -> list[Batch]:
        batches, rng = micro_batches(steps[step], plan.micro_tokens), np.random.default_rng([seed, 5, step])
        return [gapped(batch, rng, limit, gaps) for batch in batches] if gaps else batches

    return trained(model, plan, data, len(steps), schedule)


def forever(make: Callable[[random.Random, int], list[Example]], seed: str) -> Iterator[list[Example]]:
    """make(dice, number) for 0, 1, ..., each number with dice of its own."""
    number = 0
    while True:
        yield make(random.Random(f"{seed}/{number}"), number)
        number += 1
