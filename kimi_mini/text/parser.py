"""Reading what the model wrote: one assistant turn as a message with thought, text and tool calls.

Models break every rule of their own format sooner or later, and a strict parser then loses calls that were clear
enough: the first vLLM run of K2 counted 218 valid calls where Moonshot's own server counted 1286. So: accept what can
be understood, pass arguments on verbatim, note what was wrong.

    the leading <think> may be missing          a call ends the thought, closed or not
    ids without "functions.", names with "-"    the report's spelling <|tool_call_section_begin|>
    several calls, several sections             text after the calls began is left out
    JSON that is broken or encoded twice        a call cut off at the token limit

Sources: vLLM, tool and reasoning parsers kimi_k2, and its report "Chasing 100% accuracy" (2025-10); issues 26 and 89 of
MoonshotAI/Kimi-K2.
"""

import json
import re
from collections.abc import Sequence
from itertools import groupby

from kimi_mini.text.tokenizer import Tokenizer

_HEADER = re.compile(r"\s*<\|im_assistant\|>[^<]*<\|im_middle\|>")
_END = re.compile(r"<\|im_end\|>|\[EOS\]|<\|im_(?:user|assistant|system|middle)\|>")
_SECTION_BEGIN = re.compile(r"<\|tool_calls?_section_begin\|>")  # the report prints the singular
_SECTION_END = re.compile(r"<\|tool_calls?_section_end\|>")
_CALL = re.compile(r"<\|tool_call_begin\|>((?:(?!<\|tool_call_begin\|>).)*?)<\|tool_call_end\|>", re.DOTALL)
_CALL_ID = re.compile(r"[^\s<]+:\d+")


def parse_ids(tokenizer: Tokenizer, ids: Sequence[int], thinking: bool | None = None) -> dict:
    """`parse` for tokens. A marker is one only where the special token was written: whoever quotes the letters of a
    call, from a tool's result for instance, has not called anything."""
    special = set(tokenizer.special.values())
    runs = [(marker, tokenizer.decode(run)) for marker, run in groupby(ids, key=special.__contains__)]
    unused = (
        letter for letter in map(chr, range(0xE000, 0xF900)) if not any(letter in part for _, part in runs)
    )
    hidden = {ord(first): next(unused) for first in "<["}  # how markers begin
    message = parse("".join(part if marker else part.translate(hidden) for marker, part in runs), thinking)
    shown = {ord(letter): chr(first) for first, letter in hidden.items()}
    return json.loads(json.dumps(message, ensure_ascii=False).translate(shown))


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
    errors: list[str] = []
    body, ended = _cut_turn(text)
    section = _SECTION_BEGIN.search(body)
    before, after = (body[: section.start()], body[section.end() :]) if section else (body, "")
    reasoning, content, thought_open = _split_thought(before, thinking)
    if thought_open:
        errors.append("the thought was not closed" + (" before the tool calls" if section else ""))
    calls, call_open = _read_calls(after, errors) if section else ([], False)
    cut = not ended and (call_open or (thought_open and not section) or (bool(section) and not calls))
    message = {"role": "assistant", "content": content or None, "reasoning_content": reasoning}
    if calls:
        message["tool_calls"] = calls
    message["finish"] = "length" if cut else "tool_calls" if calls else "stop"
    message["errors"] = errors
    return message


def _cut_turn(text: str) -> tuple[str, bool]:
    """Without header and end marker; and whether there was an end marker."""
    header = _HEADER.match(text)
    body = text[header.end() :] if header else text
    end = _END.search(body)
    return (body[: end.start()], True) if end else (body, False)


def _split_thought(text: str, thinking: bool | None) -> tuple[str, str, bool]:
    """(reasoning, content, was the thought left open?) of the text before any tool section."""
    opened = text.lstrip().startswith("<think>")
    closed = "</think>" in text
    if not opened and (thinking is False or (thinking is None and not closed)):
        return "", text, False
    if opened:
        text = text.lstrip().removeprefix("<think>")
    reasoning, _, content = text.partition("</think>")
    return reasoning, content, not closed


def _read_calls(section: str, errors: list[str]) -> tuple[list[dict], bool]:
    """All closed calls of the text behind the section marker; and whether an unclosed one follows the last."""
    calls = [_read_call(match[1], errors) for match in _CALL.finditer(section)]
    rest = _CALL.sub("", section)
    unclosed = "<|tool_call_begin|>" in rest
    if unclosed:
        errors.append("a tool call was not closed and is left out")
        rest = rest.partition("<|tool_call_begin|>")[0]
    elif not _SECTION_END.search(rest):
        errors.append("the tool section was not closed")
    if not calls and not unclosed:
        errors.append("the tool section holds no call")
    rest = _SECTION_BEGIN.sub("", _SECTION_END.sub("", rest)).strip()
    if rest:
        errors.append(f"text after the tool calls began is left out: {rest[:40]!r}")
    return calls, unclosed


def _read_call(body: str, errors: list[str]) -> dict:
    """One call; a misshapen one is kept as far as it goes, so that the tool's answer can say what is wrong."""
    call_id, marker, arguments = body.partition("<|tool_call_argument_begin|>")
    call_id = call_id.strip()
    name = call_id.rpartition(":")[0] or call_id
    name = name.rpartition(".")[2]
    if not _CALL_ID.fullmatch(call_id):
        errors.append(f"the call id {call_id[:60]!r} is not of the form functions.NAME:INDEX")
    if not marker:
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
