"""Causal attention in blocks of rows, with the exact largest logit of each head."""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = {"cpu": 64, "cuda": 512}  # rows of queries handled at once: small skips more of the masked half


def future(rows: int, like: Tensor) -> Tensor:
    """(rows, rows) bool, True above the diagonal: the keys that come after the query."""
    return torch.ones(rows, rows, dtype=torch.bool, device=like.device).triu_(1)


def scaled_bmm(a: Tensor, b: Tensor, scale: float) -> Tensor:
    """a (N, t, D) times b (N, D, S) times scale -> (N, t, S), in one pass."""
    return torch.baddbmm(a.new_empty(1, 1, 1), a, b, beta=0, alpha=scale)


def scaled_scores(q: Tensor, k_t: Tensor, scale: float) -> Tensor:
    """q (N, t, D) times k_t (N, D, S) times scale -> (N, t, S) fp32."""
    return scaled_bmm(q, k_t, scale) if q.dtype == torch.float32 else torch.bmm(q, k_t).float().mul_(scale)


def multiply_into(rows: Tensor, a: Tensor, b: Tensor, scale: float, block: int) -> None:
    """rows (N, t, D), a slice of a tensor, becomes a (N, t, S) times b (N, S, D) times scale.

    torch writes a product into a slice one row of the batch at a time, so a whole block is copied there instead. A
    shorter one is not: its sums would differ in the last bit, and the shipped agent was trained with these.
    """
    if rows.shape[1] == block:
        rows.copy_(scaled_bmm(a, b, scale))
    else:
        rows.baddbmm_(a, b, beta=0, alpha=scale)


class _CausalAttention(torch.autograd.Function):
    """Row-block causal attention; see `causal_attention`. Shapes inside: (B*H, T, D)."""

    @staticmethod
    def forward(ctx, q, k, v, scale, track, keep):
        """q, k (N, T, Dq), v (N, T, Dv) with N = B*H -> out (N, T, Dv), row_max (N, T) or an empty tensor."""
        n, length, _ = q.shape
        out = q.new_empty(n, length, v.shape[-1])
        row_max = q.new_empty((n, length) if track else (0,), dtype=torch.float32)
        block, k_t, saved = BLOCK.get(q.device.type, 128), k.transpose(1, 2), []
        hidden = row_max.new_zeros(block, block).masked_fill_(future(block, q), float("-inf"))
        for start in range(0, length, block):
            end = min(start + block, length)
            scores = scaled_scores(q[:, start:end], k_t[:, :, :end], scale)  # (N, rows, end)
            scores[:, :, start:].add_(hidden[: end - start, : end - start])
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
            d_scores = torch.bmm(d_block, v_t[:, :, :end])
            d_scores = torch._softmax_backward_data(d_scores, probs, -1, probs.dtype)
            multiply_into(d_q[:, start:end], d_scores, k[:, :end], ctx.scale, ctx.block)
            for_k = scaled_bmm(d_scores.transpose(1, 2), q[:, start:end], ctx.scale)
            for_v = torch.bmm(probs.transpose(1, 2), d_block)
            if d_k is None:
                d_k, d_v = for_k, for_v
            else:  # as products of their own: torch adds a product to a slice row of the batch by row of the batch
                d_k[:, :end].add_(for_k)
                d_v[:, :end].add_(for_v)
        return d_q, d_k, d_v, None, None, None


def causal_attention(
    q: Tensor, k: Tensor, v: Tensor, scale: float, valid: Tensor | None = None, track: bool = True
) -> tuple[Tensor, Tensor | None]:
    """Causal softmax(q k^T * scale) v, and the largest logit of each head.

    q, k (B, H, T, Dq); v (B, H, T, Dv), any Dv; valid (B, T) bool marks query rows that count for the maximum
    (padding on the right is hidden from real rows by causality itself). Softmax in fp32.
    Returns out (B, H, T, Dv) and max_logits (H,) fp32: the exact signed maximum over allowed pairs, -inf if
    no row is valid, None when not `track`. No gradient flows through max_logits.
    """
    b, h, t, _ = q.shape
    keep = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
    flat = (x.reshape(b * h, t, -1) for x in (q, k, v))
    out, row_max = _CausalAttention.apply(*flat, scale, track, keep)
    out = out.view(b, h, t, -1)
    if not track:
        return out, None
    row_max = row_max.view(b, h, t)
    if valid is not None:
        row_max = row_max.masked_fill(~valid[:, None], float("-inf"))
    return out, row_max.amax((0, 2))


def eager_attention(
    q: Tensor, k: Tensor, v: Tensor, scale: float, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The textbook form: returns out (B, H, T, Dv) and weights (B, H, T, S).

    mask (..., T, S): True = may look; None = causal. For figures, tests and short chunks; it builds the whole
    (T, S) table.
    """
    scores = (q @ k.transpose(-1, -2)).float() * scale
    if mask is None:
        mask = ~future(q.shape[-2], q)
    weights = scores.masked_fill(~mask, float("-inf")).softmax(-1).to(v.dtype)
    return weights @ v, weights
