"""The next token from its logits: the best one, or one drawn at a temperature."""

from __future__ import annotations

import torch
from torch import Tensor

COLDEST = 1e-6  # a lower temperature is 0: the division would overflow


def sample(
    logits: Tensor,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
    dice: Tensor | None = None,
    top_p: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """logits (rows, V) -> ids (rows,) long and their log-probabilities (rows,) fp32 under softmax(logits /
    temperature).

    temperature 0 takes the best token; its log-probability is then that of temperature 1. dice (rows,) fp64: uniform
    numbers to decide by; without them they are drawn from `generator`. top_p: only the likeliest tokens that together
    have at least this share are drawn from, and log-probabilities are among them.
    """
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature must be a number from 0, got {temperature}")
    if temperature < COLDEST:
        temperature = 0.0
    logits = logits.float() / temperature if temperature > 0 else logits.float()
    if top_p < 1 and temperature > 0:
        logits = nucleus(logits, top_p)
    logprobs = logits.log_softmax(-1)
    if temperature == 0:
        ids = logits.argmax(-1)
    else:  # invert the cumulative distribution: one uniform number a row; multinomial draws one a token
        cumulative = logprobs.double().exp().cumsum(-1)
        if dice is None:
            dice = torch.rand(len(logits), generator=generator, device=logits.device, dtype=torch.float64)
        ids = torch.searchsorted(cumulative, dice[:, None] * cumulative[:, -1:], right=True).squeeze(-1)
        ids.clamp_(max=logits.shape[-1] - 1)
    return ids, logprobs.gather(-1, ids[:, None]).squeeze(-1)


def nucleus(logits: Tensor, top_p: float) -> Tensor:
    """logits (rows, V) without the tokens behind those that together have the share `top_p`; the likeliest stays.

    Source: Holtzman et al., The Curious Case of Neural Text Degeneration (arXiv 1904.09751).
    """
    ordered, places = logits.softmax(-1).sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(-1) - ordered  # what the likelier ones have together
    beyond = torch.zeros_like(before, dtype=torch.bool).scatter(-1, places, before >= top_p)
    beyond.scatter_(-1, places[:, :1], False)
    return logits.masked_fill(beyond, float("-inf"))
