"""The database behind world ``shop``, and the tools that read and change it.

Each tool is a function over an open sqlite connection. Reads are recorded, so that a verifier can tell whether an
answer was looked up or guessed.
"""

from __future__ import annotations

import json
import sqlite3

from kimi_mini.worlds.tools.toolbox import Tool, ToolError


class ShopError(ToolError):
    """What a clerk would say: no such item, not enough of it. The model reads this text."""


def open_database(rows: list[list]) -> sqlite3.Connection:
    """An in-memory database: ``items``, ``orders``, and ``reads``: each answer given out, after how many orders."""
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


def _schema(**properties: dict) -> dict:
    return {"type": "object", "properties": properties, "required": list(properties)}


ITEM = {"type": "string"}
COUNT = {"type": "integer", "minimum": 1}
TOOLS = {  # name -> (schema, function of the open database); a task declares only what it needs
    "next": (_schema(item=ITEM), lambda db: _reader(db, "next")),
    "stock": (_schema(item=ITEM), lambda db: _reader(db, "stock")),
    "price": (_schema(item=ITEM), lambda db: _reader(db, "price")),
    "buy": (_schema(item=ITEM, count=COUNT), _buyer),
}


def tool(name: str, db: sqlite3.Connection) -> Tool:
    """The tool of that name over ``db``."""
    schema, make = TOOLS[name]
    return Tool(name, "", schema, make(db))
