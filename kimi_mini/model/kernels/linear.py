"""Matrix products on the CPU, through oneDNN where that is faster.

PyTorch sends fp32 products on a CPU to MKL, which is slow on some processors that are not Intel's; oneDNN, which
PyTorch carries as well, is not (`python -m kimi_mini bench` has rows with and without it). Both compute in fp32.
oneDNN compiles a kernel for each new shape (about a millisecond), so row counts are cut to a few sizes: `grain`.
On a GPU, in other dtypes, on other processors and for few rows, everything here is `torch.nn.functional.linear`.
"""

from __future__ import annotations

import os

import torch
import torch.nn.functional as F
from torch import Tensor

# read at oneDNN's first product; 1024 by default
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "4096")

ONEDNN = (
    torch.backends.mkldnn.is_available()
    and torch.backends.cpu.get_cpu_capability() == "AVX512"
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
)
FEWEST_ROWS = 64  # below, the call costs more than the product
CHUNK = 1024  # rows summed at once in a weight gradient: longer sums fall out of the cache


def grain(rows: int) -> int:
    """Step between the row counts in use, eight to each power of two: 16 for 128 rows, 128 for 1024."""
    return max(16, (1 << rows.bit_length()) // 16)


def is_fast(x: Tensor) -> bool:
    """Whether oneDNN takes over: fp32 on a CPU with AVX-512, and enough rows. x (M, K)."""
    return ONEDNN and x.dtype == torch.float32 and x.device.type == "cpu" and len(x) >= FEWEST_ROWS


def onednn(x: Tensor, weight: Tensor) -> Tensor:
    """x (M, K) times weight (N, K) transposed -> (M, N); both may be transposed views."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")


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


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """On the faster engine; see `kernels.linear`."""
    flat = x.reshape(-1, x.shape[-1])
    if not is_fast(flat):
        return F.linear(x, weight)
    return _Linear.apply(flat, weight).view(*x.shape[:-1], -1)
