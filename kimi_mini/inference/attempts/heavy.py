"""Heavy mode: several trajectories, then one reflective aggregation of all of them, written by the model itself.

What the aggregation reads is one question of the user: the task, and what the attempts came to, the most frequent
first, each with how often it occurred. What it writes is an ordinary turn, with a thought and an answer (or calls). It
is no chooser: it may answer what none of the attempts did. Its tokens are part of the price of heavy mode.

The request is made from what `Attempt.shown` says, and from nothing else: no verdict, no public tests.

Source: K2 Thinking model card (heavy mode: eight trajectories, reflectively aggregated). How K2 words the request is
not published; these words are ours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from kimi_mini.inference.attempts.choices import Attempt

MOST = 4  # different attempts that are shown
LONGEST = 120  # characters of one


def ranked(group: Sequence[Attempt], most: int = MOST) -> list[tuple[int, Attempt]]:
    """(how often, the first attempt that says so) of the most frequent answers; the first come first among equals."""
    votes = Counter(attempt.answer for attempt in group)
    first = {attempt.answer: attempt for attempt in reversed(group)}
    return [(count, first[answer]) for answer, count in votes.most_common(most)]


def request(question: str, group: Sequence[Attempt], most: int = MOST) -> str:
    """The user's words that ask for an aggregation of these attempts at `question`."""
    lines = [f"{count} {attempt.shown[:LONGEST]}" for count, attempt in ranked(group, most)]
    return "\n".join([question, f"{len(group)} attempts", *lines, "end"])
