"""Supervised fine-tuning on the trajectories that passed."""

from __future__ import annotations

import numpy as np

from kimi_mini.pipeline.plan import Run
from kimi_mini.pipeline.shared import (
    load_checkpoint,
    note_of,
    save_checkpoint,
    text_windows,
    tokenizer_of,
    trained,
    training_pools,
)
from kimi_mini.training import sft
from kimi_mini.training.batch import Batch, Example
from kimi_mini.training.optim.schedule import wsd
from kimi_mini.training.recipe import MICRO_TOKENS, STEP_TOKENS

TEXT_IN_FINETUNING = 128  # tokens of real text in every step of fine-tuning, against forgetting


def finetune(run: Run) -> dict:
    """Supervised fine-tuning on the trajectories that passed, with a little real text in every step."""
    tokenizer, model = tokenizer_of(run), load_checkpoint(run, "base")
    pools = training_pools(run)
    windows = text_windows(run, tokenizer)[0].reshape(-1, TEXT_IN_FINETUNING)
    tokens = run.plan.scaled(run.plan.finetune_tokens)
    plan = sft.make_plan(pools, tokens, STEP_TOKENS - TEXT_IN_FINETUNING, run.plan.seed)
    order = np.random.default_rng([run.plan.seed, 3]).permutation(len(windows))

    def data(step: int) -> list[Batch]:
        text = windows[order[step % len(order)]]
        return sft.batches_of(pools, plan[step], MICRO_TOKENS, [Example(text, np.ones(len(text), bool))])

    steps = len(plan)
    history = trained(
        run,
        "finetune",
        model,
        data,
        steps,
        tokens,
        schedule=lambda step: wsd(step, steps, min(20, steps // 4), decay_start=int(0.35 * steps)),
    )
    save_checkpoint(run, model, "tuned")
    loss = float(np.mean(history.loss[-50:]))
    return note_of(history, loss=loss, summary=f"loss {loss:.3f} after {sum(history.tokens):,} tokens")
