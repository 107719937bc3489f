"""What world `shop` sells, the database it stands in, and the tools that read and change it.

Each tool is a function over an open sqlite connection. Reads are recorded, so that a verifier can tell whether an
answer was looked up or guessed.
"""

from __future__ import annotations

import json
import random
import sqlite3

from kimi_mini.worlds.base import Environment, Task, needs
from kimi_mini.worlds.registry import Demo
from kimi_mini.worlds.tools import Tool, ToolError

COLOURS = (
    "red blue green black white brown pink grey gold pale dark light old new big small "
    "long thin flat round soft hard warm cold dry wet raw ripe sweet sour plain fresh"
).split()
GOODS = (
    "fig pear plum lime kiwi nut bean corn rice salt oil tea cup pot pan bowl "
    "jar box bag hat coat shoe belt ring lamp desk chair book pen key rope nail"
).split()


def names(rng: random.Random, count: int) -> list[str]:
    """`count` different item names out of 1,024, each a colour and a good."""
    picked = rng.sample(range(len(COLOURS) * len(GOODS)), count)
    return [f"{COLOURS[i // len(GOODS)]} {GOODS[i % len(GOODS)]}" for i in picked]


def recital(rng: random.Random) -> str:
    """Every colour and every good once, as they stand in a name."""
    colours, goods = rng.sample(COLOURS, len(COLOURS)), rng.sample(GOODS, len(GOODS))
    return " ".join(f'"{colour} {good}"' for colour, good in zip(colours, goods))


class ShopError(ToolError):
    """What a clerk would say: no such item, not enough of it. The model reads this text."""


def open_database(rows: list[list]) -> sqlite3.Connection:
    """An in-memory database: `items`, `orders`, and `reads`: each answer given out, after how many orders."""
    db = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
    db.execute("CREATE TABLE items (name TEXT PRIMARY KEY, price INT, stock INT, next TEXT)")
    db.execute("CREATE TABLE orders (item TEXT, count INT)")
    db.execute("CREATE TABLE reads (item TEXT, field TEXT, orders INT)")
    db.executemany("INSERT INTO items VALUES (?, ?, ?, ?)", rows)
    return db


def _read(db: sqlite3.Connection, item: str, column: str):
    row = db.execute(f"SELECT {column} FROM items WHERE name = ?", (item,)).fetchone()
    if row is None:
        raise ShopError(f"no item {item}")
    return row[0]


def _reader(db: sqlite3.Connection, column: str):
    def read(item: str) -> str:
        value = _read(db, item, column)
        db.execute("INSERT INTO reads VALUES (?, ?, (SELECT COUNT(*) FROM orders))", (item, column))
        return json.dumps({column: value}, separators=(",", ":"))

    return read


def _buyer(db: sqlite3.Connection):
    def buy(item: str, count: int) -> str:
        left = _read(db, item, "stock") - count
        if left < 0:
            raise ShopError(f"only {left + count} {item} left")
        db.execute("UPDATE items SET stock = ? WHERE name = ?", (left, item))
        db.execute("INSERT INTO orders VALUES (?, ?)", (item, count))
        return '{"ok":true}'

    return buy


ITEM = {"type": "string"}
COUNT = {"type": "integer", "minimum": 1}
TOOLS = {  # name -> (schema, function of the open database); a task declares only what its family needs
    "next": (needs(item=ITEM), lambda db: _reader(db, "next")),
    "stock": (needs(item=ITEM), lambda db: _reader(db, "stock")),
    "price": (needs(item=ITEM), lambda db: _reader(db, "price")),
    "buy": (needs(item=ITEM, count=COUNT), _buyer),
}


NEEDED = {"follow": ["next"], "condition": ["stock", "buy"], "cheapest": ["price"], "buy": ["buy"]}


def tool(name: str, db: sqlite3.Connection) -> Tool:
    """The tool of that name over `db`."""
    schema, make = TOOLS[name]
    return Tool(name, "", schema, make(db))


# -- for the terminal ----------------------------------------------------------------------------------

# name, price, stock, next: small enough to check an agent by eye
DEMO_ROWS = [
    ["red fig", 14, 9, "old lamp"],
    ["blue tea", 35, 4, "red fig"],
    ["old lamp", 72, 9, "dark rope"],
    ["dark rope", 21, 7, "sweet pear"],
    ["sweet pear", 18, 9, None],
    ["gold ring", 96, 2, "blue tea"],
]
FIRST_WORDS = {"follow": "follow", "if": "condition", "which": "cheapest", "buy": "buy"}


def own_task(words: str) -> Task | None:
    """A task about the demo shop, told apart by its first word."""
    family = FIRST_WORDS.get(words.split()[0].lower())
    return family and Task("shop", family, 1, words, {"rows": DEMO_ROWS})


def orders_left(task: Task, environment: Environment) -> str:
    """What was bought."""
    if "buy" not in NEEDED[task.family]:
        return ""
    orders = environment.state.execute("SELECT count, item FROM orders").fetchall()
    return "orders in the shop: " + (", ".join(f"{count} {item}" for count, item in orders) or "none")


DEMO = Demo(
    own_task,
    examples=(
        'Follow next from "gold ring" until null. Which item is last?',
        'If the stock of "dark rope" is below 8, buy 2 "red fig", else buy 3 "blue tea".',
        'Which is cheapest: k "old lamp", l "dark rope", m "blue tea", end?',
        'Buy f 2 "red fig", g 1 "gold ring", end.',
    ),
    place="\n".join(
        f"{name:<12}{price:>6}{stock:>7}  {following or 'null'}"
        for name, price, stock, following in [["item", "price", "stock", "next"], *DEMO_ROWS]
    ),
    left=orders_left,
)
