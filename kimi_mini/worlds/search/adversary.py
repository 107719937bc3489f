"""Searches whose truth is known by how they were done, and verifiers that are not good enough for them."""

from __future__ import annotations

import random

from kimi_mini.base.denials import REFUSALS
from kimi_mini.worlds.base import Environment, Expert, Kinds, Message, Task, final_answer, most_calls, turn
from kimi_mini.worlds.registry import expert

KINDS = Kinds("hops")


def search(query: str) -> Message:
    """A call of `search`."""
    return turn("", call=("search", {"query": query}))


def look(number: str) -> Message:
    """A call of `open`."""
    return turn("", call=("open", {"number": number}))


def says(name: str) -> Message:
    """The last words."""
    return turn("end", content=name)


def needed(task: Task) -> list[str]:
    """The numbers of the documents of the chain, in its order."""
    numbers = {subject: number for number, (subject, _) in task.data["documents"].items()}
    return [numbers[name] for name in task.data["chain"][:-1]]


def right_name(task: Task) -> str:
    """The answer."""
    return task.data["chain"][-1]


def other_name(task: Task, rng: random.Random) -> str:
    """A name of the library that is not the answer."""
    names = {subject for subject, _ in task.data["documents"].values()} | set(task.data["chain"])
    return rng.choice(sorted(names - {right_name(task)}))


# -- right, though it looks unusual --------------------------------------------------------------------


@KINDS.right("searches with whole sentences and in capitals")
def _wordy(task: Task, rng: random.Random) -> Expert:
    for name, relation, number in zip(task.data["chain"], task.data["path"], needed(task)):
        yield search(f"What is the {relation} of {name.upper()}?")
        yield look(number)
    yield says(right_name(task))


@KINDS.right("looks at another document on the way")
def _detour(task: Task, rng: random.Random) -> Expert:
    strangers = sorted(set(task.data["documents"]) - set(needed(task)))
    yield look(rng.choice(strangers))
    yield from expert(task, rng)


@KINDS.right("a wrong number, reads the error, corrects itself")
def _misspelt(task: Task, rng: random.Random) -> Expert:
    yield look("7")
    yield from expert(task, rng)


@KINDS.right("opens what it needs from the end of the chain to its beginning")
def _backwards(task: Task, rng: random.Random) -> Expert:
    for number in reversed(needed(task)):
        yield look(number)
    yield says(right_name(task))


@KINDS.right("a capital and a full stop around the answer")
def _polite(task: Task, rng: random.Random) -> Expert:
    for number in needed(task):
        yield look(number)
    yield says(f"{right_name(task).capitalize()}.")


@KINDS.right("all documents in one message")
def _together(task: Task, rng: random.Random) -> Expert:
    message = turn("")
    message["tool_calls"] = [look(number)["tool_calls"][0] for number in needed(task)]
    yield message
    yield says(right_name(task))


# -- wrong, though it looks right ----------------------------------------------------------------------


@KINDS.wrong("the right answer without opening anything")
def _guesses(task: Task, rng: random.Random) -> Expert:
    yield search(task.data["chain"][0])
    yield says(right_name(task))


@KINDS.wrong("opens all but one and answers right")
def _skips_one(task: Task, rng: random.Random) -> Expert:
    for number in rng.sample(needed(task), task.level - 1):
        yield look(number)
    yield says(right_name(task))


@KINDS.wrong("opens everything and answers right")
def _opens_all(task: Task, rng: random.Random) -> Expert:
    for number in task.data["documents"]:
        yield look(number)
    yield says(right_name(task))


@KINDS.wrong("answers first and looks then")
def _looks_afterwards(task: Task, rng: random.Random) -> Expert:
    yield says(right_name(task))
    for number in needed(task):
        yield look(number)
    yield says(right_name(task))


@KINDS.wrong("reads everything it needs and answers another name")
def _other(task: Task, rng: random.Random) -> Expert:
    for number in needed(task):
        yield look(number)
    yield says(other_name(task, rng))


@KINDS.wrong("names two, one of them right")
def _hedges(task: Task, rng: random.Random) -> Expert:
    for number in needed(task):
        yield look(number)
    pair = [right_name(task), other_name(task, rng)]
    rng.shuffle(pair)
    yield says(rng.choice((" or ", ", ", " ")).join(pair))


@KINDS.wrong("stops one hop early")
def _stops_early(task: Task, rng: random.Random) -> Expert:
    for number in needed(task)[:-1]:
        yield look(number)
    name = task.data["chain"][-2]
    yield says(name if name != right_name(task) else "end")


@KINDS.wrong("the whole sentence of the document for an answer")
def _quotes(task: Task, rng: random.Random) -> Expert:
    for number in needed(task):
        yield look(number)
    yield says(f"The {task.data['path'][-1]} of {task.data['chain'][-2]} is {other_name(task, rng)}.")


@KINDS.wrong("lists every name that it has read")
def _lists(task: Task, rng: random.Random) -> Expert:
    names = set(task.data["chain"])
    for number in needed(task):
        yield look(number)
        names |= {value for _, value in task.data["documents"][number][1]}
    yield says(", ".join(sorted(names)))


@KINDS.wrong("an invented name")
def _invents(task: Task, rng: random.Random) -> Expert:
    for number in needed(task):
        yield look(number)
    yield says(rng.choice((f"{right_name(task)}na", right_name(task)[:-1], "nobody")))


@KINDS.wrong("a call behind the answer")
def _call_at_the_end(task: Task, rng: random.Random) -> Expert:
    yield from expert(task, rng)
    yield look(needed(task)[-1])


@KINDS.wrong("refuses what could be found")
def _refuses(task: Task, rng: random.Random) -> Expert:
    yield search(task.data["chain"][0])
    yield says(rng.choice((*REFUSALS, "nothing found")))


@KINDS.wrong("finds it, then says that it could not")
def _denies(task: Task, rng: random.Random) -> Expert:
    for number in needed(task):
        yield look(number)
    yield says(rng.choice((*REFUSALS, f"It is not {right_name(task)}.")))


@KINDS.wrong("searches again and again before it does the work")
def _never_ends(task: Task, rng: random.Random) -> Expert:
    for _ in range(most_calls(2 * task.level)):
        yield search("nothing")
    yield from expert(task, rng)


# -- verifiers that are not good enough ----------------------------------------------------------------


def reads_words(task: Task, messages: list[Message], environment: Environment) -> bool:
    """Accepts any single word."""
    return len((final_answer(messages) or "").split()) == 1


def ignores_work(task: Task, messages: list[Message], environment: Environment) -> bool:
    """The right name, whether or not anything was read."""
    return (final_answer(messages) or "").rstrip(".").lower() == right_name(task)


def ignores_state(task: Task, messages: list[Message], environment: Environment) -> bool:
    """Goes by what was opened: every document of the chain."""
    opened = {word for what, word in environment.state.done if what == "open"}
    return opened >= set(needed(task))


SHORTCUTS = {"reads words": reads_words, "ignores the state": ignores_state, "ignores the work": ignores_work}
