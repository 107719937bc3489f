"""The latent cache: one small vector a token and layer, rows of different lengths, rewinding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

LONG = 384  # cached tokens; a step in which a row has as many goes row by row, which pads and copies nothing
BLOCK = 256  # new tokens of a row that look together


class LatentCache:
    """Latents of every layer: (L, rows, max_length + 1, r + d_r). The last slot takes what padding writes.

    `extend` makes room for several tokens a row, `step` for one; what they return says where the layers write.
    `lengths` is (rows,) long; the same numbers as a list, `host_lengths`, spare the loop from asking the
    device.
    """

    def __init__(self, config, rows: int, max_length: int, device=None, dtype=torch.float32):
        self.max_length = max_length
        self.store = torch.zeros(
            config.num_hidden_layers, rows, max_length + 1, config.latent_dim, device=device, dtype=dtype
        )
        self.set_lengths([0] * rows)

    def set_lengths(self, lengths: list[int]) -> None:
        """The first lengths[i] slots of row i count. `bias` (rows, slots) is 0 there, -inf elsewhere, and 0
        in slot 0."""
        self.host_lengths = lengths
        self.lengths = torch.tensor(lengths, dtype=torch.long, device=self.store.device)
        slots = torch.arange(self.max_length + 1, device=self.store.device)
        hidden = slots >= self.lengths[:, None].clamp(min=1)
        self.bias = torch.zeros(hidden.shape, device=self.store.device).masked_fill_(hidden, float("-inf"))

    def _set_some(self, lengths: dict[int, int]) -> None:
        """`set_lengths` of these rows alone: `bias` is wide, and mostly one row changes."""
        if not lengths:
            return
        for row, length in lengths.items():
            self.bias[row, : max(length, 1)] = 0.0
            self.bias[row, max(length, 1) :] = float("-inf")
        self.host_lengths = [lengths.get(row, length) for row, length in enumerate(self.host_lengths)]
        self.lengths = torch.tensor(self.host_lengths, dtype=torch.long, device=self.store.device)

    def ends(self, counts: list[int]) -> list[int]:
        """Lengths after counts[i] more tokens; ValueError when a row would be too long."""
        ends = [length + n for length, n in zip(self.host_lengths, counts)]
        if max(ends) > self.max_length:
            raise ValueError(f"the cache holds {self.max_length} tokens a row; a row would reach {max(ends)}")
        return ends

    def extend(self, counts: list[int]) -> Chunk:
        """Room for counts[i] more tokens in row i; they count at once. Rows with none are left out of the chunk."""
        device, ends = self.store.device, self.ends(counts)
        fed = [row for row, count in enumerate(counts) if count]
        rows = torch.tensor(fed, device=device)[:, None]
        offsets = torch.arange(max(counts), device=device)
        real = offsets < torch.tensor([[counts[row]] for row in fed], device=device)
        positions = (self.lengths[rows] + offsets).clamp_(max=self.max_length - 1)  # (N, width)
        slots = positions.masked_fill(~real, self.max_length)
        fresh, seen = not any(self.host_lengths[row] for row in fed), max(ends[row] for row in fed)
        self.set_lengths(ends)
        return Chunk(self.store, rows, positions, slots, seen, fresh, len(fed) == len(counts))

    def step(self, rows: list[int]) -> DecodeStep:
        """Room for one more token in each of `rows`; it counts at once. Its position is its slot."""
        counts = [0] * len(self.host_lengths)
        for row in rows:
            counts[row] = 1
        ends, every = self.ends(counts), len(rows) == len(counts)
        index = torch.tensor(rows, device=self.store.device)
        slots = self.lengths if every else self.lengths[index]
        self.bias[index, slots] = 0.0
        self.lengths = self.lengths + 1 if every else self.lengths.index_add(0, index, torch.ones_like(index))
        self.host_lengths, seen = ends, max(ends[row] for row in rows)
        if seen >= LONG and self.store.device.type == "cpu":
            spans = [Span(row, place, 1, ends[row]) for place, row in enumerate(rows)]
            return DecodeStep(index, slots, spans=spans)
        bias = self.bias[:, :seen] if every else self.bias[:, :seen][index]
        return DecodeStep(index, slots, bias[:, None], every)

    def read(self, counts: dict[int, int]) -> DecodeStep:
        """Room for counts[row] more tokens in some rows; they count at once. As a step of so many rows."""
        ends = self.ends([counts.get(row, 0) for row in range(len(self.host_lengths))])
        spans, index, slots = [], [], []
        for row, count in counts.items():
            start = self.host_lengths[row]
            for begin in range(0, count, BLOCK):
                end = min(begin + BLOCK, count)
                spans.append(Span(row, len(index) + begin, end - begin, start + end))
            index += [row] * count
            slots += range(start, start + count)
            self.bias[row, start : start + count] = 0.0
        self.host_lengths = ends
        self.lengths = torch.tensor(ends, dtype=torch.long, device=self.store.device)
        return DecodeStep(*torch.tensor([index, slots], device=self.store.device), spans=spans)

    def copy(self, source: int, row: int, length: int) -> None:
        """Give a row the first `length` tokens of another one in place of its own."""
        self.store[:, row, :length] = self.store[:, source, :length]
        self._set_some({row: length})

    def truncate(self, lengths: list[int]) -> None:
        """Rewind rows to the given lengths; what lay beyond is forgotten."""
        for now, new in zip(self.host_lengths, lengths):
            if not 0 <= new <= now:
                raise ValueError(f"cannot rewind a row of {now} tokens to {new}")
        now = self.host_lengths
        self._set_some({row: new for row, new in enumerate(lengths) if new != now[row]})

    def select(self, rows: list[int]) -> None:
        """Keep these rows, in this order."""
        index = torch.tensor(rows, dtype=torch.long, device=self.store.device)
        self.store = self.store.index_select(1, index)
        self.set_lengths([self.host_lengths[row] for row in rows])


@dataclass(frozen=True)
class Chunk:
    """Where the new tokens of each fed row go: right-padded, the same for all layers.

    store: the cache's. rows (N, 1) fed rows, positions (N, width), slots (N, width) where they write, seen: S, the
    longest fed row. fresh: nothing was cached before, so that the chunk attends to itself. all_rows: whether every row
    of the cache is fed.
    """

    store: Tensor
    rows: Tensor
    positions: Tensor
    slots: Tensor
    seen: int
    fresh: bool
    all_rows: bool

    @cached_property
    def mask(self) -> Tensor:
        """(N, 1, width, S): True where a token may look."""
        keys = torch.arange(self.seen, device=self.store.device)
        return (keys <= self.positions[:, :, None])[:, None]

    def layer(self, index: int) -> LayerView:
        """What one attention layer needs of the cache."""
        return LayerView(self, index)


class LayerView:
    """One layer's part of a Chunk, as LatentAttention.forward wants it."""

    def __init__(self, chunk: Chunk, index: int):
        self.chunk, self.store, self.mask, self.fresh = chunk, chunk.store[index], chunk.mask, chunk.fresh

    def append(self, latents: Tensor) -> Tensor:
        """Store the chunk's latents (N, width, r + d_r); return all of the fed rows, (N, S, r + d_r)."""
        self.store[self.chunk.rows, self.chunk.slots] = latents
        seen = self.store[:, : self.chunk.seen]
        return seen if self.chunk.all_rows else seen[self.chunk.rows[:, 0]]


class Span(NamedTuple):
    """New tokens of a row, one behind the other: the row, the place of the first among all new ones, how many, and the
    row's length with them."""

    row: int
    first: int
    count: int
    length: int


@dataclass(frozen=True)
class DecodeStep:
    """Where each new token goes and what it may look at, the same for all layers.

    rows (N,) their rows, slots (N,) where they are written. Either `bias`, where rows have one token each and all look
    in two products: (N, 1, S), 0 for visible slots and -inf elsewhere, S the length of the longest; all_rows: whether
    every row of the cache is fed. Or `spans`, where each row looks by itself.
    """

    rows: Tensor
    slots: Tensor
    bias: Tensor | None = None
    all_rows: bool = False
    spans: Sequence[Span] = ()

    def look(self, store: Tensor) -> Tensor:
        """What a layer's store (rows, slots, r + d_r) holds for each fed row, (N, S, r + d_r)."""
        seen = store[:, : self.bias.shape[-1]]
        return seen if self.all_rows else seen.index_select(0, self.rows)
