"""How far a verdict can be trusted: rubrics that say why, and the error rates of a verifier.

A verifier makes two errors, and they cost differently. A false accept puts a wrong trajectory into the training set,
where it is learned; a false reject only wastes one that was right. Both rates are measured here, on trajectories whose
truth is known because `adversary` made them so.

K2's judges score a trajectory against a rubric: success criteria, the expected use of tools, checkpoints (report,
section 3.1.1). Ours is a tuple of named predicates; each says whether it holds and what it saw.

    finish      the dialogue ended with an answer, not at a limit
    outcome     the world's own verifier: results and final state
    tools       only declared tools were called
    work        nothing false is stated in a thought (a sum, a comparison): what an outcome cannot show
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from kimi_mini.adversary import KINDS, Kind, perform
from kimi_mini.agent.conversation import Conversation
from kimi_mini.base.intervals import wilson
from kimi_mini.worlds import FAMILIES, WORLDS, generate
from kimi_mini.worlds.base import Verdict, final_answer
from kimi_mini.worlds.chain import MODULUS, OPERATIONS


class Finding(NamedTuple):
    """What one criterion of a rubric found."""

    name: str
    passed: bool
    evidence: str


@dataclass(frozen=True)
class Criterion:
    """A named predicate over a finished conversation: (does it hold?, what was seen)."""

    name: str
    look: Callable[[Conversation], tuple[bool, str]]


Rubric = tuple[Criterion, ...]


def judge(rubric: Rubric, conversation: Conversation) -> list[Finding]:
    """Every criterion's finding, in order; a criterion that fails does not stop the others."""
    return [Finding(criterion.name, *criterion.look(conversation)) for criterion in rubric]


def passes(rubric: Rubric) -> Callable[[Conversation], bool]:
    """The rubric as a verifier: all criteria hold."""
    return lambda conversation: all(finding.passed for finding in judge(rubric, conversation))


def outcome(conversation: Conversation) -> bool:
    """The verdict of the world's own verifier: what rewards, scoreboard and training set go by."""
    return conversation.verdict().passed


# -- the criteria --------------------------------------------------------------------------------------


def _finish(conversation: Conversation) -> tuple[bool, str]:
    answer = final_answer(conversation.messages)
    return bool(answer), f"ended with {answer[:30]!r}" if answer else "no answer at the end"


def _outcome(conversation: Conversation) -> tuple[bool, str]:
    verdict: Verdict = conversation.verdict()
    return verdict.passed, verdict.evidence


def _tools(conversation: Conversation) -> tuple[bool, str]:
    box = conversation.environment.toolbox
    declared = set(box.tools) if box else set()
    calls = [call for message in conversation.messages for call in message.get("tool_calls") or []]
    strange = {call["function"]["name"] for call in calls} - declared
    return not strange, f"undeclared: {', '.join(sorted(strange))}" if strange else f"{len(calls)} calls"


SUM = re.compile(r"(\d+)([-+*])(\d+)(?:\+(\d+))?=(-?\d+)")  # 12+9=21, and with a carry 4*7+2=30
BELOW = re.compile(r"(\d+) below (\d+) (yes|no)")


def false_statements(thought: str, modulus: int | None = None) -> list[str]:
    """The sums and comparisons in a thought that are not true; with a modulus sums are taken modulo it."""
    wrong = []
    for match in SUM.finditer(thought):
        left, sign, right, carry, stated = match.groups()
        value = OPERATIONS[sign](int(left), int(right)) + int(carry or 0)
        if (value % modulus if modulus else value) != int(stated):
            wrong.append(match[0])
    return wrong + [m[0] for m in BELOW.finditer(thought) if (int(m[1]) < int(m[2])) != (m[3] == "yes")]


def _work(conversation: Conversation) -> tuple[bool, str]:
    if conversation.task.world == "repair":  # its thoughts quote code, which is not a claim
        return True, "quotes code"
    thoughts = " ; ".join(message.get("reasoning_content") or "" for message in conversation.messages)
    wrong = false_statements(thoughts, MODULUS if conversation.task.family == "chain" else None)
    return not wrong, f"false: {wrong[0]}" if wrong else "nothing false is stated"


OUTCOME = Criterion("outcome", _outcome)
RUBRIC: Rubric = (Criterion("finish", _finish), OUTCOME, Criterion("tools", _tools), Criterion("work", _work))


# -- verifiers that are not good enough ----------------------------------------------------------------


def reads_words(conversation: Conversation) -> bool:
    """Accepts any last words of the usual form: a number, an item of the shop, done, fixed."""
    answer, data = final_answer(conversation.messages) or "", conversation.task.data
    known = {"done", "fixed", *(row[0] for row in data.get("rows", []))}
    return answer in known or (conversation.task.world == "chain" and answer.isdigit())


def ignores_work(conversation: Conversation) -> bool:
    """Right answer or right orders, whether or not anything was looked at; the public tests alone for code."""
    task, state, answer = conversation.task, conversation.environment.state, final_answer(conversation.messages) or ""
    if task.world == "repair":
        return state.public_tests_pass
    if task.family in ("condition", "buy"):
        return sorted(map(list, state.execute("SELECT item, count FROM orders"))) == sorted(task.data["bought"])
    return answer == (task.data["path"][-1] if task.family == "follow" else str(task.data["answer"]))


def ignores_state(conversation: Conversation) -> bool:
    """Goes by what was called: each purchase was attempted with the right arguments, some edit was made."""
    task = conversation.task
    calls = [call["function"] for message in conversation.messages for call in message.get("tool_calls") or []]
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


# -- how often a verifier errs -------------------------------------------------------------------------


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
    world: str, count: int, accepts: Callable[[Conversation], bool] = outcome, seed: int = 0,
    kinds: Sequence[Kind] = KINDS,
) -> dict[Kind, Rate]:  # fmt: skip
    """Errors of the verifier ``accepts`` on about ``count`` right and ``count`` wrong trajectories of ``world``.

    Every kind of trajectory that is played in this world gets the same number, its families and levels in turn.
    An error is a wrong trajectory accepted or a right one refused.
    """
    rates = {}
    for right in (True, False):
        ours = [kind for kind in kinds if kind.right is right and any(FAMILIES[f] == world for f in kind.families)]
        for kind in ours:
            each = -(-count // len(ours))
            rates[kind] = Rate(sum(accepts(c) != right for c in played(world, kind, each, seed)), each)
    return rates


def played(world: str, kind: Kind, count: int, seed: int) -> Iterable[Conversation]:
    """``count`` conversations of one kind, families and levels in turn; each is closed when the next is asked for."""
    places = [
        (family, level)
        for family in kind.families if FAMILIES[family] == world
        for level in WORLDS[world].FAMILIES[family] if level >= kind.from_level
    ]  # fmt: skip
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
