"""`eval --endpoint`: the same exam, stopped and gone on with."""

import os
import random
import signal
import subprocess
import sys
import time
from argparse import Namespace

import pytest
from engines import served

from kimi_mini import __main__ as command
from kimi_mini.agent import loop
from kimi_mini.agent.remote import FORM, told_the_form
from kimi_mini.base.files import read_json
from kimi_mini.evaluation import by_endpoint, scoreboard
from kimi_mini.worlds import WORLDS
from kimi_mini.worlds.registry import held_out_tasks

ROW = next(row for row in scoreboard.ROWS if row.name == "shop/buy")
TASKS = held_out_tasks(ROW.family, ROW.levels, 12, 0)


@pytest.fixture
def runs(monkeypatch, tmp_path):
    monkeypatch.setattr(by_endpoint, "RUNS", tmp_path / "run")
    return tmp_path / "run"


def test_two_names_have_two_folders(runs):
    """Names that differ in a sign alone, models or endpoints, keep their answers apart."""
    names = [("http://a", "a-b"), ("http://a", "a.b"), ("http://a/v1", "a-b"), ("http://a.v1", "a-b")]
    places = {by_endpoint.folder_of(Namespace(endpoint=url, model=model)) for url, model in names}
    assert len(places) == 4 and all(place.parent == runs / "endpoint" for place in places)


def words(url, *more):
    return ["eval", "--endpoint", url, "--model", "m", "--tasks", "12", "--rows", "shop/buy", *more]


def test_the_exam_is_everybody_elses_and_its_answers_go_when_it_is_over(runs, tmp_path, capsys):
    with served(TASKS) as (engine, url):
        assert command.main(words(url, "--out", str(tmp_path / "board.json"))) == 0
    board = read_json(tmp_path / "board.json")
    row = board["scoreboard"]["shop/buy"]
    assert (row["value"], row["n"], row["says"]) == (1.0, 12, ROW.says)
    assert board["counts"]["answers"] == len(engine.requests)
    assert board["counts"]["completion_tokens"] == 7 * len(engine.requests)
    assert (board["temperature"], board["max_tokens"], board["thinking"]) == (None, None, None)
    assert "shop/buy" in capsys.readouterr().out and not list(runs.rglob("*.jsonl"))
    asked = engine.requests[0]
    assert (asked["temperature"], asked["max_tokens"]) == (
        0.0,
        ROW.limits.turn_tokens,
    ) and "seed" not in asked


def test_the_form_of_an_answer_is_told_where_it_is_asked_for(runs, tmp_path):
    """Behind the system message or as one; the board says so. Without it every word is as it was."""
    for more, told in ((["--form"], True), ([], False)):
        with served(TASKS) as (engine, url):
            assert command.main([*words(url, "--out", str(tmp_path / "board.json")), *more]) == 0
        heard = [request["messages"] for request in engine.requests]
        first = TASKS[0].system
        assert all((messages[0]["content"] != first) is told for messages in heard)
        assert all(messages[0]["content"].endswith(FORM) is told for messages in heard)
        assert all(messages[1]["role"] == "user" for messages in heard)
        board = read_json(tmp_path / "board.json")
        assert board["form"] is told and board["scoreboard"]["shop/buy"]["value"] == 1.0


def test_the_form_stands_behind_what_the_task_says():
    user, system = {"role": "user", "content": "6 + 7"}, {"role": "system", "content": "You are Kimi."}
    assert told_the_form([user]) == [{"role": "system", "content": FORM}, user]
    assert told_the_form([system, user]) == [{"role": "system", "content": f"You are Kimi. {FORM}"}, user]
    assert system["content"] == "You are Kimi."


def test_whose_answers_are_bare_values_says_so():
    """Where the verifier refuses the expert's last words within a sentence, the world says it; and nowhere else."""
    for name, row in ((row.family, row) for row in scoreboard.ROWS + scoreboard.VARIED if row.main):
        task = held_out_tasks(name, row.levels, 1, 0)[0]
        played = loop.play(task, random.Random(0))
        last = played.messages[-1]["content"]
        assert played.verdict().passed
        played.messages[-1] = {"role": "assistant", "content": f"It is {last}."}
        assert played.verdict().passed or WORLDS[task.world].bare, task.world
        played.environment.close()


def test_what_was_answered_before_a_stop_is_not_asked_again(runs, capsys):
    with served(TASKS, troubles=(None,) * 20 + (401,)) as (engine, url):
        assert command.main(words(url, "--parallel", "1")) == 2
        first = len(engine.requests)
        assert command.main(words(url, "--parallel", "1")) == 0
        out = capsys.readouterr().out
        assert "20 answers are kept" in out
        again = len(engine.requests) - first
        assert command.main(words(url)) == 0
        assert len(engine.requests) - first - again == again + 20


def test_another_exam_leaves_alone_what_one_that_was_stopped_has_paid_for(runs, capsys):
    tasks = [
        *TASKS,
        *held_out_tasks(
            "cheapest", next(r for r in scoreboard.ROWS if r.name == "shop/cheapest").levels, 12, 0
        ),
    ]
    with served(tasks, troubles=(None,) * 20 + (401,)) as (engine, url):
        assert command.main(words(url, "--parallel", "1")) == 2
        assert command.main([*words(url), "--rows", "shop/cheapest"]) == 0
        kept = next(runs.rglob("answers.jsonl")).read_text()
        assert len(kept.split("\n")) == 1 + 20
        first = len(engine.requests)
        assert command.main(words(url)) == 0
        again = len(engine.requests) - first
        assert command.main(words(url)) == 0 and len(engine.requests) - first - again == again + 20
    assert not list(runs.rglob("*.jsonl"))


@pytest.mark.slow
def test_ctrl_c_ends_at_once_and_keeps_the_answers(tmp_path):
    """Although requests are on their way that would take a minute."""
    with served(TASKS, delay=0.2) as (engine, url):
        body = f"""
from pathlib import Path
from kimi_mini.evaluation import by_endpoint
by_endpoint.RUNS = Path({str(tmp_path)!r})
from kimi_mini.__main__ import main
raise SystemExit(main({words(url, "--parallel", "2")!r}))
"""
        process = subprocess.Popen([sys.executable, "-c", body], stderr=subprocess.PIPE, text=True)
        until = time.monotonic() + 60
        while len(engine.requests) < 6 and time.monotonic() < until:
            time.sleep(0.02)
        engine.habits["delay"] = 60
        time.sleep(0.5)
        os.kill(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 130 and "run the same command to go on" in said and "Traceback" not in said
    kept = next(tmp_path.rglob("answers.jsonl")).read_text()
    assert kept.count("\n") >= 4


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--rows", "nothing"], "there are chain/thinking"),
        (["--key-file", "not/there"], "does not exist"),
        (["--model", ""], "--model NAME"),
    ],
)
def test_what_a_user_can_put_right_is_one_line(runs, capsys, more, says):
    assert command.main([*words("http://127.0.0.1:9/v1"), *more]) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1


def test_a_board_that_cannot_be_written_does_not_cost_the_answers(runs, tmp_path, capsys):
    (tmp_path / "file").write_text("no folder")
    with served(TASKS) as (engine, url):
        assert command.main(words(url, "--out", str(tmp_path / "file" / "board.json"))) == 2
        asked = len(engine.requests)
        assert asked >= 12 and len(next(runs.rglob("answers.jsonl")).read_text().splitlines()) >= asked
        assert command.main(words(url, "--out", str(tmp_path / "board.json"))) == 0
        assert len(engine.requests) == asked
    assert read_json(tmp_path / "board.json")["scoreboard"]["shop/buy"]["value"] == 1.0
    assert not list(runs.rglob("*.jsonl"))
