"""A policy gradient for a model that refines: what stands for the log-probability of a text.

A sampler that puts tokens down in a random order, drawn at temperature 1, is a policy: its state is the canvas, its
action the tokens of a step. The log-probability of what it did is the sum, over its steps, of that of the tokens of the
step in the canvas of that moment. Three stand-ins, each a batch whose weighted losses are minus that sum:

    by_steps     some of the steps as they were taken, each weighted by how few were chosen. The gradient of
                 (reward - baseline) times it is an unbiased estimate of the gradient of the expected reward
    at_a_glance  every token at once, seen from the context alone (diffu-GRPO of d1, without its noise on the prompt).
                 One look in place of L; biased: tokens were put down in the light of those before them
    by_the_bound new masks, drawn as in training: an unbiased estimate of a bound. It is the mean over all orders of
                 log p, where the policy's own is the log of what one order did: biased, too

The order in "confidence" refinement depends on the weights, and none of the three knows it: for an unbiased gradient
the order is random.

Sources: Zhao et al., arXiv 2504.12216 (d1); Black et al., arXiv 2305.13301 (denoising as a policy).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kimi_mini.inference.diffusion import Refined
from kimi_mini.training.batch import Batch
from kimi_mini.training.diffusion.bound import Noised

Estimator = Callable[["Written", np.random.Generator], Noised]


@dataclass(frozen=True)
class Written:
    """Texts that a sampler wrote, as a batch whose mask is the canvas; when (N, T): the step at which each token was
    put down, -1 for what was given."""

    batch: Batch
    when: Tensor
    mask_token: int

    @classmethod
    def of(cls, contexts: Sequence[Sequence[int]], refined: Refined, mask_token: int) -> Written:
        """Behind contexts of any lengths, canvases (N, L)."""
        lengths, size = [len(context) for context in contexts], refined.ids.shape[1]
        width = max(lengths) + size
        ids, when = (
            torch.zeros(len(contexts), width, dtype=torch.long),
            torch.full((len(contexts), width), -1),
        )
        canvas = torch.zeros(ids.shape, dtype=torch.bool)
        for row, context in enumerate(contexts):
            own = slice(lengths[row], lengths[row] + size)
            ids[row, : own.start], ids[row, own] = torch.tensor(context), refined.ids[row]
            when[row, own], canvas[row, own] = refined.when[row], True
        valid = torch.arange(width) < torch.tensor(lengths)[:, None] + size
        return cls(Batch(ids, canvas, valid), when, mask_token)

    @property
    def written(self) -> Tensor:
        """(N, T) bool: what the model put down; given tokens are not among it."""
        return self.when >= 0

    def noised(self, masked: Tensor, weight: Tensor) -> Noised:
        """The texts with these positions masked; weight (N, T)."""
        batch = self.batch
        noisy = torch.where(masked, self.mask_token, batch.ids)
        return Noised(batch.ids, batch.mask, batch.valid, noisy, weight.float())


def by_steps(written: Written, rng: np.random.Generator, count: int = 4) -> Noised:
    """`count` of each text's steps, drawn without putting back: rows N * count, the copies of a text together."""
    steps = int(written.when.max()) + 1
    count = min(count, steps)
    drawn = np.stack([rng.permutation(steps)[:count] for _ in written.when])  # (N, count)
    step = torch.from_numpy(drawn).flatten()[:, None]  # (N * count, 1)
    copies = _repeated(written, count)
    return copies.noised(copies.when >= step, (copies.when == step) * (steps / count))


def at_a_glance(written: Written, rng: np.random.Generator) -> Noised:
    """All that was written masked, in one look."""
    return written.noised(written.written, written.written)


def by_the_bound(written: Written, rng: np.random.Generator, count: int = 4) -> Noised:
    """Masks drawn anew, `count` a text: rows N * count, the copies of a text together."""
    copies = _repeated(written, count)
    own = copies.written.numpy()
    size = own.sum(1, keepdims=True)
    masks = np.ceil((1 - rng.random((len(own), 1))) * size)  # uniform over 1 .. L
    dice = np.where(own, rng.random(own.shape), np.inf)
    masked = (dice.argsort(1).argsort(1) < masks) & own
    return copies.noised(
        torch.from_numpy(masked), torch.from_numpy(masked * (size / np.maximum(masks, 1) / count))
    )


def _repeated(written: Written, count: int) -> Written:
    """Each text so many times, one after the other."""
    names = ("ids", "mask", "valid")
    batch = Batch(*(getattr(written.batch, name).repeat_interleave(count, 0) for name in names))
    return Written(batch, written.when.repeat_interleave(count, 0), written.mask_token)


ESTIMATORS: dict[str, Estimator] = {
    "by steps": by_steps,
    "at a glance": at_a_glance,
    "by the bound": by_the_bound,
}
