"""Training small models on text and needles, and asking them for needles: what long_context and rivals share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from kimi_mini.model.kimi import KimiMini, evaluating
from kimi_mini.pipeline.plan import Optimizer, Plan
from kimi_mini.text import corpus, drills, needles
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training.batch import Batch, Example, micro_batches
from kimi_mini.training.loop import History, train
from kimi_mini.training.optim.schedule import wsd

STEP_TOKENS, RATES = Plan().step_tokens, Plan().optimizer
TRAINED = 64  # tokens of a window, unless another length is asked for
DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
SYMBOLS = np.arange(1024, 1152)  # tokens that no text holds
QUESTIONS = 40  # a depth and length


def book_tokens() -> tuple[np.ndarray, np.ndarray]:
    """Moby-Dick as two streams of tokens, int32: training and validation chapters."""
    tokenizer = Tokenizer.load()
    return tuple(corpus.token_stream(tokenizer, part) for part in corpus.split(corpus.book_documents()))


def drill_examples(rng: np.random.Generator, text: np.ndarray) -> list[Example]:
    """One step of the first stage: half short recall and copy drills, half haystacks of TRAINED tokens."""
    half = STEP_TOKENS // 2
    short = [Example(*pair) for pair in drills.drills(rng, half, SYMBOLS)]
    return short + [Example(*needles.haystack(rng, text, TRAINED, SYMBOLS)) for _ in range(half // TRAINED)]


def examples(rng: np.random.Generator, text: np.ndarray, length: int) -> list[Example]:
    """One step in windows of `length`: three haystacks for every window of plain text."""
    count = STEP_TOKENS // length
    hay = [Example(*needles.haystack(rng, text, length, SYMBOLS, few=0.5)) for _ in range(count - count // 4)]
    return hay + [Example(needles.span(rng, text, length), np.ones(length, bool)) for _ in range(count // 4)]


def fit(
    model: KimiMini,
    make: Callable[..., list[Example]],
    seed: Sequence[int],
    tokens: int,
    rate: float = 1.0,
    until: float | None = None,
) -> History:
    """Train on `make(rng)`, a step's examples, with rates times `rate`.

    Linear decay over the second half; or no decay, but an end as soon as the loss is below `until`.
    """
    steps, decay = max(2, tokens // STEP_TOKENS), 0.5 if until is None else 0.0

    def data(step: int) -> list[Batch]:
        return micro_batches(make(np.random.default_rng([*seed, step])), STEP_TOKENS)

    def progress(step: int, history: History) -> None:
        if step % 25 == 24 or step == steps - 1:
            print(f"  step {step + 1}/{steps}: loss {np.mean(history.loss[-10:]):.2f}", flush=True)

    return train(
        model,
        Optimizer(RATES.lr * rate, RATES.adamw_lr * rate).build(model),
        data,
        steps,
        lambda step: wsd(step, steps, min(20, steps // 4), decay_fraction=decay),
        progress=progress,
        stop_when=lambda history: (
            until is not None and len(history.loss) > 20 and np.mean(history.loss[-10:]) < until
        ),
    )


@torch.no_grad()
def found(model: KimiMini, asked: Sequence[needles.Question], window: int | None = None) -> int:
    """How many questions of one length are answered right, seen through the last `window` tokens or whole."""
    ids = torch.from_numpy(np.stack([question.ids[-(window or 0) :] for question in asked]))  # (N, length)
    with evaluating(model):
        best = model.lm_head(model.hidden_states(ids)[:, -1]).argmax(-1)
    return int((best.numpy() == [question.answer for question in asked]).sum())


def questions(
    text: np.ndarray, seed: int, length: int, depth: float, count: int = QUESTIONS
) -> list[needles.Question]:
    """`count` questions of a length and depth, the same for every arm."""
    rng = np.random.default_rng([seed, length, round(100 * depth), 77])
    return [needles.question(rng, text, length, SYMBOLS, depth) for _ in range(count)]
