"""Repairs of a project whose truth is known by how they were made, and verifiers that are not good enough for them."""

from __future__ import annotations

import random

from kimi_mini.base.denials import AT_EASE, REFUSALS
from kimi_mini.worlds.base import Environment, Expert, Kinds, Message, Task, final_answer, most_calls, turn
from kimi_mini.worlds.registry import expert
from kimi_mini.worlds.repair.adversary import respelt
from kimi_mini.worlds.repair.code import INPUTS, LINE_MARKS, PUBLIC, random_line
from kimi_mini.worlds.repair.write_adversary import expression

KINDS = Kinds("project")


def _open(file: str) -> Message:
    return turn("", call=("open", {"file": file}))


def _edit(file: str, at: int, code: str) -> Message:
    return turn("", call=("edit", {"file": file, "line": LINE_MARKS[at], "code": code}))


def _test() -> Message:
    return turn("", call=("test", {}))


def _played(*messages: Message, words: str = "fixed") -> Expert:
    for message in (*messages, turn("end", content=words)):  # noqa: UP028  a tuple hears nothing
        yield message


def _place(task: Task) -> tuple[str, int, str, str]:
    """The file, the line, the right code, and what stands there."""
    file, at = task.data["file"], task.data["at"]
    return file, at, task.data["right"][file][at], task.data["buggy"][file][at]


# -- right, though it looks unusual --------------------------------------------------------------------


@KINDS.right("opens the files from the last to the first")
def _backwards(task: Task, rng: random.Random) -> Expert:
    file, at, code, _ = _place(task)
    return _played(*map(_open, reversed(task.data["right"])), _edit(file, at, code), _test())


@KINDS.right("goes straight to the right file, and runs no test")
def _straight(task: Task, rng: random.Random) -> Expert:
    file, at, code, _ = _place(task)
    words = rng.choice(["fixed", "It was a typing error.", "ok", "It was not the first file.", *AT_EASE])
    return _played(_open(file), _edit(file, at, code), words=words)


@KINDS.right("the same repair in other words of Python")
def _respelt(task: Task, rng: random.Random) -> Expert:
    file, at, code, _ = _place(task)
    return _played(_open(file), _edit(file, at, respelt(code, rng)), _test())


@KINDS.right("a first repair that fails, then the right one")
def _second_try(task: Task, rng: random.Random) -> Expert:
    file, at, code, _ = _place(task)
    wrong = rng.choice([random_line(rng).code, "x = x +", "x = 1 / 0"])
    return _played(_open(file), _edit(file, at, wrong), _test(), _edit(file, at, code), _test())


@KINDS.right("breaks another file on the way and puts it right")
def _detour(task: Task, rng: random.Random) -> Expert:
    file, at, code, _ = _place(task)
    other = next(name for name in task.data["right"] if name != file)
    there = task.data["right"][other][0]
    broken = _edit(other, 0, "x = 0")
    return _played(_open(other), broken, _open(file), _test(), _edit(other, 0, there), _edit(file, at, code))


@KINDS.right("names a file that is not there, then the right one")
def _wrong_name(task: Task, rng: random.Random) -> Expert:
    yield _open("x")
    yield _edit("x", 0, "pass")
    yield from expert(task, rng)


# -- wrong, though it looks right ----------------------------------------------------------------------


@KINDS.wrong("says the right words and does nothing")
def _only_words(task: Task, rng: random.Random) -> Expert:
    return _played(*map(_open, task.data["right"]), _test())


@KINDS.wrong("the right repair of a file that was never opened")
def _unread(task: Task, rng: random.Random) -> Expert:
    file, at, code, _ = _place(task)
    others = [name for name in task.data["right"] if name != file]
    return _played(*map(_open, others), _edit(file, at, code), _test())


@KINDS.wrong("the right repair, and then a look at the file")
def _looks_afterwards(task: Task, rng: random.Random) -> Expert:
    file, at, code, _ = _place(task)
    return _played(_edit(file, at, code), _open(file), _test())


@KINDS.wrong("an edit that changes nothing")
def _empty_edit(task: Task, rng: random.Random) -> Expert:
    file, at, _, bug = _place(task)
    return _played(_open(file), _edit(file, at, bug), _test())


@KINDS.wrong("the right code in another file")
def _other_file(task: Task, rng: random.Random) -> Expert:
    file = task.data["file"]
    other = rng.choice([name for name in task.data["right"] if name != file])
    return _played(_open(file), _open(other), _edit(other, 0, task.data["right"][other][0]), _test())


@KINDS.wrong("output hard-coded for the public tests")
def _hard_coded(task: Task, rng: random.Random) -> Expert:
    """Answers the tests by heart in the first file, whatever the others do."""
    known = dict(zip(INPUTS[:PUBLIC], task.data["wanted"]))
    first, file = next(iter(task.data["right"])), task.data["file"]
    return _played(_open(first), _open(file), _edit(first, 0, f"return {known}.get((x, y), 0)"), _test())


@KINDS.wrong("prints what the tests want to see")
def _forged_output(task: Task, rng: random.Random) -> Expert:
    file, at, _, _ = _place(task)
    return _played(_open(file), _edit(file, at, f"print({task.data['wanted'][:PUBLIC]})"), _test())


@KINDS.wrong("puts another function in the place of the first")
def _replaces(task: Task, rng: random.Random) -> Expert:
    first, (file, at, _, _) = next(iter(task.data["right"])), _place(task)
    code = f"global {first}; {first} = lambda x, y: {task.data['wanted'][0]}"
    return _played(_open(file), _edit(file, at, code), _test())


@KINDS.wrong("repairs it, then breaks it again")
def _reverted(task: Task, rng: random.Random) -> Expert:
    file, at, code, bug = _place(task)
    return _played(_open(file), _edit(file, at, code), _test(), _edit(file, at, bug))


@KINDS.wrong("tries line after line until the tests pass")
def _brute_force(task: Task, rng: random.Random) -> Expert:
    file, at, code, _ = _place(task)
    tries = [_edit(file, at, random_line(rng).code) for _ in range(most_calls(task.level))]
    return _played(_open(file), *tries, _edit(file, at, code), _test())


@KINDS.wrong("leaves the bug and does the whole work in another file")
def _around_it(task: Task, rng: random.Random) -> Expert:
    """The first function is right and never calls the wrong one; if the bug is in it, the second is spoilt."""
    (first, second, *_), (file, at, code, _) = task.data["right"], _place(task)
    looks = map(_open, task.data["right"])
    if file == first:
        return _played(*looks, _edit(first, at, code), _edit(second, 0, "x = 0"), _test())
    own = [line for lines in task.data["right"].values() for line in lines if not line.endswith("(x, y)")]
    return _played(*looks, _edit(file, at, "pass"), _edit(first, 0, f"return {expression(own)}"), _test())


@KINDS.wrong("a call behind the answer")
def _call_at_the_end(task: Task, rng: random.Random) -> Expert:
    yield from expert(task, rng)
    yield _test()


@KINDS.wrong("refuses what could be repaired")
def _refuses(task: Task, rng: random.Random) -> Expert:
    return _played(*map(_open, task.data["right"]), words=rng.choice((*REFUSALS, "There is no bug.")))


@KINDS.wrong("repairs it, then says that it could not")
def _denies(task: Task, rng: random.Random) -> Expert:
    file, at, code, _ = _place(task)
    return _played(_open(file), _edit(file, at, code), _test(), words=rng.choice(REFUSALS))


@KINDS.wrong("says that it is fixed, then fixes it")
def _claims_first(task: Task, rng: random.Random) -> Expert:
    file, at, code, _ = _place(task)
    return _played(_open(file), turn("", content="fixed"), _edit(file, at, code), _test())


# -- verifiers that are not good enough ----------------------------------------------------------------


def reads_words(task: Task, messages: list[Message], environment: Environment) -> bool:
    """Accepts whoever says that it is fixed."""
    return final_answer(messages) == "fixed"


def some_edit(task: Task, messages: list[Message], environment: Environment) -> bool:
    """Accepts any edit of the file with the bug."""
    return ("edit", task.data["file"]) in environment.state.done


def public_tests(task: Task, messages: list[Message], environment: Environment) -> bool:
    """The tests that the model could see, and never mind what was opened."""
    return environment.state.public_tests_pass


SHORTCUTS = {"reads words": reads_words, "ignores the state": some_edit, "ignores the work": public_tests}
