"""Masked diffusion over the canvas of an example: the noise, and the bound on the likelihood that is trained.

Noise replaces each token of the canvas by [MASK], independently, with probability t; at t = 1 nothing is left. A model
that gives each masked token its probability from all that is left has, for every text x of L tokens,

    -log p(x) <= E_t~U(0,1] E_masks [ 1/t  sum_(masked i) -log p(x_i | what is left) ]

The weight 1/t makes up for how few tokens are masked at small t: a token is masked with probability t, so each of them
counts the same. Put the number of masks n, uniform over 1 .. L, in the place of t, with the weight L/n, and the bound
is the same: it is the mean over all orders in which the L tokens could be written one by one. Its variance is smaller.

The state at a token predicts the next one, masked or not, as in a model that writes from left to right: so weights that
learned to write can go on learning to refine.

Sources: Sahoo et al., arXiv 2406.07524 (MDLM, Eq. 10); Nie et al., arXiv 2502.09992 (LLaDA, Eq. 3 and 6); Ou et al.,
arXiv 2406.03736 (any-order models); Gong et al., arXiv 2410.17891 (DiffuLLaMA: the shift).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from kimi_mini.inference.diffusion import mask_token
from kimi_mini.model import kernels
from kimi_mini.model.kernels.both_ways import both_ways
from kimi_mini.model.kimi import KimiMini, evaluating
from kimi_mini.training.batch import Batch, Example, collate

BLOCK = 8  # canvases end at a multiple of so many tokens


@dataclass(frozen=True)
class Noised(Batch):
    """A batch whose `mask` (B, T) is the canvas; noisy (B, T) is what the model gets to see, and weight (B, T) fp32 is
    what each masked token's loss counts, 0 where nothing is masked."""

    noisy: Tensor
    weight: Tensor

    @property
    def learned(self) -> int:
        """Tokens of the canvas: losses are a mean over all of them, masked or not."""
        return int(self.mask.sum())


def canvases(
    example: Example, end: int, rng: np.random.Generator | None = None, size: int | None = None
) -> list[Example]:
    """One example for each turn that the model wrote: all that stood before it, and the turn as a canvas.

    A canvas has room for more than its turn: it is filled up with the token `end` to `size` tokens, or to a multiple of
    BLOCK and, with an rng, by up to two blocks more, so that a model learns to leave room empty.
    Raises ValueError for a turn that is longer than `size`.
    """
    starts = np.flatnonzero(np.diff(example.mask.astype(np.int8), prepend=0) == 1)
    stops = np.flatnonzero(np.diff(example.mask.astype(np.int8), append=0) == -1) + 1
    found = []
    if size is not None and (stops - starts).max(initial=0) > size:
        raise ValueError(f"a turn of {(stops - starts).max()} tokens does not fit a canvas of {size}")
    for start, stop in zip(starts, stops):
        more = 0 if rng is None else BLOCK * int(rng.integers(3))
        room = -(stop - start) % BLOCK + more if size is None else size - (stop - start)
        ids = np.concatenate([example.ids[:stop], np.full(room, end, example.ids.dtype)])
        found.append(Example(ids, np.arange(len(ids)) >= start))
    return found


def hide(examples: Sequence[Example], mask_id: int, rng: np.random.Generator, by: str = "time") -> Noised:
    """Examples with noise on their canvases, each at a time of its own; mask_id: the token [MASK].

    by: "time" draws t and masks each token with probability t, weight 1/t; "count" draws how many of the L are masked,
    weight L/n; "block" draws one of the canvas's blocks and how many of its tokens are masked; all that stands behind
    it is masked, too, and counts nothing. The rows' times (or blocks) are spread evenly over (0, 1], which is still
    uniform for each of them.
    """
    batch, rows = collate(examples), len(examples)
    canvas, size = batch.mask.numpy(), batch.mask.numpy().sum(1)  # (B, T), (B,)
    t = 1 - (rng.random() + rng.permutation(rows)) / rows % 1  # (B,), in (0, 1]
    open_, behind, blocks = canvas, np.zeros_like(canvas), 1
    if by == "block":
        blocks = -(-size // BLOCK)
        ahead = (canvas.cumsum(1) - 1) // BLOCK - np.ceil(t * blocks - 1)[
            :, None
        ]  # blocks from the drawn one
        open_, behind, t = canvas & (ahead == 0), canvas & (ahead > 0), 1 - rng.random(rows)
    dice = np.where(open_, rng.random(canvas.shape), np.inf)
    if by == "time":
        masked, weight = dice < t[:, None], 1 / t
    else:
        size = open_.sum(1)
        count = np.ceil(t * size)
        masked, weight = dice.argsort(1).argsort(1) < count[:, None], blocks * size / count
    noisy = torch.where(torch.from_numpy(masked | behind), mask_id, batch.ids)
    weights = torch.from_numpy((masked * weight[:, None]).astype(np.float32))
    return Noised(batch.ids, batch.mask, batch.valid, noisy, weights)


def refined_losses(model: KimiMini, batch: Noised) -> Tensor:
    """weight * -log p(token | what is left) of every masked token, in nats, (number of masked tokens,).

    Their sum over the tokens of the canvas is an unbiased estimate of the bound, in nats a token. [MASK] itself, the
    last token of the vocabulary, is never predicted.
    """
    batch = batch.to(model.lm_head.weight.device)
    with kernels.using(attention=both_ways(speaking(batch.mask))):
        hidden = model.hidden_states(batch.noisy, valid=batch.valid)  # (B, T, h)
    masked = batch.weight != 0  # an advantage may make it negative
    before = hidden[:, :-1][masked[:, 1:]]  # the state before a token predicts it
    losses = kernels.head_losses(before, model.lm_head.weight[:-1], batch.ids[masked])
    return batch.weight[masked] * losses


def speaking(canvas: Tensor) -> Tensor:
    """The tokens that predict the canvas, and the canvas: (B, T) -> (B, T), one more to the left of each."""
    return canvas | canvas.roll(-1, 1).index_fill(1, torch.tensor([canvas.shape[1] - 1]), False)


@torch.no_grad()
def bound(
    model: KimiMini, examples: Sequence[Example], draws: int = 8, seed: int = 0, rows: int = 32
) -> list[float]:
    """The bound on -log p of each example's canvas in nats, as a whole, by `draws` times of each."""
    rng, found = np.random.default_rng(seed), []
    with evaluating(model):
        for start in range(0, len(examples), rows):
            part = [example for example in examples[start : start + rows] for _ in range(draws)]
            batch = hide(part, mask_token(model), rng, by="count")
            losses = torch.zeros_like(batch.weight)
            losses[batch.weight != 0] = refined_losses(model, batch).cpu()
            found += losses.sum(1).view(-1, draws).mean(1).tolist()
    return found


def reweighted(batch: Noised, factor: Tensor) -> Noised:
    """The losses of each row times its factor (B,), an advantage for instance."""
    return replace(batch, weight=batch.weight * factor[:, None])
