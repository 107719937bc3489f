"""K2's policy objective: advantages, log-probabilities and the squared error."""

from __future__ import annotations

import torch
from torch import Tensor

from kimi_mini.model.kimi import KimiMini
from kimi_mini.training.batch import Batch


def advantages(rewards: Tensor) -> Tensor:
    """r_i - r_mean within each group. rewards (P, K) -> (P, K)."""
    return rewards - rewards.mean(-1, keepdim=True)


def policy_loss(new: Tensor, old: Tensor, advantage: Tensor, tau: float) -> Tensor:
    """K2's objective for sequence log-probabilities `new` (with gradient) and `old`, all (N,).

    Divided by 2 tau, which changes no minimum: the gradient is then -(advantage - tau log ratio) grad log pi,
    of the same size whatever tau is.
    """
    return ((advantage - tau * (new - old)) ** 2).mean() / (2 * tau)


def sequence_logprobs(model: KimiMini, batch: Batch, temperature: float) -> Tensor:
    """Sum of the log-probabilities of each row's own tokens at the sampling temperature, (B,)."""
    batch = batch.to(model.lm_head.weight.device)
    hidden = model.hidden_states(batch.ids, valid=batch.valid)
    written = batch.mask[:, 1:]  # (B, T-1)
    logits = model.lm_head(hidden[:, :-1][written]).float() / temperature  # (N, V)
    chosen = logits.log_softmax(-1).gather(-1, batch.ids[:, 1:][written][:, None])[:, 0]
    rows = torch.arange(len(written), device=written.device)[:, None].expand_as(written)[written]
    return torch.zeros(len(written), device=chosen.device).index_add(0, rows, chosen)
