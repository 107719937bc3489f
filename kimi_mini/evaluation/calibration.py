"""Does a model know when it is right? Its confidence beside its verdicts.

A model's confidence in an attempt is the probability that it gave to all that it wrote, thought, calls and answer: the
chance that it would write the very same again at temperature 1. Where a task has one way to be done right, that is the
chance of success, and a calibrated model is right in 80 of 100 attempts that it is 0.8 sure of.

    reliability    mean confidence and share of right ones, bin by bin
    ece            expected calibration error: the gap between the two, weighted by the bins' sizes
    brier          mean squared error of confidence as a forecast of the verdict: small only for who is calibrated and
                   tells right from wrong
    auroc          chance that of a right and a wrong attempt the right one is the surer: 0.5 knows nothing

Source: Guo et al., On Calibration of Modern Neural Networks, arXiv 1706.04599 (bins and ECE).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from kimi_mini.agent.conversation import Conversation, training_rows
from kimi_mini.base.intervals import wilson
from kimi_mini.model.kimi import KimiMini, evaluating

BINS = 10


@torch.no_grad()
def confidence(model: KimiMini, conversations: Sequence[Conversation]) -> list[float]:
    """The probability that `model` gives at temperature 1 to all that it wrote in each conversation, of its own tokens
    alone: a forced </think> and results are not among them."""
    with evaluating(model):
        return [_probability(model, conversation) for conversation in conversations]


def _probability(model: KimiMini, conversation: Conversation) -> float:
    total = 0.0
    for ids, own, _ in training_rows(conversation):
        row = torch.tensor([ids], device=model.lm_head.weight.device)
        logprobs = model(row[:, :-1]).logits.float().log_softmax(-1)  # (1, T-1, V)
        chosen = logprobs.gather(-1, row[:, 1:, None])[0, :, 0]  # (T-1,)
        total += chosen[torch.tensor(own[1:], device=row.device)].sum().item()
    return float(np.exp(total))


@dataclass(frozen=True)
class Bin:
    """Attempts of about the same confidence: its mean, the share that is right with its 95% interval, how many."""

    sure: float
    right: float
    low: float
    high: float
    count: int


def reliability(sure: Sequence[float], right: Sequence[bool], bins: int = BINS) -> list[Bin]:
    """Bins of equal width over [0, 1], the last with its end; empty ones are left out. Raises ValueError for lists of
    unequal length and for what is no probability."""
    says, does = np.asarray(sure, float), np.asarray(right, bool)
    if says.shape != does.shape or says.ndim != 1 or not ((says >= 0) & (says <= 1)).all():
        raise ValueError("one probability from 0 to 1 and one verdict an attempt")
    places = np.minimum((says * bins).astype(int), bins - 1)
    found = []
    for place in np.unique(places):
        own = places == place
        low, high = wilson(int(does[own].sum()), int(own.sum()))
        found.append(Bin(float(says[own].mean()), float(does[own].mean()), low, high, int(own.sum())))
    return found


def ece(sure: Sequence[float], right: Sequence[bool], bins: int = BINS) -> float:
    """Expected calibration error: sum over bins of (share of the attempts) |right - sure|."""
    found = reliability(sure, right, bins)
    return sum(one.count * abs(one.right - one.sure) for one in found) / len(sure)


def brier(sure: Sequence[float], right: Sequence[bool]) -> float:
    """Mean of (confidence - verdict)^2."""
    return float(np.mean((np.asarray(sure, float) - np.asarray(right, float)) ** 2))


def auroc(sure: Sequence[float], right: Sequence[bool]) -> float:
    """Chance that a right attempt is surer than a wrong one, a tie counting half; nan without one of each."""
    says, does = np.asarray(sure, float), np.asarray(right, bool)
    good, bad = says[does], says[~does]
    if not len(good) or not len(bad):
        return float("nan")
    return float(np.mean((good[:, None] > bad) + 0.5 * (good[:, None] == bad)))
