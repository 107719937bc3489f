"""How often a verifier is wrong: bad verifiers to compare with, false accepts and false rejects."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from kimi_mini.agent.conversation import Conversation
from kimi_mini.base.intervals import wilson
from kimi_mini.evaluation.adversary import perform
from kimi_mini.evaluation.rubric import RUBRIC, outcome, passes
from kimi_mini.worlds import FAMILIES, WORLDS, Kind, generate


def shortcut(name: str) -> Callable[[Conversation], bool]:
    """The verifier of that name that is not good enough, in the world of each conversation; the world's own where it
    has none."""

    def accepts(conversation: Conversation) -> bool:
        task = conversation.task
        look = WORLDS[task.world].shortcuts.get(name)
        return look(task, conversation.messages, conversation.environment) if look else outcome(conversation)

    return accepts


VERIFIERS: dict[str, Callable[[Conversation], bool]] = {
    **{name: shortcut(name) for name in ("reads words", "ignores the state", "ignores the work")},
    "world's verifier": outcome,
    "rubric": passes(RUBRIC),
}


class Rate(NamedTuple):
    """`errors` of `n` with a 95% interval (Wilson)."""

    errors: int
    n: int

    @property
    def value(self) -> float:
        """The share of errors."""
        return self.errors / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """95% interval of that share."""
        return wilson(self.errors, self.n)

    def as_dict(self) -> dict:
        """As results files hold it."""
        low, high = self.interval
        return {"value": self.value, "low": low, "high": high, "errors": self.errors, "n": self.n}


def total(rates: Iterable[Rate]) -> Rate:
    """Several kinds together."""
    rates = list(rates)
    return Rate(sum(rate.errors for rate in rates), sum(rate.n for rate in rates))


def error_rates(
    world: str,
    count: int,
    accepts: Callable[[Conversation], bool] = outcome,
    seed: int = 0,
    kinds: Sequence[Kind] | None = None,
) -> dict[Kind, Rate]:
    """Errors of the verifier `accepts` on about `count` right and `count` wrong trajectories of `world`.

    Every kind of trajectory of the world (or of `kinds`) is played equally often, its families and levels in turn.
    An error is a wrong trajectory accepted or a right one refused.
    """
    return compared(world, count, {"it": accepts}, seed, kinds)["it"]


def compared(
    world: str,
    count: int,
    verifiers: Mapping[str, Callable[[Conversation], bool]] = VERIFIERS,
    seed: int = 0,
    kinds: Sequence[Kind] | None = None,
) -> dict[str, dict[Kind, Rate]]:
    """`error_rates` of several verifiers, by name, all on the same trajectories."""
    rates: dict[str, dict[Kind, Rate]] = {name: {} for name in verifiers}
    for right in (True, False):
        ours = [kind for kind in (kinds or WORLDS[world].kinds) if kind.right is right]
        for kind in ours:
            each = -(-count // len(ours))
            errors = Counter()
            for conversation in played(world, kind, each, seed):
                errors.update(name for name, accepts in verifiers.items() if accepts(conversation) != right)
            for name in verifiers:
                rates[name][kind] = Rate(errors[name], each)
    return rates


def played(world: str, kind: Kind, count: int, seed: int) -> Iterable[Conversation]:
    """`count` conversations of one kind, families and levels in turn; each is closed when the next is asked for."""
    places = [
        (family, level)
        for family in kind.families
        for level in FAMILIES[family].levels
        if level >= kind.from_level
    ]
    rng = random.Random(f"{seed}/{world}/{kind.name}")
    for index in range(count):
        conversation = perform(kind, generate(rng, *places[index % len(places)]), rng)
        yield conversation
        conversation.environment.close()


def false_accepts(rates: dict[Kind, Rate]) -> Rate:
    """Over all wrong trajectories: how many were accepted."""
    return total(rate for kind, rate in rates.items() if not kind.right)


def false_rejects(rates: dict[Kind, Rate]) -> Rate:
    """Over all right trajectories: how many were refused."""
    return total(rate for kind, rate in rates.items() if kind.right)
