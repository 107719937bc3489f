"""Decoding with a latent cache: rows of different lengths, ragged chunks, rewinding, and sampling.

The cache holds one (kv_lora_rank + qk_rope_head_dim) vector per token and layer, nothing per head.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kimi_mini.inference.decoder import Decoder

COLDEST = 1e-6  # a lower temperature is 0: the division would overflow


def sample(
    logits: Tensor, temperature: float = 1.0, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
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
def generate(
    model,
    input_ids: Tensor,
    max_new_tokens: int,
    temperature: float = 0.0,
    eos_token_id: int | list[int] | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Continue every row of input_ids (B, T) by up to max_new_tokens: (B, T + new).

    eos_token_id None takes the config's; a row that has produced it is filled up with the padding id, and
    generation ends when all rows have. ValueError for an empty batch or prompt, and for numbers out of range.
    """
    if input_ids.ndim != 2 or 0 in input_ids.shape:
        raise ValueError(
            f"input_ids must be (B, T) with at least one token a row, got {tuple(input_ids.shape)}"
        )
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
