"""A database that can be asked and not changed, and what a question asks of it.

`Database.sql` is the tool: one SELECT, a few rows, so many steps of sqlite's machine; whatever else is refused in one
line. It records what was read and returned, so that a verifier can tell an answer that was looked up from a guess. The
same query is put to other rows as well: a value that is the same there was written into the query by whoever asked.

A question is plain data: {what, column, tables, key, where}, with column a [table, column] or None, key {table: column}
that joins the tables or None, and where a list of [table, column, above | below | is, value]. `right_answer` works it
out from the rows, `query_of` writes it as SQL: neither knows the other.
"""

from __future__ import annotations

import itertools
import json
import operator
import random
import sqlite3
from typing import NamedTuple

from kimi_mini.worlds.tools import MAX_CONTENT, ToolError

SHIFT = 500  # of a number in the other rows
MOST_ROWS = 20  # that a query may return
STEPS, TICK = 1_000_000, 1000  # of sqlite's machine: as many a query may take, as many between two looks
FUNCTIONS = set("count sum total avg min max abs round length lower upper coalesce ifnull like".split())
READS = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION}


class Told(NamedTuple):
    """A query that worked: the (table, column) it read, the rows that it returned, and those that it returns from
    tables in which every value is another."""

    read: set[tuple[str, str]]
    rows: list[tuple]
    elsewhere: list[tuple]


def other_rows(rows: list[list]) -> list[list]:
    """As many rows in the same order, and no value as it was; what was equal stays equal."""
    return [[value + SHIFT if isinstance(value, int) else f"{value}x" for value in row] for row in rows]


class Database:
    """Tables in memory behind the tool `sql`. `told`: the queries that worked, in order."""

    def __init__(self, tables: dict[str, dict]):
        self.told: list[Told] = []
        self._reading: set[tuple[str, str]] = set()
        self._ticks = 0
        self.db = self._opened(tables)
        self.other = self._opened({n: {**t, "rows": other_rows(t["rows"])} for n, t in tables.items()})

    def _opened(self, tables: dict[str, dict]) -> sqlite3.Connection:
        db = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        for name, table in tables.items():
            kinds = ["INT" if isinstance(value, int) else "TEXT" for value in table["rows"][0]]
            columns = ", ".join(f"{column} {kind}" for column, kind in zip(table["columns"], kinds))
            db.execute(f"CREATE TABLE {name} ({columns})")
            places = ", ".join("?" * len(kinds))
            db.executemany(f"INSERT INTO {name} VALUES ({places})", table["rows"])
        db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 10_000)
        db.set_authorizer(self._allow)
        db.set_progress_handler(self._tick, TICK)
        return db

    def _allow(self, action: int, first: str | None, second: str | None, *_: str | None) -> int:
        if action == sqlite3.SQLITE_READ:
            self._reading.add((first, second))
        allowed = action in READS and (action != sqlite3.SQLITE_FUNCTION or second in FUNCTIONS)
        return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY

    def _tick(self) -> bool:
        self._ticks += 1
        return self._ticks * TICK > STEPS  # true: sqlite gives up

    def sql(self, query: str) -> str:
        """The rows of one SELECT as JSON. Raises ToolError, in one line, for whatever else is asked."""
        if not query.lstrip().lower().startswith("select"):
            raise ToolError("only a SELECT can be run here")
        self._reading = set()
        try:
            rows = self._run(self.db, query)
            text = json.dumps(rows, separators=(",", ":"), allow_nan=False)
        except (sqlite3.Error, sqlite3.Warning, TypeError, ValueError) as error:
            raise ToolError(" ".join(str(error).split())) from None
        if len(rows) > MOST_ROWS:
            raise ToolError(f"more than {MOST_ROWS} rows: ask for fewer")
        if len(text) > MAX_CONTENT:  # a result that is cut off does not show what it ends with
            raise ToolError(f"more than {MAX_CONTENT} characters: ask for less")
        read = self._reading
        try:
            elsewhere = self._run(self.other, query)
        except (sqlite3.Error, sqlite3.Warning, ValueError):  # it may be too much work there
            elsewhere = []
        self.told.append(Told(read, rows, elsewhere))
        return text

    def _run(self, db: sqlite3.Connection, query: str) -> list[tuple]:
        self._ticks = 0
        return db.execute(query).fetchmany(MOST_ROWS + 1)

    def close(self) -> None:
        """Close the connections."""
        self.db.close()
        self.other.close()


# -- questions -----------------------------------------------------------------------------------------

COMPARE = {"above": operator.gt, "below": operator.lt, "is": operator.eq}
SIGN = {"above": ">", "below": "<", "is": "="}
WHAT = {"count": "count(*)", "sum": "sum({})", "largest": "max({})", "which": "{}"}


def asked(ask: dict) -> set[tuple[str, str]]:
    """(table, column) of everything that has to be read to know the answer."""
    columns = {(table, column) for table, column, *_ in ask["where"]}
    if ask["column"]:
        columns.add(tuple(ask["column"]))
    if ask["key"]:
        columns |= set(ask["key"].items())
    return columns


def established(tables: dict[str, dict], ask: dict, told: list[Told]) -> bool:
    """Do the results show the right answer: as a value, a number of rows, a sum or a largest of one of them, or in all
    the rows of every table asked about? What other rows would show as well, shows nothing."""
    answer = right_answer(tables, ask)
    for _, rows, elsewhere in told:
        shown, anyway = _shown(rows), _shown(elsewhere)
        if any(said == answer and anyway.get(place) != said for place, said in shown.items()):
            return True
    return all(any(_all_of(tables, ask, name, one.rows) for one in told) for name in ask["tables"])


def _shown(rows: list[tuple]) -> dict[object, str]:
    """What can be read off a result, by its place there."""
    found: dict[object, str] = {"rows": str(len(rows))}
    for number, column in enumerate(zip(*rows)):
        found |= {(number, place): str(value) for place, value in enumerate(column)}
        if whole := [value for value in column if isinstance(value, int)]:
            found |= {(number, "sum"): str(sum(whole)), (number, "largest"): str(max(whole))}
    return found


def _all_of(tables: dict[str, dict], ask: dict, name: str, rows: list[tuple]) -> bool:
    """Whether a result shows every value of each column of a table that matters."""
    columns, own = [sorted(map(str, column)) for column in zip(*rows)], tables[name]["columns"]
    wanted = [own.index(column) for table, column in asked(ask) if table == name]
    return all(sorted(str(row[at]) for row in tables[name]["rows"]) in columns for at in wanted)


def matching(tables: dict[str, dict], ask: dict) -> list[dict]:
    """The rows of the asked tables that belong together and meet every condition: (table, column) -> value."""
    each = [
        [{(name, column): value for column, value in zip(tables[name]["columns"], row)} for row in rows]
        for name, rows in ((name, tables[name]["rows"]) for name in ask["tables"])
    ]
    found = []
    for parts in itertools.product(*each):
        row = {place: value for part in parts for place, value in part.items()}
        together = not ask["key"] or len({row[place] for place in ask["key"].items()}) == 1
        if together and all(
            COMPARE[how](row[name, column], value) for name, column, how, value in ask["where"]
        ):
            found.append(row)
    return found


def right_answer(tables: dict[str, dict], ask: dict) -> str | None:
    """What the rows say; None where they say nothing, or more than one thing."""
    rows = matching(tables, ask)
    values = [row[tuple(ask["column"])] for row in rows] if ask["column"] else rows
    if not values or (ask["what"] == "which" and len(values) > 1):
        return None
    return str(
        {"count": len, "sum": sum, "largest": max, "which": lambda found: found[0]}[ask["what"]](values)
    )


def query_of(ask: dict) -> str:
    """The question as SQL; columns are named with their tables where there are several."""
    first, *others = ask["tables"]

    def place(table: str, column: str) -> str:
        return f"{table}.{column}" if others else column

    what = WHAT[ask["what"]].format(place(*ask["column"]) if ask["column"] else "")
    joined = f" JOIN {others[0]} ON {joins(ask)}" if others else ""
    where = " AND ".join(
        f"{place(table, column)} {SIGN[how]} {_quoted(value)}" for table, column, how, value in ask["where"]
    )
    return f"SELECT {what} FROM {first}{joined}" + (f" WHERE {where}" if where else "")


def joins(ask: dict) -> str:
    """The two columns that belong together, as SQL and as the prompt says it."""
    return " = ".join(map(".".join, ask["key"].items()))


def _quoted(value: int | str) -> str:
    return f"'{value}'" if isinstance(value, str) else str(value)


def another(rng: random.Random, tables: dict[str, dict], ask: dict) -> dict:
    """A question much like this one with another answer: a condition turned round, its number changed, or left out."""
    at = rng.randrange(len(ask["where"]))
    table, column, how, value = ask["where"][at]
    turned = {"above": "below", "below": "above"}.get(how)
    changed = [[table, column, turned, value]] if turned else []
    shifted = [[table, column, how, value + by] for by in (-10, 10)] if turned else []
    for new in rng.sample(changed + shifted, len(changed + shifted)):
        other = {**ask, "where": [*ask["where"][:at], new, *ask["where"][at + 1 :]]}
        if right_answer(tables, other) not in (None, right_answer(tables, ask)):
            return other
    return {**ask, "where": ask["where"][:at] + ask["where"][at + 1 :]}
