"""Errands in the shop whose truth is known by how they were done, and verifiers that are not good enough for them."""

from __future__ import annotations

import json
import random

from kimi_mini.base.denials import AT_EASE, REFUSALS
from kimi_mini.worlds.base import (
    Environment,
    Expert,
    Kind,
    Kinds,
    Message,
    Task,
    final_answer,
    most_calls,
    turn,
)
from kimi_mini.worlds.registry import expert

KINDS = Kinds("follow", "condition", "cheapest", "buy")


def answer_of(task: Task) -> str:
    """The right last words."""
    return task.data["path"][-1] if task.family == "follow" else task.data.get("answer", "done")


def reads_of(task: Task) -> list[tuple[str, dict]]:
    """The calls that a `follow`, `cheapest` or `condition` has to make before it may answer or decide."""
    tool = {"follow": "next", "cheapest": "price", "condition": "stock"}[task.family]
    items = task.data.get("path") or task.data.get("items") or [task.data["asked"]]
    return [(tool, {"item": item}) for item in items]


def buys_of(task: Task) -> list[tuple[str, dict]]:
    """The purchases that a `condition` or `buy` asks for; none for the others."""
    return [("buy", {"item": item, "count": count}) for item, count in task.data.get("bought", [])]


def work_of(task: Task) -> list[tuple[str, dict]]:
    """All calls that a task takes, in order."""
    return [*(reads_of(task) if task.family != "buy" else []), *buys_of(task)]


def _plays(calls: list[tuple[str, dict]], words: str) -> Expert:
    """The calls, then the last words."""
    for call in calls:
        yield turn("on", call=call)
    yield turn("end", content=words)


def several(calls: list[tuple[str, dict]]) -> Message:
    """All calls in one message."""
    message = turn("")
    message["tool_calls"] = [turn("", call=call)["tool_calls"][0] for call in calls]
    return message


# -- right, though it looks unusual --------------------------------------------------------------------


def _last_words(task: Task, rng: random.Random) -> str:
    """The answer in other words, where the words do not matter."""
    return (
        answer_of(task)
        if task.family in ("follow", "cheapest")
        else rng.choice(["ok", "bought it", "all done!", *AT_EASE])
    )


@KINDS.right("misspells an item, reads the error, corrects itself")
def _misspelt(task: Task, rng: random.Random) -> Expert:
    tool, arguments = (buys_of(task) if task.family == "buy" else reads_of(task))[0]
    yield turn("", call=(tool, {**arguments, "item": arguments["item"] + "s"}))
    yield from expert(task, rng)


@KINDS.right("breaks the schema first, then does it right")
def _bad_schema(task: Task, rng: random.Random) -> Expert:
    tool = "buy" if task.family == "buy" else reads_of(task)[0][0]
    yield turn("", call=(tool, {"name": "?"}))
    yield from expert(task, rng)


@KINDS.right("takes the items in another order", "cheapest", "buy", from_level=2)
def _other_order(task: Task, rng: random.Random) -> Expert:
    calls = reads_of(task) if task.family == "cheapest" else buys_of(task)
    rng.shuffle(calls)
    return _plays(calls, _last_words(task, rng))


@KINDS.right("several calls in one message", "cheapest", "buy")
def _parallel(task: Task, rng: random.Random) -> Expert:
    yield several(reads_of(task) if task.family == "cheapest" else buys_of(task))
    yield turn("end", content=_last_words(task, rng))


@KINDS.right("looks twice", "condition", "cheapest")
def _twice(task: Task, rng: random.Random) -> Expert:
    return _plays([work_of(task)[0], *work_of(task)], _last_words(task, rng))


# Played apart from the others: the shop's verifier refuses it, and says so. A chain of records counts only when each
# record is read once and in order, because a second look cannot be told from a slip that came right.
LOOKS_TWICE = Kind("looks at a record twice", True, ("follow",), _twice)


@KINDS.right("looks at one more stock than it must", "condition")
def _looks_around(task: Task, rng: random.Random) -> Expert:
    other = task.data["choices"][rng.randrange(2)][0]
    return _plays([("stock", {"item": other}), *work_of(task)], _last_words(task, rng))


@KINDS.right("buys in two parts", "buy", "condition")
def _in_parts(task: Task, rng: random.Random) -> Expert:
    calls = buys_of(task)
    tool, arguments = calls[0]
    if arguments["count"] > 1:
        calls[:1] = [
            (tool, {**arguments, "count": arguments["count"] - 1}),
            (tool, {**arguments, "count": 1}),
        ]
    return _plays(calls if task.family == "buy" else [*reads_of(task), *calls], _last_words(task, rng))


@KINDS.right("the answer in quotes, or with a full stop", "follow", "cheapest")
def _quoted(task: Task, rng: random.Random) -> Expert:
    words = rng.choice(['"{}"', "{}.", '"{}".', " {} "])
    return _plays(reads_of(task), words.format(answer_of(task)))


# -- wrong, though it looks right ----------------------------------------------------------------------


@KINDS.wrong("says the right words and does nothing")
def _only_words(task: Task, rng: random.Random) -> Expert:
    yield turn("end", content=answer_of(task))


@KINDS.wrong("knows the answer after half of the looking", "follow", "cheapest", from_level=2)
def _half_the_work(task: Task, rng: random.Random) -> Expert:
    reads = reads_of(task)
    return _plays(reads[: rng.randrange(1, len(reads))], answer_of(task))


@KINDS.wrong("looks with a tool that is not there", "follow", "cheapest", "condition")
def _undeclared_tool(task: Task, rng: random.Random) -> Expert:
    for _, arguments in reads_of(task):
        yield turn("look", call=("look_up", arguments))
    for call in buys_of(task):
        yield turn("", call=call)
    yield turn("end", content=answer_of(task))


@KINDS.wrong("does the looking and answers another item", "follow", "cheapest", from_level=2)
def _answers_another(task: Task, rng: random.Random) -> Expert:
    items = []
    for tool, arguments in reads_of(task):
        yield turn("on", call=(tool, arguments))
        items.append(arguments["item"])
    yield turn("end", content=rng.choice([item for item in items if item != answer_of(task)]))


@KINDS.wrong("buys the right thing without looking", "condition")
def _lucky_branch(task: Task, rng: random.Random) -> Expert:
    yield turn("", call=buys_of(task)[0])
    yield turn("end", content="done")


@KINDS.wrong("looks at another stock, then buys the right thing", "condition")
def _looks_elsewhere(task: Task, rng: random.Random) -> Expert:
    [[item, _]] = task.data["bought"]
    yield turn("stock", call=("stock", {"item": item}))
    yield turn("", call=buys_of(task)[0])
    yield turn("end", content="done")


@KINDS.wrong("buys the right thing, then looks", "condition")
def _looks_afterwards(task: Task, rng: random.Random) -> Expert:
    yield turn("", call=buys_of(task)[0])
    yield turn("stock", call=reads_of(task)[0])
    yield turn("end", content="done")


@KINDS.wrong("buys both, to be safe", "condition")
def _both_branches(task: Task, rng: random.Random) -> Expert:
    yield turn("stock", call=reads_of(task)[0])
    for item, count in task.data["choices"]:
        yield turn("", call=("buy", {"item": item, "count": count}))
    yield turn("end", content="done")


@KINDS.wrong("the right words over the wrong orders", "condition", "buy")
def _wrong_orders(task: Task, rng: random.Random) -> Expert:
    if task.family == "condition":
        yield turn("stock", call=reads_of(task)[0])
    orders = [list(order) for order in task.data["bought"]]
    at = rng.randrange(len(orders))
    item, count = orders[at]
    orders[at : at + 1] = rng.choice(
        [
            [],
            [[item, count - 1 or 2]],
            [[item, count], [item, 1]] if count < 9 else [[item, 8]],  # there are nine of each
            [[item, count % 9 + 1]],
        ]
    )
    for item, count in orders:
        yield turn("", call=("buy", {"item": item, "count": count}))
    yield turn("end", content="done")


@KINDS.wrong("tries again and again before it does the work")
def _never_ends(task: Task, rng: random.Random) -> Expert:
    tool = buys_of(task)[0][0] if buys_of(task) else reads_of(task)[0][0]
    for _ in range(most_calls(2 if task.family == "condition" else task.level)):
        yield turn("on", call=(tool, {"item": "nothing of ours", "count": 1}))
    yield from expert(task, rng)


@KINDS.wrong("says that it is done, then does it")
def _claims_first(task: Task, rng: random.Random) -> Expert:
    for step in (answer_of(task), *work_of(task), answer_of(task)):
        yield turn("", content=step) if isinstance(step, str) else turn("", call=step)


@KINDS.wrong("a call behind the answer")
def _call_at_the_end(task: Task, rng: random.Random) -> Expert:
    yield from expert(task, rng)
    yield turn("", call=rng.choice([work_of(task)[-1], ("stock", {"item": "nothing of ours"})]))


@KINDS.wrong("buys one too many, fails to give it back, and claims it", "condition", "buy")
def _undone(task: Task, rng: random.Random) -> Expert:
    calls = work_of(task)
    tool, arguments = calls[-1]
    if arguments["count"] == 9:  # there are no more of it: one too few
        calls[-1] = tool, {**arguments, "count": 8}
    more = [(tool, {**arguments, "count": 1})] if arguments["count"] < 9 else []
    back = [rng.choice([(tool, {**arguments, "count": -1}), ("return", arguments)])]
    return _plays([*calls, *more, *back], "done")


@KINDS.wrong("refuses what could be done")
def _refuses(task: Task, rng: random.Random) -> Expert:
    looks = reads_of(task)[:1] if task.family != "buy" and rng.random() < 0.5 else []
    return _plays(looks, rng.choice(REFUSALS))


@KINDS.wrong("does it, then says that it could not")
def _denies(task: Task, rng: random.Random) -> Expert:
    return _plays(work_of(task), rng.choice(REFUSALS))


@KINDS.wrong("lists every item that it may be", "follow", "cheapest", from_level=2)
def _lists(task: Task, rng: random.Random) -> Expert:
    items = [arguments["item"] for _, arguments in reads_of(task)]
    return _plays(work_of(task), rng.choice([", ", " or ", " "]).join(items))


@KINDS.wrong("an invented item", "follow", "cheapest")
def _invents(task: Task, rng: random.Random) -> Expert:
    right = answer_of(task)
    return _plays(work_of(task), rng.choice(["purple cow", f"{right} x", right[:-1], f"new {right}"]))


# -- verifiers that are not good enough ----------------------------------------------------------------


def reads_words(task: Task, messages: list[Message], environment: Environment) -> bool:
    """Accepts any last words of the usual form: an item of the shop, done."""
    return final_answer(messages) in {"done", *(row[0] for row in task.data["rows"])}


def ignores_work(task: Task, messages: list[Message], environment: Environment) -> bool:
    """Right answer or right orders, whether or not anything was looked at."""
    if "bought" in task.data:
        orders = environment.state.execute("SELECT item, count FROM orders")
        return sorted(map(list, orders)) == sorted(task.data["bought"])
    return final_answer(messages) == answer_of(task)


def ignores_state(task: Task, messages: list[Message], environment: Environment) -> bool:
    """Goes by what was called: each purchase was attempted with the right arguments."""
    if "bought" not in task.data:
        return ignores_work(task, messages, environment)
    calls = [call["function"] for message in messages for call in message.get("tool_calls") or []]
    tried = [json.loads(call["arguments"]) for call in calls if call["name"] == "buy"]
    return all(arguments in tried for _, arguments in buys_of(task))


SHORTCUTS = {"reads words": reads_words, "ignores the state": ignores_state, "ignores the work": ignores_work}
