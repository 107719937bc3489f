"""Feeds rows of different lengths to a model, a chunk or a token at a time."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from kimi_mini.base.errors import KimiError
from kimi_mini.inference.cache import LatentCache
from kimi_mini.inference.folded import FoldedModel, foldable
from kimi_mini.model.kimi import evaluating

PIECE = 64  # tokens of a prompt that are read together
WIDE = 8192  # padded tokens of many prompts that go through the model at once


class Decoder:
    """Feeds rows of different lengths to a model, a chunk or a token at a time.

    Small fp32 models decode with folded matrices (folded.py), a snapshot taken here: make a new Decoder after the
    weights have changed. What rows begin with goes through the model itself.
    """

    folds = True  # whether small models may

    def __init__(self, model, rows: int, max_length: int):
        limit = model.config.max_position_embeddings
        if max_length > limit:
            raise ValueError(f"max_length {max_length} exceeds max_position_embeddings {limit}")
        weight, self.model = model.lm_head.weight, model
        self.cache = LatentCache(model.config, rows, max_length, weight.device, weight.dtype)
        self.folded = FoldedModel(model) if self.folds and foldable(model) else None
        self.table = model.rotation(max_length, weight.device)[:, None]  # (max_length, 1, d_r/2)

    def wear(self, place: int, name: str | None) -> None:
        """From now on a row computes with this adapter; there is none here: see `inference.adapters`."""
        if name is not None:
            raise KimiError(f"the model {name!r} is not here: this one has no adapters")

    def worn(self, place: int) -> int:
        """A number for the adapter that a row computes with; 0 for none."""
        return 0

    @property
    def lengths(self) -> Tensor:
        """(rows,) long: tokens seen by each row."""
        return self.cache.lengths

    @torch.no_grad()
    def extend(self, tokens: list[list[int]]) -> Tensor:
        """Feed row i its own new tokens[i]; return the next-token logits (rows, V) fp32. An empty list leaves
        a row as it was, and its logits are zeros."""
        counts = [len(chunk) for chunk in tokens]
        if len(counts) != len(self.cache.host_lengths):
            raise ValueError(f"the decoder has {len(self.cache.host_lengths)} rows, got {len(counts)} chunks")
        fed, device = [row for row, count in enumerate(counts) if count], self.cache.store.device
        if not fed:
            return torch.zeros(len(counts), self.model.config.vocab_size, device=device)
        if max(counts) == 1 and self.folded:
            logits = self._step(torch.tensor([tokens[row][0] for row in fed], device=device), fed)
        else:
            logits = self._passes(tokens, counts, fed)
        if len(fed) == len(counts):
            return logits
        everyone = torch.zeros(len(counts), logits.shape[1], device=device)
        return everyone.index_copy_(0, torch.tensor(fed, device=device), logits)

    @torch.no_grad()
    def step(self, ids: Tensor) -> Tensor:
        """One new token for every row: ids (rows,) -> logits (rows, V) fp32."""
        if self.folded:
            return self._step(ids, list(range(len(ids))))
        return self._chunk(ids[:, None].tolist(), [1] * len(ids))

    @torch.no_grad()
    def read(self, row: int, tokens: list[int]) -> None:
        """Feed one row its own tokens, and ask for nothing. The tokens of a piece stand where rows do in a step: the
        folded matrices are short of calls, which is what a short prompt costs in a small model."""
        if not self.folded:
            counts = [len(tokens) if other == row else 0 for other in range(len(self.cache.host_lengths))]
            self._chunk([tokens], counts)
            return
        for start in range(0, len(tokens), PIECE):
            self._pieces({row: tokens[start : start + PIECE]})

    def _step(self, ids: Tensor, rows: list[int]) -> Tensor:
        """One token for some rows, folded: (N,) -> (N, V)."""
        step = self.cache.step(rows)
        return self.folded(ids, self.table[step.slots], self.cache.store, step)

    def _pieces(self, tokens: dict[int, list[int]]) -> Tensor:
        """New tokens of some rows through the folded matrices: -> hidden states of all of them, (N, h)."""
        step = self.cache.read({row: len(chunk) for row, chunk in tokens.items()})
        ids = torch.tensor([token for chunk in tokens.values() for token in chunk], device=step.rows.device)
        return self.folded.read(ids, self.table[step.slots], self.cache.store, step)

    def _passes(self, tokens: list[list[int]], counts: list[int], fed: list[int]) -> Tensor:
        """The new tokens of the fed rows, so many at once that memory does not grow with the number of rows: -> (N, V).
        What several rows begin with is read by the first of them: attempts at one task share their prompt."""
        self.cache.ends(counts)  # all rows have room, or none is fed
        reader = self._readers(tokens, fed)
        behind = {row for row in fed if self._goes_on(row)}
        logits: dict[int, Tensor] = {}
        for rows, way in (set(reader.values()) - behind, self._chunk), (behind, self._behind):
            for part in passes(rows, counts):
                own = [count if row in part else 0 for row, count in enumerate(counts)]
                logits.update(zip(part, way([tokens[row] for row in part], own)))
        for row, first in reader.items():
            if row != first:
                self.cache.copy(first, row, counts[row])
        return torch.stack([logits[reader[row]] for row in fed])

    def _goes_on(self, row: int) -> bool:
        """Whether a row holds tokens already, and goes on through the folded matrices: a chunk, padded to the longest
        row and the longest result, would take ten times as long."""
        return bool(self.folded and self.cache.host_lengths[row] and self.cache.store.device.type == "cpu")

    def _readers(self, tokens: list[list[int]], fed: list[int]) -> dict[int, int]:
        """Each fed row -> the first row that begins with the same tokens and adapter; a row that holds some already
        reads for itself."""
        first: dict[tuple, int] = {}
        held = self.cache.host_lengths
        return {
            row: row if held[row] else first.setdefault((self.worn(row), *tokens[row]), row) for row in fed
        }

    def _behind(self, tokens: list[list[int]], counts: list[int]) -> Tensor:
        """As `_chunk`, folded and without padding, for rows that hold tokens already: -> (N, V)."""
        fed = [row for row, count in enumerate(counts) if count]
        hidden = self._pieces(dict(zip(fed, tokens)))
        return self.folded.logits(hidden[torch.tensor([len(chunk) for chunk in tokens]).cumsum(0) - 1])

    def _chunk(self, tokens: list[list[int]], counts: list[int]) -> Tensor:
        """The new tokens of the fed rows, right-padded, through the model itself: -> (N, V). counts: of every row."""
        width, device = max(counts), self.cache.store.device
        padded = torch.tensor([chunk + [0] * (width - len(chunk)) for chunk in tokens], device=device)
        with evaluating(self.model):
            hidden = self.model.hidden_states(padded, cache=self.cache.extend(counts))  # (N, width, h)
        last = torch.tensor([len(chunk) - 1 for chunk in tokens], device=device)
        return self.model.lm_head(hidden[torch.arange(len(tokens), device=device), last]).float()

    def truncate(self, lengths) -> None:
        """Rewind rows to the given lengths (list or tensor)."""
        self.cache.truncate(lengths.tolist() if isinstance(lengths, Tensor) else list(lengths))

    def select(self, rows) -> None:
        """Keep a subset of rows (list or tensor of indices), in that order."""
        self.cache.select(rows.tolist() if isinstance(rows, Tensor) else list(rows))


def passes(rows: Iterable[int], counts: list[int]) -> list[list[int]]:
    """Rows of like length together, each group of at most WIDE padded tokens or one row, in order."""
    parts: list[list[int]] = []
    for row in sorted(rows, key=counts.__getitem__):
        if not parts or (len(parts[-1]) + 1) * counts[row] > WIDE:
            parts.append([])
        parts[-1].append(row)
    return [sorted(part) for part in parts]
