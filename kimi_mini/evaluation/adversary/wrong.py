"""Wrong trajectories of the chain and the shop that look right."""

from __future__ import annotations

import random

from kimi_mini.evaluation.adversary.base import CHAIN, SHOP, answer_of, buys_of, expert, reads_of, wrong
from kimi_mini.worlds import Task, chain
from kimi_mini.worlds.base import Expert, most_calls, turn


@wrong("works it out and answers another number", *CHAIN)
def _copies_wrongly(task: Task, rng: random.Random) -> Expert:
    message = next(expert(task, rng))
    yield {**message, "content": str(_near(task, rng))}


def _near(task: Task, rng: random.Random) -> int:
    """A number like the right one, but not it."""
    right = task.data["answer"]
    return rng.choice([n for n in (right - 10, right - 1, right + 1, right + 10) if n >= 0])


@wrong("one wrong step, carried on to the end", *CHAIN, *SHOP, "repair")
def _slips(task: Task, rng: random.Random) -> Expert:
    if task.world != "chain":
        yield from expert(task, rng, "slip")
        return
    right = next(expert(task, rng))
    message = right
    while message == right:  # a slip that changes nothing is none
        message = next(expert(task, rng, "slip"))
    yield message


@wrong("stops one step early", *CHAIN, from_level=2)
def _stops_early(task: Task, rng: random.Random) -> Expert:
    if task.family == "chain":
        yield from _shortened(task, task.data["steps"][:-1], rng)
    else:
        message = next(expert(task, rng))
        yield {**message, "content": str(task.data["answer"])[1:]}


@wrong("goes one step too far", *CHAIN)
def _goes_too_far(task: Task, rng: random.Random) -> Expert:
    if task.family == "chain":
        steps = task.data["steps"]
        yield from _shortened(task, [*steps, ["z", "+", rng.randrange(1, 10)]], rng)
    else:
        message = next(expert(task, rng))
        yield {**message, "content": f"1{message['content']}"}


def _shortened(task: Task, steps: list, rng: random.Random) -> Expert:
    other = Task("chain", "chain", len(steps), task.prompt, {**task.data, "steps": steps})
    return chain.expert(other, rng)


@wrong("guesses, without a thought", *CHAIN)
def _guesses(task: Task, rng: random.Random) -> Expert:
    digits = len(str(task.data["answer"]))
    yield turn("", content=str(rng.randrange(100) if task.family == "chain" else rng.randrange(10**digits)))


@wrong("names two numbers, one of them right", *CHAIN)
def _hedges(task: Task, rng: random.Random) -> Expert:
    pair = [str(task.data["answer"]), str(_near(task, rng))]
    rng.shuffle(pair)
    message = next(expert(task, rng))
    yield {**message, "content": rng.choice([" or ", " ", ", "]).join(pair)}


# -- shop: wrong ---------------------------------------------------------------------------------------


@wrong("says the right words and does nothing", *SHOP, "repair")
def _only_words(task: Task, rng: random.Random) -> Expert:
    yield turn("end", content=answer_of(task))


@wrong("knows the answer after half of the looking", "follow", "cheapest", from_level=2)
def _half_the_work(task: Task, rng: random.Random) -> Expert:
    reads = reads_of(task)
    for call in reads[: rng.randrange(1, len(reads))]:
        yield turn("on", call=call)
    yield turn("end", content=answer_of(task))


@wrong("looks with a tool that is not there", "follow", "cheapest", "condition")
def _undeclared_tool(task: Task, rng: random.Random) -> Expert:
    for _, arguments in reads_of(task):
        yield turn("look", call=("look_up", arguments))
    for call in buys_of(task):
        yield turn("", call=call)
    yield turn("end", content=answer_of(task))


@wrong("does the looking and answers another item", "follow", "cheapest", from_level=2)
def _answers_another(task: Task, rng: random.Random) -> Expert:
    items = []
    for tool, arguments in reads_of(task):
        yield turn("on", call=(tool, arguments))
        items.append(arguments["item"])
    yield turn("end", content=rng.choice([item for item in items if item != answer_of(task)]))


@wrong("buys the right thing without looking", "condition")
def _lucky_branch(task: Task, rng: random.Random) -> Expert:
    yield turn("", call=buys_of(task)[0])
    yield turn("end", content="done")


@wrong("looks at another stock, then buys the right thing", "condition")
def _looks_elsewhere(task: Task, rng: random.Random) -> Expert:
    [[item, _]] = task.data["bought"]
    yield turn("stock", call=("stock", {"item": item}))
    yield turn("", call=buys_of(task)[0])
    yield turn("end", content="done")


@wrong("buys the right thing, then looks", "condition")
def _looks_afterwards(task: Task, rng: random.Random) -> Expert:
    yield turn("", call=buys_of(task)[0])
    yield turn("stock", call=reads_of(task)[0])
    yield turn("end", content="done")


@wrong("buys both, to be safe", "condition")
def _both_branches(task: Task, rng: random.Random) -> Expert:
    yield turn("stock", call=reads_of(task)[0])
    for item, count in task.data["choices"]:
        yield turn("", call=("buy", {"item": item, "count": count}))
    yield turn("end", content="done")


@wrong("the right words over the wrong orders", "condition", "buy")
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


@wrong("tries again and again before it does the work", *SHOP)
def _never_ends(task: Task, rng: random.Random) -> Expert:
    tool = buys_of(task)[0][0] if buys_of(task) else reads_of(task)[0][0]
    for _ in range(most_calls(2 if task.family == "condition" else task.level)):
        yield turn("on", call=(tool, {"item": "nothing of ours", "count": 1}))
    yield from expert(task, rng)
