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

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from kimi_mini.agent.conversation import CUT_OFF, Conversation
from kimi_mini.worlds import WORLDS, Verdict
from kimi_mini.worlds.base import final_answer


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


def score(rubric: Rubric, conversation: Conversation) -> float:
    """The share of the criteria that hold, beside the verdict, which wants them all."""
    return sum(finding.passed for finding in judge(rubric, conversation)) / len(rubric)


def outcome(conversation: Conversation) -> bool:
    """The verdict of the world's own verifier: what rewards, scoreboard and training set go by."""
    return conversation.verdict().passed


def _finish(conversation: Conversation) -> tuple[bool, str]:
    if conversation.finish in CUT_OFF:
        return False, f"cut off: {CUT_OFF[conversation.finish]}"
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


def _work(conversation: Conversation) -> tuple[bool, str]:
    task = conversation.task
    thoughts = " ; ".join(message.get("reasoning_content") or "" for message in conversation.messages)
    wrong = WORLDS[task.world].false_statements(task, thoughts)
    return not wrong, f"false: {wrong[0]}" if wrong else "nothing false is stated"


FINISH, OUTCOME = Criterion("finish", _finish), Criterion("outcome", _outcome)
RUBRIC: Rubric = (FINISH, OUTCOME, Criterion("tools", _tools), Criterion("work", _work))
