"""Tokens sorted by expert as in `kernels.experts`; gather and collect are permutations in both directions.

A row of the sorted order belongs to one (token, choice) and the other way round. So each backward pass reads by the
inverse permutation where others scatter, and the sizes of the groups are looked up in the sorted numbers: counting them
with bincount would end a compiled graph.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kimi_mini.model.kernels.experts import grouped_linear


def sort_by_expert(indices: Tensor, experts: int) -> tuple[Tensor, Tensor, Tensor]:
    """indices (N, k) -> order (N*k,): the (token, choice) of each sorted row; places (N, k): its inverse; ends (E,)
    int32: where each expert's group ends. Stable, hence deterministic."""
    numbers, order = indices.flatten().sort(stable=True)
    counting = torch.arange(len(order), device=order.device)
    places = torch.empty_like(order).scatter(0, order, counting)
    ends = torch.searchsorted(numbers, counting.new_tensor(range(experts)), right=True)
    return order, places.view_as(indices), ends.to(torch.int32)


class _Gather(torch.autograd.Function):
    """rows[p] = x[order[p] // k]."""

    @staticmethod
    def forward(ctx, x, order, places):
        ctx.save_for_backward(places)
        return x[order // places.shape[1]]

    @staticmethod
    def backward(ctx, grad):
        (places,) = ctx.saved_tensors
        return grad[places].sum(1), None, None


class _Collect(torch.autograd.Function):
    """out[t] = sum_j weights[t, j] * rows[places[t, j]]."""

    @staticmethod
    def forward(ctx, rows, weights, order, places):
        ctx.save_for_backward(rows, weights, order, places)
        return (rows[places] * weights[..., None].to(rows.dtype)).sum(1)

    @staticmethod
    def backward(ctx, grad):
        rows, weights, order, places = ctx.saved_tensors
        d_rows = grad[order // places.shape[1]] * weights.flatten()[order, None].to(rows.dtype)
        d_weights = (grad[:, None] * rows[places]).sum(-1)
        return d_rows, d_weights.to(weights.dtype), None, None


def routed_experts(
    x: Tensor, indices: Tensor, weights: Tensor, gate_proj: Tensor, up_proj: Tensor, down_proj: Tensor
) -> Tensor:
    """Each of the three matrices is one product for all experts; see `kernels.routed_experts`."""
    order, places, ends = sort_by_expert(indices, len(gate_proj))
    rows = _Gather.apply(x, order, places)  # (N*k, h), grouped by expert
    gate, up = grouped_linear(rows, gate_proj, ends), grouped_linear(rows, up_proj, ends)
    out = grouped_linear(F.silu(gate) * up, down_proj, ends)
    return _Collect.apply(out, weights, order, places)
