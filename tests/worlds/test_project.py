"""World `project`: the files really run, in the sandbox; hidden inputs, and what was opened when, decide."""

import json
import random
from itertools import pairwise

import pytest

from kimi_mini import worlds
from kimi_mini.agent import conversation as conversation_
from kimi_mini.agent import loop
from kimi_mini.evaluation import error_rates
from kimi_mini.worlds import WORLDS
from kimi_mini.worlds.base import turn
from kimi_mini.worlds.repair import project
from kimi_mini.worlds.repair.code import INPUTS, PUBLIC
from kimi_mini.worlds.repair.files import evaluate


def attempt(task, *steps):
    """A conversation that takes these steps: calls `(name, arguments)`, and text for an answer."""
    conversation = conversation_.opening(task)
    for step in steps:
        say = isinstance(step, str)
        conversation_.act(conversation, turn("", content=step if say else None, call=None if say else step))
    return conversation


def said(conversation):
    return [message["content"] for message in conversation.messages if message["role"] == "tool"]


def drawn(family, count=60, levels=(2, 3)):
    for seed in range(count):
        yield worlds.generate(random.Random(seed), family, levels[seed % len(levels)])


HOSTILE = [
    "import os; os.system('touch {there}')",
    "open('{there}', 'w').write('x')",
    "while True: pass",
    "x = 10 ** 10 ** 9",
    "raise SystemExit(0)",
    "return None",
    "return '1'",
    "print('[1, 2]'); return x == y",
    "global print; print = lambda *a: None",
    "def f(",
    "",
    "\ud800",
]


@pytest.mark.parametrize("code", HOSTILE)
def test_hostile_code_does_no_harm(code, tmp_path):
    there = tmp_path / "there"
    code, task = code.replace("{there}", str(there)), next(drawn("project"))
    file = task.data["file"]
    steps = [("open", {"file": file}), ("edit", {"file": file, "line": "A", "code": code}), ("test", {})]
    conversation = attempt(task, *steps, "fixed")
    assert (
        set(json.loads(said(conversation)[2])) == {"passed", "failed"} and not conversation.verdict().passed
    )
    assert not there.exists()


def repair(task, opened=True, code=None):
    file, at = task.data["file"], task.data["at"]
    edit = {"file": file, "line": "AB"[at], "code": code or task.data["right"][file][at]}
    return [*([("open", {"file": file})] if opened else []), ("edit", edit)]


def test_each_file_calls_the_next_and_one_line_is_wrong():
    files = set()
    for task in drawn("project", 120):
        data, names = task.data, list(task.data["right"])
        assert len(names) == task.level
        for name, after in pairwise(names):
            assert (
                data["right"][name][-1] == f"x = {after}(x, y)" and data["rules"][name][-1] == f"call {after}"
            )
        wrong = [(n, i) for n in names for i, c in enumerate(data["right"][n]) if c != data["buggy"][n][i]]
        assert wrong == [(data["file"], data["at"])]
        got = evaluate(data["buggy"], INPUTS[:PUBLIC])
        assert got != data["wanted"][:PUBLIC]
        assert all(rule not in task.prompt for rules in data["rules"].values() for rule in rules)
        files.add(names.index(data["file"]))
    assert files == {0, 1, 2}


def test_a_line_that_could_be_left_out_is_no_place_for_a_bug():
    for task in drawn("project", 120):
        assert not attempt(task, *repair(task, code="pass"), "fixed").verdict().passed


def test_tools_open_edit_and_test():
    task = next(drawn("project"))
    name = task.data["file"]
    conversation = attempt(task, *repair(task), ("test", {}), ("open", {"file": name}), "fixed")
    before, edited, tests, after = said(conversation)
    assert before.count("\nend") == 2 and all(rule in before for rule in task.data["rules"][name])
    assert (edited, tests) == ("ok", '{"passed":4,"failed":0}') and conversation.verdict().passed
    assert task.data["right"][name][task.data["at"]] in after
    assert conversation.task.data["buggy"][name] != task.data["right"][name], "the task is as it was"


@pytest.mark.parametrize(
    "call",
    [
        ("open", {"file": "x"}),
        ("edit", {"file": "x", "line": "A", "code": "pass"}),
        ("edit", {"file": "{file}", "line": "D", "code": "pass"}),
        ("edit", {"file": "{file}", "line": "", "code": "pass"}),
        ("edit", {"file": "{file}", "line": "A", "code": "pass\npass"}),
        ("test", {"file": "{file}"}),
    ],
)
def test_what_cannot_be_done_is_said_and_leaves_no_trace(call):
    task = next(drawn("project"))
    name, arguments = call[0], {k: v.replace("{file}", task.data["file"]) for k, v in call[1].items()}
    conversation = attempt(task, (name, arguments), "fixed")
    assert said(conversation)[0].startswith("error: ") and conversation.environment.state.done == []


def test_the_file_with_the_bug_is_opened_before_it_is_edited():
    for task in drawn("project", 12):
        assert attempt(task, *repair(task), "fixed").verdict().passed
        look = ("open", {"file": task.data["file"]})
        for steps in (repair(task, opened=False), [*repair(task, opened=False), look]):
            verdict = attempt(task, *steps, ("test", {}), "fixed").verdict()
            assert not verdict.passed and "was not opened before" in verdict.evidence
    assert not attempt(task, *repair(task)).verdict().passed, "no answer"
    assert (
        attempt(task, ("open", {"file": task.data["file"]}), "fixed").verdict().evidence
        == "nothing was edited"
    )


def test_special_cases_for_the_tests_are_no_repair():
    for task in drawn("project", 12):
        first = next(iter(task.data["right"]))
        table = dict(zip(INPUTS, task.data["wanted"]))
        edit = ("edit", {"file": first, "line": "A", "code": f"return {table}.get((x, y), 0)"})
        look = [("open", {"file": name}) for name in task.data["right"]]
        conversation = attempt(task, *look, edit, ("test", {}), "fixed")
        assert said(conversation)[-1] == '{"passed":4,"failed":0}' and not conversation.verdict().passed


def test_each_file_has_to_be_right_and_not_the_first_alone():
    """Two mistakes that make up for each other: every test of the first function passes, and the project is wrong."""
    files = {"p": ["x = x + 1", "x = q(x, y)"], "q": ["x = x + 2"]}
    rules = {"p": ["add 1 to x", "call q"], "q": ["add 2 to x"]}
    buggy = {"p": ["x = x + 1", "x = q(x, y)"], "q": ["x = x + 3"]}
    data = {"rules": rules, "right": files, "buggy": buggy, "file": "q", "at": 0, "wanted": evaluate(files)}
    task = worlds.Task("project", "project", 2, "Fix p(x, y).", data)
    look, edit = ("open", {"file": "q"}), {"line": "A"}
    around = attempt(task, look, ("edit", {**edit, "file": "p", "code": "pass"}), ("test", {}), "fixed")
    assert said(around)[-1] == '{"passed":4,"failed":0}'
    evidence = "100 of 300 hidden tests pass, not q(0, 0)"
    assert not around.verdict().passed and around.verdict().evidence == evidence
    large = ("edit", {**edit, "file": "q", "code": "x = x + 2 + (x > 10)"})  # more than q is ever given by p
    verdict = attempt(task, look, large, "fixed").verdict()
    assert not verdict.passed and verdict.evidence == "250 of 300 hidden tests pass, not q(15, 0)"
    right = ("edit", {**edit, "file": "q", "code": "x = x + 2"})
    assert attempt(task, look, right, "fixed").verdict().evidence == "300 of 300 hidden tests pass"


def test_public_tests_are_the_first_ones():
    """Right on the tests that the model may run, wrong on one that it may not."""
    task = next(drawn("project"))
    first, (_, y) = next(iter(task.data["right"])), INPUTS[PUBLIC]
    last = len(task.data["right"][first]) - 1
    code = f"{task.data['right'][first][last]}; x = x + (y == {y})"
    conversation = attempt(
        task, *repair(task), ("edit", {"file": first, "line": "ABC"[last], "code": code}), ("test", {})
    )
    assert said(conversation)[-1] == '{"passed":4,"failed":0}'


def test_the_verifier_errs_on_no_kind_and_its_shortcuts_do():
    rates = error_rates.compared("project", 240)
    assert not [kind.name for kind, rate in rates["world's verifier"].items() if rate.errors]
    assert sum(kind.right for kind in WORLDS["project"].kinds) >= 6 and len(WORLDS["project"].kinds) >= 15
    for name in ("reads words", "ignores the state", "ignores the work"):
        assert error_rates.false_accepts(rates[name]).value > 0.1


def test_the_demo_can_be_worked_on():
    [example] = project.DEMO.examples
    task = project.own_task(example)
    played = loop.play(task, random.Random(0))
    assert played.verdict().passed and project.own_task("hello") is None
    assert "def " in project.DEMO.left(task, played.environment)
