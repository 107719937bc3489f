"""The sequence-wise balance loss: the older way to even out experts, for comparison with the bias rules of `moe`.

In a sequence of T tokens let f_i say how often expert i is among the k best, 1 when all are equally busy, and P_i be
its mean share of the scores:

    L = sum_i f_i P_i      f_i = E / (k T) * sum_t [i in the k best of s_t]      P_i = 1/T * sum_t s_ti / sum_j s_tj

L is 1 in balance and up to E / k when k experts take everything. Choices have no gradient, so the gradient goes through
P alone: it pushes down the scores of busy experts, whatever the language loss would like them to be. That is its price.
A bias pushes the choice and leaves the scores alone.

Source: DeepSeek-V3 report (arXiv 2412.19437), equations 17 to 20, where alpha is 1e-4 and stands beside the bias.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kimi_mini.model.kimi import KimiMini


def sequence_balance_loss(scores: Tensor, k: int, valid: Tensor | None = None) -> Tensor:
    """Mean of L over sequences, a scalar with gradient. scores (B, T, E) positive; valid (B, T) bool: real tokens."""
    real = torch.ones_like(scores[..., 0]) if valid is None else valid.to(scores.dtype)  # (B, T)
    length = real.sum(1).clamp_min(1)[:, None]  # (B, 1)
    experts = scores.shape[-1]
    chosen = torch.zeros_like(scores).scatter_(-1, scores.detach().topk(k, -1).indices, 1.0)
    f = (chosen * real[..., None]).sum(1) * experts / (k * length)  # (B, E)
    shares = scores / scores.sum(-1, keepdim=True)
    p = (shares * real[..., None]).sum(1) / length  # (B, E)
    return (f * p).sum(-1).mean()


class _Attach(torch.autograd.Function):
    """`output` unchanged; in the backward pass `loss` gets gradient 1, as if it had been added to what is minimised."""

    @staticmethod
    def forward(ctx, output, loss):
        return output.view_as(output)

    @staticmethod
    def backward(ctx, grad):
        return grad, grad.new_ones(())


class balanced_by_loss:
    """Context: every MoE layer of `model`, while it trains, adds alpha * sequence_balance_loss to what is minimised.

    The loss that a training loop reports stays the language loss. A step in n micro-batches adds n times alpha.
    """

    def __init__(self, model: KimiMini, alpha: float):
        self.model, self.alpha, self.handles = model, alpha, []

    def __enter__(self) -> balanced_by_loss:
        layers = [layer.mlp for layer in self.model.model.layers if layer.routed]
        self.handles = [layer.register_forward_hook(self._add) for layer in layers]
        return self

    def __exit__(self, *_) -> None:
        for handle in self.handles:
            handle.remove()

    def _add(self, layer, arguments, output: Tensor) -> Tensor | None:
        if not layer.training:
            return None
        x, valid = arguments[0], arguments[1] if len(arguments) > 1 else None
        scores = F.linear(x.float(), layer.gate.weight.float()).sigmoid()  # (B, T, E)
        return _Attach.apply(output, self.alpha * sequence_balance_loss(scores, layer.gate.top_k, valid))
