"""The latent cache: one small vector a token and layer, rows of different lengths, rewinding."""

from __future__ import annotations

import torch
from torch import Tensor


class LatentCache:
    """Latents of every layer: (L, rows, max_length + 1, r + d_r). The last slot takes what padding writes.

    `begin(counts)` announces a chunk, `layer(i).append` stores its latents, `finish()` makes them count.
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

    def ends(self, counts: list[int]) -> list[int]:
        """Lengths after counts[i] more tokens; ValueError when a row would be too long."""
        ends = [length + n for length, n in zip(self.host_lengths, counts)]
        if max(ends) > self.max_length:
            raise ValueError(f"the cache holds {self.max_length} tokens a row; a row would reach {max(ends)}")
        return ends

    def begin(self, counts: list[int]) -> None:
        """A right-padded chunk (rows, max(counts)) is coming, counts[i] real tokens in row i."""
        device, width = self.store.device, max(counts)
        self.pending_ends = self.ends(counts)
        self.fresh = not any(self.host_lengths)  # nothing cached yet: the chunk attends to itself
        offsets, counts = torch.arange(width, device=device), torch.tensor(counts, device=device)
        self.positions = (self.lengths[:, None] + offsets).clamp_(max=self.max_length - 1)  # (rows, width)
        self.slots = self.positions.masked_fill(offsets >= counts[:, None], self.max_length)
        self.rows = torch.arange(len(counts), device=device)[:, None]
        self.seen = max(self.pending_ends)
        keys = torch.arange(self.seen, device=device)
        self.mask = (keys <= self.positions[:, :, None])[:, None]  # (rows, 1, width, seen)

    def finish(self) -> None:
        """The announced tokens now count."""
        self.set_lengths(self.pending_ends)

    def layer(self, index: int) -> LayerView:
        """What one attention layer needs of the cache."""
        return LayerView(self, index)

    def begin_step(self, rows: list[int]) -> Step:
        """One more token for each of `rows`; it counts at once. The positions are `lengths[rows]` of
        before."""
        counts = [0] * len(self.host_lengths)
        for row in rows:
            counts[row] = 1
        ends, every = self.ends(counts), len(rows) == len(counts)
        index = torch.tensor(rows, device=self.store.device)
        slots = self.lengths if every else self.lengths[index]
        self.bias[index, slots] = 0.0
        self.lengths = self.lengths + 1 if every else self.lengths.index_add(0, index, torch.ones_like(index))
        self.host_lengths, seen = ends, max(ends[row] for row in rows)
        bias = self.bias[:, :seen] if every else self.bias[:, :seen][index]
        return Step(index, slots, bias[:, None], seen, every)

    def truncate(self, lengths: list[int]) -> None:
        """Rewind rows to the given lengths; what lay beyond is forgotten."""
        for now, new in zip(self.host_lengths, lengths):
            if not 0 <= new <= now:
                raise ValueError(f"cannot rewind a row of {now} tokens to {new}")
        if lengths != self.host_lengths:
            self.set_lengths(list(lengths))

    def select(self, rows: list[int]) -> None:
        """Keep these rows, in this order."""
        index = torch.tensor(rows, dtype=torch.long, device=self.store.device)
        self.store = self.store.index_select(1, index)
        self.set_lengths([self.host_lengths[row] for row in rows])


class LayerView:
    """One layer's part of a LatentCache, as LatentAttention.forward wants it."""

    def __init__(self, cache: LatentCache, index: int):
        self.cache, self.store, self.mask, self.fresh = cache, cache.store[index], cache.mask, cache.fresh

    def append(self, latents: Tensor) -> Tensor:
        """Store the chunk's latents (rows, width, r + d_r); return all up to the longest row, (rows, seen, r
        + d_r)."""
        self.store[self.cache.rows, self.cache.slots] = latents
        return self.store[:, : self.cache.seen]


class Step:
    """Where the new token of each fed row goes and what it may look at, the same for all layers.

    rows (N,) fed rows, slots (N,) where they write, bias (N, 1, S) 0 for visible slots and -inf elsewhere,
    seen S, all_rows: whether every row of the cache is fed.
    """

    def __init__(self, rows: Tensor, slots: Tensor, bias: Tensor, seen: int, all_rows: bool):
        self.rows, self.slots, self.bias, self.seen, self.all_rows = rows, slots, bias, seen, all_rows
