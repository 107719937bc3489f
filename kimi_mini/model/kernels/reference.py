"""The kernels as one reads them: no blocks, no sorting, no backward pass by hand. The fast versions are tested
against these."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def at_least_fp32(x: Tensor) -> Tensor:
    """x in fp32, or as it is in fp64."""
    return x if x.dtype == torch.float64 else x.float()


def after_query(rows: int, like: Tensor) -> Tensor:
    """(rows, rows) bool, True above the diagonal: the keys that come after the query. On the device of `like`."""
    return torch.ones(rows, rows, dtype=torch.bool, device=like.device).triu_(1)


def attention_logits(q: Tensor, k: Tensor, scale: float, hidden: Tensor | None = None) -> Tensor:
    """q (B, H, T, D) times k (B, H, S, D) times scale -> (B, H, T, S) in fp32 at least.

    -inf where hidden (..., T, S) is True.
    """
    logits = at_least_fp32(q) @ at_least_fp32(k).transpose(-1, -2) * scale
    return logits if hidden is None else logits.masked_fill(hidden, float("-inf"))


def causal_attention(
    q: Tensor, k: Tensor, v: Tensor, scale: float, valid: Tensor | None = None, track: bool = True
) -> tuple[Tensor, Tensor | None]:
    """All logits as one (T, T) table a head; see `kernels.causal_attention`."""
    logits = attention_logits(q, k, scale, after_query(q.shape[2], q))
    out = logits.softmax(-1).to(v.dtype) @ v
    if not track:
        return out, None
    if valid is not None:
        logits = logits.masked_fill(~valid[:, None, :, None], float("-inf"))
    return out, logits.detach().amax((0, 2, 3)).float()


def routed_experts(
    x: Tensor, indices: Tensor, weights: Tensor, gate_proj: Tensor, up_proj: Tensor, down_proj: Tensor
) -> Tensor:
    """One expert after the other, on the tokens that chose it; see `kernels.routed_experts`."""
    out = torch.zeros_like(x)
    for e in range(len(gate_proj)):
        token, choice = (indices == e).nonzero(as_tuple=True)  # the tokens that chose expert e, and their j
        rows = x[token]
        hidden = F.silu(rows @ gate_proj[e].t()) * (rows @ up_proj[e].t())
        gates = weights[token, choice, None].to(x.dtype)
        out = out.index_add(0, token, gates * (hidden @ down_proj[e].t()))
    return out


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """See `kernels.rms_norm`."""
    wide = at_least_fp32(x)
    unit = wide * (wide.square().mean(-1, keepdim=True) + eps).rsqrt()
    return (unit.to(x.dtype) * weight).to(x.dtype)


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """PyTorch's own product: MKL on a CPU, cuBLAS on a GPU."""
    return F.linear(x, weight)


def head_losses(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """All logits as one (N, V) table; see `kernels.head_losses`."""
    return F.cross_entropy(at_least_fp32(F.linear(hidden, weight)), targets, reduction="none")
