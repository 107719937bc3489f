"""The first two stages: drills from random weights, then real text."""

from __future__ import annotations

import numpy as np

from kimi_mini.pipeline.plan import Run
from kimi_mini.pipeline.shared import (
    WINDOW,
    load_checkpoint,
    new_model,
    note_of,
    save_checkpoint,
    text_windows,
    tokenizer_of,
    trained,
)
from kimi_mini.text import drills
from kimi_mini.training import synthesis
from kimi_mini.training.batch import Batch, Example, micro_batches
from kimi_mini.training.loop import evaluate_loss
from kimi_mini.training.optim.schedule import wsd
from kimi_mini.training.recipe import STEP_TOKENS


def drill(run: Run) -> dict:
    """Recall and copy drills from random weights, until the loss is below 0.3."""
    model, alphabet = new_model(run), synthesis.drill_alphabet(tokenizer_of(run))
    limit = run.plan.scaled(run.plan.drill_tokens)

    def data(step: int) -> list[Batch]:
        rng = np.random.default_rng([run.plan.seed, 1, step])
        examples = [Example(*pair) for pair in drills.drills(rng, STEP_TOKENS, alphabet)]
        return micro_batches(examples, STEP_TOKENS)

    history = trained(
        run,
        "drill",
        model,
        data,
        limit // STEP_TOKENS,
        limit,
        schedule=lambda step: min(1.0, (step + 1) / 20),
        stop_when=lambda history: len(history.loss) > 20 and np.mean(history.loss[-20:]) < 0.3,
    )
    save_checkpoint(run, model, "drilled")
    loss = float(np.mean(history.loss[-20:]))
    return note_of(history, loss=loss, summary=f"loss {loss:.2f} after {sum(history.tokens):,} tokens")


def text_batch(windows: np.ndarray) -> list[Batch]:
    """Windows (B, T) as one batch in which every token is learned."""
    return micro_batches([Example(row, np.ones(len(row), bool)) for row in windows], 10**9)


def pretrain(run: Run) -> dict:
    """Next-token prediction on real text; the loss on documents held out is noted before and after."""
    tokenizer, model = tokenizer_of(run), load_checkpoint(run, "drilled")
    training, validation = text_windows(run, tokenizer)
    tokens = run.plan.scaled(run.plan.text_tokens)
    steps, rows = tokens // STEP_TOKENS, STEP_TOKENS // WINDOW
    order = np.random.default_rng([run.plan.seed, 2]).permutation(len(training))
    held_out = text_batch(validation[:: max(1, len(validation) // 64)])
    before = evaluate_loss(model, held_out)

    def data(step: int) -> list[Batch]:
        chosen = training[np.take(order, np.arange(step * rows, (step + 1) * rows), mode="wrap")]
        return [batch for part in np.array_split(chosen, 2) for batch in text_batch(part)]

    history = trained(
        run,
        "pretrain",
        model,
        data,
        steps,
        tokens,
        schedule=lambda step: wsd(step, steps, min(20, steps // 4), decay_fraction=0.3, floor=0.2),
    )
    after = evaluate_loss(model, held_out)
    save_checkpoint(run, model, "base")
    summary = f"validation loss {before:.2f} -> {after:.2f} nats a token"
    return note_of(history, validation_before=before, validation_loss=after, summary=summary)
