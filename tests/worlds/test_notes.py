"""World `notes`: the tools do what they say, and the verifier wants the tree to the letter, and nothing unread."""

import random

import pytest

from kimi_mini import worlds
from kimi_mini.agent import conversation as conversation_
from kimi_mini.evaluation.adversary import perform
from kimi_mini.worlds import WORLDS
from kimi_mini.worlds.base import turn
from kimi_mini.worlds.notes import world
from kimi_mini.worlds.notes.tree import Tree, changed, names, says
from kimi_mini.worlds.tools import ToolError


def tree():
    return Tree({"a/x": "k: 1\nm: 2", "a/y": "k: 1", "b/x": "k: 3"}, ["a", "b", "c"])


def test_tools_list_read_write_and_move():
    notes = tree()
    assert (notes.list("a"), notes.list("c"), notes.read("a/x")) == ("x, y", "empty", "k: 1\nm: 2")
    assert notes.write("c/z", "new") == notes.write("a/x", "k: 9") == notes.move("a/y", "c") == "ok"
    assert notes.notes == {"a/x": "k: 9", "b/x": "k: 3", "c/z": "new", "c/y": "k: 1"}
    assert notes.done[2:] == [("read", "a/x"), ("write", "c/z"), ("write", "a/x"), ("move", "a/y")]


@pytest.mark.parametrize(
    "call",
    [
        lambda notes: notes.list("d"),
        lambda notes: notes.read("a"),
        lambda notes: notes.read("a/z"),
        lambda notes: notes.write("d/z", ""),
        lambda notes: notes.write("a/", ""),
        lambda notes: notes.write("a/b/c", ""),
        lambda notes: notes.write("a/x", "k" * 3000),
        lambda notes: notes.move("a/z", "b"),
        lambda notes: notes.move("a/y", "d"),
        lambda notes: notes.move("a/x", "b"),
        lambda notes: notes.move("a/x", "a"),
    ],
)
def test_what_cannot_be_done_is_said_and_leaves_no_trace(call):
    notes = tree()
    with pytest.raises(ToolError):
        call(notes)
    assert notes == tree()


def test_lines_are_whole_lines():
    text = "k: 1\nkk: 1\nm: 11"
    assert changed(text, "k", "5") == "k: 5\nkk: 1\nm: 11"
    assert says(text, "kk", "1") and not says(text, "m", "1")
    assert names({"a/x": "", "ab/y": ""}, "a") == ["x"]


def test_tasks_change_something_and_leave_something():
    for seed in range(40):
        task = worlds.generate(random.Random(seed), "tidy", 2)
        moved, all_of_them = world.to_change(task.data), world.to_read(task.data)
        assert len(all_of_them) == 3 and 0 < len(moved) < 3
        assert len(task.data["notes"]) == 4, "one note elsewhere says the same and stays"
        task = worlds.generate(random.Random(seed), "edit", 3)
        assert world.wanted(task.data) != task.data["notes"] and len(task.data["notes"]) == 3


def attempt(task, *steps):
    conversation = conversation_.opening(task)
    for step in steps:
        say = isinstance(step, str)
        conversation_.act(conversation, turn("", content=step if say else None, call=None if say else step))
    return conversation.verdict()


def test_evidence_says_what_is_wrong():
    task = worlds.generate(random.Random(1), "edit", 2)
    path = task.data["goal"]["path"]
    text = world.wanted(task.data)[path]
    look, write = ("read", {"path": path}), ("write", {"path": path, "text": text})
    other = next(place for place in task.data["notes"] if place != path)
    assert attempt(task, look, write, "done").passed
    assert attempt(task, write, "done").evidence == f"{path} was changed unread"
    assert attempt(task, look, "done").evidence.startswith(f"{path} is ")
    assert attempt(task, look, write).evidence == "no answer, or it went on behind it"
    same = ("write", {"path": other, "text": task.data["notes"][other]})
    assert (
        attempt(task, look, same, write, "done").evidence == f"{other} was changed, and nobody asked for it"
    )
    assert "plenty" in attempt(task, *[look] * 10, write, "done").evidence
    more = ("write", {"path": f"{path}s", "text": text})
    assert attempt(task, look, write, more, "done").evidence.startswith(f"{path}s is ")


def test_those_that_stay_are_read_too():
    task = worlds.generate(random.Random(1), "tidy", 2)
    moved = world.to_change(task.data)
    steps = [("read", {"path": path}) for path in moved]
    steps += [("move", {"path": path, "folder": task.data["goal"]["to"]}) for path in moved]
    assert attempt(task, *steps, "done").evidence.endswith("was never read")
    rest = [("read", {"path": path}) for path in set(world.to_read(task.data)) - set(moved)]
    assert attempt(task, *rest, *steps, "done").passed


MUTANTS = {  # a condition left out -> the kind that must get through
    "answers_early": (lambda messages: False, "says that it is done, then does it"),
    "most_calls": (lambda needed: 10**6, "tries again and again before it does the work"),
    "wanted": (lambda data: data["notes"], "does it, undoes it and claims it"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_each_condition_of_the_verifier_is_needed(name, monkeypatch):
    mutant, kind = MUTANTS[name]
    kind = next(found for found in WORLDS["notes"].kinds if found.name == kind)
    made = []
    for seed in range(10):
        rng = random.Random(seed)
        made.append(perform(kind, worlds.generate(rng, "edit", 1 + seed % 4), rng))
    assert not any(conversation.verdict().passed for conversation in made)
    monkeypatch.setattr(world, name, mutant)
    assert any(conversation.verdict().passed for conversation in made)


def test_the_demo_can_be_worked_on_and_shows_what_is_left():
    task = world.own_task(world.DEMO.examples[0])
    environment = world.open_environment(task)
    environment.toolbox.call("write", '{"path":"home/milk","text":"count: 37"}')
    assert "home/milk   count: 37" in world.DEMO.left(task, environment)
    assert [world.own_task(words).family for words in world.DEMO.examples] == ["edit", "tidy"]
