"""Several attempts at one task, and how to choose among them: by a verifier, by a vote, by the model, or not at all.

    best_of         the first attempt that may be accepted (its public tests pass), else the first
    stop_at_first   the same choice, but later attempts are not even made once one is accepted
    majority        the answer that most attempts end in; the first of them, if several are equally frequent. An attempt
                    that ends in none has no vote
    surest          the attempt that the model itself found most probable, token by token
    lucky           one of them at random: what the attempts are worth without any choice (the mean of them)
    single          one attempt, and the tokens of one

Attempts cost tokens, and a choice that reads eight attempts has paid for eight: see `budget`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Attempt:
    """One attempt at a task.

    answer: what it ends in, empty if it ended in none; equal answers are one vote. tokens: written by the model.
    accepted: by what a choice may look at, public tests for instance. passed: by the verifier, which no choice may look
    at. sure: the mean log-probability of what the model wrote, as it wrote it. shown: what an aggregation gets to read
    of it. read: tokens of the context that the model did not write.
    """

    answer: Hashable
    tokens: int
    accepted: bool
    passed: bool
    sure: float = 0.0
    shown: str = ""
    read: int = 0


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
    """The most frequent answer; the first attempt where none has an answer."""
    answers = [attempt.answer for attempt in group]
    votes = Counter(answer for answer in answers if answer)  # keeps the order in which answers first came
    winner = max(votes, key=votes.__getitem__) if votes else answers[0]
    return Chosen(float(group[answers.index(winner)].passed), spent(group))


def surest(group: Sequence[Attempt]) -> Chosen:
    """The attempt with the highest mean log-probability; the first of them."""
    return Chosen(float(max(group, key=lambda attempt: attempt.sure).passed), spent(group))


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
