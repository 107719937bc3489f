"""The first two stages: drills from random weights, then real text."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from kimi_mini.agent.folder import load_agent
from kimi_mini.pipeline.plan import Drill, Plan, Run
from kimi_mini.pipeline.pretrain import held_out_windows, own_share, read_text, tokens_to_read
from kimi_mini.pipeline.shared import (
    Bar,
    drill_alphabet,
    first_model,
    late_loss,
    load_checkpoint,
    note_of,
    place_of,
    save_checkpoint,
    trained,
    windows_of,
)
from kimi_mini.text import drills
from kimi_mini.training.batch import Batch, Example, shared_batches
from kimi_mini.training.loop import evaluate_loss
from kimi_mini.training.machine.placement import choose_device


def drill(run: Run) -> dict:
    """Recall and copy drills from random weights, until the loss is low enough. A further course needs none."""
    if run.agent:
        return {"tokens": 0, "summary": f"none: it begins with {run.agent}"}
    plan, settings = run.plan, run.plan.drill
    model, steps, made = first_model(plan), drill_steps(plan), drills_of(plan)
    whole = settings.whole_after * steps if settings.whole else 0

    def data(step: int) -> list[Batch]:
        return shared_batches([Example(*pair) for pair in made(step)], settings.micro_tokens)

    with Bar(steps * plan.step_tokens) as bar:
        history = trained(
            model,
            plan,
            data,
            steps,
            settings.schedule,
            place=place_of(plan, settings.micro_tokens),
            state_file=run.folder / "drill.pt",
            stop_when=lambda h: (
                len(h.loss) > whole + settings.stop_steps
                and late_loss(h, settings.stop_steps) < settings.stop_loss
            ),
            progress=bar,
        )
    save_checkpoint(run, model, "drilled")
    loss = late_loss(history, settings.stop_steps)
    return note_of(history, loss=loss, summary=f"loss {loss:.2f} after {sum(history.tokens):,} tokens")


def drill_steps(plan: Plan) -> int:
    """Steps of the first stage at the most: it ends when the loss is low enough."""
    return plan.drill.tokens // plan.step_tokens


def drills_of(plan: Plan) -> Callable[[int], list[drills.Drill]]:
    """step -> the drills of that step of the first stage."""
    settings, alphabet, steps = plan.drill, drill_alphabet(plan), drill_steps(plan)

    def made(step: int) -> list[drills.Drill]:
        rng = np.random.default_rng([plan.seed, 1, step])
        size = symbols_in_use(settings, step, steps, len(alphabet))
        kinds = drills.KINDS if settings.whole and step >= settings.whole_after * steps else drills.FIRST
        return drills.drills(rng, plan.step_tokens, alphabet[:size], kinds)

    return made


def symbols_in_use(settings: Drill, step: int, steps: int, count: int) -> int:
    """How many of `count` symbols the drills of a step are made of."""
    if not settings.whole:
        return count
    held, whole = settings.held * steps, settings.whole_after * steps
    grown = np.clip((step - held) / max(1, whole - held), 0, 1)
    return int(settings.first + grown * (count - settings.first))


def pretrain(run: Run) -> dict:
    """Next-token prediction on real text; the loss on documents held out is noted before and after. A further course
    takes its agent as it is."""
    if run.agent:
        return _begin(run)
    model, plan = load_checkpoint(run, "drilled"), run.plan
    state = run.folder / "pretrain.pt"
    with Bar(tokens_to_read(plan)) as bar:
        history, measured = read_text(model, windows_of(run), plan, place_of(plan), bar, state)
    save_checkpoint(run, model, "base")
    before, after = measured["validation_before"], measured["validation_loss"]
    summary = f"validation loss {before:.2f} -> {after:.2f} nats a token"
    return note_of(history, **measured, summary=summary)


def _begin(run: Run) -> dict:
    """The weights of `run.agent` as this run's own, and their loss on documents held out."""
    model = load_agent(run.agent)[0].to(choose_device(run.plan.device))
    loss = evaluate_loss(model, own_share(held_out_windows(windows_of(run)[1], run.plan)), place_of(run.plan))
    save_checkpoint(run, model, "base")
    summary = f"validation loss {loss:.2f} nats a token"
    return {"tokens": 0, "validation_before": loss, "validation_loss": loss, "summary": summary}
