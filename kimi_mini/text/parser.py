"""Reading what the model wrote: one assistant turn as a message with thought, text and tool calls.

Models break every rule of their own format sooner or later, and a strict parser then loses calls that were clear
enough: the first vLLM run of K2 counted 218 valid calls where Moonshot's own server counted 1286. So: accept what can
be understood, pass arguments on verbatim, note what was wrong.

    the leading <think> may be missing          a closed thought keeps what is in it: calls there are only thought of
    a call ends a thought that is left open     the report's spelling <|tool_call_section_begin|>
    the section's marker may be missing         ids without "functions.", names with "-"
    several calls, several sections             text after the calls began is left out
    JSON that is broken or encoded twice        a call cut off at the token limit

A turn is cut into pieces, markers and the text between them. Its shape is a string with one letter a piece, and the
grammar is a few regular expressions over shapes; `(t)t{<t|t><t|t>}e` is a thought, an answer and two calls.

Sources: vLLM, tool and reasoning parsers kimi_k2, and its report "Chasing 100% accuracy" (2025-10); issues 26 and 89 of
MoonshotAI/Kimi-K2.
"""

import json
import re
from collections.abc import Iterable
from itertools import groupby

from kimi_mini.text.tokenizer import Tokenizer

_LETTER = {
    "<think>": "(",
    "</think>": ")",
    "<|tool_calls_section_begin|>": "{",
    "<|tool_calls_section_end|>": "}",
    "<|tool_call_section_begin|>": "{",  # the report prints the singular
    "<|tool_call_section_end|>": "}",
    "<|tool_call_begin|>": "<",
    "<|tool_call_argument_begin|>": "|",
    "<|tool_call_end|>": ">",
    "<|im_assistant|>": "a",
    "<|im_middle|>": "m",
    "<|im_end|>": "e",
    "<|im_user|>": "e",
    "<|im_system|>": "e",
    "[EOS]": "e",
}  # everything else is text: t
_MARKER = re.compile("(" + "|".join(map(re.escape, _LETTER)) + ")")
_CALL = re.compile("<[^<>]*>")  # does not reach across the beginning of another one
_WITH_ARGUMENTS = re.compile(r"<t*\|[^<>]*>")
_CALLS_BEGIN = re.compile("[{<]")
_CALL_ID = re.compile(r"(?:functions\.)?[A-Za-z0-9_-]+:[0-9]+")


class _Pieces:
    """A stretch of a turn: its pieces of text, and its shape with one letter a piece. Slices like a string."""

    def __init__(self, texts: list[str], shape: str):
        self.texts, self.shape = texts, shape

    def __getitem__(self, part: slice) -> "_Pieces":
        return _Pieces(self.texts[part], self.shape[part])

    def __str__(self) -> str:
        return "".join(self.texts)


def parse(text: str, thinking: bool | None = None) -> dict:
    """Read one assistant turn, as generated (with or without its header and its <|im_end|>).

    Nothing that a model writes makes this raise: what is wrong is noted under "errors" and the rest is kept.

    Args:
        thinking: None: text without any think tag is content. True: it is reasoning (the reading of vLLM's parser
            for a thinking model that was cut off). False (reflex: the prompt closed the thought): it is content,
            a stray </think> included.

    Returns:
        role: "assistant"
        content: text before the calls, None if empty
        reasoning_content: text of the thought, "" if none
        tool_calls: [{id, type, function: {name, arguments}}], only if there are any; arguments verbatim
        finish: "tool_calls", "stop", or "length" if it was cut off inside a thought or a call
        errors: what was wrong, a list of sentences
    """
    texts = [piece for piece in _MARKER.split(text) if piece]
    return _read(_Pieces(texts, "".join(_LETTER.get(piece, "t") for piece in texts)), thinking)


def parse_ids(tokenizer: Tokenizer, ids: Iterable[int], thinking: bool | None = None) -> dict:
    """`parse` for tokens. A marker is one only where the special token was written: whoever quotes the letters of a
    call, from a tool's result for instance, has not called anything."""
    special = {index: token for token, index in tokenizer.special.items()}
    texts, shape = [], ""
    for token, run in groupby(map(int, ids), key=special.get):
        run = list(run)
        texts += [tokenizer.decode(run)] if token is None else [token] * len(run)
        shape += "t" if token is None else _LETTER.get(token, "t") * len(run)
    return _read(_Pieces(texts, shape), thinking)


def _read(turn: _Pieces, thinking: bool | None) -> dict:
    body, ended = _cut_turn(turn)
    errors: list[str] = []
    reasoning, rest, thought_open = _split_thought(body, thinking)
    begin = _CALLS_BEGIN.search(rest.shape)
    content = rest[: begin.start()] if begin else rest
    if thought_open:
        errors.append("the thought was not closed" + (" before the tool calls" if begin else ""))
    elif _CALLS_BEGIN.search(reasoning.shape):
        errors.append("the thought holds markers of a tool call: what is only thought of is not called")
    if re.search("[|>}]", content.shape):
        errors.append("the text holds markers of a tool call that does not begin")
    calls, call_open = _read_calls(rest[begin.start() :], errors) if begin else ([], False)
    cut = not ended and (call_open or bool(begin and not calls) or (thought_open and not begin))
    message = {"role": "assistant", "content": str(content) or None, "reasoning_content": str(reasoning)}
    if calls:
        message["tool_calls"] = calls
    message["finish"] = "length" if cut else "tool_calls" if calls else "stop"
    message["errors"] = errors
    return message


def _cut_turn(turn: _Pieces) -> tuple[_Pieces, bool]:
    """Without header and end marker; and whether there was an end marker."""
    turn = turn[_opening(turn, "at*m") :]
    end = re.search("[ame]", turn.shape)
    return (turn[: end.start()], True) if end else (turn, False)


def _opening(turn: _Pieces, shape: str) -> int:
    """How many pieces an opening of this shape takes, white space before it included; 0 if the turn has none."""
    blank = turn.shape.startswith("t") and turn.texts[0].isspace()
    match = re.compile(shape).match(turn.shape, blank)
    return match.end() if match else 0


def _split_thought(turn: _Pieces, thinking: bool | None) -> tuple[_Pieces, _Pieces, bool]:
    """(the thought, what follows it, was it left open?). Only a </think> inside a call's arguments is no end of it."""
    start, close = _opening(turn, r"\("), _masked(_WITH_ARGUMENTS, turn.shape).find(")")
    if not start and (thinking is False or (thinking is None and close < 0)):
        return turn[:0], turn, False
    if close >= 0:
        return turn[start:close], turn[close + 1 :], False
    begin = _CALLS_BEGIN.search(turn.shape)
    end = begin.start() if begin else len(turn.shape)
    return turn[start:end], turn[end:], True


def _masked(pattern: re.Pattern, shape: str) -> str:
    """The shape with an x for every piece that the pattern takes."""
    return pattern.sub(lambda match: "x" * len(match[0]), shape)


def _read_calls(section: _Pieces, errors: list[str]) -> tuple[list[dict], bool]:
    """All closed calls from the first marker on; and whether an unclosed one follows the last."""
    if section.shape.startswith("<"):
        errors.append("the marker that opens the tool section is missing")
    found = _CALL.finditer(section.shape)
    calls = [_read_call(section[call.start() + 1 : call.end() - 1], errors) for call in found]
    rest = _Pieces(section.texts, _masked(_CALL, section.shape))
    unclosed = "<" in rest.shape
    if unclosed:
        errors.append("a tool call was not closed and is left out")
        rest = rest[: rest.shape.index("<")]
    elif "{" in rest.shape and "}" not in rest.shape:
        errors.append("the tool section was not closed")
    if not calls and not unclosed:
        errors.append("the tool section holds no call")
    left_out = "".join(text for text, letter in zip(rest.texts, rest.shape) if letter not in "{}x").strip()
    if left_out:
        errors.append(f"text after the tool calls began is left out: {left_out[:40]!r}")
    return calls, unclosed


def _read_call(body: _Pieces, errors: list[str]) -> dict:
    """One call; a misshapen one is kept as far as it goes, so that the tool's answer can say what is wrong."""
    place = body.shape.find("|")
    marked = place >= 0
    call_id = str(body[:place] if marked else body).strip()
    arguments = str(body[place + 1 :]) if marked else ""
    name = (call_id.rpartition(":")[0] or call_id).removeprefix("functions.")
    if not _CALL_ID.fullmatch(call_id):
        errors.append(f"the call id {call_id[:60]!r} is not of the form functions.NAME:INDEX")
    if not marked:
        errors.append(f"the call {call_id[:60]!r} has no arguments")
    else:
        _check_arguments(call_id, arguments, errors)
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _check_arguments(call_id: str, arguments: str, errors: list[str]) -> None:
    """Note what is wrong with the JSON; the text itself is passed on verbatim either way."""
    try:
        value = json.loads(arguments)
    except (ValueError, RecursionError):
        errors.append(f"the arguments of {call_id[:60]!r} are not valid JSON")
        return
    if isinstance(value, str):
        errors.append(f"the arguments of {call_id[:60]!r} are double-encoded: a JSON string, not an object")
    elif not isinstance(value, dict):
        errors.append(f"the arguments of {call_id[:60]!r} are not a JSON object")
