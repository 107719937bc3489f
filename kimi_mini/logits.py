"""Every attention logit of a model on a batch, to look at: what training only ever keeps the maximum of.

Fused attention never shows these numbers, and our own forward pass keeps one maximum a head. For a histogram, or to
check what QK-Clip did, this runs the model once more and writes the whole table out.
"""

from __future__ import annotations

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
