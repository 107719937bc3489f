"""Every attention logit of a model on a batch, to look at: what training only ever keeps the maximum of.

Fused attention never shows these numbers, and our own forward pass keeps one maximum a head. For a histogram, or to
check what QK-Clip did, this runs the model once more and writes the whole table out.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kimi_mini.model.attention import LatentAttention
from kimi_mini.model.kernels.attention import future
from kimi_mini.model.kimi import KimiMini, evaluating


@torch.no_grad()
def attention_logits(model: KimiMini, input_ids: Tensor) -> Tensor:
    """(L, B, H, T, T) fp32: q k^T times the softmax scale, -inf above the diagonal. input_ids (B, T).

    The running maxima that QK-Clip reads are not touched. Memory grows with T squared: use a few short rows.
    """
    tables, hooks = [], []
    for layer in model.model.layers:
        seen = lambda module, inputs: tables.append(layer_logits(module, *inputs[:2]))
        hooks.append(layer.self_attn.register_forward_pre_hook(seen))
    try:
        with evaluating(model):
            model.hidden_states(input_ids)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(tables)


def layer_logits(attention: LatentAttention, x: Tensor, rotation: Tensor) -> Tensor:
    """One layer's table (B, H, T, T) from its normalised input x (B, T, h) and rotation (1 or B, T, d_r/2)."""
    q = torch.cat(attention.queries(x, rotation), -1).transpose(1, 2)  # (B, H, T, d_n + d_r)
    k, _ = attention.expand(*attention.latents(x, rotation))
    table = (q @ k.transpose(-1, -2)).float() * attention.scale
    return table.masked_fill_(future(x.shape[1], x), float("-inf"))


def head_maxima(table: Tensor) -> Tensor:
    """(L, B, H, T, T) -> (L, H): the S_h of QK-Clip on this batch."""
    return table.amax((1, 3, 4))


@torch.no_grad()
def attention_rows(
    model: KimiMini, ids: Sequence[int], looking: Sequence[int], positions: Sequence[int] | None = None
) -> Tensor:
    """What the tokens with the indices `looking` look at: (L, H, P, T), rows summing to 1.

    Rows of `model.attention_weights`, without building its (T, T) tables: a context of 8,000 tokens fits.
    positions (T,): where the rotation takes the tokens to stand; None: 0 .. T-1.
    """
    inputs: list[tuple[Tensor, Tensor]] = []
    layers = [layer.self_attn for layer in model.model.layers]
    hooks = [layer.register_forward_pre_hook(lambda _, args: inputs.append(args[:2])) for layer in layers]
    device = model.lm_head.weight.device
    places = None if positions is None else torch.tensor(list(positions), device=device)
    try:
        with evaluating(model):
            model.hidden_states(torch.tensor([list(ids)], device=device), positions=places)
    finally:
        for hook in hooks:
            hook.remove()
    at = torch.tensor(list(looking), device=device)
    hidden = torch.arange(len(ids), device=device) > at[:, None]  # (P, T)
    rows = []
    for layer, (x, rotation) in zip(layers, inputs):
        q = torch.cat(layer.queries(x[:, at], rotation[:, at]), -1).transpose(1, 2)  # (1, H, P, d_n + d_r)
        k, _ = layer.expand(*layer.latents(x, rotation))  # (1, H, T, d_n + d_r)
        scores = (q @ k.transpose(-1, -2)).float() * layer.scale
        rows.append(scores.masked_fill(hidden, float("-inf")).softmax(-1)[0])
    return torch.stack(rows)
