"""Writes a text by refining a canvas of masks: some tokens a step, in any order, each seen from all the others.

    order = "confidence"    where the model is surest of its token
    order = "random"        anywhere
    order = "left"          from left to right; one at a time, this is how an autoregressive model writes

`block` confines all of that to blocks that are finished from left to right: 1 is autoregressive, the canvas's whole
length is free. `remask` takes back, at every step, the tokens that were least certain when they were put down. What is
given stays: an infilling is a canvas on which some positions hold tokens already. `sure` puts down, beside the
`at_once` of each step, every token whose probability is at least that: steps are saved where nothing is in doubt.
`closing` is a token that waits for what stands before it. Where a model fills up unused room with <|im_end|>, that is
what it is surest of, and the length of a text would be settled before its first word.

The state at a token predicts the next one, so the last token of the context stands at the head of what is looked at.
The rest of the context is read once into the latent cache. Every step then looks at it and at the whole canvas, so it
costs the length of the canvas. With `freeze`, blocks that are finished join the context: later steps no longer
recompute them, and they no longer see what comes behind. That is an approximation, for training had them see it.

Sources: Nie et al., arXiv 2502.09992 (LLaDA: low-confidence remasking, semi-autoregressive blocks); Wang et al.,
arXiv 2503.00307 (remasking); Wu et al., arXiv 2505.22618 (Fast-dLLM: frozen blocks, all tokens above a threshold);
Gong et al., arXiv 2410.17891 (DiffuLLaMA: the shift).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from kimi_mini.inference.cache import Chunk, LatentCache
from kimi_mini.model.kimi import KimiMini, evaluating

ORDERS = ("confidence", "random", "left")
Look = Callable[[Tensor, Tensor], None]  # (canvas, masked), after every step


@dataclass(frozen=True)
class Style:
    """How a canvas is refined: see above. at_once: tokens a step at least; sure: a probability; closing: a token id;
    temperature 0 takes the likeliest."""

    order: str = "confidence"
    at_once: int = 1
    block: int | None = None
    temperature: float = 0.0
    remask: int = 0
    freeze: bool = False
    sure: float | None = None
    closing: int | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for a style that cannot end."""
        if self.order not in ORDERS:
            raise ValueError(f"no order {self.order!r}: there are {', '.join(ORDERS)}")
        if self.at_once < 1 or (self.block is not None and self.block < 1) or self.temperature < 0:
            raise ValueError("at_once and block are at least 1, and a temperature at least 0")
        if not 0 <= self.remask < self.at_once:
            raise ValueError(f"who takes back {self.remask} of {self.at_once} tokens a step never ends")
        if self.sure is not None and not 0 < self.sure <= 1:
            raise ValueError(f"sure is a probability above 0, not {self.sure}")


@dataclass(frozen=True)
class Refined:
    """What became of the canvases, (N, L) each: ids; when, the step at which each token was put down to stay, -1 for
    given ones; logprobs, of each token when it was put down (0 for given ones); steps, how many it took until all were
    done; steps_each (N,), those in which a row had something to write where the step wrote: what is taken back later
    was a step too, and rows that are finished wait for the others. None where nobody has counted."""

    ids: Tensor
    when: Tensor
    logprobs: Tensor
    steps: int
    steps_each: Tensor | None = None


class _Canvas(Chunk):
    """A chunk whose tokens all see each other, and all that is cached before them."""

    @cached_property
    def mask(self) -> Tensor:
        """(N, 1, 1, S): True where a token may look."""
        keys = torch.arange(self.seen, device=self.store.device)
        return (keys <= self.positions[:, -1:])[:, None, None]


def mask_token(model: KimiMini) -> int:
    """[MASK], "not yet known": the last token of the vocabulary, which is K2's [PAD] and stands in no text."""
    return model.config.vocab_size - 1


def blank(model: KimiMini, rows: int, length: int) -> Tensor:
    """Canvases on which nothing is known, (rows, length)."""
    return torch.full((rows, length), mask_token(model))


@torch.no_grad()
def refine(
    model: KimiMini,
    contexts: Sequence[Sequence[int]],
    canvas: Tensor,
    style: Style = Style(),
    seed: int = 0,
    allowed: Tensor | None = None,
    look: Look | None = None,
) -> Refined:
    """Refine a canvas behind each context until no [MASK] is left.

    contexts: token ids, of any lengths above 1. canvas (N, L): [MASK] where the model writes, tokens where they
    are given. allowed: (V,) or (N, L, V) bool, tokens that may be written; all but [MASK] if None. look: is called with
    canvas and masks before the first step and after each.
    Raises ValueError for contexts that do not fit the canvases, or are too short.
    """
    if len(contexts) != len(canvas) or min(map(len, contexts), default=0) < 2:
        raise ValueError(f"{len(canvas)} canvases want as many contexts, of two tokens at least")
    state = _State(model, canvas.clone(), style, seed, allowed, look)
    with evaluating(model):
        state.read(contexts)
        size = canvas.shape[1]
        block = size if style.block is None else min(style.block, size)
        for start in range(0, size, block):
            state.write(slice(start, min(start + block, size)))
    return Refined(state.canvas, state.when, state.logprobs, state.steps, state.steps_each)


class _State:
    """A refinement under way. Rows are refined together, each with the same number of tokens a step."""

    def __init__(self, model, canvas, style, seed, allowed, look):
        self.model, self.canvas, self.style, self.look = model, canvas, style, look
        self.mask_token = mask_token(model)
        self.given = canvas != self.mask_token
        self.when = torch.where(self.given, -1, 0)
        self.logprobs = torch.zeros(canvas.shape)
        self.dice = torch.Generator().manual_seed(seed)
        refused = torch.zeros(model.config.vocab_size, dtype=torch.bool)
        refused[self.mask_token] = True
        self.refused = refused if allowed is None else refused | ~allowed
        self.steps, self.steps_each = 0, torch.zeros(len(canvas), dtype=torch.long)
        self.frozen = 0  # tokens of the canvas that have joined the context

    def read(self, contexts: Sequence[Sequence[int]]) -> None:
        """The contexts, into the cache, but for their last tokens."""
        self.head = torch.tensor(
            [context[-1:] for context in contexts]
        )  # (N, 1): what predicts the first token
        contexts = [context[:-1] for context in contexts]
        counts, width = [len(context) for context in contexts], max(map(len, contexts))
        longest = width + 1 + self.canvas.shape[1]
        weight = self.model.lm_head.weight
        self.cache = LatentCache(self.model.config, len(contexts), longest, weight.device, weight.dtype)
        padded = torch.tensor([[*context, *[0] * (width - len(context))] for context in contexts])
        self.model.hidden_states(padded, cache=self.cache.extend(counts))
        if self.look is not None:
            self.look(self.canvas, self.masked)

    @property
    def masked(self) -> Tensor:
        """(N, L) bool: what is still to be written."""
        return self.canvas == self.mask_token

    def write(self, block: slice) -> None:
        """Steps until a block has no mask in any row."""
        while (left := self.masked[:, block]).any():
            logits = self._see(self.canvas[:, self.frozen :])[:, block.start - self.frozen :][
                :, : left.shape[1]
            ]
            chosen = self._put_down(block, logits)
            if self.style.remask:
                self._take_back(block, chosen.sum(1, keepdim=True))
            self.steps += 1
            self.steps_each += left.any(1)
            if self.look is not None:
                self.look(self.canvas, self.masked)
        if self.style.freeze:
            self._see(self.canvas[:, block], keep=True)
            self.frozen, self.head = block.stop, self.canvas[:, block.stop - 1 : block.stop]

    def _see(self, ids: Tensor, keep: bool = False) -> Tensor:
        """Logits (N, l, V) of the tokens of the canvas, seen from all of them; keep: all but the last, which predicts
        what follows, stay in the cache."""
        before, rows = list(self.cache.host_lengths), len(ids)
        seen = torch.cat([self.head, ids], 1)  # (N, 1 + l)
        chunk = self.cache.extend([seen.shape[1]] * rows)
        canvas = _Canvas(*(getattr(chunk, name) for name in Chunk.__dataclass_fields__))
        hidden = self.model.hidden_states(seen, cache=canvas)
        self.cache.truncate([length + (ids.shape[1] if keep else 0) for length in before])
        return self.model.lm_head(hidden[:, :-1]).float()

    def _put_down(self, block: slice, logits: Tensor) -> Tensor:
        """The surest, the leftmost or any of the masked tokens of the block, `at_once` of a row; returns (N, l) bool,
        where."""
        refused = self.refused if self.refused.dim() == 1 else self.refused[:, block]
        logits = logits.masked_fill(refused, float("-inf"))
        warm = logits / self.style.temperature if self.style.temperature else logits
        chances = warm.log_softmax(-1)  # (N, l, V)
        if self.style.temperature:
            tokens = torch.multinomial(chances.exp().flatten(0, 1), 1, generator=self.dice).view(
                chances.shape[:2]
            )
        else:
            tokens = chances.argmax(-1)
        sure = chances.gather(-1, tokens[..., None])[..., 0]  # (N, l)
        chosen = self._chosen(tokens, sure, self.masked[:, block])
        self.canvas[:, block] = torch.where(chosen, tokens, self.canvas[:, block])
        self.when[:, block] = torch.where(chosen, self.steps, self.when[:, block])
        self.logprobs[:, block] = torch.where(chosen, sure, self.logprobs[:, block])
        return chosen

    def _chosen(self, tokens: Tensor, sure: Tensor, masked: Tensor) -> Tensor:
        """(N, l) bool: `at_once` of the masked positions of each row, or all that are left; and all that are `sure`."""
        if self.style.order == "random":
            rank = torch.rand(sure.shape, generator=self.dice)
        elif self.style.order == "left":
            rank = -torch.arange(sure.shape[1]).expand(sure.shape).float()
        else:
            rank = sure
        ready = masked
        if self.style.closing is not None:  # it waits while anything else is to be written before it
            other = masked & (tokens != self.style.closing)
            ready = masked & (other | (other.cumsum(1) == 0))
        place = (
            rank.masked_fill(~ready, float("-inf"))
            .argsort(dim=1, descending=True, stable=True)
            .argsort(dim=1)
        )
        chosen = place < self.style.at_once
        if self.style.sure is not None:
            chosen |= sure >= math.log(self.style.sure)
        return ready & chosen

    def _take_back(self, block: slice, put: Tensor) -> None:
        """[MASK] again where the block's tokens were least certain when they were put down: `remask` of each row, but
        fewer than the step has put there (put, (N, 1)), or it would never end; none once nothing is masked."""
        written = ~self.masked[:, block] & ~self.given[:, block]
        doubt = self.logprobs[:, block].masked_fill(~written, float("inf"))
        place = doubt.argsort(dim=1, stable=True).argsort(dim=1)
        few = (put - 1).clamp(max=self.style.remask)
        back = written & (place < few) & self.masked[:, block].any(1, keepdim=True)
        self.canvas[:, block] = torch.where(back, self.mask_token, self.canvas[:, block])
