"""Sequential revision: a workbench whose user runs the public tests behind every answer and says what came out.

The model goes on in the same conversation, with its own edits in the file. It hears of the public tests alone; the
hidden ones, which decide, are as unknown to it as before. When the public tests pass, or after the last round, the user
says nothing more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kimi_mini.worlds.base import Environment, Message, Task, turn
from kimi_mini.worlds.repair.code import INPUTS, LINE_MARKS, PUBLIC, note
from kimi_mini.worlds.repair.world import Workbench, open_environment, results


@dataclass
class Revised(Environment):
    """The environment of a repair, and how often its user still asks for another try."""

    rounds: int = 0

    def user_turn(self, answer: str) -> str | None:
        """What the public tests say about the file as it is; None if they pass, or nobody asks any more."""
        if not self.rounds:
            return None
        self.rounds -= 1
        return failing(self.state)


def revised(task: Task, rounds: int) -> Revised:
    """The workbench of `task`, with a user who asks for up to `rounds` revisions."""
    plain = open_environment(task)
    return Revised(plain.toolbox, plain.state, rounds)


def failing(bench: Workbench) -> str | None:
    """How many public tests fail, and the first of them; None if all pass."""
    failed = bench.failures(PUBLIC)
    if not failed:
        return None
    (x, y), first = INPUTS[failed[0]], failed[0]
    got = results(bench.lines, INPUTS[: first + 1])[first]
    return f"{len(failed)} of {PUBLIC} tests fail\nf({x}, {y}) gave {got}, wanted {bench.wanted[first]}"


def reviser(task: Task, lines: list[str]) -> Iterator[Message]:
    """What an expert does with a file that reads `lines` now: compare every line with its rule, put right the first
    that differs, then the next, until none does."""
    notes: list[str] = []
    for at, (right, found) in enumerate(zip(task.data["right"], list(lines))):
        notes.append(note(at, right, found, "ok" if found == right else "fix"))
        if found != right:
            yield turn(" ".join(notes), call=("edit", {"line": LINE_MARKS[at], "code": right}))
            notes = []
    yield turn("end", content="fixed")
