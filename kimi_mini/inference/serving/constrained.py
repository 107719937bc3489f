"""Tool calls that cannot be malformed: before every token, which tokens may come next.

K2's enforcer (K2 report, appendix B) lets the model think and write as it likes. It takes over where the section of
calls begins, and from there on only this can be written, INDEX counting the calls of the dialogue:

    <|tool_calls_section_begin|>
        <|tool_call_begin|>functions.NAME:INDEX<|tool_call_argument_begin|>{JSON}<|tool_call_end|>     (once or more)
    <|tool_calls_section_end|><|im_end|>

NAME is a declared tool, or one that a search has found (`with_found`), and {JSON} is valid by its schema, which
llguidance turns into a grammar over our tokens. A marker is a token here: its letters inside an argument are text and
end nothing.

    hook = Constraint(tokenizer, tools, tool_choice="auto", next_call=3)
    Row(context, ..., allowed=hook)

Refusals come from here, when the request is read, and never from the middle of a turn; there only a limit of llguidance
ends a row, as an error. One thing no grammar can give: room. Where `max_tokens` ends a turn inside a call, the turn's
finish is "length" and the parser leaves the call out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING

from kimi_mini.base.errors import KimiError
from kimi_mini.inference.serving.grammars import first_line, function_of, mask, of_content, of_ids, of_tools
from kimi_mini.inference.writer import Row
from kimi_mini.text.messages import content_text
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.worlds.tools import FIND

if TYPE_CHECKING:  # an extra
    from llguidance import LLMatcher

Steps = Generator[bytes, int, None]  # gives what may come next, is told what came
Spelt = Generator[bytes, int, list[int]]

_NAME = re.compile(r"[A-Za-z0-9_-]+")


class Constraint:
    """The hook of one row (`Row.allowed`). It follows the row, and begins anew when the row is another one.

    Args:
        tools: OpenAI declarations of all that may be called.
        tool_choice: "auto", "none", "required", or {"type": "function", "function": {"name": NAME}}: one call of that.
        parallel: whether a turn may hold several calls.
        thinking: False where the prompt has closed the thought (reflex).
        next_call: how many calls the dialogue holds already.
        response_format: {"type": "json_object"}, or {"type": "json_schema", "json_schema": {"schema": ...}}: what the
            text of an answer must be. A call may still be made in its place.

    Raises UnsupportedSchema for a schema that cannot be kept, KimiError for the rest of what cannot be asked for.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        tools: Sequence[dict] | None = None,
        tool_choice: str | dict = "auto",
        parallel: bool = True,
        thinking: bool = True,
        next_call: int = 0,
        response_format: dict | None = None,
    ):
        self.tokenizer, self.special, self.next_call = tokenizer, tokenizer.special, next_call
        self.names, self.forced, one = _choice(tools or [], tool_choice)
        self.parallel, self.thinking = parallel and not one, thinking
        self.grammars = of_tools(tokenizer, json.dumps(tools or []))
        self.content = of_content(tokenizer, response_format)
        self.id_grammar = of_ids(tokenizer, self.names) if self.names else None
        self._begin([])

    def __call__(self, row: Row) -> bytes:
        """The mask of the tokens that may come behind those of the row: V bytes, 0 for those that may not."""
        if row.ids is not self.ids or len(row.ids) < self.seen:
            self._begin(row.ids)
        for token in row.ids[self.seen :]:
            self.allowed = self.steps.send(token)
        self.seen = len(row.ids)
        return self.allowed

    def _begin(self, ids: list[int]) -> None:
        """A turn with these tokens, none of them seen yet; they are the row's own list, which grows."""
        self.ids, self.seen = ids, 0
        self.steps = self._turn()
        self.allowed = next(self.steps)

    # ---- the format, as it is written

    def _turn(self) -> Steps:
        section, held = self.special["<|tool_calls_section_begin|>"], self.forced or self.content is not None
        token = None
        if not held:
            yield from self._until((section,), "<think>", "</think>", "<|im_end|>", "[EOS]")
        else:
            if self.thinking:
                yield self._only("<think>")
                token = yield from self._until((section, self.special["</think>"]), "</think>")
            if token != section and self.forced:
                yield self._only("<|tool_calls_section_begin|>")
            elif token != section:
                yield from self._answer(section)
        yield from self._calls()
        yield from self._end()

    def _until(self, last: tuple[int, ...], *markers: str) -> Generator[bytes, int, int]:
        """Text and these markers, and calls where there are tools; returns the token of `last` that ended it."""
        calls = ("<|tool_calls_section_begin|>",) if self.names else ()
        allowed = mask(self.tokenizer, (*markers, *calls), text=True)
        while (token := (yield allowed)) not in last:
            pass
        return token

    def _answer(self, section: int) -> Steps:
        """JSON and the end of the turn, or a section of calls."""
        matcher = self.content.deep_copy()
        allowed = bytearray(self._next(matcher))
        allowed[section] = bool(self.names)
        token = yield allowed
        if token != section:
            yield from self._follow(matcher, token, "<|im_end|>")
            yield from self._end()

    def _calls(self) -> Steps:
        index, token = self.next_call, None
        while token != self.special["<|tool_calls_section_end|>"]:
            if token is None:
                yield self._only("<|tool_call_begin|>")
            spelt = yield from self._follow(self.id_grammar.deep_copy())
            for digit in str(index):
                yield self._only(digit)
            yield self._only("<|tool_call_argument_begin|>")
            name = self.tokenizer.decode(spelt).removeprefix("functions.").removesuffix(":")
            yield from self._follow(self.grammars[name].deep_copy(), None, "<|tool_call_end|>")
            index += 1
            more = ("<|tool_call_begin|>",) if self.parallel else ()
            token = yield self._only("<|tool_calls_section_end|>", *more)

    def _end(self) -> Steps:
        while True:
            yield self._only("<|im_end|>")

    # ---- grammars

    def _follow(self, matcher: LLMatcher, token: int | None = None, end: str | None = None) -> Spelt:
        """What a grammar admits, up to the marker `end`, or without one up to where it is complete. `token` has come
        already. Returns what was spelt."""
        spelt: list[int] = []
        while True:
            if token is None:
                token = yield self._next(matcher)
            if token == (self.special[end] if end else None):
                return spelt
            matcher.consume_token(token)
            spelt.append(token)
            if end is None and matcher.is_accepting():
                return spelt
            token = None

    def _next(self, matcher: LLMatcher) -> bytes:
        """What a grammar admits now. Raises KimiError where llguidance cannot go on: a turn that ended there would say
        that it is whole."""
        allowed = matcher.compute_logit_bias()
        if matcher.is_error():
            raise KimiError(f"a grammar cannot go on: {first_line(matcher.get_error())}")
        return allowed

    def _only(self, *names: str) -> bytes:
        return mask(self.tokenizer, names)


# ------------------------------------------------------------------------------------ what is asked for


def with_found(tools: Sequence[dict] | None, messages: Sequence[dict]) -> list[dict]:
    """Declarations of all that may be called behind these messages: what was declared and, where `find_tools` is among
    it, what stands in its results. Raises KimiError for a declaration that is none."""
    declared, found = list(tools or []), {}
    names = [function_of(tool).get("name") for tool in declared]
    for message in messages if FIND in names else ():
        if message.get("role") == "tool" and message.get("name") == FIND:
            found |= _declared_in(message)
    return declared + [tool for name, tool in found.items() if name not in names]


def _declared_in(result: dict) -> dict[str, dict]:
    """The declarations that a result holds, by name; none where it is anything but a list of them."""
    try:
        return {function_of(tool)["name"]: tool for tool in json.loads(content_text(result))}
    except (ValueError, TypeError, KeyError, KimiError, RecursionError):
        return {}


def _choice(tools: Sequence[dict], choice: str | dict) -> tuple[tuple[str, ...], bool, bool]:
    """(names that may be called, must there be a call, exactly one). Raises KimiError."""
    names = tuple(function_of(tool).get("name") for tool in tools)
    for name in names:
        if not (isinstance(name, str) and _NAME.fullmatch(name)):
            raise KimiError(f"tool name {name!r}: use letters, digits, _ and -")
        if names.count(name) > 1:
            raise KimiError(f"two tools are named {name!r}")
    if choice == "none" or (choice == "auto" and not names):
        return (), False, False
    if choice in ("auto", "required"):
        if not names:
            raise KimiError("tool_choice is 'required', but no tools are declared")
        return names, choice == "required", False
    function = choice.get("function") if isinstance(choice, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if name is None or choice.get("type") != "function":
        wanted = "'auto', 'none', 'required' or {'type': 'function', 'function': {'name': ...}}"
        raise KimiError(f"tool_choice must be {wanted}, not {choice!r:.80}")
    if name not in names:
        raise KimiError(f"tool_choice names {name!r}; declared: {', '.join(names) or 'none'}")
    return (name,), True, True
