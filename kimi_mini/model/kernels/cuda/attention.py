"""Attention by FlexAttention, which can return the exact maximum of every row; in blocks of rows where it cannot run.

It wants an NVIDIA GPU from Ampere on, Triton, and whole blocks of 128 rows. Everywhere else (older GPUs, MPS, a CPU,
other lengths, fp64) `kernels.attention` does the same work.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import AuxRequest, BlockMask, create_block_mask, flex_attention
from torch.utils._triton import has_triton

from kimi_mini.model.kernels import attention, reference

WHOLE = 128  # rows of a block of FlexAttention
MASKS: dict[tuple, BlockMask | None] = {}  # by length and device; None: FlexAttention does not run there


def can_fuse(length: int, device: torch.device) -> bool:
    """Whether FlexAttention runs on rows of `length` on `device`, forward and backward."""
    if device.type != "cuda" or length % WHOLE:
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0) and has_triton()


def prepare(length: int, device: torch.device) -> BlockMask | None:
    """The causal mask for rows of `length`, made once; None where FlexAttention cannot run. What is compiled only looks
    it up, so whoever compiles calls this first."""
    key = (length, device.type, device.index)
    if key not in MASKS and not torch.compiler.is_compiling():
        mask = None
        if can_fuse(length, device):
            mask = create_block_mask(_not_later, None, None, length, length, device=device)
        MASKS[key] = mask
    return MASKS.get(key)


def _not_later(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
    return query >= key


@cache
def compiled_flex():
    """FlexAttention as a kernel of its own: uncompiled it makes all logits."""
    return torch.compile(flex_attention, dynamic=False)


def causal_attention(
    q: Tensor, k: Tensor, v: Tensor, scale: float, valid: Tensor | None = None, track: bool = True
) -> tuple[Tensor, Tensor | None]:
    """By FlexAttention where it runs; see `kernels.causal_attention`."""
    mask = None if q.dtype == torch.float64 else prepare(q.shape[2], q.device)
    if mask is None:
        version = reference if torch.compiler.is_compiling() else attention  # the blocks cannot be compiled
        return version.causal_attention(q, k, v, scale, valid, track)
    flex = flex_attention if torch.compiler.is_compiling() else compiled_flex()
    if not track:
        return flex(q, k, v, block_mask=mask, scale=scale), None
    out, more = flex(q, k, v, block_mask=mask, scale=scale, return_aux=AuxRequest(max_scores=True))
    row_max = more.max_scores.detach()  # (B, H, T) fp32
    if valid is not None:
        row_max = row_max.masked_fill(~valid[:, None], float("-inf"))
    return out, row_max.amax((0, 2)).float()
