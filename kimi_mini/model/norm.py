"""RMSNorm: divide a vector by its root mean square, then scale each entry."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kimi_mini.model.kernels.norm import _RMSNorm


class RMSNorm(nn.Module):
    """x (..., D) -> x / sqrt(mean(x^2) + eps) * weight, the mean in fp32, the result in x's dtype."""

    def __init__(self, size: int, eps: float = 1e-6):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return _RMSNorm.apply(x, self.weight, self.eps)
