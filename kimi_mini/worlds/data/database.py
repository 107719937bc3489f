"""A database that can be asked and not changed, and what a question asks of it.

`Database.sql` is the tool: one SELECT, a few rows, so many steps of sqlite's machine; whatever else is refused in one
line. It records what was read and returned, so that a verifier can tell an answer that was looked up from a guess.

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

from kimi_mini.worlds.tools import ToolError

MOST_ROWS = 20  # that a query may return
STEPS, TICK = 1_000_000, 1000  # of sqlite's machine: as many a query may take, as many between two looks
FUNCTIONS = set("count sum total avg min max abs round length lower upper coalesce ifnull like".split())
READS = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION}


class Database:
    """Tables in memory behind the tool `sql`. `told`: of each query that worked, the (table, column) it read and the
    rows that it returned."""

    def __init__(self, tables: dict[str, dict]):
        self.db = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        for name, table in tables.items():
            kinds = ["INT" if isinstance(value, int) else "TEXT" for value in table["rows"][0]]
            columns = ", ".join(f"{column} {kind}" for column, kind in zip(table["columns"], kinds))
            self.db.execute(f"CREATE TABLE {name} ({columns})")
            places = ", ".join("?" * len(kinds))
            self.db.executemany(f"INSERT INTO {name} VALUES ({places})", table["rows"])
        self.told: list[tuple[set[tuple[str, str]], list[tuple]]] = []
        self._reading: set[tuple[str, str]] = set()
        self._ticks = 0
        self.db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 10_000)
        self.db.set_authorizer(self._allow)
        self.db.set_progress_handler(self._tick, TICK)

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
        self._reading, self._ticks = set(), 0
        try:
            rows = self.db.execute(query).fetchmany(MOST_ROWS + 1)
        except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
            raise ToolError(" ".join(str(error).split())) from None
        if len(rows) > MOST_ROWS:
            raise ToolError(f"more than {MOST_ROWS} rows: ask for fewer")
        self.told.append((self._reading, rows))
        return json.dumps(rows, separators=(",", ":"))

    def close(self) -> None:
        """Close the connection."""
        self.db.close()


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


def established(tables: dict[str, dict], ask: dict, told: list[tuple[set, list]]) -> bool:
    """Do the results show the right answer: as a value, a number of rows, a sum or a largest of one of them, or in all
    the rows of every table asked about?"""
    answer = right_answer(tables, ask)
    if any(answer in _shown(rows) for _, rows in told):
        return True
    wanted = {name: {place for place in asked(ask) if place[0] == name} for name in ask["tables"]}
    return all(
        any(wanted[name] <= read and len(rows) == len(tables[name]["rows"]) for read, rows in told)
        for name in ask["tables"]
    )


def _shown(rows: list[tuple]) -> set[str]:
    columns = [[value for value in column if isinstance(value, int)] for column in zip(*rows)]
    totals = [value for column in columns if column for value in (sum(column), max(column))]
    return {str(value) for value in [len(rows), *totals, *itertools.chain.from_iterable(rows)]}


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
