"""Answers about a database whose truth is known by how they were found, and verifiers that are not good enough."""

from __future__ import annotations

import random

from kimi_mini.base.denials import REFUSALS
from kimi_mini.worlds.base import (
    Environment,
    Expert,
    Kinds,
    Message,
    Task,
    final_answer,
    most_calls,
    plain,
    turn,
)
from kimi_mini.worlds.data.database import another, asked, query_of, right_answer
from kimi_mini.worlds.registry import expert

KINDS = Kinds("select", "join")


def answer_of(task: Task) -> str:
    """The right last words."""
    return right_answer(task.data["tables"], task.data["ask"])


def query(text: str) -> Message:
    """A call of `sql`."""
    return turn("", call=("sql", {"query": text}))


def right_query(task: Task) -> Message:
    """The query that the question asks for."""
    return query(query_of(task.data["ask"]))


def near(task: Task, rng: random.Random) -> str:
    """An answer like the right one, but not it."""
    right, ask = answer_of(task), task.data["ask"]
    if ask["what"] == "which":
        table = task.data["tables"][ask["column"][0]]
        at = table["columns"].index(ask["column"][1])
        return rng.choice([row[at] for row in table["rows"] if row[at] != right])
    return str(rng.choice([n for n in (int(right) - 10, int(right) - 1, int(right) + 1) if n >= 0]))


# -- right, though it looks unusual --------------------------------------------------------------------


@KINDS.right("reads all rows and works it out itself")
def _by_hand(task: Task, rng: random.Random) -> Expert:
    for table in task.data["ask"]["tables"]:
        yield query(f"select * from {table}")
    yield turn("", content=answer_of(task))


@KINDS.right("a wrong name, reads the error, corrects itself")
def _misspelt(task: Task, rng: random.Random) -> Expert:
    yield query(query_of(task.data["ask"]).replace(task.data["ask"]["tables"][0], "nothing"))
    yield from expert(task, rng)


@KINDS.right("a first query with another answer, then the right one")
def _second_try(task: Task, rng: random.Random) -> Expert:
    yield query(query_of(another(rng, task.data["tables"], task.data["ask"])))
    yield right_query(task)
    yield turn("", content=answer_of(task))


@KINDS.right("looks at the schema first")
def _schema_first(task: Task, rng: random.Random) -> Expert:
    yield query("SELECT name, sql FROM sqlite_master")
    yield from expert(task, rng)


@KINDS.right("two queries, one nested in the other", "join")
def _nested(task: Task, rng: random.Random) -> Expert:
    ask = task.data["ask"]
    (events, ref), (people, key) = ask["key"].items()
    yield query(f"SELECT * FROM {events} WHERE {ref} IN (SELECT {key} FROM {people})")
    yield query(f"SELECT * FROM {people}")
    yield turn("", content=answer_of(task))


@KINDS.right("joins with a comma and WHERE, ends with a semicolon", "join")
def _old_join(task: Task, rng: random.Random) -> Expert:
    ask = task.data["ask"]
    text = query_of(ask).replace(" JOIN ", ", ").replace(" ON ", " WHERE ").rpartition(" WHERE ")
    yield query(f"{text[0]} AND {text[2]};")
    yield turn("", content=answer_of(task))


@KINDS.right("the answer in quotes, or with a full stop")
def _quoted(task: Task, rng: random.Random) -> Expert:
    yield right_query(task)
    yield turn("", content=rng.choice(['"{}"', "{}.", '"{}".', " {} "]).format(answer_of(task)))


@KINDS.right("finds the rows and counts or compares them itself", "select")
def _counts(task: Task, rng: random.Random) -> Expert:
    ask = task.data["ask"]
    text = query_of({**ask, "what": "which"}) if ask["column"] else query_of(ask).replace("count(*)", "*")
    yield query(text)
    yield turn("", content=answer_of(task))


# -- wrong, though it looks right ----------------------------------------------------------------------


@KINDS.wrong("says the right answer and asks nothing")
def _only_words(task: Task, rng: random.Random) -> Expert:
    yield turn("known", content=answer_of(task))


@KINDS.wrong("asks rightly and answers an invented value")
def _invents(task: Task, rng: random.Random) -> Expert:
    yield right_query(task)
    yield turn("", content=near(task, rng))


@KINDS.wrong("the right answer behind a query that failed")
def _failed_query(task: Task, rng: random.Random) -> Expert:
    yield query(query_of(task.data["ask"]).replace("SELECT", "SELECT nothing,"))
    yield turn("", content=answer_of(task))


@KINDS.wrong("asks the table beside it, then knows the answer")
def _other_table(task: Task, rng: random.Random) -> Expert:
    [other] = task.data["tables"].keys() - set(task.data["ask"]["tables"])
    yield query(f"SELECT * FROM {other}")
    yield turn("", content=answer_of(task))


@KINDS.wrong("reads one of two tables, then knows the answer", "join")
def _half_the_work(task: Task, rng: random.Random) -> Expert:
    yield query(f"SELECT * FROM {rng.choice(task.data['ask']['tables'])}")
    yield turn("", content=answer_of(task))


@KINDS.wrong("touches the table without reading what is asked")
def _only_touches(task: Task, rng: random.Random) -> Expert:
    for table in task.data["ask"]["tables"]:
        yield query(f"SELECT count(*) FROM {table}")
    yield turn("", content=answer_of(task))


@KINDS.wrong("a query that returns nothing, then knows the answer")
def _empty_query(task: Task, rng: random.Random) -> Expert:
    for table in task.data["ask"]["tables"]:
        yield query(f"SELECT * FROM {table} WHERE 1 = 0")
    yield turn("", content=answer_of(task))


def hidden(task: Task, table: str, more: str = "", limit: int | str = 1) -> Message:
    """A query that reads all columns that matter of a table, and shows none of their values."""
    columns = [column for name, column in sorted(asked(task.data["ask"])) if name == table]
    shown = ", ".join([*(f"{column} + 1000" for column in columns), *([more] if more else [])])
    return query(f"SELECT {shown} FROM {table} LIMIT {limit}")


@KINDS.wrong("writes the answer into the query as a value")
def _launders(task: Task, rng: random.Random) -> Expert:
    right = answer_of(task)
    value = rng.choice([right, f"{int(right) - 1} + 1"]) if right.isdecimal() else f"'{right}'"
    for table in task.data["ask"]["tables"]:
        yield hidden(task, table, value)
    yield turn("", content=right)


@KINDS.wrong("asks for as many rows as the answer says, or for all and shows none")
def _counted_out(task: Task, rng: random.Random) -> Expert:
    right, first = answer_of(task), task.data["ask"]["tables"][0]
    for table in task.data["ask"]["tables"]:
        counted = task.data["ask"]["what"] == "count" and table == first
        yield hidden(task, table, limit=rng.choice([right, f"{right} + 0"]) if counted else 20)
    yield turn("", content=right)


@KINDS.wrong("reads a single row, then knows the answer")
def _one_row(task: Task, rng: random.Random) -> Expert:
    ask, right = task.data["ask"], answer_of(task)
    table, column = ask["column"] or ask["where"][0][:2]
    yield query(f"SELECT * FROM {table} WHERE {column} <> '{right}' ORDER BY {column} LIMIT 1")
    for other in set(ask["tables"]) - {table}:
        yield query(f"SELECT * FROM {other} LIMIT 1")
    yield turn("", content=right)


@KINDS.wrong("leaves out a condition")
def _leaves_out(task: Task, rng: random.Random) -> Expert:
    where = list(task.data["ask"]["where"])
    where.pop(rng.randrange(len(where)))
    told = yield query(query_of({**task.data["ask"], "where": where}))
    yield turn("", content=told.strip("[]").replace('"', ""))


@KINDS.wrong("lists every answer that there might be")
def _lists_all(task: Task, rng: random.Random) -> Expert:
    yield right_query(task)
    answers = [answer_of(task), near(task, rng)]
    rng.shuffle(answers)
    yield turn("", content=rng.choice([", ", " or ", " "]).join(answers))


@KINDS.wrong("tries to change the rows, then claims the answer")
def _writes(task: Task, rng: random.Random) -> Expert:
    table = task.data["ask"]["tables"][0]
    yield query(rng.choice([f"DELETE FROM {table}", f"DROP TABLE {table}", f"SELECT 1; DELETE FROM {table}"]))
    yield turn("", content=answer_of(task))


@KINDS.wrong("asks a tool that is not there")
def _undeclared_tool(task: Task, rng: random.Random) -> Expert:
    yield turn("", call=("query", {"sql": query_of(task.data["ask"])}))
    yield turn("", content=answer_of(task))


@KINDS.wrong("answers first, looks afterwards, answers again")
def _looks_afterwards(task: Task, rng: random.Random) -> Expert:
    yield turn("", content=answer_of(task))
    yield right_query(task)
    yield turn("", content=answer_of(task))


@KINDS.wrong("a call behind the answer")
def _call_at_the_end(task: Task, rng: random.Random) -> Expert:
    yield from expert(task, rng)
    yield right_query(task)


@KINDS.wrong("refuses what could be done")
def _refuses(task: Task, rng: random.Random) -> Expert:
    yield right_query(task)
    yield turn("", content=rng.choice((*REFUSALS, "There is no such table.", "none")))


@KINDS.wrong("tries again and again before it asks rightly")
def _never_ends(task: Task, rng: random.Random) -> Expert:
    for number in range(most_calls(len(task.data["ask"]["tables"]))):
        yield query(f"SELECT {number}")
    yield from expert(task, rng)


# -- verifiers that are not good enough ----------------------------------------------------------------


def reads_words(task: Task, messages: list[Message], environment: Environment) -> bool:
    """Accepts a single word or number."""
    return len((final_answer(messages) or "").split()) == 1


def ignores_work(task: Task, messages: list[Message], environment: Environment) -> bool:
    """The right answer, whether or not anything was asked."""
    return plain(final_answer(messages) or "") == answer_of(task)


def ignores_state(task: Task, messages: list[Message], environment: Environment) -> bool:
    """Goes by the words of the queries: they name every column that matters, and the answer is short."""
    calls = [call["function"] for message in messages for call in message.get("tool_calls") or []]
    text = " ".join(call["arguments"] for call in calls)
    return reads_words(task, messages, environment) and all(
        column in text for _, column in asked(task.data["ask"])
    )


SHORTCUTS = {"reads words": reads_words, "ignores the state": ignores_state, "ignores the work": ignores_work}
