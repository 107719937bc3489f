"""Plain continuation of token ids, many rows at a time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kimi_mini.inference.writer import Row, Writer, dice


@torch.no_grad()
def generate(
    model,
    input_ids: Tensor,
    max_new_tokens: int,
    temperature: float = 0.0,
    eos_token_id: int | list[int] | None = None,
    generator: torch.Generator | None = None,
    rows: Sequence[str | None] | None = None,
) -> Tensor:
    """Continue every row of input_ids (B, T) by up to max_new_tokens: (B, T + new).

    eos_token_id None takes the config's; a row that has produced it is filled up with the padding id, and
    generation ends when all rows have. Each row draws from dice of its own, seeded by `generator`. rows: the adapter of
    each, when `model` is an `inference.adapters.Adapters`; None: the model itself.
    ValueError for an empty batch or prompt, and for numbers out of range.
    """
    if input_ids.ndim != 2 or 0 in input_ids.shape:
        raise ValueError(
            f"input_ids must be (B, T) with at least one token a row, got {tuple(input_ids.shape)}"
        )
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens must not be negative, got {max_new_tokens}")
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature must be a number from 0, got {temperature}")
    config, device = model.config, input_ids.device
    eos = config.eos_token_id if eos_token_id is None else eos_token_id
    eos = [] if eos is None else [eos] if isinstance(eos, int) else list(eos)
    writer = Writer(model, len(input_ids), input_ids.shape[1] + max_new_tokens, temperature)
    if max_new_tokens == 0:
        return input_ids
    home = "cpu" if generator is None else generator.device
    seeds = torch.randint(2**62, (len(input_ids),), generator=generator, device=home).tolist()
    rows = [
        Row(ids, max_new_tokens, frozenset(eos), dice(seed), adapter=name)
        for ids, seed, name in zip(input_ids.tolist(), seeds, rows or [None] * len(input_ids), strict=True)
    ]
    for place, row in enumerate(rows):
        writer.join(place, row)
    writer.run()
    pad = config.pad_token_id if config.pad_token_id is not None else next(iter(eos), 0)
    longest = max(len(row.ids) for row in rows)
    new = [row.ids + [pad] * (longest - len(row.ids)) for row in rows]
    return torch.cat([input_ids, torch.tensor(new, dtype=input_ids.dtype, device=device)], 1)
