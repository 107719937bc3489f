"""Decoding with a latent cache: rows of different lengths, ragged chunks, rewinding, and sampling.

The cache holds one (kv_lora_rank + qk_rope_head_dim) vector per token and layer, nothing per head.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kimi_mini.folded import FoldedModel, Step, foldable


class LatentCache:
    """Latents of every layer: (L, rows, max_length + 1, r + d_r). The last slot takes what padding writes.

    `begin(counts)` announces a chunk, `layer(i).append` stores its latents, `finish()` makes them count.
    `lengths` is (rows,) long; the same numbers as a list, `host_lengths`, spare the loop from asking the
    device.
    """

    def __init__(self, config, rows: int, max_length: int, device=None, dtype=torch.float32):
        self.max_length = max_length
        self.store = torch.zeros(config.num_hidden_layers, rows, max_length + 1, config.latent_dim,
                                 device=device, dtype=dtype)
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
        self.fresh = not any(self.host_lengths)          # nothing cached yet: the chunk attends to itself
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
        return self.store[:, :self.cache.seen]


class Decoder:
    """Feeds rows of different lengths to a model, a chunk or a token at a time.

    Small fp32 models decode single tokens with folded matrices (folded.py), a snapshot taken here: make a new
    Decoder after the weights have changed.
    """

    def __init__(self, model, rows: int, max_length: int):
        limit = model.config.max_position_embeddings
        if max_length > limit:
            raise ValueError(f"max_length {max_length} exceeds max_position_embeddings {limit}")
        weight, self.model = model.lm_head.weight, model
        self.cache = LatentCache(model.config, rows, max_length, weight.device, weight.dtype)
        self.folded = FoldedModel(model) if foldable(model) else None
        self.table = model.rotation(max_length, weight.device)[:, None]  # (max_length, 1, d_r/2)

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
        fed, device = [row for row, n in enumerate(counts) if n], self.cache.store.device
        if max(counts) == 1 and self.folded:
            logits = self._step(torch.tensor([tokens[row][0] for row in fed], device=device), fed)
        elif fed:
            logits = self._chunk(tokens, counts)[fed]
        if len(fed) == len(counts):
            return logits
        everyone = torch.zeros(len(counts), self.model.config.vocab_size, device=device)
        return everyone.index_copy_(0, torch.tensor(fed, device=device), logits) if fed else everyone

    @torch.no_grad()
    def step(self, ids: Tensor) -> Tensor:
        """One new token for every row: ids (rows,) -> logits (rows, V) fp32."""
        if self.folded:
            return self._step(ids, list(range(len(ids))))
        return self._chunk(ids[:, None].tolist(), [1] * len(ids))

    def _step(self, ids: Tensor, rows: list[int]) -> Tensor:
        """One token for some rows, folded: (N,) -> (N, V)."""
        step = self.cache.begin_step(rows)
        return self.folded(ids, self.table[step.slots], self.cache.store, step)

    def _chunk(self, tokens: list[list[int]], counts: list[int]) -> Tensor:
        """A right-padded chunk through the model itself: -> (rows, V)."""
        width, device, was_training = max(counts), self.cache.store.device, self.model.training
        padded = torch.tensor([chunk + [0] * (width - len(chunk)) for chunk in tokens], device=device)
        self.cache.begin(counts)
        self.model.eval()
        hidden = self.model.hidden_states(padded, cache=self.cache)  # (rows, width, h)
        self.model.train(was_training)
        self.cache.finish()
        last = torch.tensor([max(n - 1, 0) for n in counts], device=device)
        return self.model.lm_head(hidden[torch.arange(len(counts), device=device), last]).float()

    def truncate(self, lengths) -> None:
        """Rewind rows to the given lengths (list or tensor)."""
        self.cache.truncate(lengths.tolist() if isinstance(lengths, Tensor) else list(lengths))

    def select(self, rows) -> None:
        """Keep a subset of rows (list or tensor of indices), in that order."""
        self.cache.select(rows.tolist() if isinstance(rows, Tensor) else list(rows))


COLDEST = 1e-6  # a lower temperature is 0: the division would overflow


def sample(logits: Tensor, temperature: float = 1.0,
           generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """logits (rows, V) -> ids (rows,) long and their log-probabilities (rows,) fp32 under softmax(logits /
    temperature).

    temperature 0 takes the best token; its log-probability is then that of temperature 1.
    """
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature must be a number from 0, got {temperature}")
    if temperature < COLDEST:
        temperature = 0.0
    logprobs = (logits.float() / temperature if temperature > 0 else logits.float()).log_softmax(-1)
    if temperature == 0:
        ids = logits.argmax(-1)
    else:  # invert the cumulative distribution: one uniform number a row; multinomial draws one a token
        cumulative = logprobs.double().exp().cumsum(-1)
        dice = torch.rand(len(logits), 1, generator=generator, device=logits.device, dtype=torch.float64)
        ids = torch.searchsorted(cumulative, dice * cumulative[:, -1:], right=True).squeeze(-1)
        ids.clamp_(max=logits.shape[-1] - 1)
    return ids, logprobs.gather(-1, ids[:, None]).squeeze(-1)


@torch.no_grad()
def generate(model, input_ids: Tensor, max_new_tokens: int, temperature: float = 0.0,
             eos_token_id: int | list[int] | None = None, generator: torch.Generator | None = None) -> Tensor:
    """Continue every row of input_ids (B, T) by up to max_new_tokens: (B, T + new).

    eos_token_id None takes the config's; a row that has produced it is filled up with the padding id, and
    generation ends when all rows have. ValueError for an empty batch or prompt, and for numbers out of range.
    """
    if input_ids.ndim != 2 or 0 in input_ids.shape:
        raise ValueError(f"input_ids must be (B, T) with at least one token a row, got {tuple(input_ids.shape)}")
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens must not be negative, got {max_new_tokens}")
    config = model.config
    eos = config.eos_token_id if eos_token_id is None else eos_token_id
    stops = torch.tensor([] if eos is None else eos, dtype=torch.long, device=input_ids.device).flatten()
    pad = config.pad_token_id if config.pad_token_id is not None else (stops[0].item() if len(stops) else 0)
    decoder = Decoder(model, len(input_ids), input_ids.shape[1] + max_new_tokens)
    logits, out = decoder.extend(input_ids.tolist()), [input_ids]
    done = torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
    for new in range(max_new_tokens):
        ids = sample(logits, temperature, generator)[0]
        if len(stops):
            ids = ids.masked_fill(done, pad)
            done = done | torch.isin(ids, stops)
        out.append(ids[:, None])
        if new == max_new_tokens - 1 or (len(stops) and bool(done.all())):
            break
        logits = decoder.step(ids)
    return torch.cat(out, 1)
