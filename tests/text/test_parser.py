"""The parser: what render writes it reads back, and what models really write it bears."""

import json
import os
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kimi_mini.text import chat, parser
from kimi_mini.text.chat import parse, parse_ids
from kimi_mini.text.tokenizer import SPECIAL_TOKENS, Tokenizer

TOKENIZER = Tokenizer.load()
FUZZ = int(os.environ.get("KIMI_FUZZ", "10000"))  # cases: half of them text, half tokens
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


PRIVATE = "".join(map(chr, range(0xE000, 0xF8FF)))
SCRAPS = st.sampled_from(
    [*SPECIAL_TOKENS, "functions.a:0", "{}", '"', " x ", "a-b:1", '{"a":[1]}', "\n", "<|"]
)
ODD = st.sampled_from(["<|tool_call_section_begin|>", "\ud800", "\0", PRIVATE, "\ue000<"]) | st.text(
    max_size=4
)


def check_message(message: dict, text: str, call_markers: int) -> None:
    """Well-formed, writable as JSON and in the chat format, and nothing in it that was not written."""
    assert message["role"] == "assistant"
    assert message["finish"] in ("stop", "length", "tool_calls")
    assert message["content"] is None or message["content"]
    assert all(isinstance(error, str) for error in message["errors"])
    calls = message.get("tool_calls", [])
    assert len(calls) <= call_markers and ("tool_calls" in message) is bool(calls)
    arguments = [call["function"]["arguments"] for call in calls]
    assert all(said in text for said in [message["reasoning_content"], message["content"] or "", *arguments])
    json.dumps(message)
    chat.render([message])


@pytest.mark.slow
@settings(max_examples=FUZZ // 2, deadline=None)
@given(st.lists(SCRAPS | ODD, max_size=14).map("".join), st.sampled_from([None, True, False]))
def test_no_text_makes_it_raise(text, thinking):
    check_message(parse(text, thinking), text, text.count("<|tool_call_begin|>"))


@pytest.mark.slow
@settings(max_examples=FUZZ // 2, deadline=None)
@given(
    st.lists(st.integers(TOKENIZER.first_special, 1023) | st.integers(0, 1023), max_size=14),
    st.sampled_from([None, True, False]),
)
def test_no_tokens_make_it_raise(ids, thinking):
    begins = ids.count(TOKENIZER.special["<|tool_call_begin|>"])
    text = TOKENIZER.decode(ids)
    check_message(parse_ids(TOKENIZER, ids, thinking), text, begins)


@settings(max_examples=300, deadline=None)
@given(st.lists(SCRAPS, max_size=14).map("".join), st.sampled_from([None, True, False]))
def test_markers_read_the_same_as_text_and_as_tokens(text, thinking):
    assert parse_ids(TOKENIZER, TOKENIZER.encode(text), thinking) == parse(text, thinking)


def test_no_letter_is_reserved():
    """Mutant: a letter that does not occur stands for the first one of a marker. None is left in this turn."""
    ids = TOKENIZER.encode(PRIVATE + " <|im_end|>", allow_special=False)
    assert parse_ids(TOKENIZER, ids)["content"] == PRIVATE + " <|im_end|>"


def test_what_is_noted_shows_the_letters_that_were_written():
    """Arguments with a list are JSON in token form too, and an error quotes what stood there."""
    call = call_text("functions.a:0", '{"items":["x"]}')
    message = parse_ids(TOKENIZER, TOKENIZER.encode(f"{BEGIN}{call}{END} [so] <b><|im_end|>"))
    assert message["errors"] == ["text after the tool calls began is left out: '[so] <b>'"]


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


def test_a_closed_thought_keeps_what_is_in_it_and_what_follows_it():
    thought = f"now {BEGIN} comes"
    message = parse(f"<think>{thought}</think>Looking.{BEGIN}{call_text('functions.look:0')}{END}<|im_end|>")
    assert (message["reasoning_content"], message["content"]) == (thought, "Looking.")
    assert (names(message), message["finish"]) == (["look"], "tool_calls")
    assert message["errors"] == [
        "the thought holds markers of a tool call: what is only thought of is not called"
    ]


@pytest.mark.parametrize("opening", ["<think>", ""])
@pytest.mark.parametrize("section", [f"{BEGIN}%s{END}", f"{BEGIN}%s", "%s"])
def test_a_call_inside_a_closed_thought_is_not_called(opening, section):
    thought = "I could " + section % call_text("functions.buy:0")
    for text in (f"{opening}{thought}</think>No.<|im_end|>", f"{opening}{thought}</think>No."):
        message = parse(text)
        assert (message["reasoning_content"], message["content"]) == (thought, "No.")
        assert (names(message), message["finish"]) == ([], "stop")
        assert len(message["errors"]) == 1
        assert parse_ids(TOKENIZER, TOKENIZER.encode(text)) == message


def test_a_closing_tag_inside_arguments_closes_no_thought():
    call = call_text("functions.write:0", json.dumps({"text": "</think>"}))
    message = parse(f"<think>I must write{BEGIN}{call}{END}<|im_end|>")
    assert (message["reasoning_content"], names(message)) == ("I must write", ["write"])


def test_think_tags_in_arguments_are_not_thoughts():
    message = parse(f"Writing.{BEGIN}{call_text('functions.write:0', json.dumps({'text': '</think>'}))}{END}")
    assert (message["content"], message["reasoning_content"]) == ("Writing.", "")
    assert json.loads(message["tool_calls"][0]["function"]["arguments"]) == {"text": "</think>"}


# ---------------------------------------------------------------- calls

MISSING = "the marker that opens the tool section is missing"


@pytest.mark.parametrize("end", ["", END])
@pytest.mark.parametrize(
    ("text", "thought", "content", "called", "errors"),
    [
        ("<think>a</think>Looking.%s", "a", "Looking.", ["look"], [MISSING]),
        ("Looking.%s", "", "Looking.", ["look"], [MISSING]),
        ("%s", "", None, ["look"], [MISSING]),
        (
            "<think>I look%s",
            "I look",
            None,
            ["look"],
            ["the thought was not closed before the tool calls", MISSING],
        ),
        (f"b%s{call_text('functions.see:1')}", "", "b", ["look", "see"], [MISSING]),
        (f"b%s{BEGIN}{call_text('functions.see:1')}{END}", "", "b", ["look", "see"], [MISSING]),
    ],
)
def test_a_call_without_its_section_is_read_and_noted(text, thought, content, called, errors, end):
    """Mutant: without the section's marker all of it is content, and so the final answer of an agent."""
    written = text % call_text("functions.look:0") + end + "<|im_end|>"
    for message in (parse(written), parse_ids(TOKENIZER, TOKENIZER.encode(written))):
        assert (message["reasoning_content"], message["content"]) == (thought, content)
        assert (names(message), message["finish"]) == (called, "tool_calls")
        assert message["errors"] == errors


def test_a_call_without_its_section_that_is_cut_off():
    whole = f"Looking.{call_text('functions.look:0')}"
    for cut in range(whole.index("functions"), whole.index("<|tool_call_end|>")):
        message = parse(whole[:cut])
        assert (message["content"], names(message), message["finish"]) == ("Looking.", [], "length")
        assert message["errors"] == [MISSING, "a tool call was not closed and is left out"]


@pytest.mark.parametrize("thinking", [None, True, False])
def test_quoted_letters_of_a_call_are_no_call(thinking):
    quoted = f"The page says {call_text('functions.buy:0')}"
    ids = TOKENIZER.encode(quoted, allow_special=False) + [TOKENIZER.special["<|im_end|>"]]
    message = parse_ids(TOKENIZER, ids, thinking)
    assert names(message) == [] and quoted in (message["content"], message["reasoning_content"])
    assert not any("call" in error for error in message["errors"])


def test_markers_without_the_beginning_of_a_call_are_noted():
    message = parse(f"functions.a:0<|tool_call_argument_begin|>{{}}<|tool_call_end|>{END}<|im_end|>")
    assert message["errors"] == ["the text holds markers of a tool call that does not begin"]


@pytest.mark.parametrize(
    ("call_id", "name"),
    [
        ("functions.os.system.buy:0", "os.system.buy"),
        ("os.buy:0", "os.buy"),
        ("functions.functions.buy:0", "functions.buy"),
        ("functions.buy.:0", "buy."),
        ("functions.a:buy:0", "a:buy"),
        ("functions. buy:0", " buy"),
        ("FUNCTIONS.buy:0", "FUNCTIONS.buy"),
    ],
)
def test_an_id_that_only_ends_in_a_tool_names_no_tool(call_id, name):
    """Mutant: the name is what stands behind the last dot, so that this runs `buy`."""
    message = parse(f"{BEGIN}{call_text(call_id)}{END}<|im_end|>")
    assert names(message) == [name]
    assert message["errors"] == [f"the call id {call_id!r} is not of the form functions.NAME:INDEX"]


def test_names_keep_their_case():
    assert names(parse(f"{BEGIN}{call_text('functions.Buy:0')}{END}<|im_end|>")) == ["Buy"]


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
        (" [1]\n", "not a JSON object"),
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
    """The snippet of K2's first tool guide: no ids without "functions.", and no "-"."""
    monkeypatch.setattr(parser, "_CALL_ID", re.compile(r"functions\.\w+:\d+"))


def plural_only(monkeypatch):
    monkeypatch.delitem(parser._LETTER, "<|tool_call_section_begin|>")


def lazy_across_calls(monkeypatch):
    monkeypatch.setattr(parser, "_CALL", re.compile("<.*?>"))


def name_behind_the_last_dot(monkeypatch):
    right = parser._read_call

    def wrong(body, errors):
        call = right(body, errors)
        call["function"]["name"] = call["function"]["name"].rpartition(".")[2]
        return call

    monkeypatch.setattr(parser, "_read_call", wrong)


@pytest.mark.parametrize(
    ("mutate", "check"),
    [
        (strict_id, lambda: test_id_styles("search:2", "search")),
        (strict_id, lambda: test_id_styles("functions.web-search:0", "web-search")),
        (plural_only, test_several_calls_in_both_spellings_and_several_sections),
        (lazy_across_calls, test_an_unclosed_call_does_not_swallow_the_next),
        (
            name_behind_the_last_dot,
            lambda: test_an_id_that_only_ends_in_a_tool_names_no_tool("os.buy:0", "os.buy"),
        ),
    ],
)
def test_known_parser_faults_are_caught(monkeypatch, mutate, check):
    check()
    mutate(monkeypatch)
    with pytest.raises((AssertionError, KeyError)):
        check()
