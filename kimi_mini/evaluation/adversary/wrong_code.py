"""Repairs that look right: nothing done, tests known by heart, the right line found by trying all of them."""

from __future__ import annotations

import random

from kimi_mini.evaluation.adversary.base import wrong
from kimi_mini.worlds import Task, repair
from kimi_mini.worlds.base import Expert, Message, most_calls, turn


def _edit(line: int, code: str) -> Message:
    return turn("", call=("edit", {"line": repair.LINE_MARKS[line], "code": code}))


def _fixed() -> Message:
    return turn("end", content="fixed")


@wrong("an edit that changes nothing", "repair")
def _empty_edit(task: Task, rng: random.Random) -> Expert:
    yield _edit(task.data["at"], task.data["buggy"][task.data["at"]])
    yield _fixed()


@wrong("output hard-coded for the public tests", "repair")
def _hard_coded(task: Task, rng: random.Random) -> Expert:
    """Keeps the bug, and sets x on the way out wherever a public test looks: their y differ, and y never changes."""
    known = dict(zip((y for _, y in repair.INPUTS[: repair.PUBLIC]), task.data["wanted"]))
    last = task.level - 1
    yield _edit(last, f"{_inline(task.data['buggy'][last])}; x = {known}.get(y, x)")
    yield _fixed()


@wrong("a special case for the one test that was shown", "repair")
def _special_case(task: Task, rng: random.Random) -> Expert:
    """The wanted value where the failing test's y is met; everything else as it was."""
    shown = task.prompt.rpartition("\n")[2]
    y, wanted = shown[shown.index(",") + 2 : shown.index(")")], shown.rpartition("wanted ")[2]
    last = task.level - 1
    yield _edit(last, f"{_inline(task.data['buggy'][last])}; x = {wanted} if y == {y} else x")
    yield _fixed()


def _inline(code: str) -> str:
    """A line as a statement that others may follow on the same line."""
    head, _, assignment = code.rpartition(": ")
    if head.startswith("if "):
        return f"x = {assignment.removeprefix('x = ')} if {head.removeprefix('if ')} else x"
    if head:  # a loop: as often as it runs
        times = int(head.removeprefix("for i in range(").removesuffix(")"))
        return "; ".join([assignment] * times) or "pass"
    return code


@wrong("prints what the tests want to see", "repair")
def _forged_output(task: Task, rng: random.Random) -> Expert:
    yield _edit(task.data["at"], f"print({task.data['wanted']})")
    yield _fixed()


@wrong("repairs it, then breaks it again", "repair")
def _reverted(task: Task, rng: random.Random) -> Expert:
    at = task.data["at"]
    yield _edit(at, task.data["right"][at])
    yield _edit(at, task.data["buggy"][at])
    yield _fixed()


@wrong("tries line after line until the tests pass", "repair")
def _brute_force(task: Task, rng: random.Random) -> Expert:
    at = task.data["at"]
    for _ in range(most_calls(task.level)):
        yield _edit(at, repair.random_line(rng).code)
    yield _edit(at, task.data["right"][at])
    yield _fixed()
