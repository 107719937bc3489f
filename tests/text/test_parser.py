"""The parser: what render writes it reads back, and what models really write it bears."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kimi_mini.text import chat, parser
from kimi_mini.text.chat import parse
from kimi_mini.text.tokenizer import SPECIAL_TOKENS

BEGIN, END = "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"


def call_text(call_id: str, arguments: str = "{}") -> str:
    return f"<|tool_call_begin|>{call_id}<|tool_call_argument_begin|>{arguments}<|tool_call_end|>"


def names(message: dict) -> list[str]:
    return [call["function"]["name"] for call in message.get("tool_calls", [])]


# ---------------------------------------------------------------- round trip

MARKER = re.compile(r"<\|\w+\|>|</?think>|\[EOS\]")
TEXT = st.text(max_size=30).filter(
    lambda text: not MARKER.search(text)
)  # hypothesis borrows strings from our source
CALL = st.builds(
    lambda name, index, arguments: {
        "id": f"functions.{name}:{index}",
        "type": "function",
        "function": {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)},
    },
    st.from_regex(r"[a-zA-Z0-9_-]{1,12}", fullmatch=True),
    st.integers(0, 999),
    st.dictionaries(TEXT, TEXT | st.integers() | st.none(), max_size=3),
)


@settings(max_examples=200, deadline=None)
@given(TEXT, TEXT, st.lists(CALL, max_size=3))
def test_round_trip(thought, text, calls):
    message = {"role": "assistant", "content": text or None, "reasoning_content": thought}
    if calls:
        message["tool_calls"] = calls
    question = [{"role": "system", "content": ""}]
    rendered = chat.render([*question, message], as_written=True)
    turn = rendered.removeprefix(chat.render(question))
    read = parse(turn)
    assert read.pop("errors") == []
    assert read.pop("finish") == ("tool_calls" if calls else "stop")
    assert read == message
    generated = turn.removeprefix("<|im_assistant|>assistant<|im_middle|>").removesuffix("<|im_end|>")
    assert parse(generated) == parse(turn)
    assert chat.render([*question, parse(turn)], as_written=True) == rendered


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from([*SPECIAL_TOKENS, "functions.a:0", "{}", '"', " x ", "a-b:1"])).map("".join))
def test_nothing_makes_it_raise(text):
    for thinking in (None, True, False):
        message = parse(text, thinking)
        assert message["role"] == "assistant"
        assert message["finish"] in ("stop", "length", "tool_calls")
        assert message["content"] is None or message["content"]
        json.dumps(message)
        chat.render([message])


# ---------------------------------------------------------------- thoughts


@pytest.mark.parametrize(
    ("text", "thinking", "thought", "content"),
    [
        ("<think>a</think>b", None, "a", "b"),
        ("a</think>b", None, "a", "b"),  # the opening tag is optional
        ("\n<think>a</think>b", None, "a", "b"),
        ("<think></think>b", None, "", "b"),
        ("b", None, "", "b"),  # no tag at all: an answer
        ("a", True, "a", None),  # from a thinking model: a thought cut off
        ("b </think>", False, "", "b </think>"),  # reflex: nothing of this is a thought
        ("<think>a", None, "a", None),
        ("", None, "", None),
    ],
)
def test_thought_and_content(text, thinking, thought, content):
    message = parse(text + "<|im_end|>", thinking)
    assert (message["reasoning_content"], message["content"]) == (thought, content)
    assert "tool_calls" not in message


def test_a_call_ends_an_open_thought():
    message = parse(f"<think>I must look{BEGIN}{call_text('functions.look:0')}{END}<|im_end|>")
    assert message["reasoning_content"] == "I must look"
    assert message["content"] is None
    assert names(message) == ["look"]
    assert message["errors"] == ["the thought was not closed before the tool calls"]


def test_a_thought_that_mentions_the_section_loses_no_call():
    leaked = f"<think>now {BEGIN} comes</think>Looking.{BEGIN}{call_text('functions.look:0')}{END}<|im_end|>"
    message = parse(leaked)
    assert names(message) == ["look"]
    assert message["finish"] == "tool_calls"
    assert message["errors"]


def test_think_tags_in_arguments_are_not_thoughts():
    message = parse(f"Writing.{BEGIN}{call_text('functions.write:0', json.dumps({'text': '</think>'}))}{END}")
    assert (message["content"], message["reasoning_content"]) == ("Writing.", "")
    assert json.loads(message["tool_calls"][0]["function"]["arguments"]) == {"text": "</think>"}


# ---------------------------------------------------------------- calls


@pytest.mark.parametrize(
    ("call_id", "name"),
    [
        ("functions.search:2", "search"),
        ("search:2", "search"),
        ("functions.web-search:0", "web-search"),
        ("functions.get_price:117", "get_price"),
        (" functions.search:0 ", "search"),
    ],
)
def test_id_styles(call_id, name):
    message = parse(f"{BEGIN}{call_text(call_id)}{END}")
    assert names(message) == [name]
    assert message["tool_calls"][0]["id"] == call_id.strip()
    assert message["errors"] == []


def test_several_calls_in_both_spellings_and_several_sections():
    singular_begin, singular_end = "<|tool_call_section_begin|>", "<|tool_call_section_end|>"
    text = (
        f"text{singular_begin}{call_text('functions.a:0')}{call_text('functions.b:1')}{singular_end}"
        f"{BEGIN}{call_text('functions.c:2')}{END}<|im_end|>"
    )
    message = parse(text)
    assert names(message) == ["a", "b", "c"]
    assert message["content"] == "text"
    assert message["errors"] == []


@pytest.mark.parametrize(
    ("arguments", "note"),
    [
        ("{'item': 3", "not valid JSON"),
        ("", "not valid JSON"),
        ('"{\\"item\\": 3}"', "double-encoded"),
        ("[1]", "not a JSON object"),
        ("[" * 100_000, "not valid JSON"),
    ],
)
def test_arguments_are_passed_on_verbatim(arguments, note):
    message = parse(f"{BEGIN}{call_text('functions.buy:0', arguments)}{END}<|im_end|>")
    assert message["tool_calls"][0]["function"]["arguments"] == arguments
    assert message["finish"] == "tool_calls"
    assert len(message["errors"]) == 1
    assert note in message["errors"][0]


def test_text_after_the_calls_is_left_out():
    message = parse(f"first{BEGIN}{call_text('functions.a:0')}{END}Result: 47<|im_end|>")
    assert message["content"] == "first"
    assert message["errors"] == ["text after the tool calls began is left out: 'Result: 47'"]


def test_a_call_cut_off_at_the_limit():
    whole = f"<think>t</think>{BEGIN}{call_text('functions.a:0')}{call_text('functions.b:1', '{}')}{END}"
    for cut in range(whole.index(BEGIN) + len(BEGIN), whole.index("<|tool_call_end|>")):
        message = parse(whole[:cut])
        assert message["finish"] == "length"
        assert names(message) == []
        assert message["errors"]
    second = whole[: whole.index("functions.b") + 5]
    message = parse(second)
    assert (message["finish"], names(message)) == ("length", ["a"])
    assert message["errors"] == ["a tool call was not closed and is left out"]


def test_a_thought_cut_off_at_the_limit():
    assert parse("<think>so far")["finish"] == "length"
    assert parse("<think>so far<|im_end|>")["finish"] == "stop"


def test_an_unclosed_call_does_not_swallow_the_next():
    for open_call in ("functions.a:0", 'functions.a:0<|tool_call_argument_begin|>{"item":'):
        message = parse(f"{BEGIN}<|tool_call_begin|>{open_call}{call_text('functions.b:1')}{END}<|im_end|>")
        assert names(message) == ["b"]
        assert message["errors"]


def test_misshapen_calls_are_kept_so_that_the_tool_can_answer():
    message = parse(f"{BEGIN}<|tool_call_begin|>buy three<|tool_call_end|>{END}<|im_end|>")
    assert message["tool_calls"][0]["function"] == {"name": "buy three", "arguments": ""}
    assert len(message["errors"]) == 2


def test_a_missing_section_end_is_only_noted():
    message = parse(f"{BEGIN}{call_text('functions.a:0')}")
    assert (names(message), message["finish"]) == (["a"], "tool_calls")
    assert message["errors"] == ["the tool section was not closed"]


def test_the_turn_ends_at_its_first_end_marker():
    assert parse("4<|im_end|><|im_user|>user<|im_middle|>5")["content"] == "4"
    assert parse("4[EOS]5")["content"] == "4"
    assert parse("4<|im_user|>user")["content"] == "4"


# ---------------------------------------------------------------- mutants


def strict_id(monkeypatch):
    """The snippet of K2's first tool guide: fails on ids without "functions." and on "-"."""
    pattern = r"<\|tool_call_begin\|>(functions\.\w+:\d+<\|tool_call_argument_begin\|>.*?)<\|tool_call_end\|>"
    monkeypatch.setattr(parser, "_CALL", re.compile(pattern, re.DOTALL))


def plural_only(monkeypatch):
    monkeypatch.setattr(parser, "_SECTION_BEGIN", re.compile(r"<\|tool_calls_section_begin\|>"))


def lazy_across_calls(monkeypatch):
    pattern = r"<\|tool_call_begin\|>(.*?)<\|tool_call_end\|>"
    monkeypatch.setattr(parser, "_CALL", re.compile(pattern, re.DOTALL))


@pytest.mark.parametrize(
    ("mutate", "check"),
    [
        (strict_id, lambda: test_id_styles("search:2", "search")),
        (strict_id, lambda: test_id_styles("functions.web-search:0", "web-search")),
        (plural_only, test_several_calls_in_both_spellings_and_several_sections),
        (lazy_across_calls, test_an_unclosed_call_does_not_swallow_the_next),
    ],
)
def test_known_parser_faults_are_caught(monkeypatch, mutate, check):
    check()
    mutate(monkeypatch)
    with pytest.raises((AssertionError, KeyError)):
        check()
