"""Thinking mode: one set of weights, with a thought or without, on a budget, and as an API returns it.

    write      prompts -> turns as tokens, batched, each token with its author
    corrupt    put a wrong value into a thought; `write` goes on from there (is the thought used?)

`api` returns such turns as an OpenAI-compatible server does; the agent's local policy writes them between tool calls.

A thinking budget is a hard stop. When a thought has `budget` tokens and the model does not end it itself, we feed
</think> in its place and let it answer with what it has. That token is ours: it is not sampled, not counted as the
model's, and never trained on. K2 Thinking was scored with budgets of 24k to 128k tokens (its model card).

A model that was never stopped in training may ignore the stop and think on in its answer. `answer_ids` holds it to the
form of an answer from there on, as K2's enforcer holds calls to their schema (K2 report, appendix B).

A soft target only hurries: from `target` tokens on, </think> becomes likelier with every token, by `nudge` nats. The
model ends the thought itself, where an end comes easiest, and may run over. Together with a budget nothing runs far.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import NamedTuple

import torch

from kimi_mini.inference.writer import Marks, Row, Writer, dice, stops_of
from kimi_mini.model.kimi import KimiMini
from kimi_mini.text.tokenizer import Tokenizer

Budget = int | None | list[int | None]


class Prefix(NamedTuple):
    """The beginning of a turn that is given: its tokens, which of them the model once wrote itself, and the
    log-probabilities it did so with (0 for the others)."""

    ids: list[int]
    own: list[bool]
    logprobs: list[float]

    @classmethod
    def cut(cls, turn: Turn, length: int, new: Sequence[int]) -> Prefix:
        """The first `length` tokens of a turn, which stay the model's, and `new` ones behind them, which are ours."""
        own, logprobs = turn.own[:length], turn.logprobs[:length]
        return cls([*turn.ids[:length], *new], own + [False] * len(new), logprobs + [0.0] * len(new))


@dataclass(frozen=True)
class Turn:
    """One assistant turn as tokens: what stood before it, what was written, and who wrote it.

    ids, own (n,): own is True where the model chose the token, False where we put it (a forced </think>, a corrupted
    step). thought (n,): True inside <think>...</think>, tags excluded. finish: "stop", or "length" at max_tokens.
    logprobs (n,): of own tokens when they were sampled; 0 where we put the token. hurried: past a soft target.
    """

    prompt: list[int]
    ids: list[int]
    own: list[bool]
    thought: list[bool]
    finish: str
    logprobs: list[float]
    hurried: bool = False

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
    target: int | None = None,
    nudge: float = 1.0,
    numbers: Sequence[int] | None = None,
) -> list[Turn]:
    """One turn behind each prompt, all of them decoded together.

    Args:
        prompts: token ids up to where the assistant takes over, as `chat.encode(..., add_generation_prompt=True)`.
        budget: most tokens of a thought, for all rows or one a row; None leaves it to the model. Rows that are
            prompted with an empty thought (reflex) have nothing to limit.
        max_tokens: most tokens that the model may write in a turn, thought, answer and what a prefix holds together.
        prefixes: given beginnings of the turns, from where the model goes on; one that has its end already, or all
            tokens that may be written, stays as it is.
        answer_ids: the tokens that an answer behind a hard stop, or a hurried end, may consist of (its end always may);
            None: any.
        target: tokens of a thought from which on </think> gains `nudge` nats with every token; None: never.
        numbers: names each row's dice together with the seed; by default it is the row's place, from 0 on.

    Raises:
        ValueError: lists of unequal length, and numbers that are none of tokens.
    """
    prefixes = [Prefix([], [], [])] * len(prompts) if prefixes is None else prefixes
    budgets = list(budget) if isinstance(budget, list) else [budget] * len(prompts)
    numbers = range(len(prompts)) if numbers is None else numbers
    _check(prompts, budgets, prefixes, numbers, max_tokens, target, nudge)
    marks, stops = Marks.of(tokenizer), stops_of(model, tokenizer)
    answer, soft = _answer(model, stops, answer_ids), {"target": target, "nudge": nudge}
    rows = [
        Row(list(prompt), max_tokens, stops, dice(seed, number), limit, marks, answer, **soft)
        for number, prompt, limit in zip(numbers, prompts, budgets)
    ]
    _give(rows, prefixes)
    _write(model, [row for row in rows if row.finish is None], max_tokens, temperature)
    return [Turn(r.context, r.ids, r.own, r.thought, r.finish, r.logprobs, r.hurried) for r in rows]


def _check(
    prompts: Sequence,
    budgets: Sequence,
    prefixes: Sequence,
    numbers: Sequence,
    most: object,
    target: object,
    nudge: float,
):
    """Raises ValueError for what `write` cannot do."""
    if not len(budgets) == len(prefixes) == len(numbers) == len(prompts):
        raise ValueError(
            f"{len(prompts)} prompts, {len(budgets)} budgets, {len(prefixes)} prefixes and {len(numbers)} numbers do"
            " not fit"
        )
    for limit in (*budgets, target):
        check_budget(limit)
    if not is_whole_number(most, least=1):
        raise ValueError(f"max_tokens must be a whole number from 1, not {most!r}")
    if not 0 < nudge < float("inf"):
        raise ValueError(f"nudge is a number of nats above 0, not {nudge!r}")


def _give(rows: Sequence[Row], prefixes: Sequence[Prefix]) -> None:
    """Begin each turn with what is given of it, which may be all of it."""
    for row, prefix in zip(rows, prefixes):
        for token, own, logprob in zip(*prefix, strict=True):
            row.add(token, own, logprob)
        if row.ids and row.ids[-1] in row.stops:
            row.finish = "stop"
        elif row.written >= row.most:
            row.finish = "length"


def check_budget(limit: int | None) -> None:
    """Raises ValueError for a thinking budget that is no number of tokens."""
    if limit is not None and not is_whole_number(limit):
        hint = "0 closes the thought at once, None sets no limit"
        raise ValueError(f"a thinking budget is a whole number of tokens, not {limit!r}; {hint}")


def is_whole_number(value: object, least: int = 0) -> bool:
    """Whether a value is a whole number from `least`; True and False are not numbers here."""
    return isinstance(value, Integral) and not isinstance(value, bool) and value >= least


def _answer(
    model: KimiMini, stops: Collection[int], answer_ids: Collection[int] | None
) -> Callable[[Row], bytes | None] | None:
    """What holds a row to `answer_ids` behind a hard stop (see `Row`). Raises ValueError for what is no token."""
    if answer_ids is None:
        return None
    for token in answer_ids:
        if not is_whole_number(token) or token >= model.config.vocab_size:
            raise ValueError(
                f"answer_ids are token ids from 0 to {model.config.vocab_size - 1}, not {token!r}"
            )
    may_come = {*answer_ids, *stops}
    allowed = bytes(token in may_come for token in range(model.config.vocab_size))
    return lambda row: allowed if row.stopped or row.hurried else None


def _write(model: KimiMini, rows: list[Row], max_tokens: int, temperature: float) -> None:
    """Write until every row has its end. Places of finished rows are dropped once they are the majority."""
    if not rows:
        return
    # a forced token for each own, at worst
    longest = max(len(row.context) + len(row.ids) for row in rows) + 2 * max_tokens
    writer = Writer(model, len(rows), min(longest, model.config.max_position_embeddings), temperature)
    for place, row in enumerate(rows):
        writer.join(place, row)
    while writer.rows:
        writer.step()
        if writer.rows and 2 * len(writer.rows) <= len(writer.held):
            writer.select(list(writer.rows))


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
    return Prefix.cut(turn, places[step] + 1, tokenizer.encode_plain(value))
