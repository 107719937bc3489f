"""Mismatch: the policy that samples is not quite the one that trains. What makes them differ, and what repairs it.

An engine that samples fast has its weights in another format, or those of some steps ago. Then a token has one
probability, mu, when it is sampled, and another one, pi, when it is trained on; in a mixture of experts it may even go
to other experts, and the two differ in jumps.

    rounded       a copy of the model in another numeric format
    Recording     a policy that keeps the experts of every token it reads or writes
    LOSSES        none: pi is taken for mu; mask: K2.5's, no token whose log-ratio is too large; truncated: weights
                  pi / mu, cut above
    replay        the experts of the rollout, for a batch of training rows (router replay)

Sources: K2.5 report, 4.4.2 (mask); Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL
training" (truncated importance weights); arXiv 2510.11370 (router replay).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from kimi_mini.agent.conversation import Conversation, training_rows
from kimi_mini.agent.policy import LocalPolicy, Reply
from kimi_mini.inference.decoder import Decoder
from kimi_mini.model.kimi import KimiMini
from kimi_mini.model.moe import choices
from kimi_mini.training.rl import objective
from kimi_mini.training.rl.objective import Scale, Written

MOST = 2.0  # of an importance weight
CLIP = (0.5, 0.5)  # log-ratios that the mask lets through, down and up


# ---- another format ----------------------------------------------------------------------------------------


def symmetric(weight: Tensor, most: int) -> Tensor:
    """Whole numbers from -most to most times one scale an output row. weight (..., out, in), the same shape back."""
    scale = weight.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(weight.dtype).tiny) / most
    return (weight / scale).round() * scale


FORMATS: dict[str, Callable[[Tensor], Tensor]] = {
    "bf16": lambda weight: weight.bfloat16().to(weight.dtype),
    "int8": partial(symmetric, most=127),
    "int4": partial(symmetric, most=7),
}


@torch.no_grad()
def rounded(model: KimiMini, name: str) -> KimiMini:
    """A copy whose matrices hold only numbers of this format; norms and routers keep theirs, as engines do."""
    other = copy.deepcopy(model)
    kept = {id(router.weight) for router in other.routers()}
    for parameter in other.parameters():
        if parameter.dim() > 1 and id(parameter) not in kept:
            parameter.copy_(FORMATS[name](parameter))
    return other


# ---- the experts of a rollout ------------------------------------------------------------------------------


class _Decoder(Decoder):
    """Keeps the experts of each token that the cache holds: (L, rows, max_length, k), of MoE layers."""

    def __init__(self, model: KimiMini, rows: int, max_length: int):
        super().__init__(model, rows, max_length)
        layers, most = len(model.routers()), model.config.num_experts_per_tok
        self.experts = torch.full((layers, rows, max_length, most), -1, device=self.cache.store.device)

    def _readers(self, tokens: list[list[int]], fed: list[int]) -> dict[int, int]:
        return {row: row for row in fed}  # what another row has read has left no experts here

    def _step(self, ids: Tensor, rows: list[int]) -> Tensor:
        return self._keep(dict.fromkeys(rows, 1), lambda: super(_Decoder, self)._step(ids, rows))

    def _pieces(self, tokens: dict[int, list[int]]) -> Tensor:
        counts = {row: len(chunk) for row, chunk in tokens.items()}
        return self._keep(counts, lambda: super(_Decoder, self)._pieces(tokens))

    def _chunk(self, tokens: list[list[int]], counts: list[int]) -> Tensor:
        fed = {row: count for row, count in enumerate(counts) if count}
        return self._keep(fed, lambda: super(_Decoder, self)._chunk(tokens, counts), max(counts))

    def _keep(self, counts: dict[int, int], feed: Callable[[], Tensor], width: int | None = None) -> Tensor:
        """Feed counts[row] tokens to some rows, one row's behind the other's, padded to `width` if given; and keep
        their experts."""
        before = list(self.cache.host_lengths)
        with choices(self.model.routers()) as calls:
            found = feed()
        widths = list(counts.values()) if width is None else [width] * len(counts)
        for layer, (chosen,) in enumerate(calls):
            for (row, count), of in zip(counts.items(), chosen.split(widths)):  # (width, k)
                start, end = before[row], before[row] + count
                self.experts[layer, row, start:end] = of[:count]
        return found

    def select(self, rows) -> None:
        super().select(rows)
        self.experts = self.experts[:, list(rows)]


class Recording(LocalPolicy):
    """A LocalPolicy; `experts` has, for each turn of a conversation, those of all tokens that it was written behind and
    of its own but the last, which nobody has read yet: (L, n - 1, k)."""

    def open(self, conversations: Sequence[Conversation], context: int) -> None:
        """As LocalPolicy does."""
        super().open(conversations, context)
        self.writer.decoder = _Decoder(self.model, len(conversations), self.writer.max_length)
        self.experts: dict[Conversation, list[Tensor]] = {one: [] for one in conversations}

    def reply(self, conversations: Sequence[Conversation], max_tokens: int) -> list[Reply | None]:
        """As LocalPolicy does."""
        replies = super().reply(conversations, max_tokens)
        decoder = self.writer.decoder
        for conversation, reply in zip(conversations, replies):
            if reply is not None:
                place = self.places[conversation]
                held = decoder.experts[:, place, : decoder.cache.host_lengths[place]]
                self.experts[conversation].append(held.clone())
        return replies


def row_experts(conversation: Conversation, turns: Sequence[Tensor]) -> list[Tensor]:
    """The experts (L, n - 1, k) of each of its training rows: what was held when the last turn of the row ended."""
    held = iter(turns)
    return [
        next(one for one in held if one.shape[1] == len(ids) - 1) for ids, _, _ in training_rows(conversation)
    ]


def replay(rows: Sequence[Tensor]) -> Tensor:
    """Experts of training rows, (L, n, k) each, for the batch that `collate` makes of them: (L, B, T, k), -1 in what is
    padding and in the last token of a row, which is never read."""
    width = max(row.shape[1] for row in rows) + 1
    padded = [torch.nn.functional.pad(row, (0, 0, 0, width - row.shape[1]), value=-1) for row in rows]
    return torch.stack(padded, 1)


# ---- repairs of the loss -----------------------------------------------------------------------------------

LOSSES: dict[str, Callable[[Written, Tensor, Scale], Tensor]] = {
    "none": partial(objective.reinforce, tau=0.0, clip=CLIP),
    "mask": partial(objective.k25, tau=0.0, clip=CLIP),
    "truncated": partial(objective.cispo, tau=0.0, clip=(1.0, MOST - 1)),
}


def exact(w: Written, gain: Tensor, scale: Scale) -> Tensor:
    """With weights pi / mu of whole attempts: its gradient has the on-policy one as its mean, and a variance that grows
    with the length of an attempt. A reference, and no repair."""
    weight = w.summed(w.log_ratio).exp().detach()
    return -((weight * gain)[w.attempt] * w.new).sum() / scale.tokens
