"""Head and cross-entropy in chunks of rows: the logits of a whole step, (N, V), are never in memory.

The backward pass makes each chunk's logits again. That costs a third more of the head's work and lets every token have
a gradient of its own.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kimi_mini.model.kernels.attention import wide_bmm
from kimi_mini.model.kernels.reference import at_least_fp32

ENTRIES = 1 << 26  # of the logits that are made at once: 256 MiB in fp32


def chunk(vocabulary: int) -> int:
    """How many rows are handled at once."""
    return max(1, ENTRIES // vocabulary)


def _logits(hidden: Tensor, weight: Tensor) -> Tensor:
    """(n, h) times (V, h) transposed -> (n, V) in fp32 at least."""
    return wide_bmm(hidden[None], weight.t()[None], 1.0)[0]


class _HeadLosses(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, targets):
        sums = at_least_fp32(hidden.new_empty(len(hidden)))  # logsumexp of each row
        losses = torch.empty_like(sums)
        size = chunk(len(weight))
        for start in range(0, len(hidden), size):
            part = slice(start, start + size)
            logits = _logits(hidden[part], weight)
            sums[part] = logits.logsumexp(-1)
            losses[part] = sums[part] - logits.gather(1, targets[part, None])[:, 0]
        ctx.save_for_backward(hidden, weight, targets, sums)
        return losses

    @staticmethod
    def backward(ctx, grad):
        hidden, weight, targets, sums = ctx.saved_tensors
        d_hidden, d_weight = torch.empty_like(hidden), torch.zeros_like(at_least_fp32(weight))
        size = chunk(len(weight))
        for start in range(0, len(hidden), size):
            part = slice(start, start + size)
            d_logits = _logits(hidden[part], weight).sub_(sums[part, None]).exp_()  # probabilities
            d_logits.scatter_add_(1, targets[part, None], -torch.ones_like(sums[part, None]))
            d_logits = d_logits.mul_(grad[part, None]).to(hidden.dtype)
            d_hidden[part] = d_logits @ weight
            d_weight += d_logits.t() @ hidden[part]
        return d_hidden, d_weight.to(weight.dtype), None


def head_losses(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """See `kernels.head_losses`."""
    return _HeadLosses.apply(hidden, weight, targets)
