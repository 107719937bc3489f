"""World `data`: a question over a database of several tables; one tool, `sql`, which reads and never writes.

Families
    select    one table: how many rows, the sum, the largest, or which row (level: conditions)
    join      the same over two tables that belong together (level: conditions)

Names of tables and columns and all values are invented anew for each task, and a table more stands beside those that
are asked about. The rows are never shown: the model reads the schema in the prompt and has to ask.
"""

from __future__ import annotations

import random

from kimi_mini.worlds.base import (
    Environment,
    Expert,
    Message,
    Task,
    Verdict,
    answers_early,
    final_answer,
    invented,
    most_calls,
    needs,
    plain,
    turn,
)
from kimi_mini.worlds.data.adversary import KINDS, SHORTCUTS
from kimi_mini.worlds.data.database import (
    Database,
    another,
    asked,
    established,
    joins,
    matching,
    query_of,
    right_answer,
)
from kimi_mini.worlds.registry import Demo, Family, World, register
from kimi_mini.worlds.rows import Row
from kimi_mini.worlds.tools import Tool, Toolbox

# -- tasks ---------------------------------------------------------------------------------------------


def generate(rng: random.Random, family: str, level: int) -> Task:
    """A question of `family` with `level` conditions, each of which changes the answer. Of a single row only its name
    is asked: a number that one row shows would be found by luck."""
    while True:
        tables, ask = (_one_table if family == "select" else _two_tables)(rng, level)
        wheres = [ask["where"], *(ask["where"][:i] + ask["where"][i + 1 :] for i in range(level))]
        right, *without = [right_answer(tables, {**ask, "where": where}) for where in wheres]
        several = ask["what"] == "which" or len(matching(tables, ask)) > 1
        if right is not None and right not in without and several:
            break
    shown = list(tables.items())
    rng.shuffle(shown)
    schema = "; ".join(f"{name}({', '.join(table['columns'])})" for name, table in shown)
    prompt = f"Tables: {schema}. " + (f"{joins(ask)}. " if ask["key"] else "") + _question(rng, ask)
    return Task("data", family, level, prompt, {"tables": tables, "ask": ask})


def _table(rng: random.Random, rows: int, **columns) -> dict:
    """A table of `rows` rows; each column is a function of the number of a row."""
    order = rng.sample(sorted(columns), len(columns))
    return {"columns": order, "rows": [[columns[name](n) for name in order] for n in range(rows)]}


def _numbers(rng: random.Random, rows: int):
    """Different numbers, so that each row is told apart by each."""
    return rng.sample(range(100), rows).__getitem__


def _one_table(rng: random.Random, level: int) -> tuple[dict, dict]:
    table, other, name, first, second, group, *values = invented(rng, 21)
    rows, groups = rng.randrange(8, 13), values[12:15]
    asked_table = _table(
        rng,
        rows,
        **{
            name: values.__getitem__,
            first: _numbers(rng, rows),
            second: _numbers(rng, rows),
            group: lambda n: rng.choice(groups),
        },
    )
    beside = _table(rng, 3, **{name: values.__getitem__, first: _numbers(rng, 3)})
    conditions = [
        _than(rng, table, first),
        _than(rng, table, second),
        [table, group, "is", rng.choice(groups)],
    ]
    what = rng.choice(("count", "sum", "largest", "which"))
    column = {"count": None, "which": [table, name]}.get(what, [table, rng.choice((first, second))])
    where = rng.sample(conditions, level)
    ask = {"what": what, "column": column, "tables": [table], "key": None, "where": where}
    return {table: asked_table, other: beside}, ask


def _than(rng: random.Random, table: str, column: str) -> list:
    return [table, column, rng.choice(("above", "below")), rng.randrange(20, 80)]


def _two_tables(rng: random.Random, level: int) -> tuple[dict, dict]:
    people, events, other, key, ref, size, group, amount, *values = invented(rng, 15)
    groups, count, rows = values[5:7], rng.randrange(4, 6), rng.randrange(8, 13)
    tables = {
        people: _table(
            rng,
            count,
            **{key: values.__getitem__, size: _numbers(rng, count), group: lambda n: rng.choice(groups)},
        ),
        events: _table(
            rng, rows, **{ref: lambda n: values[rng.randrange(count)], amount: _numbers(rng, rows)}
        ),
        other: _table(rng, 4, **{ref: values.__getitem__, amount: _numbers(rng, 4)}),
    }
    of_people = [_than(rng, people, size), [people, group, "is", rng.choice(groups)]]
    rng.shuffle(of_people)
    where = [of_people[0], _than(rng, events, amount), of_people[1]][:level]
    what = rng.choice(("count", "sum", "largest"))
    column = None if what == "count" else [events, amount]
    ask = {"what": what, "column": column, "tables": [events, people], "where": where}
    return tables, {**ask, "key": {events: ref, people: key}}


ASKS = {
    "count": ("How many rows of {table} have {where}?", "Count the rows of {table} with {where}."),
    "sum": (
        "What is the sum of {column} in {table} where {where}?",
        "Add up {column} in {table} for {where}.",
    ),
    "largest": (
        "What is the largest {column} in {table} where {where}?",
        "The largest {column} in {table} of {where}?",
    ),
    "which": ("Which {column} in {table} has {where}?", "Name the {column} in {table} that has {where}."),
}


def _question(rng: random.Random, ask: dict) -> str:
    where = " and ".join(said(ask, condition) for condition in ask["where"])
    column = ask["column"][1] if ask["column"] else ""
    return rng.choice(ASKS[ask["what"]]).format(table=ask["tables"][0], column=column, where=where)


def said(ask: dict, condition: list) -> str:
    """A condition in words; with its table where there are several."""
    table, column, how, value = condition
    place = f"{table}.{column}" if ask["key"] else column
    return f'{place} "{value}"' if how == "is" else f"{place} {how} {value}"


# -- the environment -----------------------------------------------------------------------------------


def open_environment(task: Task) -> Environment:
    """The tables in memory, and the tool that reads them."""
    database = Database(task.data["tables"])
    return Environment(Toolbox([Tool("sql", "", needs(query={"type": "string"}), database.sql)]), database)


# -- the expert ----------------------------------------------------------------------------------------


def expert(task: Task, rng: random.Random, mistake: str | None = None) -> Expert:
    """Says what is asked, asks it as SQL, reads the answer off. `mistake="slip"` asks something else, with another
    answer; `mistake="lazy"` answers without a query."""
    ask = task.data["ask"]
    if mistake == "lazy":
        yield turn("known", content=right_answer(task.data["tables"], ask))
        return
    if mistake == "slip":
        ask = another(rng, task.data["tables"], ask)
    where = " and ".join(said(ask, condition) for condition in ask["where"])
    told = yield turn(
        " ".join(
            filter(None, [ask["what"], (ask["column"] or [""])[-1], "from", " ".join(ask["tables"]), where])
        ),
        call=("sql", {"query": query_of(ask)}),
    )
    answer = told.strip("[]").strip('"')
    yield turn(f"got {answer}", content=answer)


# -- the verifier --------------------------------------------------------------------------------------


def verify(task: Task, messages: list[Message], environment: Environment) -> Verdict:
    """The answer that the rows give, worked out here and not by a query; and queries have read each column that it
    stands on and shown it, whichever way: what was never read was guessed."""
    answer, ask = final_answer(messages), task.data["ask"]
    if not answer or answers_early(messages):
        return Verdict(False, "it went on behind its answer" if answer else "no answer")
    calls, most = sum(message.get("role") == "tool" for message in messages), most_calls(len(ask["tables"]))
    if calls > most:
        return Verdict(False, f"{calls} queries, where {most} are plenty")
    told = environment.state.told
    if unread := sorted(asked(ask) - {place for read, rows, _ in told if rows for place in read}):
        return Verdict(False, "never read: " + ", ".join(map(".".join, unread)))
    if not established(task.data["tables"], ask, told):
        return Verdict(False, "no result shows the answer")
    right = right_answer(task.data["tables"], ask)
    return Verdict(plain(answer) == right, f"answered {answer[:40]!r}, right is {right!r}")


# -- what the others have to know ----------------------------------------------------------------------

ITEMS = [["fig", 14, 9], ["tea", 35, 4], ["lamp", 72, 9], ["rope", 21, 7], ["pear", 18, 9], ["ring", 96, 2]]
SALES = [["fig", 3], ["rope", 2], ["fig", 4], ["ring", 1], ["tea", 6]]
SHOP = {  # small enough to check an agent by eye
    "items": {"columns": ["name", "price", "stock"], "rows": ITEMS},
    "sales": {"columns": ["item", "number"], "rows": SALES},
}
SCHEMA = "Tables: " + "; ".join(f"{name}({', '.join(table['columns'])})" for name, table in SHOP.items())


def own_task(words: str) -> Task | None:
    """A question about the demo's tables: it begins with their schema, as the world's own questions do."""
    about = words.lower().startswith("tables:")
    return Task("data", "select", 1, words, {"tables": SHOP}) if about else None


DEMO = Demo(
    own_task,
    examples=(
        f"{SCHEMA}. How many rows of items have price above 20?",
        f"{SCHEMA}. sales.item = items.name. What is the sum of number in sales where items.price below 30?",
    ),
    place="\n".join(
        "  ".join(f"{value!s:<8}" for value in row).rstrip()
        for name, table in SHOP.items()
        for row in ([name], table["columns"], *table["rows"])
    ),
)

FAMILIES = {"select": Family(range(1, 4), {}), "join": Family(range(1, 4), {})}
ROWS = (
    Row("data/select", "select", says="a question over one table, asked as SQL"),
    Row("data/join", "join", says="a question over two tables, asked as SQL"),
)

register(
    World(
        "data",
        generate,
        open_environment,
        expert,
        verify,
        FAMILIES,
        ROWS,
        KINDS,
        bare=True,
        colour="#E69F00",
        shortcuts=SHORTCUTS,
        demo=DEMO,
    )
)
