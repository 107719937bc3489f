"""What a policy has become, measured on attempts that it has just sampled: the curves beside the reward.

    entropy       mean over written tokens of - sum_v p_v log p_v at the sampling temperature, in nats
    kl            mean over written tokens of log pi - log pi_start, in nats: the plain estimator of KL(pi || pi_start).
                  Unbiased only for tokens that pi itself sampled, and of one context it may be negative
    tokens        written by the model, median over attempts
    distinct      different right attempts at a task, token by token, mean over tasks: what sharpening takes away

A token is written if the model chose it: a forced </think> and what tools and users said are not.

Source: the estimator of KL is k1 of Schulman, Approximating KL divergence (2020). Beside them `pass_at` of
`inference.attempts`.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, median

import numpy as np
import torch
from torch import Tensor

from kimi_mini.agent.conversation import Conversation, training_rows
from kimi_mini.model.kimi import KimiMini, evaluating
from kimi_mini.training.batch import Batch, Example, collate
from kimi_mini.training.rl.objective import token_distributions

ROWS = 32  # sequences scored at a time
WINDOW = 3  # rounds of the rolling mean by which a collapse is told


@torch.no_grad()
def drift(
    model: KimiMini, start: KimiMini, conversations: Sequence[Conversation], temperature: float
) -> dict[str, float]:
    """ "entropy" of `model` and "kl" from it to `start`, per written token of attempts that `model` has sampled at this
    temperature; both 0 where nothing was written."""
    total, entropy, kl = 0, 0.0, 0.0
    with evaluating(model), evaluating(start):
        for batch in _batches(conversations):
            now, ids = token_distributions(model, batch, temperature)[:2]  # (M, V), (M,)
            then = token_distributions(start, batch, temperature)[0]
            entropy -= (now.exp() * now).sum().item()
            kl += _chosen(now - then, ids).sum().item()
            total += len(ids)
    return {"entropy": entropy / max(1, total), "kl": kl / max(1, total)}


def _chosen(values: Tensor, ids: Tensor) -> Tensor:
    """Of each row the value of its own token. values (M, V), ids (M,) -> (M,)."""
    return values.gather(-1, ids[:, None])[:, 0]


def _batches(conversations: Sequence[Conversation]) -> list[Batch]:
    """All turns as training sees them, those of about the same length together."""
    rows = sorted((row for c in conversations for row in training_rows(c)), key=lambda row: len(row[0]))
    made = [Example(np.asarray(ids, np.int32), np.asarray(own, bool)) for ids, own, _ in rows]
    return [collate(made[i : i + ROWS]) for i in range(0, len(made), ROWS)]


def tokens(conversations: Sequence[Conversation]) -> float:
    """Tokens that the model wrote, median over attempts."""
    return float(median(conversation.written for conversation in conversations))


def distinct(groups: Sequence[Sequence[Conversation]]) -> float:
    """Different right attempts at a task, mean over tasks. Two are the same if the model wrote the same tokens."""
    return fmean(len({_words(c) for c in group if c.verdict().passed}) for group in groups)


def _words(conversation: Conversation) -> tuple[int, ...]:
    return tuple(token for segment in conversation.segments for token in segment.ids)


def collapsed(successes: Sequence[float]) -> int | None:
    """The round, counted from 0, in which a run has collapsed; None if it has not.

    The rule: the mean success of the last three rounds is below half of the highest such mean before it, and stays
    there to the end of the run. The first three rounds are one of those means, so a run that falls below half of its
    start has collapsed, too; one that comes back has not.
    """
    means = [fmean(successes[i : i + WINDOW]) for i in range(len(successes) - WINDOW + 1)]
    fallen = [value < max(means[: i + 1]) / 2 for i, value in enumerate(means)]
    first = len(fallen) - next((i for i, down in enumerate(reversed(fallen)) if not down), len(fallen))
    return first + WINDOW - 1 if first < len(fallen) else None
