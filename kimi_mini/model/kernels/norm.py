"""RMSNorm with its backward pass written out."""

from __future__ import annotations

import torch
from torch import Tensor

from kimi_mini.model.kernels.reference import at_least_fp32


class _RMSNorm(torch.autograd.Function):
    """x * rsqrt(mean(x^2) + eps) * weight with a backward that keeps only x and the row factors."""

    @staticmethod
    def forward(ctx, x, weight, eps):
        wide = at_least_fp32(x)
        squares = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_()  # (..., 1)
        factor = squares.div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, factor)
        return (wide * factor).to(x.dtype).mul_(weight)

    @staticmethod
    def backward(ctx, grad):
        x, weight, factor = ctx.saved_tensors
        unit = at_least_fp32(x) * factor  # (..., D)
        grad = at_least_fp32(grad)
        d_weight = (grad * unit).reshape(-1, x.shape[-1]).sum(0) if ctx.needs_input_grad[1] else None
        d_unit = grad * at_least_fp32(weight)
        along = (d_unit * unit).mean(-1, keepdim=True)
        d_x = d_unit.addcmul_(unit, along, value=-1).mul_(factor)
        return d_x.to(x.dtype), None if d_weight is None else d_weight.to(weight.dtype), None


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """With fewer passes over x; see `kernels.rms_norm`."""
    return _RMSNorm.apply(x, weight, eps)
