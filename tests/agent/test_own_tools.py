"""Functions of a user's file become tools; what cannot is one line."""

import sys

import pytest

from kimi_mini.agent.own_tools import load_tools, tool_of
from kimi_mini.agent.terminal import own_task
from kimi_mini.base.errors import KimiError
from kimi_mini.worlds.tools import Toolbox

FILE = """
from math import sqrt
import json

SHELVES = {"moby dick": 12}

def shelf_of(book: str) -> int:
    "Gives the shelf of a book."
    return SHELVES[book.lower()]

def reserve(book: str, days: int = 7) -> dict:
    return {"book": book, "days": days}

def _hidden(x: int): ...
"""


@pytest.fixture
def tools(tmp_path):
    (tmp_path / "mine.py").write_text(FILE)
    return load_tools(tmp_path / "mine.py")


def test_public_functions_of_the_file_become_tools(tools):
    assert [tool.name for tool in tools] == ["shelf_of", "reserve"]
    assert tools[0].description == "Gives the shelf of a book."
    assert tools[1].parameters == {
        "type": "object",
        "properties": {"book": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["book"],
    }


def test_they_run_and_their_errors_are_results(tools):
    box = Toolbox(tools)
    assert box.call("shelf_of", '{"book":"Moby Dick"}').content == "12"
    assert box.call("reserve", '{"book":"x"}').content == '{"book": "x", "days": 7}'
    assert box.call("shelf_of", '{"book":"none"}').error == "exception"
    assert box.call("reserve", '{"book":"x","days":"two"}').error == "schema"


def test_a_dialogue_with_them_has_no_other_tools(tools):
    conversation = own_task("What is the shelf of Moby Dick?", tools)
    assert [one["function"]["name"] for one in conversation.tools] == ["shelf_of", "reserve"]
    assert [message["role"] for message in conversation.messages] == ["user"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = 1", "no public function"),
        ("def f(a): ...", "annotate a"),
        ("def f(*a: int): ...", "annotate a"),
        ("def f(a: set): ...", "annotate a"),
        ("async def f(a: int): ...", "f: .* without async"),
        ("async def f(a: int): yield a", "f: .* without async"),
        ("def f(a: int): yield a", "f: .* without async or yield"),
        ("def f(a: int, /, b: int): ...", "f: .* leave out the / behind a"),
        ("1 / 0", "ZeroDivisionError"),
        ("def f(:", "SyntaxError"),
        ("raise SystemError('a\\nb')", "SystemError: a"),
        ("import sys; sys.exit('done')", "SystemExit: done"),
    ],
)
def test_what_cannot_be_a_tool_is_one_line(tmp_path, text, says):
    file = tmp_path / "mine.py"
    file.write_text(text)
    with pytest.raises(KimiError, match=says) as caught:
        load_tools(file)
    assert "\n" not in str(caught.value) and str(file) in str(caught.value)


def test_a_file_may_have_dataclasses_and_annotations_of_the_future(tmp_path):
    """dataclasses looks its module up by name; a file that was refused leaves none."""
    file = tmp_path / "mine.py"
    text = """
from __future__ import annotations
from dataclasses import dataclass

@dataclass
class Book:
    shelf: int

def shelf_of(book: str) -> int:
    return Book(3).shelf
"""
    file.write_text(text)
    tools = load_tools(file)
    assert Toolbox(tools).call("shelf_of", '{"book":"x"}').content == "3"
    file.write_text(text + "1 / 0")
    with pytest.raises(KimiError, match="ZeroDivisionError"):
        load_tools(file)
    assert tools[0].function.__module__ not in sys.modules


def test_a_function_behind_a_cache_is_a_tool(tmp_path):
    """It was left out without a word where another function of the file became a tool."""
    file = tmp_path / "mine.py"
    file.write_text(
        f"from functools import cache, lru_cache\n{FILE}".replace("def shelf_of", "@cache\ndef shelf_of")
    )
    tools = load_tools(file)
    assert [tool.name for tool in tools] == ["shelf_of", "reserve"] and tools[0].description
    assert Toolbox(tools).call("shelf_of", '{"book":"Moby Dick"}').content == "12"
    file.write_text("from functools import cache\n@cache\nasync def f(a: int): ...")
    with pytest.raises(KimiError, match="f: .* without async"):
        load_tools(file)


def test_a_file_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(KimiError, match="no such file"):
        load_tools(tmp_path / "none.py")


def test_a_method_of_no_types_is_refused():
    with pytest.raises(ValueError, match="annotate"):
        tool_of(lambda x: x)


def many(tmp_path, count, last="pass"):
    lines = [
        f'def lamp_{n}(room: str) -> int:\n    "Switches lamp {n} on."\n    return {n}\n'
        for n in range(count)
    ]
    (tmp_path / "many.py").write_text("\n".join([*lines, last]))
    return load_tools(tmp_path / "many.py")


def test_more_tools_than_it_reads_at_once_have_to_be_found(tmp_path):
    assert len(own_task("Lamp 7, please.", many(tmp_path, 12)).tools) == 12
    conversation = own_task("Lamp 7, please.", many(tmp_path, 13))
    box = conversation.environment.toolbox
    assert [one["function"]["name"] for one in conversation.tools] == ["find_tools"]
    assert box.call("lamp_7", '{"room":"hall"}').error == "undeclared"
    assert '"name":"lamp_7"' in box.call("find_tools", '{"words":"lamp 7"}').content
    assert box.call("lamp_7", '{"room":"hall"}').content == "7"


@pytest.mark.parametrize(
    ("last", "says"),
    [("def find_tools(x: int): ...", "find_tools"), (f"def long(x: int): '{'word ' * 2000}'", "longer than")],
)
def test_tools_that_cannot_be_found_are_refused(tmp_path, last, says):
    with pytest.raises(KimiError, match=says) as caught:
        many(tmp_path, 13, last)
    assert "\n" not in str(caught.value)
