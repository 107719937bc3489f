"""World `shop`: an sqlite database per task, and tools that read and change it.

Families
    follow      start at an item and follow `next` until it is null; answer the last item (level: calls)
    condition   look at a stock, then buy one thing or another (level: digits of the numbers)
    cheapest    ask the price of each listed item, answer the cheapest (level: items)
    buy         buy each item of a list in the right number (level: items)

Every family can be made as long as one likes: 300 calls are a `follow` of level 300.
"""

from __future__ import annotations

import json
import random
import re

from kimi_mini.base.denials import gives_up
from kimi_mini.worlds.base import (
    Environment,
    Expert,
    Message,
    Sheet,
    Task,
    Verdict,
    answers_early,
    final_answer,
    labels,
    most_calls,
    plain,
    turn,
)
from kimi_mini.worlds.registry import Family, World, register
from kimi_mini.worlds.rows import MANAGED, Limits, Row
from kimi_mini.worlds.shop.adversary import KINDS, SHORTCUTS
from kimi_mini.worlds.shop.database import COLOURS, DEMO, GOODS, NEEDED, names, open_database, recital, tool
from kimi_mini.worlds.tools import Toolbox

# -- tasks ---------------------------------------------------------------------------------------------


def generate(rng: random.Random, family: str, level: int) -> Task:
    """A task of `family` with `level` calls, digits or items, and the table it is about."""
    make = {"follow": _follow, "condition": _condition, "cheapest": _cheapest, "buy": _buy}[family]
    prompt, goal, rows = make(rng, level)
    rng.shuffle(rows)
    return Task("shop", family, level, prompt, {**goal, "rows": rows})


def _row(name: str, price: int = 10, stock: int = 9, following: str | None = None) -> list:
    return [name, price, stock, following]


def _follow(rng: random.Random, level: int):
    path, others = names(rng, level + 2)[:level], names(rng, 3)
    others = [name for name in others if name not in path]
    rows = [_row(name, following=after) for name, after in zip(path, path[1:] + [None])]
    rows += [_row(name, following=rng.choice(path)) for name in others]
    return f'Follow next from "{path[0]}" until null. Which item is last?', {"path": path}, rows


def _condition(rng: random.Random, level: int):
    asked, low, high = names(rng, 3)
    top = 10**level
    limit, stock = rng.randrange(1, top), rng.randrange(top)
    few, many = rng.randrange(1, 10), rng.randrange(1, 10)
    bought = [low, few] if stock < limit else [high, many]
    rows = [_row(asked, stock=stock), _row(low), _row(high)]
    prompt = f'If the stock of "{asked}" is below {limit}, buy {few} "{low}", else buy {many} "{high}".'
    goal = {"asked": asked, "limit": limit, "choices": [[low, few], [high, many]], "bought": [bought]}
    return prompt, goal, rows


def _listed(rng: random.Random, entries: list[str]) -> tuple[str, list[str]]:
    marks = labels(rng, len(entries))
    return ", ".join(f"{mark} {entry}" for mark, entry in zip(marks, entries)) + ", end", marks


def _cheapest(rng: random.Random, level: int):
    items = names(rng, level)
    prices = rng.sample(range(10, 100), level)
    text, marks = _listed(rng, [f'"{name}"' for name in items])
    rows = [_row(name, price=price) for name, price in zip(items, prices)]
    goal = {"items": items, "marks": marks, "answer": items[prices.index(min(prices))]}
    return f"Which is cheapest: {text}?", goal, rows


def _buy(rng: random.Random, level: int):
    items = names(rng, level)
    counts = [rng.randrange(1, 10) for _ in items]
    text, marks = _listed(rng, [f'{count} "{name}"' for name, count in zip(items, counts)])
    goal = {"marks": marks, "bought": [list(pair) for pair in zip(items, counts)]}
    return f"Buy {text}.", goal, [_row(name) for name in items]


# -- the environment --------------------------------------------------------------------------------


def open_environment(task: Task) -> Environment:
    """A fresh database with the task's rows, and the tools of its family over it."""
    db = open_database(task.data["rows"])
    return Environment(Toolbox([tool(name, db) for name in NEEDED[task.family]]), db)


# -- the expert ----------------------------------------------------------------------------------------


def expert(task: Task, rng: random.Random, mistake: str | None = None) -> Expert:
    """A scripted customer. `mistake="slip"` takes one wrong step (wrong item, count, branch or comparison);
    `mistake="lazy"` stops before the work is done."""
    play = dict(follow=_play_follow, condition=_play_condition, cheapest=_play_cheapest, buy=_play_buy)
    return play[task.family](task, rng, mistake)


def compared(left: int, right: int, below: bool) -> str:
    """How a thought writes a comparison down: both numbers first, then the decision."""
    return f"{left} below {right} {'yes' if below else 'no'}"


BELOW = re.compile(r"(\d+) below (\d+) (yes|no)")


def false_comparisons(thought: str) -> list[str]:
    """The comparisons in a thought that are not true."""
    return [m[0] for m in BELOW.finditer(thought) if (int(m[1]) < int(m[2])) != (m[3] == "yes")]


def comparison_sheet(rng: random.Random) -> Sheet:
    """Comparisons of two numbers, half of them close calls."""
    pieces: Sheet = []
    for _ in range(14):
        top = rng.choice((10, 100))
        left = rng.randrange(top)
        right = (
            rng.randrange(top) if rng.random() < 0.5 else min(max(left + rng.randrange(-4, 5), 0), top - 1)
        )
        question, _, decision = compared(left, right, left < right).rpartition(" ")
        pieces += [(f" {question}", False), (f" {decision}", True)]
    return pieces


def _wrong_name(task: Task, rng: random.Random, right: str) -> str:
    others = [row[0] for row in task.data["rows"] if row[0] != right]
    return rng.choice(others or names(rng, 1))


def _play_follow(task: Task, rng: random.Random, mistake: str | None) -> Expert:
    item, calls = task.data["path"][0], 0
    slip = rng.randrange(task.level) if mistake else None
    while True:
        if mistake == "lazy" and calls == max(1, slip):
            break
        if calls == slip and mistake == "slip":
            item = _wrong_name(task, rng, item)
        result = yield turn("on", call=("next", {"item": item}))
        calls += 1
        following = json.loads(result).get("next") if result.startswith("{") else None
        if following is None or calls > 2 * task.level + 2:
            break
        item = following
    yield turn("end", content=item)


def _play_condition(task: Task, rng: random.Random, mistake: str | None) -> Expert:
    limit, choices = task.data["limit"], task.data["choices"]
    result = yield turn("stock", call=("stock", {"item": task.data["asked"]}))
    stock = json.loads(result)["stock"]
    below = (stock < limit) != (mistake == "slip")
    item, count = choices[0] if below else choices[1]
    if mistake != "lazy":
        yield turn(
            f'{compared(stock, limit, below)} {count} "{item}"', call=("buy", {"item": item, "count": count})
        )
    yield turn("end", content="done")


def _play_buy(task: Task, rng: random.Random, mistake: str | None) -> Expert:
    marks = [*task.data["marks"], "end"]
    slip = rng.randrange(task.level) if mistake else None
    for index, (item, count) in enumerate(task.data["bought"]):
        if index == slip:
            if mistake == "lazy":
                break
            if rng.random() < 0.5:
                count = count % 9 + 1
            else:
                item = _wrong_name(task, rng, item)
        thought = f'{marks[index]} {count} "{item}" {marks[index + 1]}'
        yield turn(thought, call=("buy", {"item": item, "count": count}))
    yield turn("end", content="done")


def _play_cheapest(task: Task, rng: random.Random, mistake: str | None) -> Expert:
    items, marks = task.data["items"], [*task.data["marks"], "end"]
    slip = rng.randrange(1, task.level) if mistake else None
    best, known = "", None
    note = ""
    for index, item in enumerate(items):
        if index == slip and mistake == "lazy":
            break
        result = yield turn(
            f'{note}{marks[index]} "{item}" {marks[index + 1]}', call=("price", {"item": item})
        )
        price = json.loads(result)["price"]
        lower = known is None or (price < known) != (index == slip)
        sign = "" if known is None else f"{compared(price, known, lower)} "
        if lower:
            best, known = item, price
        note = f'{sign}best "{best}" {known} '
    yield turn(f"{note}end", content=best)


# -- the verifier --------------------------------------------------------------------------------------


def verify(task: Task, messages: list[Message], environment: Environment) -> Verdict:
    """Right answer and right final state, reached by looking, in reasonable time.

    Buying counts by the orders in the database, whatever is said, unless it is denied; an answer or a decision counts
    only if the reads in the database establish it: every price read, the chain followed link by link and each link once
    (a second look cannot be told from a slip that came right), the stock read before anything is bought (a lucky guess
    is not a skill). Nor is trying everything a skill."""
    answer, db = final_answer(messages), environment.state
    if not answer or answers_early(messages):
        return Verdict(False, "no answer, or it went on behind it")
    orders = sorted(map(list, db.execute("SELECT item, SUM(count) FROM orders GROUP BY item")))
    wanted = sorted(map(list, task.data.get("bought", [])))
    if orders != wanted:
        return Verdict(False, f"orders {orders}, wanted {wanted}")
    calls = sum(message.get("role") == "tool" for message in messages)
    most = most_calls(2 if task.family == "condition" else task.level)
    if calls > most:
        return Verdict(False, f"{calls} calls, where {most} are plenty")
    reads = db.execute("SELECT item, field, orders FROM reads ORDER BY rowid").fetchall()
    if not _established(task, reads):
        read = [item for item, *_ in reads][:4]
        return Verdict(False, f"read {read}..., which does not establish the answer")
    if task.family in ("condition", "buy"):
        return Verdict(not gives_up(answer), f"orders {orders}, and said {answer[:40]!r}")
    right = task.data["path"][-1] if task.family == "follow" else task.data["answer"]
    return Verdict(plain(answer) == right, f"answered {answer[:40]!r}, right is {right!r}")


def _established(task: Task, reads: list[tuple[str, str, int]]) -> bool:
    """Do the reads (item, field, orders before it) show what the task asks for? Calls that failed read nothing."""
    if task.family == "follow":
        return [item for item, field, _ in reads if field == "next"] == task.data["path"]
    if task.family == "cheapest":
        return {item for item, field, _ in reads if field == "price"} >= set(task.data["items"])
    if task.family == "condition":
        return (task.data["asked"], "stock", 0) in reads
    return True  # what was bought says it all


# -- what the others have to know ----------------------------------------------------------------------

FAMILIES = {  # a chain of one record shows one of 1,024 names, and training has seen a third of them: not measured
    "follow": Family(range(1, 6), dict(think=0.02, reflex=0.007, window=0.03), range(2, 6), range(3, 7)),
    "condition": Family(range(1, 3), dict(think=0.06, reflex=0.007, sheet=0.03), sheet=comparison_sheet),
    "cheapest": Family(range(2, 6), dict(think=0.16)),
    "buy": Family(range(1, 5), dict(think=0.05, reflex=0.01, window=0.01), windows=range(4, 7)),
}

FULL = Limits(turn_tokens=48, turns=104, context=4600)  # a right answer takes 4,200 tokens
LONG = "100 calls in a row with old calls and results hidden"
ROWS = (
    Row("shop/follow", "follow", floor=0.97, says="tool calls: follow a chain of records"),
    Row("shop/condition", "condition", floor=0.97, says="tool calls: act on a condition"),
    Row("shop/cheapest", "cheapest", floor=0.97, says="tool calls: find the cheapest of up to five"),
    Row("shop/buy", "buy", floor=0.97, says="tool calls: buy up to four items"),
    Row("shop/follow_100_managed", "follow", (100,), MANAGED, floor=0.97, says=LONG),
    Row("shop/follow_100_full", "follow", (100,), FULL, says="100 calls in a row, all of them kept"),
    Row("shop/follow_300_managed", "follow", (300,), MANAGED, share=0.1, says="300 calls, old ones hidden"),
    Row("shop/follow_practised/8", "follow", (8,), main=False, before_rl=True, says="tried in RL alone"),
    Row("shop/follow_beyond/12", "follow", (12,), main=False, before_rl=True, says="tried nowhere"),
    Row("shop/cheapest_beyond/6", "cheapest", (6,), main=False, says="more items than were trained"),
    Row("shop/buy_beyond/5", "buy", (5,), main=False, says="more items than were trained"),
)

register(
    World(
        "shop",
        generate,
        open_environment,
        expert,
        verify,
        FAMILIES,
        ROWS,
        KINDS,
        bare=True,
        colour="#009E73",
        words=(*COLOURS, *(f" {good}" for good in GOODS)),
        recital=recital,
        shortcuts=SHORTCUTS,
        false_statements=lambda task, thought: false_comparisons(thought),
        demo=DEMO,
    )
)
