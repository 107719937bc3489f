"""Held-out tasks: which levels are trained, which are measured, and a task set that is the same for every model."""

from __future__ import annotations

import random
from collections.abc import Sequence

from kimi_mini.base.errors import KimiError
from kimi_mini.worlds import registry
from kimi_mini.worlds.base import Task


def trained_levels(family: str) -> tuple[int, ...]:
    """The levels that training covers."""
    return tuple(registry.FAMILIES[family].levels)


def measured_levels(family: str) -> tuple[int, ...]:
    """The trained levels on which held-out tasks are new to the model."""
    return tuple(registry.FAMILIES[family].measured)


def held_out_tasks(family: str, levels: Sequence[int], count: int, seed: int) -> list[Task]:
    """`count` different held-out tasks, level after level in turn; the same for every model and every mode.

    A level with few different tasks (two digits times one) gives what it has, and the others fill up.
    """
    rng = random.Random(f"{seed}/held out/{family}/{list(levels)}")
    tasks: dict[str, Task] = {}
    tries, new = 0, 0  # the last try that brought a new task
    while len(tasks) < count:
        task = registry.generate(rng, family, levels[tries % len(levels)], held_out=True)
        tries += 1
        if tasks.setdefault(task.key, task) is task:
            new = tries
        if tries - new > 1000:
            raise KimiError(
                f"{family} at levels {list(levels)} has fewer than {count} held-out tasks: take fewer"
            )
    return list(tasks.values())
