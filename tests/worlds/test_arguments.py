"""Arguments that a model wrote, and schemas that a programmer declared: nothing raises at a call, nothing is fetched."""

import asyncio
import itertools
import json
import socket
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kimi_mini.worlds.tools import schema as schemas
from kimi_mini.worlds.tools import toolbox
from kimi_mini.worlds.tools.arguments import MAX_NESTING
from kimi_mini.worlds.tools.toolbox import Tool, Toolbox, ToolError

TREE = {
    "type": "object",
    "properties": {"x": {"$ref": "#/$defs/node"}},
    "$defs": {
        "node": {
            "type": "object",
            "properties": {"x": {"$ref": "#/$defs/node"}},
            "additionalProperties": False,
        }
    },
}


def box(schema, function=lambda **given: given) -> Toolbox:
    """A toolbox with one tool, `use`."""
    return Toolbox([Tool("use", "", schema, function)])


def value(schema) -> dict:
    """A schema of one property, x."""
    return {"type": "object", "properties": {"x": schema}}


def lists(depth: int) -> str:
    return "[" * depth + "]" * depth


def objects(depth: int) -> str:
    return '{"x":' * depth + "{}" + "}" * depth


# ------------------------------------------------------------------------------- what a model writes never raises
HARD = {  # schema, arguments
    "a number too large to divide": (value({"multipleOf": 0.5}), f'{{"x": {"9" * 310}}}'),
    "the same, negative": (value({"multipleOf": 0.1}), f'{{"x": -{"9" * 310}}}'),
    "too large for a bound": (value({"maximum": 0.5}), f'{{"x": {"9" * 310}}}'),
    "deep lists compared": (value({"uniqueItems": True}), f'{{"x": [{lists(300)}, {lists(300)}]}}'),
    "deep lists and a constant": (value({"const": json.loads(lists(40))}), f'{{"x": {lists(300)}}}'),
    "deep lists and a choice": (value({"enum": [json.loads(lists(40)), 1]}), f'{{"x": {lists(300)}}}'),
    "a recursive schema": (TREE, objects(300)),
    "as deep as is allowed, in a recursive schema": (TREE, objects(MAX_NESTING - 1)),
    "as deep as is allowed, and wrong": (TREE, objects(MAX_NESTING - 2).replace("{}", '{"y":1}')),
}


@pytest.mark.parametrize("name", list(HARD))
def test_no_sound_schema_makes_a_call_raise(name):
    schema, text = HARD[name]
    result = box(schema).call("use", text)
    assert result.ok == (result.error is None)
    assert result.ok or (result.content.startswith("error: ") and len(result.content) < 250)
    if "too large to divide" in name:
        assert result.content == "error: arguments: a number is too large to be checked"


@pytest.mark.parametrize("schema", [value({}), value({"uniqueItems": True}), value({"const": []}), TREE])
@pytest.mark.parametrize("text", [lists, objects])
def test_every_depth_gets_an_answer(schema, text):
    """The parser, the checker and the writer of messages each have a depth of their own at which they give up."""
    tried = box(schema)
    for depth in itertools.chain(range(45, 56), range(60, 960, 100), range(960, 1010)):
        result = tried.call("use", f'{{"x": {text(depth)}}}')
        assert result.error in (None, "bad_json", "schema")
        if depth >= MAX_NESTING:
            assert result.error == "bad_json"
            assert f"more than {MAX_NESTING} deep" in result.content or "recursion" in result.content


def test_a_nest_of_the_allowed_depth_is_read():
    assert box(value({})).call("use", f'{{"x": {lists(MAX_NESTING - 1)}}}').ok
    assert not box(value({})).call("use", f'{{"x": {lists(MAX_NESTING)}}}').ok


def test_width_is_not_depth():
    assert box(value({})).call("use", json.dumps({"x": [[]] * 1000})).ok


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"x": 1, "x": 2}', "'x' stands there twice"),
        ('{"x": {"y": 1, "z": 0, "y": 1}}', "'y' stands there twice"),
        ('{"x": 1, "\\u0078": 2}', "'x' stands there twice"),
        ('{"x": 1e400}', "1e400 is too large"),
        ('{"x": -1e999}', "-1e999 is too large"),
        ('{"x": -Infinity}', "-Infinity"),
    ],
)
def test_what_two_parsers_would_read_differently_is_refused(text, words):
    result = box(value({})).call("use", text)
    assert (result.error, words in result.content) == ("bad_json", True), result.content


@pytest.mark.parametrize(
    "number", ["1e300", "1e16", "9007199254740994.0", "2.5", "-1e300", "true", '"2"', "null"]
)
def test_a_whole_number_is_one_or_is_refused(number):
    result = box(value({"type": "integer"})).call("use", f'{{"x": {number}}}')
    assert (result.error, "is not of type 'integer'" in result.content) == ("schema", True), result.content


@pytest.mark.parametrize(
    ("number", "read"), [("2.0", 2), ("1e3", 1000), ("-0.0", 0), ("9" * 310, int("9" * 310))]
)
def test_a_whole_number_reaches_the_tool_as_an_int(number, read):
    seen = []
    assert box(value({"type": "integer"}), lambda x: seen.append(x)).call("use", f'{{"x": {number}}}').ok
    assert seen == [read] and type(seen[0]) is int


def test_only_our_integers_differ_from_json_schema():
    """A number may still be 1e300, and a half stays a half."""
    tried = box(value({"type": "number"}))
    assert tried.call("use", '{"x": 1e300}').content == '{"x": 1e+300}'
    assert tried.call("use", '{"x": 2.5}').content == '{"x": 2.5}'


SCHEMAS = [
    value({"multipleOf": 0.1}),
    value({"uniqueItems": True, "contains": {"type": "number"}}),
    value({"pattern": "a+b"}),
    value({"anyOf": [{"type": "array"}, {"minimum": 3}], "not": {"const": [1]}}),
    value({"enum": [1, "a", None]}),
    TREE,
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(10**300, 10**320) | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from("xyz"), inner),
)


@pytest.mark.slow
@settings(max_examples=100)
@given(schema=st.sampled_from(SCHEMAS), given=JSON)
def test_no_value_makes_a_call_raise(schema, given):
    result = box(schema).call("use", json.dumps({"x": given}))
    assert result.ok == (result.error is None) and "\n" not in result.content[:7]


# ----------------------------------------------------------------------------------------- names and results
class Unreadable:
    def __str__(self):
        raise RuntimeError("no")


@pytest.mark.parametrize(
    "name",
    ["Use", "USE", " use", "use ", "use\n", "functions.use", "os.system.use", "use:0", "\uff55se", "us", "", None, 5, [], 10**5000, Unreadable()],
    ids=lambda name: repr(name) if isinstance(name, str) else type(name).__name__,
)  # fmt: skip
def test_a_name_that_is_not_the_declared_one_runs_nothing(name):
    ran = []
    result = box({"type": "object"}, lambda: ran.append(1)).call(name, "{}")
    assert (result.error, ran) == ("undeclared", [])


class IgnoresCase(Toolbox):
    """A well-known wrong toolbox."""

    def _find(self, name):
        return super()._find(str(name).strip().lower())


class LastPart(Toolbox):
    """Another: what stands behind the last dot counts."""

    def _find(self, name):
        return super()._find(str(name).rpartition(".")[2].partition(":")[0])


@pytest.mark.parametrize(("wrong", "name"), [(IgnoresCase, "Use"), (LastPart, "os.system.use")])
def test_the_wrong_toolboxes_run_those(wrong, name):
    ran = []
    wrong([Tool("use", "", {"type": "object"}, lambda: ran.append(1))]).call(name, "{}")
    assert ran == [1]


class SilentToolError(ToolError):
    def __str__(self):
        raise RuntimeError("no text")


class Moody(dict):
    def items(self):
        raise KeyError("no items")


@pytest.mark.parametrize(
    "raised", [SilentToolError(), asyncio.CancelledError(), GeneratorExit(), MemoryError()]
)
@pytest.mark.parametrize("timeout", [None, 5.0])
def test_whatever_a_tool_raises_is_told(raised, timeout):
    def fail():
        raise raised

    result = Toolbox([Tool("fail", "", {"type": "object"}, fail, timeout)]).call("fail", "{}")
    assert result.error == "exception" and result.content.startswith("error: ")


@pytest.mark.parametrize(
    "returned",
    [Moody(a=1), float("nan"), [float("inf")], {(1, 2): 3}, 10**5000, object()],
    ids=lambda v: type(v).__name__,
)
def test_whatever_a_tool_returns_is_told(returned):
    result = box({"type": "object"}, lambda: returned).call("use", "{}")
    assert result.error == "exception" and "returned no JSON value" in result.content


def test_an_error_carries_no_control_characters():
    def fail():
        raise ToolError("red \x1b[31malert\x07\x00 \x9b2J\r\nnext")

    content = box({"type": "object"}, fail).call("use", "{}").content
    assert content == "error: red [31malert 2J next"


# ------------------------------------------------------------------------------------------------- references
@pytest.fixture
def no_network(monkeypatch):
    """Opening a socket, or asking for a name, ends the test."""
    opened = []

    def refuse(*arguments, **options):
        opened.append(arguments)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    yield
    assert opened == []


LOST = {
    "a lost definition": value({"$ref": "#/$defs/gone"}),
    "a lost anchor": value({"$ref": "#gone"}),
    "a lost dynamic anchor": value({"$dynamicRef": "#gone"}),
    "the network": value({"$ref": "https://example.invalid/schema.json"}),
    "the network, plain": value({"$ref": "http://127.0.0.1:9/schema.json"}),
    "the network, by a base": {**value({"$ref": "other.json"}), "$id": "http://127.0.0.1:9/this.json"},
    "a file": value({"$ref": "file:///etc/hostname"}),
    "a file, by its path": value({"$ref": "hostname"}),
    "below a choice": value({"anyOf": [{"type": "null"}, {"items": {"$ref": "#/$defs/gone"}}]}),
    "in a definition that nobody uses": {"type": "object", "$defs": {"a": {"$ref": "#/$defs/gone"}}},
    "itself": {"type": "object", "$ref": "#"},
    "a circle of two": {
        **value({"$ref": "#/$defs/a"}),
        "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"allOf": [{"$ref": "#/$defs/a"}]}},
    },
    "a circle through not": value({"$anchor": "me", "not": {"$ref": "#me"}}),
    "a circle through a condition": value({"$anchor": "me", "if": {"$dynamicRef": "#me"}}),
    "a circle through a dependency": value({"$anchor": "me", "dependentSchemas": {"y": {"$ref": "#me"}}}),
}


@pytest.mark.parametrize("name", list(LOST))
def test_a_reference_that_leads_nowhere_is_refused_when_it_is_declared(name, no_network):
    with pytest.raises(ValueError, match="tool 'use': .*(leads nowhere|in a circle)"):
        box(LOST[name])


@pytest.mark.parametrize(
    "schema",
    [
        TREE,
        {"type": "object", "properties": {"x": {"$ref": "#"}}},
        {**value({"$ref": "#node"}), "$defs": {"n": {"$anchor": "node", "items": {"$ref": "#node"}}}},
        {**value({"$dynamicRef": "#node"}), "$defs": {"n": {"$dynamicAnchor": "node", "items": {"$dynamicRef": "#node"}}}},
        value({"$ref": "https://json-schema.org/draft/2020-12/schema"}),
        {**value({"$ref": "part"}), "$id": "https://example.invalid/whole", "$defs": {"p": {"$id": "part", "type": "array"}}},
        {**value({"allOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a"}]}), "$defs": {"a": {}}},
    ],
)  # fmt: skip
def test_a_reference_that_leads_somewhere_is_kept(schema, no_network):
    result = box(schema).call("use", '{"x": 7}')
    assert result.error in (None, "schema") and "cannot be checked" not in result.content


def test_a_property_may_be_called_ref():
    assert box({"type": "object", "properties": {"$ref": {"type": "string"}}}).call("use", '{"$ref": "a"}').ok


def test_even_a_checker_that_fails_is_told(monkeypatch, no_network):
    """What is not seen at the declaration ends in an error result, and nothing is fetched then either."""
    monkeypatch.setattr(schemas, "_check_references", lambda *a: None)
    schemas._compile.cache_clear()
    for name in LOST:
        if name != "in a definition that nobody uses":
            result = box(LOST[name]).call("use", '{"x": [[1], 2]}')
            assert result.error in (None, "schema"), name
    schemas._compile.cache_clear()


# ------------------------------------------------------------------------------------------------ declarations
def circle() -> dict:
    holder: dict = {"type": "object"}
    holder["properties"] = {"x": holder}
    return holder


@pytest.mark.parametrize(
    "schema",
    [None, [], "object", 5, {"type": ["object"]}, value({"minimum": float("nan")}), value({"const": {1, 2}}), circle(),
     value({"pattern": "("}), value({"multipleOf": 0}), json.loads('{"a":' * 900 + "1" + "}" * 900) | {"type": "object"} | value(json.loads('{"not":' * 400 + "{}" + "}" * 400))],
)  # fmt: skip
def test_what_is_no_schema_is_a_value_error(schema):
    with pytest.raises(ValueError, match="JSON schema"):
        box(schema)


@pytest.mark.parametrize("name", [None, 5, b"use", ["use"]])
def test_a_name_that_is_no_text_is_a_value_error(name):
    with pytest.raises(ValueError, match="letters, digits"):
        Tool(name, "", {"type": "object"}, print)


def test_a_reason_is_one_short_line():
    assert toolbox.shorten("a\u2028b\ud800\x85c", 99) == "a b? c"
    assert len(toolbox.shorten("a" * 999, 50)) == 50


def test_worlds_can_be_named_without_the_schema_checker():
    """Its packages for formats take a second to import; `--help` and a plan need none of it."""
    code = "import sys, kimi_mini.worlds, kimi_mini.pipeline.plan; sys.exit('jsonschema' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
