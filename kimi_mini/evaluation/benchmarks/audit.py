"""Does the verifier of a benchmark hold? Players whose truth is known work on its own tasks."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import NamedTuple

from kimi_mini.agent.conversation import Conversation
from kimi_mini.evaluation.adversary import perform
from kimi_mini.evaluation.benchmarks.store import Item
from kimi_mini.evaluation.rubric import outcome
from kimi_mini.worlds import WORLDS, Kind


class Fault(NamedTuple):
    """A player that was judged wrongly on a task of that family and level."""

    kind: str
    right: bool
    family: str
    level: int


def players(item: Item) -> list[Kind]:
    """The right and wrong ones of the task's world that know its family, or the pattern that a probe is drawn from."""
    task = item.task
    names = {task.family, task.data.get("pattern")}
    kinds = WORLDS[task.world].kinds
    return [kind for kind in kinds if names & set(kind.families) and task.level >= kind.from_level]


def faults(items: Iterable[Item], accepts: Callable[[Conversation], bool] = outcome) -> list[Fault]:
    """Every player on every task: the wrong ones that `accepts` lets through, the right ones that it refuses."""
    found = []
    for item in items:
        for kind in players(item):
            played = perform(kind, item.task, random.Random(f"{item.task.key}/{kind.name}"))
            if accepts(played) != kind.right:
                found.append(Fault(kind.name, kind.right, item.task.family, item.task.level))
            played.environment.close()
    return found
