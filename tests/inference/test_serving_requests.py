"""What a request may hold: whatever arrives becomes rows, or is refused in one line that names the field."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_model

from kimi_mini.inference.serving.requests import SAYS_NOTHING, Chat, Refused, rows_of, with_own_ids
from kimi_mini.text import chat
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.worlds.tools import FIND, Finder, Tool

TOKENIZER, MODEL = Tokenizer.load(), tiny_model().eval()
LIMIT = {"max_tokens": 70}
USER = {"role": "user", "content": "hello"}
TOOL = {"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}


def rows(length=2048, strict=False, served_at=0.0, **fields):
    body = json.dumps({"model": "m", "messages": [USER], **fields}).encode()
    return rows_of(Chat.read(body), TOKENIZER, MODEL, length, served_at, strict=strict)


def refusal(**fields):
    with pytest.raises(Refused) as found:
        rows(**fields)
    assert "\n" not in str(found.value) and len(str(found.value)) < 300
    return found.value


def call(name="find", call_id="call_1", arguments="{}"):
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def turn(*calls, **more):
    return {"role": "assistant", "content": None, "tool_calls": list(calls), **more}


def result(call_id="call_1", content="found"):
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def test_names_and_defaults_are_openais():
    [row] = rows(served_at=0.25)
    assert (row.temperature, row.top_p, row.budget, row.adapter) == (0.25, 1.0, None, None)
    assert row.context == chat.encode(TOKENIZER, [USER], None, True, True)[0]
    assert row.most == 2048 - len(row.context) and TOKENIZER.special["<|im_end|>"] in row.stops
    assert rows(max_tokens=7, max_completion_tokens=5)[0].most == 5 and rows(max_tokens=7)[0].most == 7
    assert len(rows(n=3)) == 3 and rows(thinking_budget=9)[0].budget == 9
    for thinks in (
        {"thinking": False},
        {"thinking": {"type": "disabled"}},
        {"chat_template_kwargs": {"thinking": False}},
    ):
        [row] = rows(thinking_budget=9, **thinks)
        assert row.context == chat.encode(TOKENIZER, [USER], None, True, False)[0] and row.budget is None
    unset = dict.fromkeys(set(Chat.model_fields) - {"model", "messages"})
    assert rows(**unset)[0].context == rows()[0].context
    assert rows(**dict.fromkeys(SAYS_NOTHING, "x")) and rows(stop=["a", "b"]) and rows(logit_bias={})


def test_what_a_request_does_not_say_is_the_endpoints():
    asked = [
        Chat.read(json.dumps({"model": "m", "messages": [USER], **more}).encode()) for more in ({}, LIMIT)
    ]
    [[free], [named]] = [rows_of(one, TOKENIZER, MODEL, 2048, most=11, loops=3) for one in asked]
    assert (free.most, named.most, free.loops) == (11, 70, 3)
    assert rows_of(asked[0], TOKENIZER, MODEL, len(free.context) + 5, most=11)[0].most == 5


def test_a_message_without_a_content_is_refused_but_for_an_assistants():
    for role in ("user", "system", "developer"):
        for message in ({"role": role}, {"role": role, "content": None}):
            error = refusal(messages=[USER, message])
            assert str(error) == "message 1: content is missing" and error.param == "messages"
    nothing = {"role": "tool", "tool_call_id": "call_1"}
    assert "message 2: content" in str(refusal(messages=[USER, turn(call()), nothing]))
    assert rows(messages=[USER, turn(call()), result(content="")]) and rows(
        messages=[{**USER, "content": ""}]
    )


@pytest.mark.parametrize("role", ["usr", "banana", "function", "", "System"])
def test_a_role_that_nobody_has_is_refused(role):
    """It became a turn of the system."""
    assert "message 0: role must be one of system, developer, user," in str(
        refusal(messages=[{**USER, "role": role}])
    )


def test_each_choice_has_dice_of_its_own_and_a_seed_repeats_them():
    throws = [[row.dice.random() for row in rows(n=3, seed=seed)] for seed in (1, 1, 2)]
    assert throws[0] == throws[1] != throws[2] and len(set(throws[0])) == 3
    assert rows()[0].dice.random() != rows()[0].dice.random()


@pytest.mark.parametrize(
    "fields, param",
    [
        ({"mood": "kind"}, "mood"),
        ({"functions": [TOOL]}, "functions"),
        ({"stream_options": {"include": True}}, "stream_options.include"),
        ({"chat_template_kwargs": {"enable_thinking": False}}, "chat_template_kwargs.enable_thinking"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"n": 9}, "n"),
        ({"seed": "x"}, "seed"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": ""}, "stop"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"logit_bias": {"3": 1}}, "logit_bias"),
        ({"thinking_budget": -1}, "thinking_budget"),
        ({"model": None}, "model"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_not_known_or_cannot_be_done_is_refused_by_its_name(fields, param):
    error = refusal(**fields)
    assert error.status == 400 and error.param.startswith(param) and param in str(error)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff\xfe\x00", b"[]", b"3", b'"x"', b"null", b"[" * 100_000, b'{"a":' * 50_000]
    + [
        b'{"model": "m", "messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"\\udfff": 1}',
        b"1" * 5000,
    ]
    + [
        b'{"model":"m","messages":[{"role":"user","content":' + b"[" * depth + b"]" * depth + b"}]}"
        for depth in (300, 900, 5000)
    ],
    ids=lambda body: str(body[:24]),
)
def test_no_body_is_too_broken_to_be_refused(body):
    with pytest.raises(Refused) as found:
        rows_of(Chat.read(body), TOKENIZER, MODEL, 2048)
    assert found.value.status == 400
    json.dumps(found.value.body(), ensure_ascii=False).encode()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
MESSAGE = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(["user", "assistant", "tool", "system"]) | JSON,
        "content": st.text(max_size=8) | JSON,
        "tool_calls": st.lists(st.just(call()) | JSON, max_size=2) | JSON,
        "tool_call_id": st.just("call_1") | JSON,
        "reasoning_content": JSON,
        "name": JSON,
    },
)


@settings(max_examples=300)
@given(
    st.lists(MESSAGE, max_size=3) | JSON,
    st.dictionaries(st.sampled_from(sorted(Chat.model_fields)), JSON, max_size=2),
)
def test_whatever_arrives_becomes_rows_or_a_refusal(messages, fields):
    body = {"model": "m", "messages": messages, "tools": [TOOL]} | fields
    try:
        made = rows_of(Chat.read(json.dumps(body).encode()), TOKENIZER, MODEL, 2048)
    except Refused as error:
        assert "\n" not in str(error) or "\n" in json.dumps(body, ensure_ascii=False)
        return
    assert made and all(0 < len(row.context) < 2048 for row in made)


# ------------------------------------------------------------------------------------------------ conversations
def test_what_a_search_has_found_may_be_called_and_the_prompt_stays_as_it_was():
    """The model has read the declarations in the result; among the tools of the prompt they do not stand."""
    box = Finder([Tool("price", "Tells the price.", {"type": "object"}, print)])
    found = box.call(FIND, '{"words": "price"}').content
    messages = [USER, turn(call(FIND), reasoning_content="so"), result(content=found)]
    [row] = rows(messages=messages, tools=box.declarations())
    assert row.allowed.names == (FIND, "price")
    own, _ = with_own_ids(messages)
    assert row.context == chat.encode(TOKENIZER, own, box.declarations(), True, True, as_written=False)[0]
    named = {"type": "function", "function": {"name": "price"}}
    assert rows(messages=messages, tools=box.declarations(), tool_choice=named)[0].allowed.forced
    assert "'price'" in str(refusal(tools=box.declarations(), tool_choice=named))
    schema = {"type": "object", "not": {}}
    broken = json.dumps([{"type": "function", "function": {"name": "x", "parameters": schema}}])
    messages[-1] = result(content=broken)
    assert "tool 'x': parameters: 'not'" in str(refusal(messages=messages, tools=box.declarations()))


def test_ids_of_any_style_become_k2s():
    """Counted over the dialogue; the results follow their calls, also where an engine counts anew in every turn."""
    messages = [
        USER,
        turn(call("find", "call_8f2a"), call("buy", "7")),
        result("7"),
        result("call_8f2a"),
        turn(call("find", "7")),
        result("7"),
    ]
    own, count = with_own_ids(messages)
    ids = [c["id"] for message in own for c in message.get("tool_calls") or []]
    assert count == 3 and ids == ["functions.find:0", "functions.buy:1", "functions.find:2"]
    assert [(m["tool_call_id"], m["name"]) for m in own if m["role"] == "tool"] == [
        ("functions.buy:1", "buy"),
        ("functions.find:0", "find"),
        ("functions.find:2", "find"),
    ]
    assert messages[1]["tool_calls"][0]["id"] == "call_8f2a"  # the caller's own stay
    assert with_own_ids(own)[0] == own


@pytest.mark.parametrize(
    "messages",
    [
        [USER, result()],
        [USER, turn(call("find", "call_2")), result()],
        [USER, turn(call()), result(["call_1"])],
    ]
    + [[USER, turn(call()), {"role": "tool", "content": ""}], [USER, turn({"id": "x"})], [USER, turn("x")]],
)
def test_a_result_without_its_call_and_a_call_without_a_name_are_refused(messages):
    assert refusal(messages=messages).param == "messages"


def test_what_was_thought_comes_under_any_of_its_names():
    chains = [[USER, turn(call(), **{name: "so"}), result()] for name in ("reasoning_content", "reasoning")]
    contexts = [rows(messages=messages, tools=[TOOL])[0].context for messages in chains]
    assert (
        contexts[0] == contexts[1] != rows(messages=[USER, turn(call()), result()], tools=[TOOL])[0].context
    )


def test_strict_reasoning_wants_the_thoughts_of_a_running_chain():
    lost = [USER, turn(call()), result()]
    assert rows(messages=lost)
    error = refusal(messages=lost, strict=True)
    assert "reasoning_content is missing in assistant tool call message at index 1" in str(error)
    assert rows(messages=[USER, turn(call(), reasoning_content="so"), result()], strict=True)
    assert rows(messages=lost, strict=True, thinking=False)
    over = [*lost, {"role": "assistant", "content": "it is there"}, USER]
    assert rows(messages=over, strict=True)  # history, whose thoughts are dropped


def test_a_context_that_is_too_long_is_refused_by_its_code_and_one_that_just_fits_is_not():
    needed = len(rows()[0].context)
    error = refusal(length=needed)
    assert error.code == "context_length_exceeded" and f"take {needed} tokens" in str(error)
    assert rows(length=needed + 1)[0].most == 1
