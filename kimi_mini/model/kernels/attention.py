"""Causal attention in blocks of rows that skip most of the masked half, with a backward pass written out.

Fused attention kernels never show the logits; this one takes their maximum on the way. A GPU multiplies bf16 as bf16,
but logits, softmax and the sums over blocks are fp32; on a CPU everything in here is.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kimi_mini.model.kernels.reference import after_query, at_least_fp32

BLOCK = {"cpu": 64, "cuda": 512}  # rows of queries handled at once: small skips more of the masked half


def scaled_bmm(a: Tensor, b: Tensor, scale: float) -> Tensor:
    """a (N, t, D) times b (N, D, S) times scale -> (N, t, S), in one pass."""
    return torch.baddbmm(a.new_empty(1, 1, 1), a, b, beta=0, alpha=scale)


def wide_bmm(a: Tensor, b: Tensor, scale: float) -> Tensor:
    """The same, with the result in fp32 at least: bf16 logits of 167 would be whole numbers."""
    if a.dtype in (torch.float32, torch.float64):
        return scaled_bmm(a, b, scale)
    if a.is_cuda:
        return torch.bmm(a, b, out_dtype=torch.float32).mul_(scale)
    return scaled_bmm(a.float(), b.float(), scale)


def multiply_into(rows: Tensor, a: Tensor, b: Tensor, scale: float, block: int) -> None:
    """rows (N, t, D), a slice of a tensor, becomes a (N, t, S) times b (N, S, D) times scale.

    A whole block is computed apart and copied, for torch writes into a slice one row of the batch at a time. A shorter
    one is written directly: with several threads the two differ in the last bit, and the shipped weights rest on this.
    """
    if rows.shape[1] == block:
        rows.copy_(scaled_bmm(a, b, scale))
    else:
        rows.baddbmm_(a, b, beta=0, alpha=scale)


class _CausalAttention(torch.autograd.Function):
    """Row-block causal attention; see `kernels.causal_attention`. Shapes inside: (B*H, T, D)."""

    @staticmethod
    def forward(ctx, q, k, v, scale, track, keep):
        """q, k (N, T, Dq), v (N, T, Dv) with N = B*H -> out (N, T, Dv), row_max (N, T) or an empty tensor."""
        n, length, _ = q.shape
        out = q.new_empty(n, length, v.shape[-1])
        row_max = at_least_fp32(q.new_empty((n, length) if track else (0,)))
        block, k_t, saved = BLOCK.get(q.device.type, 128), k.transpose(1, 2), []
        hidden = after_query(block, q)
        for start in range(0, length, block):
            end = min(start + block, length)
            scores = wide_bmm(q[:, start:end], k_t[:, :, :end], scale)  # (N, rows, end)
            scores[:, :, start:].masked_fill_(hidden[: end - start, : end - start], float("-inf"))
            if track:
                torch.amax(scores, -1, out=row_max[:, start:end])
            probs = torch.softmax(scores, -1).to(v.dtype)
            multiply_into(out[:, start:end], probs, v[:, :end], 1.0, block)
            if keep:
                saved.append(probs)
        ctx.save_for_backward(q, k, v, *saved)
        ctx.scale, ctx.block = scale, block
        ctx.mark_non_differentiable(row_max)
        return out, row_max

    @staticmethod
    def backward(ctx, d_out, _):
        q, k, v, *saved = ctx.saved_tensors
        d_out, v_t = d_out.contiguous(), v.transpose(1, 2)
        d_q, d_k, d_v = torch.empty_like(q), None, None
        for index in reversed(range(len(saved))):  # the last block sees every key: the others add to its part
            probs, start = saved[index], index * ctx.block
            end = probs.shape[-1]
            d_block = d_out[:, start:end]
            d_probs = wide_bmm(d_block, v_t[:, :, :end], 1.0)
            d_scores = torch._softmax_backward_data(d_probs, probs.to(d_probs.dtype), -1, d_probs.dtype)
            d_scores = d_scores.to(q.dtype)
            multiply_into(d_q[:, start:end], d_scores, k[:, :end], ctx.scale, ctx.block)
            for_k = wide_bmm(d_scores.transpose(1, 2), q[:, start:end], ctx.scale)
            for_v = wide_bmm(probs.transpose(1, 2), d_block, 1.0)
            if d_k is None:
                d_k, d_v = for_k, for_v
            else:  # as products of their own: torch adds a product to a slice row of the batch by row of the batch
                d_k[:, :end].add_(for_k)
                d_v[:, :end].add_(for_v)
        return d_q, d_k.to(k.dtype), d_v.to(v.dtype), None, None, None


def causal_attention(
    q: Tensor, k: Tensor, v: Tensor, scale: float, valid: Tensor | None = None, track: bool = True
) -> tuple[Tensor, Tensor | None]:
    """In blocks of rows; see `kernels.causal_attention`."""
    b, h, t, _ = q.shape
    keep = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
    flat = (x.reshape(b * h, t, -1) for x in (q, k, v))
    if not q.is_cuda:  # a CPU spends more time on rounding blocks to bf16 and back than it saves
        flat = (at_least_fp32(x) for x in flat)
    out, row_max = _CausalAttention.apply(*flat, scale, track, keep)
    out = out.to(v.dtype).view(b, h, t, -1)
    if not track:
        return out, None
    row_max = row_max.view(b, h, t)
    if valid is not None:
        row_max = row_max.masked_fill(~valid[:, None], float("-inf"))
    return out, row_max.amax((0, 2)).float()
