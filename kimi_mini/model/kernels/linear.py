"""Matrix products on the CPU, through the engine that is faster here (see `engine`).

Both engines compute in fp32. oneDNN compiles a kernel for each new shape (about a millisecond), so row counts are cut
to a few sizes: `grain`. On a GPU, in other dtypes and for few rows, everything here is `torch.nn.functional.linear`.
"""

from __future__ import annotations

import os

import torch
import torch.nn.functional as F
from torch import Tensor

from kimi_mini.model.kernels import engine
from kimi_mini.model.kernels.engine import onednn

# read at oneDNN's first product; 1024 by default
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "4096")

FEWEST_ROWS = 64  # below, the call costs more than the product
CHUNK = 1024  # rows summed at once in a weight gradient: longer sums fall out of the cache


def grain(rows: int) -> int:
    """Step between the row counts in use, eight to each power of two: 16 for 128 rows, 128 for 1024."""
    return max(16, (1 << rows.bit_length()) // 16)


def is_fast(x: Tensor) -> bool:
    """Whether oneDNN can take over: fp32 on a CPU, and enough rows. x (M, K)."""
    return engine.AVAILABLE and x.dtype == torch.float32 and x.device.type == "cpu" and len(x) >= FEWEST_ROWS


def product(x: Tensor, weight: Tensor) -> Tensor:
    """x (M, K) @ weight^T, weight (N, K) -> (M, N), no gradient. Rows beyond a multiple of `grain` go to MKL."""
    if not is_fast(x):
        return F.linear(x, weight)
    whole = len(x) - len(x) % grain(len(x))
    head = onednn(x[:whole], weight)
    return head if whole == len(x) else torch.cat([head, torch.mm(x[whole:], weight.t())])


def outer(y: Tensor, x: Tensor) -> Tensor:
    """y (M, N)^T @ x (M, K) -> (N, K): the gradient of a weight from that of the output and the input."""
    if not is_fast(x):
        return torch.mm(y.t(), x)
    if y.shape[1] > x.shape[1]:  # the kernel is faster when its rows are the shorter side
        return outer(x, y).t().contiguous()
    whole, total = len(x) - len(x) % grain(len(x)), None
    for start in range(0, whole, CHUNK):
        end = min(start + CHUNK, whole)
        part = onednn(y[start:end].t(), x[start:end].t())
        total = part if total is None else total.add_(part)
    return total if whole == len(x) else total.addmm_(y[whole:].t(), x[whole:])


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return product(x, weight)

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        grad = grad.contiguous()
        d_x = product(grad, weight.t()) if ctx.needs_input_grad[0] else None
        return d_x, outer(grad, x) if ctx.needs_input_grad[1] else None


def through_onednn(x: Tensor, weight: Tensor) -> Tensor:
    """x (..., in) times weight (out, in) transposed, by oneDNN wherever it can."""
    flat = x.reshape(-1, x.shape[-1])
    if not is_fast(flat):
        return F.linear(x, weight)
    return _Linear.apply(flat, weight).view(*x.shape[:-1], -1)


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """By the faster engine; see `kernels.linear`."""
    worth_it = x.dtype == torch.float32 and x.device.type == "cpu" and x.numel() >= FEWEST_ROWS * x.shape[-1]
    return through_onednn(x, weight) if worth_it and engine.chosen() == "onednn" else F.linear(x, weight)
