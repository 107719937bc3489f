"""A row while it is written, as a client sees it: first its thought, then its text, then its calls.

What has been sent cannot be taken back. So what later tokens may change is held back: bytes of half a letter, what may
be the beginning of a stop string, a call until it is closed, and everything where a thought was to come and did not.
When the row is over, whatever is left is sent: the pieces of a stream are, put together, the answer that comes at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from kimi_mini.inference.writer import Row
from kimi_mini.text import chat
from kimi_mini.text.tokenizer import Tokenizer

FRAGMENT = 16  # letters of a call's arguments that are sent at a time
HALF = "\ufffd"  # what a part of a letter is decoded to
CALLS_BEGIN = ("<|tool_calls_section_begin|>", "<|tool_call_begin|>")


@dataclass
class Answer:
    """One choice. thinks: whether a thought was asked for; held: calls cannot be malformed, so that one that is closed
    stays; stops: strings at which the text ends; alternatives: how many tokens beside each one, None: no
    log-probabilities; listened: whether anybody wants the pieces before the end."""

    tokenizer: Tokenizer
    thinks: bool
    held: bool
    stops: list[str] = field(default_factory=list)
    alternatives: int | None = None
    listened: bool = True
    thought: str = ""  # sent so far, and likewise:
    text: str = ""
    calls: list[dict] = field(default_factory=list)
    likely: list[dict] = field(default_factory=list)  # log-probabilities of the text's tokens
    told: int = 0  # how many of these
    stopped: bool = False  # at a stop string
    finish: str | None = None
    _logprobs: list[Tensor] = field(default_factory=list)
    _read: int = 0  # tokens of the row that were parsed
    _part: str | None = None

    def look(self, logits: Tensor) -> None:
        """Row.looks: keep what the next token's log-probabilities are, under the model and nothing else."""
        self._logprobs.append(logits.float().log_softmax(-1))

    def heard(self, row: Row, over: bool) -> list[dict[str, Any]]:
        """What is new: OpenAI's deltas."""
        if self.alternatives is not None:
            self._count(row)
        if not (over or self.listened or self.stops):
            return []
        if not over and (known := self._more(row)) is not None:
            return known
        message = chat.parse_ids(self.tokenizer, row.ids, None if self.thinks else False)
        thought, text = message["reasoning_content"], message["content"] or ""
        calls = message.get("tool_calls") or []
        self._read, self._part = len(row.ids), self._last_part(row, thought, text)
        if ends := [text.index(stop) for stop in self.stops if stop in text]:
            text, self.stopped = text[: min(ends)], True  # calls come behind a text
        if not (over or self.stopped):
            if self._waits(row):
                return []
            thought, text = thought.rstrip(HALF), text[: len(text) - self._unsure(text)]
            calls = calls if self.held else []
        if over:
            cut = row.finish in ("length", "loops") and not self.stopped
            self.finish = "length" if cut else "tool_calls" if calls else "stop"
        return list(self._deltas(thought, text, calls))

    def _last_part(self, row: Row, thought: str, text: str) -> str | None:
        """What a plain token would go on with, where that is all it can do: nothing before it is held back."""
        if row.marks is None or self.stops or (thought + text).endswith(HALF):
            return None
        markers = [token for token in row.ids if token >= self.tokenizer.first_special]
        if not self.thinks:  # the prompt has them
            markers = [*row.marks[:2], *markers]
        elif row.ids[:1] != [row.marks.think]:
            return None
        parts = {row.marks[:1]: "thought", row.marks[:2]: "text", row.marks[:3]: "calls"}
        part = parts.get(tuple(markers[:3]))
        return None if part == "text" and not text.strip() else part  # blanks are held back

    def _more(self, row: Row) -> list[dict[str, Any]] | None:
        """What is new by one plain token, without reading the row again; None where that has to be."""
        if (
            self._part is None
            or self._read != len(row.ids) - 1
            or row.ids[-1] >= self.tokenizer.first_special
        ):
            return None
        new = self.tokenizer.decode(row.ids[-1:]) if self._part != "calls" else ""
        if HALF in new:
            return None
        self._read += 1
        thought, text = self.thought, self.text
        if self._part == "thought":
            thought += new
        else:
            text += new
        return list(self._deltas(thought, text, self.calls))

    def _deltas(self, thought: str, text: str, calls: list[dict]) -> Iterator[dict[str, Any]]:
        if new := thought[len(self.thought) :]:
            self.thought = thought
            yield {"reasoning_content": new, "reasoning": new}
        if new := text[len(self.text) :]:
            self.text = text
            yield {"content": new}
        for index in range(len(self.calls), len(calls)):
            call = calls[index]
            self.calls.append(call)
            function = {"name": call["function"]["name"], "arguments": ""}
            yield {
                "tool_calls": [{"index": index, "id": call["id"], "type": "function", "function": function}]
            }
            arguments = call["function"]["arguments"]
            for start in range(0, len(arguments), FRAGMENT):
                part = {"arguments": arguments[start : start + FRAGMENT]}
                yield {"tool_calls": [{"index": index, "function": part}]}

    def _waits(self, row: Row) -> bool:
        """Whether all of it may be read otherwise later: a thought was to come and did not, or calls began that nothing
        holds to their form."""
        if self.thinks and (not row.ids or row.marks is None or row.ids[0] != row.marks.think):
            return True
        return not self.held and any(self.tokenizer.special[name] in row.ids for name in CALLS_BEGIN)

    def _unsure(self, text: str) -> int:
        """How many letters at the end of the text may still change or go; blanks may stand before a <think>."""
        if not text.strip():
            return len(text)
        whole = text.rstrip(HALF)
        starts = (
            size
            for stop in self.stops
            for size in range(1, min(len(stop), len(whole) + 1))
            if whole.endswith(stop[:size])
        )
        return len(text) - len(whole) + max(starts, default=0)

    def message(self) -> dict[str, Any]:
        """The whole of it. Without a text its content is empty, and null beside calls, as OpenAI has it."""
        message = {"role": "assistant", "content": self.text or (None if self.calls else "")}
        message |= {"reasoning_content": self.thought, "reasoning": self.thought}
        return message | ({"tool_calls": self.calls} if self.calls else {})

    # ---- log-probabilities

    def _count(self, row: Row) -> None:
        """That of the token that has come, if it is text: none of thoughts, calls and markers."""
        if not self._logprobs:
            return
        logprobs, token = self._logprobs.pop(), row.ids[-1]
        section = self.tokenizer.special["<|tool_calls_section_begin|>"]
        if (
            row.own[-1]
            and token < self.tokenizer.first_special
            and not row.thought[-1]
            and section not in row.ids
        ):
            best = torch.topk(logprobs, self.alternatives).indices.tolist() if self.alternatives else []
            others = [self._named(other, logprobs) for other in best]
            self.likely.append(self._named(token, logprobs) | {"top_logprobs": others})

    def _named(self, token: int, logprobs: Tensor) -> dict[str, Any]:
        word = self.tokenizer.decode([token])
        spelt = None if HALF in word else list(word.encode())  # bytes of half a letter are not told
        return {"token": word, "logprob": float(logprobs[token]), "bytes": spelt}

    def new_logprobs(self) -> dict | None:
        """Of the tokens since the last time, as a stream says them; None where nobody asked."""
        if self.alternatives is None:
            return None
        new, self.told = self.likely[self.told :], len(self.likely)
        return {"content": new}


def usage(rows: list[Row], cached: int) -> dict[str, Any]:
    """Tokens that were read and written; those that the model did not write (a forced </think>) are not among them."""
    written = sum(row.written for row in rows)
    reasoning = sum(own and inside for row in rows for own, inside in zip(row.own, row.thought))
    prompt = len(rows[0].context)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": written,
        "total_tokens": prompt + written,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }
