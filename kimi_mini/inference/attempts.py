"""Several attempts at one task, and how to choose among them: by a verifier, by a vote, or not at all.

    best_of         the first attempt that may be accepted (its public tests pass), else the first
    stop_at_first   the same choice, but later attempts are not even made once one is accepted
    majority        the answer that most attempts end in; the first of them, if several are equally frequent
    lucky           one of them at random: what the attempts are worth without any choice (the mean of them)
    single          one attempt, and the tokens of one

Attempts cost tokens, and a choice that reads eight attempts has paid for eight. `compare` therefore refuses two scores
that did not spend the same, within 1%: a vote over eight attempts against a verifier over four shows nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

TOLERANCE = 0.01


@dataclass(frozen=True)
class Attempt:
    """One attempt at a task.

    answer: what it ends in; equal answers are one vote. tokens: written by the model. accepted: by what a choice may
    look at, public tests for instance. passed: by the verifier, which no choice may look at.
    """

    answer: Hashable
    tokens: int
    accepted: bool
    passed: bool


@dataclass(frozen=True)
class Chosen:
    """What a choice makes of the attempts at one task: the chance that it passed, and the tokens that it took."""

    passed: float
    tokens: int


Chooser = Callable[[Sequence[Attempt]], Chosen]


def single(group: Sequence[Attempt]) -> Chosen:
    """The first attempt alone."""
    return Chosen(float(group[0].passed), group[0].tokens)


def lucky(group: Sequence[Attempt]) -> Chosen:
    """One of the attempts at random, in expectation."""
    return Chosen(sum(attempt.passed for attempt in group) / len(group), spent(group))


def majority(group: Sequence[Attempt]) -> Chosen:
    """The most frequent answer."""
    votes = Counter(attempt.answer for attempt in group)  # keeps the order in which answers first came
    winner = max(votes, key=votes.__getitem__)
    return Chosen(float(next(a for a in group if a.answer == winner).passed), spent(group))


def best_of(group: Sequence[Attempt]) -> Chosen:
    """The first accepted attempt."""
    return Chosen(float(_first_accepted(group).passed), spent(group))


def stop_at_first(group: Sequence[Attempt]) -> Chosen:
    """The first accepted attempt, where the attempts are made one after the other until there is one."""
    chosen = _first_accepted(group)
    made = group[: group.index(chosen) + 1] if chosen.accepted else group
    return Chosen(float(chosen.passed), spent(made))


def _first_accepted(group: Sequence[Attempt]) -> Attempt:
    return next((attempt for attempt in group if attempt.accepted), group[0])


def spent(group: Sequence[Attempt]) -> int:
    """Tokens of all attempts together."""
    return sum(attempt.tokens for attempt in group)


@dataclass(frozen=True)
class Score:
    """A way to choose, over all tasks: success rate and tokens spent a task."""

    name: str
    value: float
    tokens: float


def score(choose: Chooser, groups: Sequence[Sequence[Attempt]]) -> Score:
    """`choose` on every task's attempts. Raises ValueError without any."""
    if not groups or not all(groups):
        raise ValueError("every task needs at least one attempt")
    chosen = [choose(list(group)) for group in groups]
    count = len(chosen)
    return Score(
        choose.__name__, sum(c.passed for c in chosen) / count, sum(c.tokens for c in chosen) / count
    )


def compare(first: Score, second: Score) -> float:
    """Difference of two success rates, first - second. Raises ValueError unless both spent the same tokens."""
    if abs(first.tokens - second.tokens) > TOLERANCE * max(first.tokens, second.tokens):
        raise ValueError(
            f"{first.name} spent {first.tokens:.0f} tokens a task and {second.name} {second.tokens:.0f}: "
            f"give both the same before comparing them"
        )
    return first.value - second.value
