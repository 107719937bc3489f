"""Supervised fine-tuning on the trajectories that passed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from kimi_mini.model.kimi import KimiMini
from kimi_mini.pipeline.plan import Plan, Run
from kimi_mini.pipeline.shared import (
    Bar,
    drills_kept_up,
    late_loss,
    load_checkpoint,
    note_of,
    save_checkpoint,
    trained,
    training_pools,
    windows_of,
)
from kimi_mini.training import sft
from kimi_mini.training.batch import Batch, Example, in_turn
from kimi_mini.training.loop import History


def tune(
    model: KimiMini,
    pools: sft.Pools,
    plan: Plan,
    text: np.ndarray | None = None,
    state_file: Path | None = None,
    title: str = "",
    on_step: Callable[[int, int], None] = lambda step, steps: None,
) -> History:
    """Fine-tune `model` in place on `pools`, with a row of `text` (N, T) in every step, as the plan says.
    on_step(done, of): told after each step."""
    settings, width = plan.finetune, 0 if text is None else text.shape[1]
    steps = sft.make_plan(
        pools, settings.tokens, plan.step_tokens - width, plan.seed, settings.ramp, settings.reflex_after
    )
    rows = None if text is None else in_turn(text, 1, [plan.seed, 3])

    drills = drills_kept_up(plan) if plan.drill.kept else lambda step: []

    def data(step: int) -> list[Batch]:
        more = drills(step) + (
            [] if rows is None else [Example(row, np.ones(width, bool)) for row in rows(step)]
        )
        return sft.batches_of(pools, steps[step], plan.micro_tokens, more)

    with Bar(sft.tokens_of(pools, steps) + (width + plan.drill.kept) * len(steps), title) as bar:

        def progress(step: int, history: History) -> None:
            bar(step, history)
            on_step(step + 1, len(steps))

        return trained(
            model, plan, data, len(steps), settings.schedule, state_file=state_file, progress=progress
        )


def finetune(run: Run) -> dict:
    """Supervised fine-tuning on the trajectories that passed, with a little real text in every step."""
    model = load_checkpoint(run, "base")
    text = windows_of(run)[0].reshape(-1, run.plan.finetune.text_tokens)
    history = tune(model, training_pools(run), run.plan, text, run.folder / "finetune.pt")
    save_checkpoint(run, model, "tuned")
    loss = late_loss(history)
    return note_of(history, loss=loss, summary=f"loss {loss:.3f} after {sum(history.tokens):,} tokens")
