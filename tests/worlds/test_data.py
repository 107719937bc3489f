"""World `data`: a database that can only be read, and a verifier that works the answer out itself."""

import json
import random
import re

import pytest

from kimi_mini import worlds
from kimi_mini.agent import conversation as conversation_
from kimi_mini.agent import loop
from kimi_mini.evaluation.adversary import perform
from kimi_mini.evaluation.error_rates import error_rates, false_accepts, false_rejects
from kimi_mini.text import chat
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.worlds import FAMILIES, WORLDS
from kimi_mini.worlds.base import invented
from kimi_mini.worlds.data import database, world
from kimi_mini.worlds.data.database import MOST_ROWS, Database, right_answer
from kimi_mini.worlds.tools import MAX_CONTENT, ToolError

TABLES = {
    "a": {"columns": ["x", "y"], "rows": [["p", 1], ["q", 2], ["p", 3]]},
    "b": {"columns": ["z", "w"], "rows": [["p", 10], ["q", 20]]},
}


def ask(what, column, *where, key=None):
    return {
        "what": what,
        "column": column,
        "tables": list(key or {"a": 0}),
        "key": key,
        "where": list(map(list, where)),
    }


@pytest.mark.parametrize(
    ("question", "right"),
    [
        (ask("count", None), "3"),
        (ask("count", None, ("a", "x", "is", "p")), "2"),
        (ask("sum", ["a", "y"], ("a", "x", "is", "p")), "4"),
        (ask("sum", ["a", "y"], ("a", "y", "above", 1), ("a", "y", "below", 3)), "2"),
        (ask("largest", ["a", "y"], ("a", "y", "below", 3)), "2"),
        (ask("which", ["a", "x"], ("a", "y", "above", 2)), "p"),
        (ask("which", ["a", "x"], ("a", "y", "above", 1)), None),
        (ask("count", None, ("a", "y", "above", 9)), None),
        (ask("sum", ["a", "y"], ("b", "w", "below", 20), key={"a": "x", "b": "z"}), "4"),
        (ask("count", None, key={"a": "x", "b": "z"}), "3"),
        (ask("largest", ["a", "y"], ("b", "w", "above", 10), key={"a": "x", "b": "z"}), "2"),
    ],
)
def test_answers_worked_out_by_hand_and_by_sql(question, right):
    """Small questions, counted by eye. The verifier's way and the expert's query agree with it."""
    assert right_answer(TABLES, question) == right
    if right is not None:
        assert json.loads(Database(TABLES).sql(database.query_of(question))) == [
            [json.loads(right) if right.isdigit() else right]
        ]


REFUSED = [
    "",
    " ",
    "INSERT INTO a VALUES ('r', 4)",
    "UPDATE a SET y = 5",
    "DELETE FROM a",
    "DROP TABLE a",
    "CREATE TABLE c (x)",
    "ATTACH 'there.db' AS other",
    "PRAGMA table_info(a)",
    "EXPLAIN SELECT * FROM a",
    "VACUUM INTO 'there.db'",
    "SELECT 1; DELETE FROM a",
    "SELECT * FROM a; SELECT * FROM b",
    "SELECT load_extension('x')",
    "SELECT zeroblob(1000000000)",
    "SELECT printf('%1000000d', 1)",
    "SELECT readfile('/etc/passwd')",
    "SELECT nothing FROM a",
    "SELECT * FROM a WHERE",
    "SELECT\n*\nFROM\nnowhere",
    "SELECT * FROM (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n)",
    "SELECT '\ud800'",
    "SELECT '\x00'",
    "SELECT x" + "y" * 20_000,
    "SELECT 1 FROM a, a AS b, a AS c",
]


@pytest.mark.parametrize("query", REFUSED)
def test_whatever_is_no_small_select_is_refused_in_one_line_and_changes_nothing(query, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    opened = Database(TABLES)
    with pytest.raises(ToolError) as error:
        opened.sql(query)
    assert len(str(error.value).splitlines()) == 1 and not list(tmp_path.iterdir())
    assert opened.told == [] and json.loads(opened.sql("SELECT * FROM a")) == TABLES["a"]["rows"]


def test_a_query_that_takes_for_ever_is_stopped():
    opened = Database({name: {**TABLES["a"], "rows": TABLES["a"]["rows"] * 7} for name in "abcde"})
    with pytest.raises(ToolError, match="interrupted"):
        opened.sql("SELECT count(*) FROM a, b, c, d, e")
    assert opened.sql("SELECT count(*) FROM a") == "[[21]]"
    with pytest.raises(ToolError, match=f"more than {MOST_ROWS} rows"):
        opened.sql("SELECT * FROM a")


@pytest.mark.parametrize("value", ["x'00ff'", "9e999", "-9e999", f"'{'a' * (MAX_CONTENT - 4)}'"])
def test_what_nobody_can_read_as_a_whole_is_an_error_and_shows_nothing(value):
    """A result that JSON cannot write, or that would be cut off: the model has seen nothing of what it says."""
    tasks = (worlds.generate(random.Random(seed), "select", 1) for seed in range(40))
    task = next(task for task in tasks if task.data["ask"]["what"] == "count")
    query = database.query_of(task.data["ask"]).replace("count(*)", f"{value}, count(*)")
    environment = world.open_environment(task)
    result = environment.toolbox.call("sql", json.dumps({"query": query}))
    assert not result.ok and result.content.startswith("error: ") and environment.state.told == []


@pytest.mark.parametrize("family", ["select", "join"])
@pytest.mark.parametrize("level", [1, 2, 3])
def test_each_condition_matters_and_a_number_is_never_that_of_one_row(family, level):
    for seed in range(40):
        task = worlds.generate(random.Random(seed), family, level)
        tables, question = task.data["tables"], task.data["ask"]
        assert len(question["where"]) == level and len(tables) == len(question["tables"]) + 1
        for place in range(level):
            rest = question["where"][:place] + question["where"][place + 1 :]
            assert right_answer(tables, {**question, "where": rest}) != right_answer(tables, question)
        assert question["what"] == "which" or len(database.matching(tables, question)) > 1


def test_names_are_invented_anew_and_none_is_a_word_of_sql():
    seen = {
        name for seed in range(50) for name in worlds.generate(random.Random(seed), "join", 1).data["tables"]
    }
    assert len(seen) > 140
    words = invented(random.Random(0), 2000)
    assert len(set(words)) == 2000 and not any("e" in word for word in words)
    Database({word: {"columns": [word], "rows": [[1]]} for word in words[:300]})


# ---- the verifier ------------------------------------------------------------------------------------------------

MUTANTS = {  # a condition left out -> the kind that must get through
    "established": (lambda *_: True, "reads a single row, then knows the answer"),
    "asked": (lambda *_: set(), "reads one of two tables, then knows the answer"),
    "answers_early": (lambda *_: False, "answers first, looks afterwards, answers again"),
    "most_calls": (lambda needed: 10**6, "tries again and again before it asks rightly"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_each_condition_of_the_verifier_is_needed(name, monkeypatch):
    mutant, kind = MUTANTS[name]
    kind = next(found for found in WORLDS["data"].kinds if found.name == kind)
    made = []
    for seed in range(40):
        rng = random.Random(seed)
        made.append(perform(kind, worlds.generate(rng, "join", 1 + seed % 3), rng))
    assert not any(conversation.verdict().passed for conversation in made)
    monkeypatch.setattr(world, name, mutant)
    if name == "asked":
        monkeypatch.setattr(world, "established", lambda *_: True)
    assert any(conversation.verdict().passed for conversation in made)


def attempt(task, *steps):
    """Queries, then an answer."""
    conversation = conversation_.opening(task)
    for query in steps[:-1]:
        conversation_.act(conversation, world.turn("", call=("sql", {"query": query})))
    conversation_.act(conversation, world.turn("", content=steps[-1]))
    return conversation.verdict()


def test_evidence_says_what_is_missing():
    task = worlds.generate(random.Random(3), "select", 1)
    [table] = task.data["ask"]["tables"]
    right = right_answer(task.data["tables"], task.data["ask"])
    assert attempt(task, f"SELECT * FROM {table}", right).passed
    assert attempt(task, right).evidence.startswith(f"never read: {table}.")
    assert attempt(task, f"SELECT * FROM {table} WHERE 1 = 0", right).evidence.startswith("never read")
    wrong = attempt(task, f"SELECT * FROM {table}", "never")
    assert wrong.evidence == f"answered 'never', right is {right!r}"
    assert attempt(task, f"SELECT * FROM {table}", " ").evidence == "no answer"


def test_what_the_query_itself_says_shows_nothing():
    """A guess written into the query, or as its limit, is no result; neither are rows that show no value."""
    kinds = [kind for kind in WORLDS["data"].kinds if re.search("into the query|as many rows", kind.name)]
    made = []
    for seed in range(24):
        rng = random.Random(seed)
        made += [perform(kind, worlds.generate(rng, "join", 1 + seed % 3), rng) for kind in kinds]
    verdicts = [conversation.verdict() for conversation in made]
    assert len(made) == 48 and {verdict.evidence for verdict in verdicts} == {"no result shows the answer"}
    for conversation in made:  # mutant: nothing to compare with
        told = conversation.environment.state.told
        told[:] = [one._replace(elsewhere=[]) for one in told]
    assert all(conversation.verdict().passed for conversation in made[::2])
    assert any(conversation.verdict().passed for conversation in made[1::2])


def test_the_other_rows_have_no_value_in_common_and_the_same_order():
    opened = Database(TABLES)
    assert opened.sql("SELECT y, 7, count(*) FROM a GROUP BY x ORDER BY y") == "[[1,7,2],[2,7,1]]"
    assert opened.told[0].elsewhere == [(501, 7, 2), (502, 7, 1)]
    assert opened.told[0].read == {("a", "x"), ("a", "y")}
    opened.sql("SELECT y FROM a WHERE x = 'q'")
    assert opened.told[1].rows == [(2,)] and opened.told[1].elsewhere == [], (
        "what was read may be asked for again"
    )


@pytest.mark.slow
@pytest.mark.parametrize("world_", ["data", "notes", "telecom", "write"])
def test_false_accepts_and_false_rejects_are_rare(world_):
    """Over a thousand each, and at least ten ways to be wrong."""
    rates = error_rates(world_, 1000, seed=3)
    accepted, refused = false_accepts(rates), false_rejects(rates)
    assert accepted.n >= 1000 and refused.n >= 1000 and sum(not kind.right for kind in rates) >= 10
    assert accepted.value <= 0.01 and refused.value <= 0.01


@pytest.mark.parametrize("world_", ["data", "notes", "telecom", "write"])
def test_episodes_are_short(world_):
    tokenizer = Tokenizer.load()
    for family in WORLDS[world_].families:
        for level in FAMILIES[family].levels:
            rng = random.Random(level)
            played = [loop.play(worlds.generate(rng, family, level), rng) for _ in range(10)]
            lengths = [len(chat.encode(tokenizer, c.messages, c.tools)[0]) for c in played]
            assert sum(lengths) / 10 < 550 and max(lengths) < 620


def test_what_is_not_trained_is_not_measured():
    from kimi_mini.evaluation.scoreboard import ROWS

    measured = {row.family for row in ROWS}
    assert measured == {name for name, family in FAMILIES.items() if family.shares and family.world != "desk"}
    assert "buy" in measured and not measured & {"select", "join", "edit", "tidy", "line", "write"}


def test_the_demo_is_a_question_that_can_be_asked():
    task = world.own_task(world.DEMO.examples[1])
    told = world.open_environment(task).toolbox.call(
        "sql",
        '{"query":"SELECT sum(number) FROM sales JOIN items ON sales.item = items.name WHERE price < 30"}',
    )
    assert told.content == "[[9]]" and world.own_task("hello") is None
