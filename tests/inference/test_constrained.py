"""Constrained calls: what is valid can be written, what is not cannot, and nobody else notices.

The judge is the toolbox's own checker (jsonschema): a call is admitted exactly when it would accept the arguments.
"""

import itertools
import json
import random
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, FormatChecker
from tiny import tiny_model, typed
from values import spoilt, value_of

from kimi_mini.agent.loop import play
from kimi_mini.base.errors import KimiError
from kimi_mini.evaluation.drawn_schemas import drawn_parameters
from kimi_mini.inference.serving.constrained import Constraint, with_found
from kimi_mini.inference.serving.schemas import UnsupportedSchema
from kimi_mini.inference.writer import Marks, Row, Writer, dice
from kimi_mini.text import chat
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.worlds import FAMILIES
from kimi_mini.worlds.registry import held_out_tasks, measured_levels
from kimi_mini.worlds.tools import FIND
from kimi_mini.worlds.tools.arguments import CallError, read
from kimi_mini.worlds.tools.schema import compile_schema

TOKENIZER = Tokenizer.load()
SPECIAL = TOKENIZER.special
SECTION, END = SPECIAL["<|tool_calls_section_begin|>"], SPECIAL["<|im_end|>"]
MODEL = tiny_model().eval()


def tool(name: str, parameters: dict | None = None) -> dict:
    function = {"name": name} | ({} if parameters is None else {"parameters": parameters})
    return {"type": "function", "function": function}


def closed(**properties) -> dict:
    return {"type": "object", "properties": properties, "required": list(properties)}


BUY = tool("buy", closed(item={"type": "string"}, count={"type": "integer", "minimum": 1}))
TOOLS = [BUY, tool("price", closed(item={"type": "string"})), tool("look-up_2")]


def turn(*calls: tuple[str, str], thought: str = "so", content: str = "") -> list[int]:
    """The tokens of a turn with these calls: (id, arguments)."""
    made = [
        {"id": call_id, "type": "function", "function": {"name": "", "arguments": text}}
        for call_id, text in calls
    ]
    return typed(
        TOKENIZER, {"role": "assistant", "content": content, "reasoning_content": thought, "tool_calls": made}
    )


def coming(hook: Constraint, row: Row) -> list[int]:
    """The tokens that may come next."""
    return [token for token, may_come in enumerate(hook(row)) if may_come]


def admitted(ids: list[int], hook: Constraint) -> int:
    """How many of the tokens may be written, one behind the other."""
    row = Row([], 10**6, frozenset())
    for number, token in enumerate(ids):
        if not hook(row)[token]:
            return number
        row.add(token, own=True)
    return len(ids)


def writes(ids: list[int], **options) -> bool:
    return admitted(ids, Constraint(TOKENIZER, **{"tools": TOOLS, **options})) == len(ids)


def accepts(parameters: dict, arguments: str) -> bool:
    """Whether the grammar of one tool lets these arguments pass."""
    return writes(turn(("functions.f:0", arguments)), tools=[tool("f", parameters)])


def compact(value) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


# ------------------------------------------------------------------------------------------ the format


def test_calls_as_the_template_renders_them_may_be_written():
    two = turn(
        ("functions.buy:3", '{"item":"jar","count":2}'), ("functions.look-up_2:4", "{}"), content="Well. "
    )
    assert writes(two, next_call=3) and writes(two, next_call=3, thinking=False)
    assert writes(turn(thought="no call", content="An answer."))
    # tool_choice: a turn that must call does not speak first, and a turn that must not cannot
    assert not writes(two, next_call=3, tool_choice="none")
    assert not writes(two, next_call=3, tool_choice="required")
    silent = turn(
        ("functions.buy:3", '{"item":"jar","count":2}'), ("functions.buy:4", '{"item":"","count":1}')
    )
    assert writes(silent, next_call=3, tool_choice="required")
    assert not writes(silent, next_call=3, parallel=False)
    assert not writes(turn(content="An answer."), tool_choice="required")


@pytest.mark.parametrize(
    "call",
    [
        ("functions.buy:0", '{"item":"jar"}'),  # a required field forgotten
        ("functions.buy:0", '{"item":"jar","count":0}'),
        ("functions.buy:0", '{"item":"jar","count":"2"}'),
        ("functions.buy:0", '{"item":"jar","count":2,"why":"so"}'),
        ("functions.buy:0", '{"item":"jar","count":2}{"item":"jar","count":2}'),  # a second value
        ("functions.buy:0", '{"item":"jar","count":2} '),
        ("functions.buy:0", '{"item": "jar", "count": 2}'),  # not as it is rendered
        ("functions.buy:0", '{"count":2,"item":"jar"}'),
        ("functions.buy:0", '"{\\"item\\":\\"jar\\",\\"count\\":2}"'),  # encoded twice
        ("functions.buy:0", '{"item":"jar","count":2'),
        ("functions.buy:0", ""),
        ("functions.buy:1", '{"item":"jar","count":2}'),  # the counter
        ("functions.buy:00", '{"item":"jar","count":2}'),
        ("functions.sell:0", '{"item":"jar"}'),  # not declared
        ("functions.bu:0", '{"item":"jar","count":2}'),
        ("buy:0", '{"item":"jar","count":2}'),
        ("functions.price:0", '{"item":"jar","count":2}'),  # another tool's arguments
    ],
)
def test_what_is_wrong_with_a_call_cannot_be_written(call):
    assert not writes(turn(call))


def test_a_section_is_whole():
    """Every token of a valid section is needed, and what may come next is the right token, not its neighbour."""
    ids = turn(("functions.buy:0", '{"item":"jar","count":2}'))
    begin = ids.index(SECTION) + 1
    for place in range(begin, len(ids)):
        row = Row([], 999, frozenset(), ids=ids[:place])
        allowed = Constraint(TOKENIZER, TOOLS)(row)
        assert allowed[ids[place]]
        if ids[place] >= TOKENIZER.first_special:  # a marker: where it is due, most others are not
            others = {index for index in SPECIAL.values() if allowed[index]}
            assert others <= {
                ids[place],
                SPECIAL["<|tool_call_begin|>"],
                SPECIAL["<|tool_calls_section_end|>"],
            }
    row = Row([], 999, frozenset(), ids=ids[:begin])
    assert coming(Constraint(TOKENIZER, TOOLS), row) == [SPECIAL["<|tool_call_begin|>"]]
    row.ids = ids[:-1]
    assert coming(Constraint(TOKENIZER, TOOLS), row) == [END]


def test_thought_and_text_are_free_but_for_stray_markers():
    """The letters of a marker are text and begin nothing; the marker of a single call outside of its section, which
    the parser would read as a call, cannot be written; nor can what begins another turn."""
    spelt = list(TOKENIZER.encode_plain("<|tool_calls_section_begin|><|tool_call_begin|>functions.x:9 {"))
    hook, row = Constraint(TOKENIZER, TOOLS), Row([], 999, frozenset())
    for token in [SPECIAL["<think>"], *spelt, SPECIAL["</think>"], *spelt]:
        allowed = hook(row)
        assert all(allowed[: TOKENIZER.first_special]) and allowed[SECTION] and allowed[END]
        for name in ("<|tool_call_begin|>", "<|tool_call_end|>", "<|im_middle|>", "<|im_user|>", "[PAD]"):
            assert not allowed[SPECIAL[name]]
        row.add(token, own=True)
    assert not Constraint(TOKENIZER, TOOLS, "none")(Row([], 9, frozenset()))[SECTION]
    assert not Constraint(TOKENIZER)(Row([], 9, frozenset()))[SECTION]


def test_required_leaves_the_thought_alone_and_calls_behind_it():
    hook, row = Constraint(TOKENIZER, TOOLS, "required"), Row([], 999, frozenset())
    assert coming(hook, row) == [SPECIAL["<think>"]]
    for token in [SPECIAL["<think>"], *TOKENIZER.encode_plain("what now?")]:
        row.add(token, own=True)
        allowed = hook(row)
        assert all(allowed[: TOKENIZER.first_special]) and not allowed[END] and not allowed[SPECIAL["[EOS]"]]
    row.add(SPECIAL["</think>"], own=True)
    assert coming(hook, row) == [SECTION]
    reflex = Constraint(TOKENIZER, TOOLS, "required", thinking=False)
    assert coming(reflex, Row([], 9, frozenset())) == [SECTION]


def test_a_named_tool_is_the_only_one_and_is_called_once():
    named = {"type": "function", "function": {"name": "price"}}
    assert writes(turn(("functions.price:0", '{"item":"a"}')), tool_choice=named)
    assert not writes(turn(("functions.look-up_2:0", "{}")), tool_choice=named)
    twice = turn(("functions.price:0", '{"item":"a"}'), ("functions.price:1", '{"item":"b"}'))
    assert not writes(twice, tool_choice=named) and writes(twice)


def test_markers_unicode_and_escapes_inside_arguments_are_text():
    said = '<|tool_call_end|></think><|im_end|> "q" \\ é 😀 \n\t functions.buy:0'
    ids = turn(("functions.price:0", compact({"item": said})))
    assert writes(ids)
    (call,) = chat.parse_ids(TOKENIZER, ids)["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {"item": said}
    place = ids.index(TOKENIZER.token_id("item")) if "item" in TOKENIZER.special else len(ids) - 8
    for marker in SPECIAL.values():  # as a token it never stands inside a string
        assert not Constraint(TOKENIZER, TOOLS)(Row([], 9, frozenset(), ids=ids[:place]))[marker]


def test_ten_calls_count_on():
    calls = [(f"functions.look-up_2:{index}", "{}") for index in range(8, 112)]
    assert writes(turn(*calls), next_call=8)
    calls[50] = calls[49]
    assert not writes(turn(*calls), next_call=8)


# --------------------------------------------------------------------------------------- rows and turns


def test_a_hook_follows_its_row_and_begins_anew_for_another():
    first = turn(("functions.buy:0", '{"item":"jar","count":2}'))
    second = turn(("functions.price:0", '{"item":"k"}'), thought="else")
    hook = Constraint(TOKENIZER, TOOLS)
    for ids, place in itertools.product(
        (first, second, first), (3, 9, 12, 15)
    ):  # forwards, backwards, other rows
        row = Row([], 999, frozenset(), ids=ids[:place])
        assert hook(row) == Constraint(TOKENIZER, TOOLS)(row)
        assert hook(row) == Constraint(TOKENIZER, TOOLS)(row)  # asked twice


def written(hooks: list, temperature: float, most: int = 60) -> list[Row]:
    writer = Writer(MODEL, len(hooks), 256, temperature)
    stops, marks = frozenset({END, SPECIAL["[EOS]"]}), Marks.of(TOKENIZER)
    rows = [
        Row([5, 6, 7 + number], most, stops, dice(1, number), None, marks, hook)
        for number, hook in enumerate(hooks)
    ]
    for place, row in enumerate(rows):
        writer.join(place, row)
    writer.run()
    return rows


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_neighbours_do_not_notice(temperature):
    alone = written([None, None, None], temperature)
    hook = Constraint(TOKENIZER, TOOLS, "required", thinking=False)
    among = written([None, hook, None], temperature)
    assert among[1].ids[0] == SECTION
    for before, after in ((alone[0], among[0]), (alone[2], among[2])):
        assert before.ids == after.ids and before.logprobs == after.logprobs


def test_a_model_of_noise_only_writes_valid_calls():
    """Random weights, random tokens: whatever ends as a call is one that the toolbox would run."""
    small = tool(
        "f", closed(a={"type": "string", "maxLength": 3}, b={"type": "array", "items": {"enum": [1, "x"]}})
    )
    hooks = [Constraint(TOKENIZER, [small], "required", thinking=False) for _ in range(24)]
    counted = 0
    for row in written(hooks, 1.0, most=120):
        message = chat.parse_ids(TOKENIZER, row.ids, False)
        for index, call in enumerate(message.get("tool_calls", [])):
            assert call["id"] == f"functions.f:{index}"
            read(call["function"]["arguments"], compile_schema(small["function"]["parameters"]))
            counted += 1
        assert (row.finish == "stop") == (not message["errors"])
    assert counted >= 20


def test_a_call_without_room_is_no_call():
    """Two tokens short: the turn's finish is length, the parser says so and counts only what was closed."""
    ids = turn(
        ("functions.buy:0", '{"item":"jar","count":2}'), ("functions.buy:1", '{"item":"jar","count":2}')
    )
    row = Row([], len(ids) - 3, frozenset({END}), marks=Marks.of(TOKENIZER))
    hook = Constraint(TOKENIZER, TOOLS)
    while row.finish is None:
        token = ids[len(row.ids)]
        assert hook(row)[token]
        row.take(token, 0.0)
    message = chat.parse_ids(TOKENIZER, row.ids)
    assert row.finish == message["finish"] == "length"
    assert [call["id"] for call in message["tool_calls"]] == ["functions.buy:0"]


def test_a_grammar_that_cannot_go_on_is_an_error_and_no_end_of_a_turn():
    """llguidance has limits; beyond them there is a reason, for the engine to end this row alone (see Engine)."""
    hook, row = Constraint(TOKENIZER, TOOLS), Row([], 99, frozenset())
    row.ids = turn(("functions.buy:0", '{"item":"jar","count":2}'))[:-8] + [
        SPECIAL["<think>"]
    ]  # given from outside
    with pytest.raises(KimiError, match="a grammar cannot go on: "):
        hook(row)


# ------------------------------------------------------------------------------------------- tools that were found


def found_by(name: str, content) -> dict:
    return {"role": "tool", "name": name, "tool_call_id": f"functions.{name}:0", "content": content}


def test_what_a_search_has_found_may_be_called_with_its_schema():
    results = [found_by(FIND, json.dumps([BUY])), found_by(FIND, [{"text": json.dumps([TOOLS[1], BUY])}])]
    tools = with_found([tool(FIND)], [{"role": "user", "content": "buy"}, *results])
    assert tools == [tool(FIND), BUY, TOOLS[1]]
    assert writes(turn(("functions.buy:1", '{"item":"jar","count":2}')), tools=tools, next_call=1)
    assert not writes(turn(("functions.buy:1", '{"item":"jar","count":0}')), tools=tools, next_call=1)


@pytest.mark.parametrize(
    "content",
    ["none", "", None, "[", "3", '"buy"', '{"buy": 1}', '["buy"]', "[" * 10**5, 7, [{"type": "image_url"}]]
    + [json.dumps([one]) for one in ({"name": "buy"}, {"type": "function"}, tool(["buy"]), tool(FIND))]
    + [json.dumps([BUY])[:-1], json.dumps([{"type": "function", "function": {}}])],
    ids=lambda content: str(content)[:24],
)
def test_a_result_that_is_no_list_of_declarations_finds_nothing(content):
    assert with_found([tool(FIND)], [found_by(FIND, content)]) == [tool(FIND)]


def test_only_a_declared_search_finds_and_what_is_declared_stays_as_it_is():
    other = tool("buy", closed(nothing={"type": "null"}))
    result = found_by(FIND, json.dumps([other]))
    assert with_found([BUY], [result]) == [BUY] and with_found(None, [result]) == []
    assert with_found([tool(FIND), BUY], [result]) == [tool(FIND), BUY]
    assert with_found([tool(FIND)], [result | {"name": "price"}, result | {"role": "user"}]) == [tool(FIND)]


# ----------------------------------------------------------------------------------- schemas and values


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.data())
def test_exactly_the_valid_arguments_may_be_written(seed, data):
    """Schemas and values drawn: what the toolbox's checker accepts is admitted, what it refuses is not."""
    parameters = drawn_parameters(random.Random(seed))
    checkers = compile_schema(parameters)
    # the grammar keeps formats, too, and to JSON schema a "$" is the end, while Python lets a line end pass behind it
    ends = json.loads(json.dumps(parameters).replace('$"', '\\\\Z"'))
    strict = Draft202012Validator(ends, format_checker=FormatChecker())
    rng = random.Random(data.draw(st.integers(0, 10**6)))
    for _ in range(4):
        value = value_of(parameters, rng, parameters)
        read(compact(value), checkers)  # else the helper is wrong
        assert accepts(parameters, compact(value)), (parameters, value)
        wrong = spoilt(value, rng)
        valid = all(checker.is_valid(wrong) for checker in (*checkers, strict))
        assert accepts(parameters, compact(wrong)) == valid, (parameters, wrong)


@settings(max_examples=60)
@given(st.integers(0, 10**6))
def test_whatever_tokens_are_chosen_the_arguments_are_valid(seed):
    """A walk over the masks at random, which after a while prefers what closes."""
    rng = random.Random(seed)
    parameters = drawn_parameters(rng)
    hook = Constraint(TOKENIZER, [tool("f", parameters)], "required", thinking=False)
    row, closing = Row([], 9999, frozenset()), {TOKENIZER.token_id(text) for text in ('"', "}", "]")}
    while not row.ids or row.ids[-1] != END:
        allowed = coming(hook, row)
        ends = [token for token in allowed if token >= TOKENIZER.first_special or token in closing]
        row.add(rng.choice(ends if ends and len(row.ids) > 60 else allowed), own=True)
        assert len(row.ids) < 3000
    message = chat.parse_ids(TOKENIZER, row.ids, False)
    assert not message["errors"]
    for call in message["tool_calls"]:
        read(call["function"]["arguments"], compile_schema(parameters))


LOOP = {"type": "object", "properties": {"n": {"$ref": "#/$defs/n"}}, "required": ["n"]}


@pytest.mark.parametrize(
    ("field", "named"),
    [  # what llguidance refuses in its own words, what it passes over in silence, and what it reads in another way
        ({"type": "array", "items": {}, "uniqueItems": True}, "'uniqueItems'"),
        ({"type": "array", "contains": {"const": 1}}, "'contains'"),
        ({"not": {"const": 3}}, "'not'"),
        ({"if": {"const": 1}, "then": {"type": "null"}}, "'if'"),
        ({"type": "object", "propertyNames": {"pattern": "^a"}}, "'propertyNames'"),
        ({"type": "object", "patternProperties": {"^a": {}}}, "'patternProperties'"),
        ({"type": "object", "minProperties": 1}, "'minProperties'"),
        ({"type": "object", "dependentRequired": {"a": ["b"]}}, "'dependentRequired'"),
        ({"type": "object", "unevaluatedProperties": False}, "'unevaluatedProperties'"),
        ({"type": "integer", "minimun": 3}, "'minimun'"),
        ({"type": "string", "nullable": True}, "'nullable'"),
        ({"type": "integer", "format": "int32"}, "'format' 'int32'"),
        ({"type": "string", "format": "iri"}, "'format' 'iri'"),
        ({"oneOf": [{"type": "integer", "minimum": 0}, {"type": "integer", "maximum": 5}]}, "'oneOf'"),
        ({"type": "number", "multipleOf": 0.01}, "'multipleOf' of 0.01"),
        ({"type": "string", "pattern": r"^\D+$"}, r"'pattern' holds '\\D'"),
        ({"type": "string", "pattern": r"^[^\s]$"}, "'pattern' holds"),
        ({"type": "string", "pattern": r"\bfoo"}, "'pattern' holds"),
        ({"type": "string", "pattern": "^(?=a)b"}, "'pattern' holds"),
        ({"type": "string", "pattern": r"^(a)\1$"}, "'pattern' holds"),
        ({"type": "string", "pattern": "^[a&&b]$"}, "'pattern' holds"),
        ({"type": "string", "pattern": "("}, "not a JSON schema: '(' is not a 'regex'"),
        ({"type": "integer", "$anchor": "node"}, "'$anchor'"),
        ({"$ref": "http://example.org/a"}, "leads nowhere"),
        ({"$ref": "#/$defs/n", "$defs": {"n": {"$ref": "#/$defs/n"}}}, "leads nowhere"),
        ({"type": "integer", "minimum": 5, "maximum": 3}, "nsatisfiable"),
        ({"type": "integer", "exclusiveMinimum": 5, "exclusiveMaximum": 6}, "nsatisfiable"),
        ({"type": "integer", "minimum": 8, "maximum": 13, "multipleOf": 7}, "nsatisfiable"),
        ({"const": "x", "type": "integer"}, "nsatisfiable"),
        (False, "nsatisfiable"),
        ({"type": "wrong"}, "not a JSON schema"),
    ],
)
def test_what_cannot_be_kept_is_refused_by_its_name(field, named):
    with pytest.raises(UnsupportedSchema) as raised:
        Constraint(
            TOKENIZER, [BUY, tool("f", {"type": "object", "properties": {"a": field}, "required": ["a"]})]
        )
    said = str(raised.value)
    assert named in said and said.startswith("tool 'f': ") and "\n" not in said and len(said) < 300


def test_a_schema_without_a_finite_value_is_refused():
    with pytest.raises(UnsupportedSchema, match=r"'\$ref' goes on without an end"):
        Constraint(TOKENIZER, [tool("f", {"$defs": {"n": LOOP}, **LOOP})])
    optional = {**LOOP, "required": []}
    assert accepts({"$defs": {"n": optional}, **optional}, '{"n":{"n":{}}}')
    listed = {"type": "object", "properties": {"n": {"type": "array", "items": {"$ref": "#"}, "minItems": 1}}}
    assert accepts(listed, '{"n":[{},{"n":[{}]}]}')
    with pytest.raises(UnsupportedSchema, match="without an end"):
        Constraint(TOKENIZER, [tool("f", {**listed, "required": ["n"]})])


@pytest.mark.parametrize(
    ("field", "right", "wrong"),
    [
        ({"type": "number", "minimum": -8.125, "maximum": 5.25}, [5.2, 5.25, -8.12, 0.1, 5], [5.26, -8.2, 6]),
        ({"multipleOf": 7, "type": "integer"}, [-14, 0, 21], [15]),
        ({"type": ["integer", "null"]}, [1, None], [1.5, "x"]),
        ({"allOf": [{"type": "integer", "minimum": 0}, {"maximum": 5}]}, [3], [7, -1]),
        ({"oneOf": [{"type": "integer"}, {"type": "string"}]}, [1, "x"], [None, 1.5]),
        ({"type": "number", "minimum": -9, "maximum": -1.25}, [-1.25, -9, -2], [-1.2, -1, -9.5]),
        ({"type": "number", "minimum": 2.25, "maximum": 4}, [2.25, 2.3, 4], [2.2, 2, 4.1]),
        ({"type": "array", "prefixItems": [{"type": "integer"}], "items": False}, [[1], []], [["x"], [1, 2]]),
        ({"enum": ["x", 1, None, {"k": [1, 2]}], "title": "t"}, ["x", {"k": [1, 2]}], ["y", {"k": [1]}]),
        ({"enum": [f"value {index}" for index in range(20_000)]}, ["value 19999"], ["value 20000"]),
        ({"type": "string", "pattern": "b", "maxLength": 3}, ["abc", "b"], ["ac", "abcd"]),
        ({"type": "string", "maxLength": 2, "uniqueItems": False}, ["😀😀", "\n\t"], ["😀😀😀"]),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, [{"é\n": 1}], [{"a": "x"}]),
        (
            {"minLength": 2},
            [1.5, "xy", [None, {"a": True}], {"k": [0]}],
            ["x"],
        ),  # of any kind but a short string
        ({}, [None, {"a": [1, "x", {}]}], []),
        (True, [0, {}], []),
        (
            {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 5.5},
            [5.499, 0.1, 5.4],
            [5.5, 6, 0, -3],
        ),
        ({"type": "object", "properties": {"b": {}}, "required": ["c"]}, [{"b": 1, "c": 2}], [{"b": 1}]),
    ],
)
def test_what_is_kept(field, right, wrong):
    parameters = closed(a=field)
    checkers = compile_schema(parameters)
    for value in right:
        read(compact({"a": value}), checkers)
        assert accepts(parameters, compact({"a": value})), value
    for value in wrong:
        with pytest.raises(CallError):
            read(compact({"a": value}), checkers)
        assert not accepts(parameters, compact({"a": value})), value


@pytest.mark.parametrize("text", ["1e999", "1e5", "1e-9", "01", "+1", "1.", ".5", "NaN", "1" * 17])
@pytest.mark.parametrize("field", [{"type": "number"}, {"type": ["number", "null"]}, {}, True])
def test_numbers_have_one_spelling_and_stay_finite(text, field):
    """1e999 is infinite to Python."""
    assert not accepts(closed(a=field), f'{{"a":{text}}}') and accepts(closed(a=field), '{"a":1.5}')


def test_a_number_below_a_bound_stays_below_it_when_it_is_read():
    """5.4999... with enough nines is 5.5 to Python."""
    near = "5.4" + "9" * 30
    assert not accepts(closed(a={"type": "number", "exclusiveMaximum": 5.5}), f'{{"a":{near}}}')
    assert accepts(closed(a={"type": "number", "maximum": 5.5}), f'{{"a":{near}}}')


def test_a_tool_without_parameters_and_one_that_is_open():
    assert accepts({"type": "object", "properties": {}}, "{}")
    assert not accepts({"type": "object", "properties": {}}, '{"a":1}')
    assert writes(turn(("functions.look-up_2:0", "{}"))) and not writes(
        turn(("functions.look-up_2:0", '{"a":1}'))
    )
    assert accepts({"type": "object"}, '{"a":[1,{"b":null}]}')
    assert not accepts({"type": "object"}, '{"a":[1,{"b":1e999}]}')  # finite at any depth
    assert accepts(
        {"type": "object", "properties": {"b": {}}, "additionalProperties": True}, '{"b":"x","a":1}'
    )


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"tools": [{"name": "f"}]}, "a tool is"),
        ({"tools": [tool("f"), tool("f")]}, "two tools are named 'f'"),
        ({"tools": [tool("f:1")]}, "tool name 'f:1'"),
        ({"tools": [tool("f|g")]}, "tool name"),
        ({"tools": [tool("f", {"type": "string"})]}, "of type 'object'"),
        ({"tools": [tool("f", 5)]}, "of type 'object'"),
        ({"tools": [], "tool_choice": "required"}, "no tools are declared"),
        ({"tool_choice": "any"}, "tool_choice must be"),
        ({"tool_choice": None}, "tool_choice must be"),
        ({"tool_choice": {"type": "function"}}, "tool_choice must be"),
        ({"tool_choice": {"type": "function", "function": {"name": "sell"}}}, "declared: buy, price"),
        ({"response_format": {"type": "yaml"}}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format: schema"),
    ],
)
def test_what_cannot_be_asked_for_is_one_line(options, named):
    with pytest.raises(KimiError, match=named) as raised:
        Constraint(TOKENIZER, **{"tools": TOOLS, **options})
    assert "\n" not in str(raised.value)


def test_without_the_package_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(KimiError, match=r"pip install '\.\[serve\]'"):
        Constraint(Tokenizer.load(), TOOLS)


# ---------------------------------------------------------------------------------------------- content


def test_an_answer_may_be_held_to_a_schema():
    schema = {"type": "json_schema", "json_schema": {"name": "n", "schema": closed(a={"type": "integer"})}}
    for thinking in (True, False):
        options = {"tools": None, "response_format": schema, "thinking": thinking}
        ids = turn(content='{"a":1}')[0 if thinking else 3 :]
        assert writes(ids, **options)
        for wrong in ("{}", 'Well: {"a":1}', '{"a":1}{"a":1}', '{"a":1}.', ""):
            assert not writes(turn(content=wrong)[0 if thinking else 3 :], **options)
    call = turn(("functions.look-up_2:0", "{}"))
    assert writes(call, response_format=schema) and not writes(call, tools=None, response_format=schema)
    assert not writes(turn(("functions.look-up_2:0", "{}"), content='{"a":1}'), response_format=schema)


def test_an_answer_may_be_any_json_object():
    options = {"tools": None, "response_format": {"type": "json_object"}}
    assert writes(turn(content='{"a":[1,{"b":"é"}]}'), **options)
    assert not writes(turn(content="[1]"), **options) and not writes(turn(content="1"), **options)
    assert writes(turn(content="free"), tools=None, response_format={"type": "text"})


def test_the_experts_calls_of_every_world_may_be_written():
    """What the agents were trained on is what the grammar admits: compact, in the schema's order, counted on."""
    calls = 0
    for name in FAMILIES:
        for task in held_out_tasks(name, measured_levels(name), 1, 0):
            conversation = play(task, random.Random(0))
            declared = {one["function"]["name"] for one in conversation.tools or []}
            for message in conversation.messages:
                made = message.get("tool_calls") or []
                if made and all(call["function"]["name"] in declared for call in made):
                    ids = typed(TOKENIZER, message)
                    hook = Constraint(
                        TOKENIZER, conversation.tools, next_call=int(made[0]["id"].split(":")[1])
                    )
                    assert admitted(ids, hook) == len(ids), (name, TOKENIZER.decode(ids))
                    calls += len(made)
    assert calls > 50
