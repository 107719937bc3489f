"""Right trajectories that look unusual: a verifier that goes by wording, order or spelling refuses them."""

from __future__ import annotations

import random

from kimi_mini.evaluation.adversary.base import (
    CHAIN,
    SHOP,
    Kind,
    answer_of,
    buys_of,
    expert,
    reads_of,
    right,
    several,
)
from kimi_mini.worlds import Task, repair
from kimi_mini.worlds.base import Expert, turn


@right("as the expert does it", *CHAIN, *SHOP, "repair")
def _plainly(task: Task, rng: random.Random) -> Expert:
    yield from expert(task, rng)


# -- chain ---------------------------------------------------------------------------------------------


@right("the answer alone, without a thought", *CHAIN)
def _at_once(task: Task, rng: random.Random) -> Expert:
    yield turn("", content=answer_of(task))


@right("zeros in front, spaces around", *CHAIN)
def _spaced(task: Task, rng: random.Random) -> Expert:
    message = next(expert(task, rng))
    yield {**message, "content": rng.choice([" {}", "{}\n", "0{}", "00{} "]).format(answer_of(task))}


@right("works it out in another way", *CHAIN)
def _other_working(task: Task, rng: random.Random) -> Expert:
    yield turn(f"I see that it must be {answer_of(task)}; let me check that. Yes.", content=answer_of(task))


@right("makes a mistake, notices, and puts it right", *CHAIN)
def _corrected(task: Task, rng: random.Random) -> Expert:
    first, second = next(expert(task, rng, "slip")), next(expert(task, rng))
    thought = f"{first['reasoning_content']} no, again {second['reasoning_content']}"
    yield {**second, "reasoning_content": thought}


# -- shop ----------------------------------------------------------------------------------------------


def _last_words(task: Task, rng: random.Random) -> str:
    """The answer in other words, where the words do not matter."""
    return (
        answer_of(task)
        if task.family in ("follow", "cheapest")
        else rng.choice(["ok", "bought it", "all done!"])
    )


@right("misspells an item, reads the error, corrects itself", *SHOP)
def _misspelt(task: Task, rng: random.Random) -> Expert:
    tool, arguments = (buys_of(task) if task.family == "buy" else reads_of(task))[0]
    yield turn("", call=(tool, {**arguments, "item": arguments["item"] + "s"}))
    yield from expert(task, rng)


@right("breaks the schema first, then does it right", *SHOP)
def _bad_schema(task: Task, rng: random.Random) -> Expert:
    tool = "buy" if task.family == "buy" else reads_of(task)[0][0]
    yield turn("", call=(tool, {"name": "?"}))
    yield from expert(task, rng)


@right("takes the items in another order", "cheapest", "buy", from_level=2)
def _other_order(task: Task, rng: random.Random) -> Expert:
    calls = reads_of(task) if task.family == "cheapest" else buys_of(task)
    rng.shuffle(calls)
    for call in calls:
        yield turn("", call=call)
    yield turn("end", content=_last_words(task, rng))


@right("several calls in one message", "cheapest", "buy")
def _parallel(task: Task, rng: random.Random) -> Expert:
    yield several(reads_of(task) if task.family == "cheapest" else buys_of(task))
    yield turn("end", content=_last_words(task, rng))


@right("looks twice", "condition", "cheapest")
def _twice(task: Task, rng: random.Random) -> Expert:
    calls = reads_of(task)
    for call in [calls[0], *calls, *buys_of(task)]:
        yield turn("", call=call)
    yield turn("end", content=_last_words(task, rng))


# Played apart from the others: the shop's verifier refuses it, and says so. A chain of records counts only when each
# record is read once and in order, because a second look cannot be told from a slip that came right.
LOOKS_TWICE = Kind("looks at a record twice", True, ("follow",), _twice)


@right("looks at one more stock than it must", "condition")
def _looks_around(task: Task, rng: random.Random) -> Expert:
    other = task.data["choices"][rng.randrange(2)][0]
    for call in [("stock", {"item": other}), *reads_of(task), *buys_of(task)]:
        yield turn("", call=call)
    yield turn("end", content=_last_words(task, rng))


@right("buys in two parts", "buy", "condition")
def _in_parts(task: Task, rng: random.Random) -> Expert:
    calls = buys_of(task)
    tool, arguments = calls[0]
    if arguments["count"] > 1:
        calls[:1] = [
            (tool, {**arguments, "count": arguments["count"] - 1}),
            (tool, {**arguments, "count": 1}),
        ]
    for call in calls if task.family == "buy" else [*reads_of(task), *calls]:
        yield turn("", call=call)
    yield turn("end", content=_last_words(task, rng))


@right("the answer in quotes, or with a full stop", "follow", "cheapest")
def _quoted(task: Task, rng: random.Random) -> Expert:
    for call in reads_of(task):
        yield turn("on", call=call)
    yield turn("end", content=rng.choice(['"{}"', "{}.", '"{}".', " {} "]).format(answer_of(task)))


# -- repair --------------------------------------------------------------------------------------------


def _edit(line: int, code: str):
    return turn("", call=("edit", {"line": repair.LINE_MARKS[line], "code": code}))


def respelt(code: str, rng: random.Random) -> str:
    """The same line in other words of Python."""
    head, _, assignment = code.rpartition(": ")
    _, _, left, operator, value = assignment.split(" ")
    spelt = [f"x {operator}= {value}", f"x = ({left} {operator} ({value}))", f"x={left}{operator}{value}"]
    if operator in "+*":
        spelt.append(f"x = {value} {operator} {left}")
    if operator == "-":
        spelt.append(f"x = -{value} + {left}")
    return (f"{head}: " if head else "") + rng.choice(spelt)


@right("the same repair in other words of Python", "repair")
def _respelt(task: Task, rng: random.Random) -> Expert:
    at = task.data["at"]
    yield _edit(at, respelt(task.data["right"][at], rng))
    yield turn("end", content=rng.choice(["fixed", "the bug is gone", "ok"]))


@right("rewrites more lines than it must", "repair")
def _rewrites(task: Task, rng: random.Random) -> Expert:
    for line, code in enumerate(task.data["right"]):
        yield _edit(line, respelt(code, rng))
    yield turn("end", content="fixed")


@right("a first repair that fails, then the right one", "repair")
def _second_try(task: Task, rng: random.Random) -> Expert:
    at = task.data["at"]
    yield _edit(at, rng.choice([repair.random_line(rng).code, "x = x +", "x = 1 / 0"]))
    yield _edit(at, task.data["right"][at])
    yield turn("end", content="fixed")


@right("names a line that is not there, then the right one", "repair")
def _wrong_mark(task: Task, rng: random.Random) -> Expert:
    yield _edit(task.level, task.data["right"][task.data["at"]])
    yield from expert(task, rng)
