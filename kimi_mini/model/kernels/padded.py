"""Experts in bf16 on a CPU: groups of experts get batches of equal rows, so that a product is a few `bmm`.

The tiles of AMX multiply bf16 four to eight times as fast as fp32, but only whole ones: a group of 137 rows or a width
of 60 falls back to slow paths. So widths are filled up to a multiple of TILE columns, and the rows of an expert to as
many as the busiest of its group has, up to a multiple of TILE. Experts of like load share a group, hence little is
filled in. What fills has a gradient of zero and a place that nobody reads. Sums are fp32 inside each product.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

TILE = 32  # bf16 numbers in a row of a tile
GROUPS = 4  # batches: each of as many experts


class Slots(NamedTuple):
    """Where each choice lies in the batches, which follow each other in one table of R rows."""

    places: Tensor  # (N, k): the row of each (token, choice)
    token: Tensor  # (R,): the token of each row; token 0 in rows that fill
    order: Tensor  # (E,): the experts, busiest first
    groups: list[tuple[slice, slice]]  # experts of `order`, and their rows


def filled_up(size: int) -> int:
    """The next multiple of TILE."""
    return -(-size // TILE) * TILE


def slots(indices: Tensor, experts: int) -> Slots:
    """Batches for indices (N, k), in the order of the tokens: deterministic. An expert without a token has no rows."""
    flat = indices.flatten()
    loads = torch.bincount(flat, minlength=experts)
    order = loads.argsort(descending=True, stable=True)
    size, sorted_loads = -(-experts // GROUPS), loads[order].tolist()
    groups, capacity, end = [], [], 0
    for first in range(0, experts, size):
        members = slice(first, min(first + size, experts))
        each = filled_up(sorted_loads[first])
        rows = slice(end, end + each * (members.stop - first))
        capacity += [each] * (members.stop - first)
        end = rows.stop
        if each:
            groups.append((members, rows))
    starts = torch.tensor([0, *capacity[:-1]]).cumsum(0)  # of the experts in `order`
    start = torch.empty_like(starts)
    start[order] = starts
    by_expert = flat.argsort(stable=True)
    within = torch.arange(len(flat)) - (loads.cumsum(0) - loads)[flat[by_expert]]
    places = torch.empty_like(flat)
    places[by_expert] = start[flat[by_expert]] + within
    token = flat.new_zeros(end)
    token[places] = torch.arange(len(flat)) // indices.shape[1]
    return Slots(places.view_as(indices), token, order, groups)


def _wider(x: Tensor, columns: int, rows: int = 0) -> Tensor:
    """x (..., r, c) with zeros up to `rows` and `columns`; x itself where nothing is missing."""
    more = (0, max(0, columns - x.shape[-1]), 0, max(0, rows - x.shape[-2]))
    return F.pad(x, more) if any(more) else x


class _PaddedExperts(torch.autograd.Function):
    """sum_j weights[t, j] * expert indices[t, j] of x[t], and its gradients. x (N, h) and the experts in one dtype."""

    @staticmethod
    def forward(ctx, x, weights, gate_proj, up_proj, down_proj, batches):
        (_, width, h), (places, token, order, groups) = gate_proj.shape, batches
        wide, deep = filled_up(width), filled_up(h)
        into = torch.cat([_wider(w, deep, wide) for w in (gate_proj, up_proj)], 1)[order]  # (E, 2 wide, deep)
        back = _wider(down_proj, wide, deep)[order]  # (E, deep, wide)
        rows = _wider(x, deep).index_select(0, token)  # (R, deep)
        both = _by_group(rows, into.mT, groups)  # (R, 2 wide)
        gate, up = both.split(wide, -1)
        hidden = F.silu(gate).mul_(up)  # (R, wide)
        out = _by_group(hidden, back.mT, groups)  # (R, deep)
        ctx.save_for_backward(weights, places, token, order, into, back, rows, both, hidden, out)
        ctx.groups, ctx.width = groups, width
        total = F.embedding_bag(places, out, mode="sum", per_sample_weights=weights.to(out.dtype))
        return total[:, :h]

    @staticmethod
    def backward(ctx, grad):
        weights, places, token, order, into, back, rows, both, hidden, out = ctx.saved_tensors
        (deep, wide), h, width = back.shape[1:], grad.shape[-1], ctx.width
        share = out.new_zeros(len(token))  # of each row in its token; 0 for those that fill
        share[places] = weights.to(out.dtype)
        d_out = _wider(grad, deep).index_select(0, token)
        d_weights = (d_out * out).sum(-1, dtype=torch.float32)[places].to(weights.dtype)
        d_out.mul_(share[:, None])
        gate, up = both.split(wide, -1)
        d_hidden = _by_group(d_out, back, ctx.groups)
        d_both = torch.empty_like(both)
        torch.mul(d_hidden, F.silu(gate), out=d_both[:, wide:])
        torch.ops.aten.silu_backward.grad_input(d_hidden.mul_(up), gate, grad_input=d_both[:, :wide])
        d_into, d_back = (
            _outer_by_group(*yx, len(order), ctx.groups) for yx in ((d_both, rows), (d_out, hidden))
        )
        parts = d_into[:, :width, :h], d_into[:, wide : wide + width, :h], d_back[:, :h, :width]
        back_in_order = order.argsort()
        d_gate, d_up, d_down = (part.index_select(0, back_in_order) for part in parts)
        d_x = F.embedding_bag(places, _by_group(d_both, into, ctx.groups), mode="sum")[:, :h]
        return d_x, d_weights, d_gate, d_up, d_down, None


def _by_group(rows: Tensor, weight: Tensor, groups: list[tuple[slice, slice]]) -> Tensor:
    """rows (R, in) times weight (E, in, out), experts in the order of the groups -> (R, out)."""
    out = rows.new_empty(len(rows), weight.shape[-1])
    for members, span in groups:
        count = members.stop - members.start
        batch, result = (x[span].view(count, -1, x.shape[-1]) for x in (rows, out))
        torch.bmm(batch, weight[members], out=result)
    return out


def _outer_by_group(y: Tensor, x: Tensor, experts: int, groups: list[tuple[slice, slice]]) -> Tensor:
    """y (R, out)^T times x (R, in) for each expert, in the order of the groups -> (E, out, in), zero without rows."""
    total = y.new_empty(experts, y.shape[-1], x.shape[-1])
    for members, span in groups:
        left, right = (z[span].view(members.stop - members.start, -1, z.shape[-1]) for z in (y, x))
        torch.bmm(left.mT, right, out=total[members])
    total[groups[-1][0].stop if groups else 0 :].zero_()  # the groups behind have no tokens
    return total


def padded_experts(
    x: Tensor, indices: Tensor, weights: Tensor, gate_proj: Tensor, up_proj: Tensor, down_proj: Tensor
) -> Tensor:
    """See `kernels.routed_experts`."""
    batches = slots(indices, len(gate_proj))
    return _PaddedExperts.apply(x, weights, gate_proj, up_proj, down_proj, batches)
