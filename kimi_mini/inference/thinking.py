"""Thinking mode: one set of weights, with a thought or without, on a budget, and as an API returns it.

    respond          messages -> the response of an OpenAI-compatible server: reasoning_content, tool_calls, usage
    write            the layer below: prompts -> turns as tokens, batched, each token with its author
    corrupt          put a wrong value into a thought; `write` goes on from there (is the thought used?)
    attention_rows   where each head looks from given positions

`traces` puts such turns into conversations with tools; `attempts` compares several of them at equal tokens.

A thinking budget is a hard stop. When a thought has `budget` tokens and the model does not end it itself, we feed
</think> in its place and let it answer with what it has. That token is ours: it is not sampled, not counted as the
model's, and never trained on. K2 Thinking was scored with budgets of 24k to 128k tokens (its model card).

A model that was never stopped in training may ignore the stop and think on in its answer. `answer_ids` holds it to the
form of an answer from there on, as K2's enforcer holds calls to their schema (K2 report, appendix B).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import NamedTuple

import torch
from torch import Tensor

from kimi_mini.inference.decoder import Decoder
from kimi_mini.inference.sampling import sample
from kimi_mini.model.kimi import KimiMini
from kimi_mini.text.tokenizer import Tokenizer

Budget = int | None | Sequence[int | None]


class Prefix(NamedTuple):
    """The beginning of a turn that is given: its tokens, and which of them the model once wrote itself."""

    ids: list[int]
    own: list[bool]


@dataclass(frozen=True)
class Turn:
    """One assistant turn as tokens: what stood before it, what was written, and who wrote it.

    ids, own (n,): own is True where the model chose the token, False where we put it (a forced </think>, a corrupted
    step). thought (n,): True inside <think>...</think>, tags excluded. finish: "stop", or "length" at max_tokens.
    """

    prompt: list[int]
    ids: list[int]
    own: list[bool]
    thought: list[bool]
    finish: str

    @property
    def written(self) -> int:
        """Tokens that the model wrote; ours are not among them."""
        return sum(self.own)

    @property
    def thought_tokens(self) -> int:
        """Length of the thought, whoever wrote it: what a budget limits."""
        return sum(self.thought)

    @property
    def was_cut(self) -> bool:
        """Did we have to put something in, such as the </think> of a hard stop?"""
        return not all(self.own)


class Marks(NamedTuple):
    """Ids of the tokens that open and close a thought. A call ends it too, closed or not (as the parser reads it)."""

    think: int
    close: int
    calls: int
    end: int

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Marks:
        names = ("<think>", "</think>", "<|tool_calls_section_begin|>", "<|im_end|>")
        return cls(*(tokenizer.token_id(name) for name in names))


@dataclass
class _Draft:
    """A turn while it is written: one row of the decoder."""

    prompt: list[int]
    budget: int | None
    marks: Marks
    ids: list[int] = field(default_factory=list)
    own: list[bool] = field(default_factory=list)
    thought: list[bool] = field(default_factory=list)
    thinking: bool = False
    stopped: bool = False  # by us
    pending: list[int] = field(default_factory=list)  # what the decoder has not seen yet
    finish: str | None = None

    def add(self, token: int, own: bool) -> None:
        """Append a token; a thought begins behind <think> and ends before </think>, a call or the end."""
        if token in self.marks[1:]:
            self.thinking = False
        self.ids.append(token)
        self.own.append(own)
        self.thought.append(self.thinking)
        if token == self.marks.think:
            self.thinking, self.thought[-1] = True, False

    def take(self, token: int, max_tokens: int) -> None:
        """The model's next token, unless the budget is spent: then </think>, which is ours."""
        spent = self.thinking and self.budget is not None and sum(self.thought) >= self.budget
        forced = spent and token not in self.marks[1:]  # a thought that just fits is not cut
        token = self.marks.close if forced else token
        self.add(token, own=not forced)
        self.pending, self.stopped = [token], self.stopped or forced
        if token == self.marks.end or sum(self.own) >= max_tokens:
            self.finish = "stop" if token == self.marks.end else "length"
            self.pending = []


@torch.no_grad()
def write(
    model: KimiMini,
    tokenizer: Tokenizer,
    prompts: Sequence[list[int]],
    *,
    budget: Budget = None,
    max_tokens: int = 256,
    temperature: float = 0.0,
    seed: int = 0,
    prefixes: Sequence[Prefix] | None = None,
    answer_ids: Collection[int] | None = None,
) -> list[Turn]:
    """One turn behind each prompt, all of them decoded together.

    Args:
        prompts: token ids up to where the assistant takes over, as `chat.encode(..., add_generation_prompt=True)`.
        budget: most tokens of a thought, for all rows or one a row; None leaves it to the model. Rows that are
            prompted with an empty thought (reflex) have nothing to limit.
        max_tokens: most tokens that the model may write in a turn, thought, answer and what a prefix holds together.
        prefixes: given beginnings of the turns, from where the model goes on.
        answer_ids: the tokens that an answer behind a hard stop may consist of (its end always may); None: any.

    Raises:
        ValueError: lists of unequal length, and numbers that are none of tokens.
    """
    single = isinstance(budget, str) or not isinstance(budget, Iterable)
    budgets = [budget] * len(prompts) if single else list(budget)
    prefixes = [Prefix([], [])] * len(prompts) if prefixes is None else prefixes
    if not len(budgets) == len(prefixes) == len(prompts):
        raise ValueError(
            f"{len(prompts)} prompts, {len(budgets)} budgets and {len(prefixes)} prefixes do not fit"
        )
    for limit in budgets:
        if limit is not None and not _counts(limit):
            hint = "0 closes the thought at once, None sets no limit"
            raise ValueError(f"a thinking budget is a whole number of tokens, not {limit!r}; {hint}")
    if not _counts(max_tokens, least=1):
        raise ValueError(f"max_tokens must be a whole number from 1, not {max_tokens!r}")
    for token in answer_ids or ():
        if not _counts(token) or token >= model.config.vocab_size:
            raise ValueError(
                f"answer_ids are token ids from 0 to {model.config.vocab_size - 1}, not {token!r}"
            )
    drafts = [_Draft(list(p), limit, Marks.of(tokenizer)) for p, limit in zip(prompts, budgets)]
    for draft, prefix in zip(drafts, prefixes):
        for token, own in zip(prefix.ids, prefix.own, strict=True):
            draft.add(token, own)
        draft.pending = draft.prompt + draft.ids
    banned = None
    if answer_ids is not None:
        banned = torch.ones(model.config.vocab_size, dtype=torch.bool, device=model.lm_head.weight.device)
        banned[[*answer_ids, tokenizer.token_id("<|im_end|>")]] = False
    _decode(model, drafts, max_tokens, temperature, seed, banned)
    return [Turn(d.prompt, d.ids, d.own, d.thought, d.finish) for d in drafts]


def _counts(value: object, least: int = 0) -> bool:
    """Whether a value is a whole number from `least`; True and False are not numbers here."""
    return isinstance(value, Integral) and not isinstance(value, bool) and value >= least


def _decode(
    model: KimiMini,
    drafts: list[_Draft],
    max_tokens: int,
    temperature: float,
    seed: int,
    banned: Tensor | None,
) -> None:
    """Write until every draft has its end. Rows of finished drafts are dropped once they are the majority.

    banned (V,) bool: tokens that a draft may not hold behind a hard stop.
    """
    if not drafts:
        return
    longest = (
        max(len(draft.pending) for draft in drafts) + 2 * max_tokens
    )  # a forced token for each own, at worst
    decoder = Decoder(model, len(drafts), min(longest, model.config.max_position_embeddings))
    generator = torch.Generator(model.lm_head.weight.device).manual_seed(seed)
    rows = list(drafts)
    while True:
        logits = decoder.extend([draft.pending for draft in rows])  # (rows, V)
        live = [index for index, draft in enumerate(rows) if draft.finish is None]
        if banned is not None:
            held = torch.tensor([draft.stopped for draft in rows], device=logits.device)
            logits = logits.masked_fill(held[:, None] & banned, float("-inf"))
        tokens, _ = sample(logits[live], temperature, generator)
        for index, token in zip(live, tokens.tolist()):
            rows[index].take(token, max_tokens)
        live = [index for index in live if rows[index].finish is None]
        if not live:
            return
        if 2 * len(live) <= len(rows):
            decoder.select(live)
            rows = [rows[index] for index in live]


def corrupt(turn: Turn, tokenizer: Tokenizer, step: int, value: str, mark: str = "=") -> Prefix:
    """The turn up to the `step`-th (from 0) token that ends in `mark`, and `value` in place of what came next.

    The kept tokens are the model's own, those of `value` are ours. Raises ValueError when there is no such step.
    """
    places = [
        i for i, token in enumerate(turn.ids) if turn.thought[i] and tokenizer.decode([token]).endswith(mark)
    ]
    if not 0 <= step < len(places):
        raise ValueError(
            f"the thought has {len(places)} tokens that end in {mark!r}; there is no number {step}"
        )
    kept = places[step] + 1
    new = list(tokenizer.encode_plain(value))
    return Prefix(turn.ids[:kept] + new, turn.own[:kept] + [False] * len(new))
