"""Tools: every bad call ends in one short line for the model and a named kind; nothing is raised.

`broken_rules` puts a toolbox through one call of every kind. The right one breaks no rule; four well-known
wrong ones (no schema check, silent repair, exceptions let through, undeclared names served) are caught.
"""

import json
import math
import random
import subprocess
import sys
import threading
import time

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kimi_mini import worlds
from kimi_mini.worlds.registry import world_of
from kimi_mini.worlds.tools import FIND_FIRST, Finder, arguments, toolbox
from kimi_mini.worlds.tools.toolbox import Tool, Toolbox, ToolError, ToolResult

ADD = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "integer", "minimum": 0}},
    "required": ["a", "b"],
    "additionalProperties": False,
}
NOTHING = {"type": "object", "properties": {}, "additionalProperties": False}


def refuse() -> None:
    raise ToolError("the shop is closed")


def crash() -> None:
    raise KeyError("lamp")


def leave() -> None:
    raise SystemExit(3)


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def crash_unprintably() -> None:
    raise Unprintable


def make_tools() -> list[Tool]:
    functions = (refuse, crash, leave, crash_unprintably)
    return [
        Tool("add", "Add two numbers.", ADD, lambda a, b: a + b),
        *(Tool(function.__name__, "Fail.", NOTHING, function) for function in functions),
        Tool("circle", "Return what JSON cannot hold.", NOTHING, lambda: {1, 2}),
        Tool("hang", "Never answer.", NOTHING, lambda: time.sleep(0.3), timeout=0.02),
    ]


# name, arguments -> error kind and what the model must be able to read
CALLS = {
    "right": ("add", '{"a": 1, "b": 2}', None, "3"),
    "undeclared": ("subtract", '{"a": 1, "b": 2}', "undeclared", "declared: add"),
    "undeclared in this case of letters": ("ADD", '{"a": 1, "b": 2}', "undeclared", "declared: add"),
    "undeclared, though it is an attribute": ("__class__", "{}", "undeclared", "no tool"),
    "cut short": ("add", '{"a": 1, "b"', "bad_json", "not JSON"),
    "empty": ("add", "", "bad_json", "not JSON"),
    "Python, not JSON": ("add", "{'a': 1, 'b': 2}", "bad_json", "character 1"),
    "not a number": ("add", '{"a": NaN, "b": 2}', "bad_json", "NaN"),
    "nested without end": ("add", "[" * 100_000, "bad_json", "not JSON"),
    "a number without end": ("add", '{"a": 1, "b": ' + "9" * 5000 + "}", "bad_json", "not JSON"),
    "double-encoded": ("add", json.dumps('{"a": 1, "b": 2}'), "double_encoded", "JSON string"),
    "encoded three times": (
        "add",
        json.dumps(json.dumps('{"a": 1, "b": 2}')),
        "double_encoded",
        "JSON string",
    ),
    "a plain string": ("add", '"one and two"', "schema", "not of type 'object'"),
    "a list": ("add", "[1, 2]", "schema", "not of type 'object'"),
    "missing": ("add", '{"a": 1}', "schema", "'b' is a required property"),
    "wrong type": ("add", '{"a": "one", "b": 2}', "schema", "arguments.a: 'one' is not of type 'integer'"),
    "too small": ("add", '{"a": 1, "b": -2}', "schema", "arguments.b: -2 is less than the minimum"),
    "unknown argument": ("add", '{"a": 1, "b": 2, "c": 3}', "schema", "'c' was unexpected"),
    "refused": ("refuse", "{}", "exception", "error: the shop is closed"),
    "crash": ("crash", "{}", "exception", "crash failed: KeyError: 'lamp'"),
    "exit": ("leave", "{}", "exception", "leave failed: SystemExit: 3"),
    "crash without text": ("crash_unprintably", "{}", "exception", "crash_unprintably failed"),
    "no JSON comes back": ("circle", "{}", "exception", "circle returned no JSON value"),
    "no answer": ("hang", "{}", "timeout", "hang did not answer in 0.02 s"),
}


def broken_rules(toolbox_class: type[Toolbox]) -> set[str]:
    """Names of the calls that this class of toolbox answers wrongly."""
    box, broken = toolbox_class(make_tools()), set()
    for name, (tool, text, kind, words) in CALLS.items():
        try:
            result = box.call(tool, text)
        except BaseException:  # noqa: BLE001  a rollout would have ended here
            broken.add(name)
            continue
        clear = words in result.content and "\n" not in result.content and len(result.content) < 250
        told = result.content.startswith("error: ") == (kind is not None)
        if not (clear and told and result.error == kind and result.ok == (kind is None)):
            broken.add(name)
    return broken


def test_every_kind_of_call_gets_its_answer():
    assert broken_rules(Toolbox) == set()


class NoSchemaCheck(Toolbox):
    def call(self, name, text):
        try:
            return ToolResult(True, str(self._find(name).function(**json.loads(text))), None, 0.0)
        except arguments.CallError as problem:
            return ToolResult(False, f"error: {problem}", problem.kind, 0.0)
        except Exception as error:  # noqa: BLE001
            return ToolResult(False, f"error: {error}", "exception", 0.0)


class SilentRepair(Toolbox):
    def call(self, name, text):
        try:
            value = json.loads(text)
            return super().call(name, value if isinstance(value, str) else text)
        except ValueError:
            return super().call(name, text)


class LetsThrough(Toolbox):
    def call(self, name, text):
        tool = self._find(name)
        return ToolResult(True, str(tool.function(**arguments.read(text, tool._validators))), None, 0.0)


class ServesAnyName(Toolbox):
    def _find(self, name):
        return self.tools.get(name) or self.tools["add"]


@pytest.mark.parametrize(
    ("mutant", "caught_by"),
    [
        (NoSchemaCheck, "too small"),
        (SilentRepair, "double-encoded"),
        (LetsThrough, "crash"),
        (ServesAnyName, "undeclared"),
    ],
)
def test_the_wrong_toolboxes_are_caught(mutant, caught_by):
    assert caught_by in broken_rules(mutant)


# ---------------------------------------------------------------------------------------- what comes back
def box_for(value) -> Toolbox:
    return Toolbox([Tool("get", "Get it.", NOTHING, lambda: value)])


@pytest.mark.parametrize(
    ("value", "text"),
    [("plain", "plain"), (7, "7"), ({"k": [1, None]}, '{"k": [1, null]}'), (None, "null"), ("ü\n", "ü\n")],
)
def test_text_stays_and_the_rest_becomes_json(value, text):
    assert box_for(value).call("get", "{}").content == text


def test_a_long_result_is_cut_and_says_so():
    content = box_for("x" * (toolbox.MAX_CONTENT + 17)).call("get", "{}").content
    assert content == "x" * toolbox.MAX_CONTENT + "... (17 more characters)"


def test_a_lone_surrogate_cannot_reach_the_tokenizer():
    echo = Tool("echo", "Say it again.", {"type": "object"}, lambda text: text)
    content = Toolbox([echo]).call("echo", '{"text": "a\\ud800b"}').content
    assert content.encode("utf-8") == b"a?b"


@pytest.mark.parametrize("family", ["follow", "condition", "cheapest", "buy", "repair"])
def test_an_argument_that_was_not_declared_never_reaches_a_tool(family):
    """The tools of the worlds; the schemas that the model sees do not say additionalProperties."""
    place = world_of(family).open_environment(worlds.generate(random.Random(0), family, 2))
    for tool in place.toolbox.tools.values():
        kinds = {"string": "a", "integer": 1}
        right = {name: kinds[entry["type"]] for name, entry in tool.parameters["properties"].items()}
        result = place.toolbox.call(tool.name, json.dumps({**right, "colour": "red"}))
        assert result.error == "schema" and "'colour' was unexpected" in result.content
    place.close()


def test_a_schema_may_leave_itself_open():
    free = {"type": "object", "properties": {}, "additionalProperties": True}
    assert (
        Toolbox([Tool("echo", "", free, lambda **given: given)]).call("echo", '{"a": 1}').content
        == '{"a": 1}'
    )


def test_error_text_of_a_tool_is_one_short_line():
    def shout() -> None:
        raise ValueError("first\nsecond " + "x" * 5000)

    result = Toolbox([Tool("shout", "Shout.", NOTHING, shout)]).call("shout", "{}")
    assert "\n" not in result.content
    assert result.content.startswith("error: shout failed: ValueError: first second xxx")
    assert len(result.content) <= toolbox.MAX_REASON + len("error: ")


@settings(max_examples=50)
@given(
    name=st.text(),
    text=st.text()
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from("abc"), inner),
    ).map(json.dumps),
)
def test_nothing_a_model_writes_raises(name, text):
    box = Toolbox(make_tools()[:1])
    for called in (name, "add"):
        result = box.call(called, text)
        assert result.ok == (result.error is None)
        result.content.encode("utf-8")


@settings(max_examples=50)
@given(st.dictionaries(st.sampled_from("abc"), st.integers() | st.text() | st.none(), max_size=3))
def test_our_verdict_is_the_verdict_of_jsonschema(arguments):
    result = Toolbox(make_tools()[:1]).call("add", json.dumps(arguments))
    assert result.ok == jsonschema.Draft202012Validator(ADD).is_valid(arguments)


def test_ctrl_c_inside_a_tool_reaches_the_user():
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Toolbox([Tool("wait", "Wait.", NOTHING, interrupted)]).call("wait", "{}")


# ------------------------------------------------------------------------------------------- declarations
def test_declarations_are_openai_functions_in_order():
    declared = Toolbox(make_tools()).declarations()
    assert [entry["function"]["name"] for entry in declared][:2] == ["add", "refuse"]
    assert declared[0] == {
        "type": "function",
        "function": {"name": "add", "description": "Add two numbers.", "parameters": ADD},
    }


def test_canonical_declarations_have_their_keys_in_order_and_lists_as_they_were():
    tool = Tool(
        "look", "Looks.", {"type": "object", "required": ["b", "a"], "properties": {"b": {}, "a": {}}}, print
    )
    [declared] = Toolbox([tool], canonical=True).declarations()
    text = '{"function":{"description":"Looks.","name":"look","parameters":{"properties":{"a":{},"b":{}},'
    text += '"required":["b","a"],"type":"object"}},"type":"function"}'
    assert json.dumps(declared, separators=(",", ":")) == text


@pytest.mark.parametrize("name", ["", "a.b", "a:0", "two words", "1st", "<|im_end|>"])
def test_a_name_that_would_break_the_call_id_is_refused(name):
    with pytest.raises(ValueError, match="letters, digits"):
        Tool(name, "", NOTHING, print)


@pytest.mark.parametrize("schema", [{"type": "string"}, {"type": "object", "required": "a"}, {}])
def test_a_schema_that_is_none_is_refused_when_it_is_declared(schema):
    with pytest.raises(ValueError, match="JSON schema"):
        Tool("add", "", schema, print)


def test_two_tools_of_one_name_are_refused():
    with pytest.raises(ValueError, match="two tools"):
        Toolbox(make_tools()[:1] * 2)


# --------------------------------------------------------------------------------------- tools to be found
SHELF = {
    "get_price": "Tells the price of an item.",
    "setPrice": "Changes the price of an item, whatever it was before.",
    "remove-item": "Use it to remove an item for good.",
    "stock": "Tells how many there are.",
    "buyItem": "Buys it.",
}


def shelf(finder=Finder, more: str = "", **options) -> Finder:
    """A finder over five tools, each with a longer description if wanted."""
    return finder([Tool(n, text + more, NOTHING, lambda n=n: n) for n, text in SHELF.items()], **options)


def search(box: Finder, words: str) -> str:
    return box.call("find_tools", json.dumps({"words": words})).content


def names_in(declarations: list[dict]) -> list[str]:
    return [one["function"]["name"] for one in declarations]


def callable_in(box: Finder) -> set[str]:
    """What may be called: undeclared tools say what helps."""
    results = {name: box.call(name, "{}") for name in (*SHELF, "fly")}
    for result in results.values():
        assert result.ok or (result.error == "undeclared" and result.content.endswith(f"; {FIND_FIRST}"))
    return {name for name, result in results.items() if result.ok}


def open_before_found(finder) -> bool:
    box = shelf(finder, declared=1)
    before = callable_in(box)
    search(box, "how many are there?")
    declared = ["find_tools", "get_price"]
    return (
        before != {"get_price"}
        or callable_in(box) != {"get_price", "stock"}
        or names_in(box.declarations()) != declared
    )


def finds_too_much(finder) -> bool:
    many, none = search(shelf(finder, best=2), "item price"), shelf(finder)
    return len(json.loads(many)) != 2 or search(none, "zeppelin") != "none" or callable_in(none) != set()


def cuts_a_declaration(finder) -> bool:
    """Also a tool may be called that stood in no result, or one may not that did."""
    box = shelf(finder, " or so" * 250, best=5)
    text = search(box, "tells price item many it")
    try:
        return set(names_in(json.loads(text))) != callable_in(box) or not 2 <= len(callable_in(box)) < 5
    except ValueError:
        return True


class OpenToAll(Finder):
    def _find(self, name):
        return self.hidden.get(name) or super()._find(name)


class FindsAll(Finder):
    def _ranked(self, asked):
        return list(self.hidden.values())

    best = property(lambda self: 99, lambda self, value: None)


class Cuts(Finder):
    def find(self, words):
        found = self._ranked(words.split())
        self.tools |= {tool.name: tool for tool in found}
        return self._text(found)


@pytest.mark.parametrize(
    ("rule", "mutant"),
    [(open_before_found, OpenToAll), (finds_too_much, FindsAll), (cuts_a_declaration, Cuts)],
)
def test_a_finder_keeps_its_rules(rule, mutant):
    assert not rule(Finder) and rule(mutant)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("Price!", ["get_price", "setPrice"]),  # twice in both; the shorter text first
        ("set the price", ["setPrice", "get_price"]),
        ("ITEM", ["remove-item", "buyItem", "get_price"]),  # twice in the first; three at most
        ("price stock", ["stock", "get_price", "setPrice"]),  # the rare word weighs more
        ("prices", []),
        ("removeItem", ["remove-item", "buyItem", "get_price"]),
    ],
)
def test_the_best_match_stands_first(words, found):
    box = shelf()
    search(box, "item")
    for text in (search(box, words), search(shelf(), words)):
        assert (names_in(json.loads(text)) if found else text) == (found or "none"), (
            "earlier searches change nothing"
        )


def test_equal_matches_stand_as_they_were_given():
    names = random.Random(0).sample("abcdefgh", 8)
    text = search(Finder([Tool(name, "Same.", NOTHING, print) for name in names], best=5), "same")
    assert names_in(json.loads(text)) == names[:5]


def test_a_score_is_that_of_the_book():
    """BM25 by hand: two texts of 2 and 4 words, K1 1.5 and B 0.75, a word that stands twice in the longer."""
    box = Finder([Tool("a", "b", NOTHING, print), Tool("c", "d e e", NOTHING, print)])
    rare, slow = math.log(1 + 1.5 / 1.5), 1.5 * (0.25 + 0.75 * 4 / 3)
    assert box.scores(["e"]) == pytest.approx({"a": 0.0, "c": rare * 2 * 2.5 / (2 + slow)})


def test_a_result_is_written_as_declarations_are():
    for canonical in (True, False):
        text = search(shelf(canonical=canonical), "stock")
        [declared] = Toolbox([Tool("stock", SHELF["stock"], NOTHING, print)], canonical).declarations()
        assert text == json.dumps([declared], separators=(",", ":"))


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ('{"words": ""}', "exception", "words: say what the tool does"),
        ('{"words": " _-? "}', "exception", "words: say what the tool does"),
        ('{"words": "price", "best": 9}', "schema", "best"),
        ('{"words": ["price"]}', "schema", "is not of type 'string'"),
        ("{}", "schema", "words"),
    ],
)
def test_a_bad_search_finds_nothing(text, kind, words):
    box = shelf()
    result = box.call("find_tools", text)
    assert result.error == kind and words in result.content and callable_in(box) == set()


@pytest.mark.parametrize(
    ("options", "words"),
    [({"declared": -1}, "0 or more"), ({"best": 0}, "best 1 or more"), ({"more": "x" * 4000}, "longer than")],
)
def test_a_finder_that_makes_no_sense_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        shelf(**options)


def test_a_finder_may_have_nothing_to_find():
    assert search(Finder([]), "price") == "none" and search(shelf(declared=5), "price") == "none"
    with pytest.raises(ValueError, match="two tools"):
        Finder([Tool("find_tools", "", NOTHING, print)])


# ----------------------------------------------------------------------------------------- time and speed
def test_only_a_tool_with_a_timeout_gets_a_thread():
    seen = []
    where = {"timeout": 5.0}, {}
    for options in where:
        tool = Tool(
            "who", "Say who runs.", NOTHING, lambda: seen.append(threading.current_thread()), **options
        )
        assert Toolbox([tool]).call("who", "{}").ok
    assert seen[0] is not threading.main_thread()
    assert seen[1] is threading.main_thread()


def test_an_error_inside_a_thread_is_told_like_any_other():
    result = Toolbox([Tool("crash", "Fail.", NOTHING, crash, timeout=5.0)]).call("crash", "{}")
    assert (result.error, result.content) == ("exception", "error: crash failed: KeyError: 'lamp'")


def test_a_tool_that_keeps_hanging_is_not_given_more_threads():
    release, started = threading.Event(), []

    def hang() -> None:
        started.append(1)
        release.wait(10)

    box = Toolbox([Tool("hang", "Never answer.", NOTHING, hang, timeout=0.01)])
    results = [box.call("hang", "{}") for _ in range(toolbox.MAX_HANGING + 3)]
    assert {result.error for result in results} == {"timeout"}
    assert len(started) == toolbox.MAX_HANGING
    assert "is stuck" in results[-1].content
    release.set()


def test_a_good_call_costs_little():
    box = Toolbox(make_tools())
    start = time.process_time()
    for _ in range(500):
        box.call("add", '{"a": 1, "b": 2}')
    assert (time.process_time() - start) / 500 < 150e-6  # measured: 17 microseconds


def test_a_first_tool_compiles_no_grammars():
    """jsonschema would, for two seconds, for a format that no schema of ours is checked by; whoever wants it still can."""
    code = (
        "import sys, kimi_mini.worlds.tools.schema\n"
        "assert 'lark' not in sys.modules and 'rfc3987_syntax' not in sys.modules\n"
        "import rfc3987_syntax"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
