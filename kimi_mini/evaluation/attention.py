"""Every attention logit of a model on a batch, to look at: what training only ever keeps the maximum of.

Fused attention never shows these numbers, and our own forward pass keeps one maximum a head. For a histogram, or to
check what QK-Clip did, this runs the model once more and writes the whole table out.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kimi_mini.model.kimi import KimiMini, evaluating, recorded


@torch.no_grad()
def attention_logits(
    model: KimiMini,
    input_ids: Tensor,
    looking: Sequence[int] | None = None,
    positions: Sequence[int] | None = None,
) -> Tensor:
    """(L, B, H, P, T) fp32: q k^T times the softmax scale, -inf where a key comes after its query.

    input_ids (B, T). looking: the P indices of the queries; None: all T, and memory grows with T squared.
    positions (T,): where the rotation takes the tokens to stand; None: 0 .. T-1.
    The statistics that QK-Clip reads are not touched.
    """
    layers, device = model.attention_layers(), input_ids.device
    queries, places = (
        None if numbers is None else torch.tensor(list(numbers), device=device)
        for numbers in (looking, positions)
    )
    with evaluating(model), recorded(layers) as calls:
        model.hidden_states(input_ids, positions=places)
    return torch.stack([layer.logits(*seen[:2], queries) for layer, (seen, _) in zip(layers, calls)])


def head_maxima(table: Tensor) -> Tensor:
    """(L, B, H, T, T) -> (L, H): the S_h of QK-Clip on this batch."""
    return table.amax((1, 3, 4))


def attention_rows(
    model: KimiMini, ids: Sequence[int], looking: Sequence[int], positions: Sequence[int] | None = None
) -> Tensor:
    """What the tokens with the indices `looking` look at: (L, H, P, T), rows summing to 1.

    Rows of `model.attention_weights`, without building its (T, T) tables: a context of 8,000 tokens fits.
    """
    row = torch.tensor([list(ids)], device=model.lm_head.weight.device)
    return attention_logits(model, row, looking, positions).softmax(-1)[:, 0]
