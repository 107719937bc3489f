"""How often a verifier is wrong: bad verifiers to compare with, false accepts and false rejects."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from kimi_mini.agent.conversation import Conversation
from kimi_mini.base.intervals import wilson
from kimi_mini.evaluation.adversary import KINDS, Kind, perform
from kimi_mini.evaluation.rubric import RUBRIC, outcome, passes
from kimi_mini.worlds import FAMILIES, WORLDS, generate
from kimi_mini.worlds.base import final_answer


def reads_words(conversation: Conversation) -> bool:
    """Accepts any last words of the usual form: a number, an item of the shop, done, fixed."""
    answer, data = final_answer(conversation.messages) or "", conversation.task.data
    known = {"done", "fixed", *(row[0] for row in data.get("rows", []))}
    return answer in known or (conversation.task.world == "chain" and answer.isdigit())


def ignores_work(conversation: Conversation) -> bool:
    """Right answer or right orders, whether or not anything was looked at; the public tests alone for code."""
    task, state, answer = (
        conversation.task,
        conversation.environment.state,
        final_answer(conversation.messages) or "",
    )
    if task.world == "repair":
        return state.public_tests_pass
    if task.family in ("condition", "buy"):
        return sorted(map(list, state.execute("SELECT item, count FROM orders"))) == sorted(
            task.data["bought"]
        )
    return answer == (task.data["path"][-1] if task.family == "follow" else str(task.data["answer"]))


def ignores_state(conversation: Conversation) -> bool:
    """Goes by what was called: each purchase was attempted with the right arguments, some edit was made."""
    task = conversation.task
    calls = [
        call["function"] for message in conversation.messages for call in message.get("tool_calls") or []
    ]
    if task.world == "repair":
        return any(call["name"] == "edit" for call in calls)
    if task.family in ("condition", "buy"):
        tried = [json.loads(call["arguments"]) for call in calls if call["name"] == "buy"]
        return all({"item": item, "count": count} in tried for item, count in task.data["bought"])
    return ignores_work(conversation)


VERIFIERS: dict[str, Callable[[Conversation], bool]] = {
    "reads words": reads_words,
    "ignores the state": ignores_state,
    "ignores the work": ignores_work,
    "world's verifier": outcome,
    "rubric": passes(RUBRIC),
}


class Rate(NamedTuple):
    """``errors`` of ``n`` with a 95% interval (Wilson)."""

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
    kinds: Sequence[Kind] = KINDS,
) -> dict[Kind, Rate]:
    """Errors of the verifier ``accepts`` on about ``count`` right and ``count`` wrong trajectories of ``world``.

    Every kind of trajectory that is played in this world gets the same number, its families and levels in turn.
    An error is a wrong trajectory accepted or a right one refused.
    """
    rates = {}
    for right in (True, False):
        ours = [
            kind for kind in kinds if kind.right is right and any(FAMILIES[f] == world for f in kind.families)
        ]
        for kind in ours:
            each = -(-count // len(ours))
            rates[kind] = Rate(sum(accepts(c) != right for c in played(world, kind, each, seed)), each)
    return rates


def played(world: str, kind: Kind, count: int, seed: int) -> Iterable[Conversation]:
    """``count`` conversations of one kind, families and levels in turn; each is closed when the next is asked for."""
    places = [
        (family, level)
        for family in kind.families
        if FAMILIES[family] == world
        for level in WORLDS[world].FAMILIES[family]
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
