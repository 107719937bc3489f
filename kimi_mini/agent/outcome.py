"""From an engine's answer, whole or in pieces, to an assistant message: the habits of engines end here.

Calls may come at once or in any number of pieces, several under one index, with arguments as text or as an object; the
thought under either of two names; usage in a chunk of its own, in the last one, or not at all. What is not whole is
Broken: nothing of it may be used.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from kimi_mini.worlds.base import Message

THOUGHTS = ("reasoning_content", "reasoning")  # Moonshot's name and that of newer vLLM


class Broken(Exception):
    """An answer that is not whole: ask again."""


@dataclass(frozen=True)
class Outcome:
    """A whole answer: the assistant message as it was given, why it ended in the engine's word, tokens if told."""

    message: Message
    finish: str
    usage: dict[str, int] = field(default_factory=dict)


def whole(response: Any) -> Outcome:
    """An answer that came at once."""
    choices = getattr(response, "choices", None)  # text, where the body was no JSON
    if not choices or choices[0].message is None:
        raise Broken("no choices")
    given = choices[0].message.model_dump(exclude_unset=True, warnings=False)
    calls = [_call(call) for call in given.get("tool_calls") or []]
    return _outcome(given, calls, choices[0].finish_reason or "stop", response.usage)


def joined(chunks: Iterable) -> Outcome:
    """An answer that came in pieces. It is broken without its end: the last piece may have held a call."""
    text: dict[str, Any] = {}
    calls: list[dict] = []
    places: dict[int, dict] = {}
    finish = usage = None
    for chunk in chunks:
        usage = getattr(chunk, "usage", None) or usage
        for choice in (chunk.choices or [])[:1]:
            usage = getattr(choice, "usage", None) or usage
            finish = choice.finish_reason or finish
            delta = choice.delta.model_dump(exclude_unset=True, warnings=False) if choice.delta else {}
            for name in ("content", *THOUGHTS):
                if name in delta:
                    text[name] = (text.get(name) or "") + delta[name] if delta[name] else text.get(name)
            for piece in delta.get("tool_calls") or []:
                _add(piece, calls, places)
    if finish is None:
        raise Broken("the stream has no end")
    return _outcome(text, [_call(call) for call in calls], finish, usage)


def _add(piece: dict, calls: list[dict], places: dict[int, dict]) -> None:
    """Put a piece of a call where its index says; another id at the same index is another call."""
    function, place = piece.get("function") or {}, piece.get("index") or 0
    call = places.get(place)
    if call is None or (piece.get("id") and call["id"] and piece["id"] != call["id"]):
        call = places[place] = {"id": None, "function": {"name": "", "arguments": ""}}
        calls.append(call)
    call["id"] = call["id"] or piece.get("id")
    call["function"]["name"] = call["function"]["name"] or function.get("name") or ""
    arguments = function.get("arguments")
    call["function"]["arguments"] += arguments if isinstance(arguments, str) else _text(arguments)


def _call(call: dict) -> dict:
    """A call in OpenAI's form, its id and its arguments as they were given; an object is written as JSON."""
    function = call.get("function") or {}
    arguments = function.get("arguments")
    text = arguments if isinstance(arguments, str) else _text(arguments)
    function = {"name": function.get("name") or "", "arguments": text or "{}"}  # a tool that takes nothing
    return {"id": call.get("id"), "type": "function", "function": function}


def _text(value: Any) -> str:
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def _outcome(given: dict, calls: list[dict], finish: str, usage: Any) -> Outcome:
    message: Message = {"role": "assistant", "content": given.get("content")}
    message |= {name: given[name] or "" for name in THOUGHTS if name in given}
    if calls:
        message["tool_calls"] = calls
    told = usage if isinstance(usage, dict) else usage.model_dump(warnings=False) if usage is not None else {}
    return Outcome(
        message, finish, {k: v for k, v in told.items() if k.endswith("_tokens") and isinstance(v, int)}
    )
