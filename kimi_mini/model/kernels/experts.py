"""Tokens sorted by expert, and one product over the ragged groups: no token is dropped. In bf16 on a CPU: `padded`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kimi_mini.model.kernels.padded import padded_experts


class _Gather(torch.autograd.Function):
    """rows[p] = x[token[p]]; backward sums each token's k rows by their places instead of scattering."""

    @staticmethod
    def forward(ctx, x, token, places):
        ctx.save_for_backward(places)
        return x.index_select(0, token)

    @staticmethod
    def backward(ctx, grad):
        (places,) = ctx.saved_tensors
        return F.embedding_bag(places, grad.contiguous(), mode="sum"), None, None


class _Combine(torch.autograd.Function):
    """out[t] = sum_j weights[t, j] * rows[places[t, j]]."""

    @staticmethod
    def forward(ctx, rows, weights, token, places):
        ctx.save_for_backward(rows, weights, token, places)
        return F.embedding_bag(places, rows, mode="sum", per_sample_weights=weights.to(rows.dtype))

    @staticmethod
    def backward(ctx, grad):
        rows, weights, token, places = ctx.saved_tensors
        spread = grad.contiguous().index_select(0, token)  # (N*k, h)
        d_weights = (spread * rows).sum(-1)[places].to(weights.dtype)
        in_order = rows.new_empty(len(rows))
        in_order[places] = weights.to(rows.dtype)
        return spread.mul_(in_order[:, None]), d_weights, None, None


def sort_by_expert(indices: Tensor, experts: int) -> tuple[Tensor, Tensor, Tensor]:
    """Plan of the sorted order. indices (N, k) -> token (N*k,): the token of each sorted row; places (N, k):
    the sorted row of each (token, choice); ends (E,) int32: where each expert's group ends. Stable, hence
    deterministic."""
    n, k = indices.shape
    flat = indices.flatten()
    order = flat.argsort(stable=True)
    places = torch.empty_like(order)
    places[order] = torch.arange(n * k, device=order.device)
    ends = torch.bincount(flat, minlength=experts).cumsum(0).to(torch.int32)
    return order // k, places.view(n, k), ends


def grouped_linear(rows: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    """rows (M, in), the group of expert e ending at row ends[e]; weight (E, out, in) -> (M, out).

    grouped_mm wants rows of whole 16 bytes; other widths (60 in bf16) take a loop over the experts.
    """
    if all(width * rows.element_size() % 16 == 0 for width in weight.shape[1:]):
        return F.grouped_mm(rows, weight.transpose(1, 2), offs=ends)
    sizes = ends.diff(prepend=ends.new_zeros(1)).tolist()
    return torch.cat([F.linear(group, w) for group, w in zip(rows.split(sizes), weight)])


def routed_experts(
    x: Tensor, indices: Tensor, weights: Tensor, gate_proj: Tensor, up_proj: Tensor, down_proj: Tensor
) -> Tensor:
    """Each of the three matrices is one product for all experts; see `kernels.routed_experts`."""
    if x.dtype == torch.bfloat16 and x.device.type == "cpu":
        return padded_experts(x, indices, weights, gate_proj, up_proj, down_proj)
    token, places, ends = sort_by_expert(indices, len(gate_proj))
    rows = _Gather.apply(x, token, places)  # (N*k, h), grouped by expert
    gate, up = grouped_linear(rows, gate_proj, ends), grouped_linear(rows, up_proj, ends)
    out = grouped_linear(F.silu(gate) * up, down_proj, ends)
    return _Combine.apply(out, weights, token, places)
