"""The grammars of llguidance over our tokens, compiled once and kept: of arguments, of ids, of an answer.

A compiled grammar is never fed itself: a row takes a `deep_copy`, which costs two microseconds and shares what the
others have found out. Whether a token may come next is a bit of its mask; a text may end where the marker `end` is
among them. Special tokens are no text to llguidance, whatever their letters.
"""

from __future__ import annotations

import json
from functools import lru_cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

from kimi_mini.base.errors import KimiError
from kimi_mini.inference.serving.schemas import UnsupportedSchema, object_schema, parameters_schema
from kimi_mini.text.tokenizer import Tokenizer

if TYPE_CHECKING:  # an extra
    from llguidance import LLMatcher

_COMPACT = {"item_separator": ",", "key_separator": ":", "whitespace_flexible": False}


def function_of(tool: Any) -> dict:
    """The function that a declaration declares. Raises KimiError for anything else."""
    function = tool.get("function") if isinstance(tool, dict) and tool.get("type") == "function" else None
    if not isinstance(function, dict):
        raise KimiError(f"a tool is {{'type': 'function', 'function': {{'name': ...}}}}, not {tool!r:.80}")
    return function


@lru_cache(maxsize=64)
def of_tools(tokenizer: Tokenizer, declared: str) -> dict[str, LLMatcher]:
    """The grammar of each tool's arguments; `declared` is the JSON of the declarations. Raises UnsupportedSchema."""
    functions = [function_of(tool) for tool in json.loads(declared)]
    return {one["name"]: _of_parameters(tokenizer, one) for one in functions}


def _of_parameters(tokenizer: Tokenizer, function: dict) -> LLMatcher:
    where = f"tool {function['name']!r}: parameters"
    return _compiled(tokenizer, parameters_schema(function.get("parameters"), where), where)


def of_content(tokenizer: Tokenizer, wanted: dict | None) -> LLMatcher | None:
    """The grammar of an answer by its `response_format`; None where it is free. Raises KimiError."""
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if wanted is None or kind == "text":
        return None
    schema: Any = {"type": "object"}
    if kind == "json_schema":
        holder = wanted.get("json_schema")
        schema = holder.get("schema") if isinstance(holder, dict) else None
    elif kind != "json_object":
        raise KimiError(f"response_format: type must be text, json_object or json_schema, not {kind!r:.40}")
    where = "response_format: schema"
    return _compiled(tokenizer, object_schema(schema, where), where, "<|im_end|>")


def _compiled(tokenizer: Tokenizer, schema: dict, where: str, end: str = "<|tool_call_end|>") -> LLMatcher:
    grammar = _engine().LLMatcher.grammar_from_json_schema(schema, overrides=_COMPACT)
    matcher = _of_text(tokenizer, grammar, end)
    if matcher.is_error():
        raise UnsupportedSchema(f"{where}: {first_line(matcher.get_error())}")
    return matcher


@lru_cache(maxsize=64)
def of_ids(tokenizer: Tokenizer, names: tuple[str, ...]) -> LLMatcher:
    """A call's id up to its number."""
    grammar = _engine().LLMatcher.grammar_from_regex(rf"functions\.({'|'.join(names)}):")
    return _of_text(tokenizer, grammar, "<|tool_call_end|>")


@lru_cache(maxsize=256)
def _of_text(tokenizer: Tokenizer, grammar: str, end: str) -> LLMatcher:
    return _engine().LLMatcher(_vocabulary(tokenizer, end), grammar, log_level=0)


@lru_cache(maxsize=8)
def _vocabulary(tokenizer: Tokenizer, end: str) -> Any:
    """Our tokens for llguidance; a text of its grammars ends where `end` comes. Special tokens are no text there."""
    return _engine().LLTokenizer(tokenizer.backend.to_str(), eos_token=tokenizer.special[end])


def _engine() -> ModuleType:
    try:
        import llguidance
    except ImportError:
        raise KimiError("constrained decoding needs llguidance: pip install '.[serve]'") from None
    return llguidance


@lru_cache(maxsize=256)
def mask(tokenizer: Tokenizer, names: tuple[str, ...], text: bool = False) -> bytes:
    """V bytes, 1 for these tokens, and with `text` for all that are no markers; 0 for others."""
    written = range(tokenizer.first_special if text else 0)
    named = {tokenizer.token_id(name) for name in names}
    return bytes(token in written or token in named for token in range(tokenizer.vocab_size))


def first_line(error: str) -> str:
    """The first line of what llguidance says; its advice on `oneOf` is an option that would not keep it."""
    line = (error.strip().splitlines() or ["it cannot go on"])[0]
    return (
        "'oneOf' is only kept where its branches exclude each other: use 'anyOf'" if "oneOf" in line else line
    )
