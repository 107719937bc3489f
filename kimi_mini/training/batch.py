"""Examples, micro-batches, and the loss of every learned token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from kimi_mini.base import ranks
from kimi_mini.model import kernels
from kimi_mini.model.kimi import KimiMini


class Example(NamedTuple):
    """One sequence: `ids` (T,), integers wide enough for the vocabulary, and `mask` (T,) bool: what is learned."""

    ids: np.ndarray
    mask: np.ndarray


@dataclass(frozen=True)
class Batch:
    """Right-padded examples: `ids` (B, T) long, `mask` and `valid` (B, T) bool. `positions` (B, T) long: where the
    rotation takes the tokens to stand; None: 0 .. T-1."""

    ids: Tensor
    mask: Tensor
    valid: Tensor
    positions: Tensor | None = field(default=None, kw_only=True)

    @property
    def learned(self) -> int:
        """How many tokens carry loss: the first token of a row has nothing before it and never does."""
        return int(self.mask[:, 1:].sum())

    def to(self, device: torch.device | str) -> Self:
        """The same batch on `device`."""
        return self._each(lambda part: part.to(device))

    def rows(self, start: int, stop: int) -> Self:
        """Some of its rows, as wide as before."""
        return self._each(lambda part: part[start:stop])

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        return replace(self, **{name: change(part) for name, part in vars(self).items() if part is not None})


def collate(examples: Sequence[Example]) -> Batch:
    """Pad to the longest example. Causal order keeps the padding from touching anything real."""
    longest = max(len(example.ids) for example in examples)
    ids = np.zeros((len(examples), longest), np.int64)
    mask, valid = np.zeros(ids.shape, bool), np.zeros(ids.shape, bool)
    for row, example in enumerate(examples):
        size = len(example.ids)
        ids[row, :size], mask[row, :size], valid[row, :size] = example.ids, example.mask, True
    return Batch(torch.from_numpy(ids), torch.from_numpy(mask), torch.from_numpy(valid))


def text_batch(windows: np.ndarray) -> Batch:
    """Windows (B, T) as one batch in which every token is learned."""
    return collate([Example(window, np.ones(len(window), bool)) for window in windows])


def in_turn(windows: np.ndarray, rows: int, seed: int | Sequence[int]) -> Callable[[int], np.ndarray]:
    """step -> the `rows` windows (rows, T) of that step, in an order that the seed decides; each is read once before
    any is read twice."""
    order = np.random.default_rng(seed).permutation(len(windows))
    return lambda step: windows[np.take(order, np.arange(step * rows, (step + 1) * rows), mode="wrap")]


def micro_batches(examples: Sequence[Example], tokens: int) -> list[Batch]:
    """Cut a step's examples into batches of about `tokens` padded tokens, like lengths together; none of none."""
    batches: list[list[Example]] = []
    for example in sorted(examples, key=length):
        if not batches or (len(batches[-1]) + 1) * length(example) > tokens:
            batches.append([])
        batches[-1].append(example)
    return [collate(rows) for rows in batches]


def shared_batches(examples: Sequence[Example], tokens: int) -> list[Batch]:
    """This rank's part of a step's examples in micro-batches: a run of like lengths, so that little is padded.

    The runs are cut so that the rank with the most work, for which the others wait, has as little as can be.
    """
    ordered, count = sorted(examples, key=length), ranks.world_size()
    lengths = [length(example) for example in ordered]
    low, high = 0, len(lengths) * work(max(lengths, default=0))
    while low < high:  # the smallest limit with which there are enough ranks
        limit = (low + high) // 2
        low, high = (low, limit) if len(runs(lengths, tokens, limit)) <= count else (limit + 1, high)
    sizes = [*runs(lengths, tokens, low), *[0] * count]
    first = sum(sizes[: ranks.rank()])
    return micro_batches(ordered[first : first + sizes[ranks.rank()]], tokens)


def length(example: Example) -> int:
    """How many tokens it has."""
    return len(example.ids)


ATTENTION = (
    1700  # tokens of a row whose attention takes as long as all the rest of their work (`micro`, two cores)
)


def work(tall: int) -> int:
    """What a row of `tall` tokens, padding among them, costs: each token the same, and its look at all before it. In
    tokens of a row so short that attention is free."""
    return tall + tall * tall // ATTENTION


def runs(lengths: Sequence[int], tokens: int, limit: int) -> list[int]:
    """How many examples, shortest first, go into each of as few runs as can be: of at most `limit` work in
    micro-batches of `tokens` padded tokens, or of one example."""
    sizes: list[int] = []
    rows = closed = longest = 0  # of the last micro-batch of this run; the work of those before it
    for tall in lengths:
        joins = (rows + 1) * tall <= tokens
        before = closed if joins else closed + rows * work(longest)
        if sizes and before + (rows + 1 if joins else 1) * work(tall) <= limit:
            sizes[-1] += 1
            rows, closed = (rows + 1 if joins else 1), before
        else:
            sizes.append(1)
            rows, closed = 1, 0
        longest = tall
    return sizes


def token_losses(model: KimiMini, batch: Batch) -> Tensor:
    """Negative log-likelihood in nats of every learned token, (number of learned tokens,).

    The head is applied to the learned positions alone: with a mask of one token in three that saves
    two thirds of the logits.
    """
    batch = batch.to(model.lm_head.weight.device)
    hidden = model.hidden_states(batch.ids, valid=batch.valid, positions=batch.positions)  # (B, T, h)
    learned = batch.mask[:, 1:]
    return kernels.head_losses(hidden[:, :-1][learned], model.lm_head.weight, batch.ids[:, 1:][learned])
