"""Small trainings beside each other: how many steps the time allows, rates from a grid on a seed of its own, and the
record of one run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from kimi_mini.base.errors import KimiError
from kimi_mini.experiments.gpu import timing
from kimi_mini.experiments.gpu.sheet import Row, Sheet
from kimi_mini.experiments.gpu.site import Site
from kimi_mini.experiments.harness import across, ratio_across
from kimi_mini.experiments.muonclip.logit_runs import POINTS, Setting, factor, optimizer_for, thin
from kimi_mini.model.config import KimiConfig
from kimi_mini.model.kimi import KimiMini
from kimi_mini.pipeline.plan import Plan
from kimi_mini.training.batch import in_turn, text_batch
from kimi_mini.training.loop import History, evaluate_loss, train

SEEDS = (0, 1, 2)
TUNING_SEED = 100  # its runs are not among the results
DECAY = 0.1
RATES = {"adamw": (6e-4, 2e-3, 6e-3), "muon": (1e-3, 3e-3, 9e-3)}  # of the hidden matrices
TABLE_RATES = (1e-3, 4e-3)  # AdamW's, of embedding, head and norms
MOST_STEPS = 2000
HELD_OUT = 8  # steps' worth of windows


class Shape(NamedTuple):
    """Tokens of a window, and windows of a step: all at once."""

    window: int
    rows: int


def shape(site: Site) -> Shape:
    """32,768 tokens a step: many steps in little time."""
    return site.pick(Shape(1024, 32), Shape(128, 2))


def pace(site: Site, config: KimiConfig) -> float:
    """Seconds of a step."""
    site.clear()
    size = shape(site)
    ids = timing.text_of_a_step(site, size.window, size.window * size.rows)
    step = timing.our_step(site, timing.fresh(site, config), ids, None)
    return timing.quartiles(*timing.times(site, step, rounds=site.pick(10, 1)))[0]


def steps_in(site: Site, seconds: float, runs: float, step_seconds: float) -> int:
    """Steps of a run, so that so many runs take so many seconds."""
    return site.pick(max(20, min(MOST_STEPS, int(seconds / runs / step_seconds))), 3)


def train_one(site: Site, config: KimiConfig, setting: Setting) -> Row:
    """The record of one run on the machine's text. A run that diverges ends early and says so."""
    site.clear()
    size = shape(site)
    training, validation = site.windows(size.window)
    torch.manual_seed(setting.seed)
    model = KimiMini(config).to(site.device)
    chosen, place = in_turn(training, size.rows, [setting.seed, 2]), site.place()
    held_out = validation[: HELD_OUT * size.rows]
    history, loss, stopped = History(), None, None

    def note(step: int, so_far: History) -> None:
        nonlocal history
        history = so_far

    try:
        train(
            model,
            optimizer_for(model, setting),
            lambda step: [text_batch(chosen(step))],
            setting.steps,
            lambda step: factor(step, setting.steps, setting.falls),
            bias_rate=Plan().bias_rate,
            progress=note,
            place=place,
        )
        parts = [text_batch(part) for part in np.array_split(held_out, HELD_OUT)]
        loss = evaluate_loss(model, parts, place)
    except (KimiError, FloatingPointError) as error:
        stopped = str(error)
    return record(setting, history) | {"validation": loss, "stopped": stopped}


def record(setting: Setting, history: History) -> Row:
    """What of a run goes into the log: its setting, and curves of POINTS points."""
    group = max(1, len(history.loss) // POINTS)
    return {
        **setting._asdict(),
        "tau": None if math.isinf(setting.tau) else setting.tau,
        "tokens": sum(history.tokens),
        "seconds": history.seconds,
        "peak": max(history.max_logit, default=None),
        "clips": sum(history.clipped_heads),
        "group": group,
        "loss": thin(history.loss, group, np.mean),
        "max_logit": thin(history.max_logit, group, np.max),
    }


def tuned(
    sheet: Sheet,
    site: Site,
    label: str,
    config: KimiConfig,
    optimizer: str,
    steps: int,
    tables: Sequence[float] = TABLE_RATES,
) -> Row:
    """The run with the lowest validation loss of a grid of rates, all on TUNING_SEED. KimiError if all diverged."""
    runs = []
    for lr in RATES[optimizer][: site.pick(None, 2)]:
        for table_lr in tables[: site.pick(None, 1)]:
            setting = Setting(label, optimizer, lr, table_lr, DECAY, math.inf, TUNING_SEED, steps)
            name = f"grid {label}, {optimizer} {lr:g}, tables {table_lr:g}"
            runs.append(sheet.once(name, lambda setting=setting: train_one(site, config, setting)))
    whole = [run for run in runs if run["validation"] is not None]
    if not whole:
        raise KimiError(f"{label}: every run of the grid of {optimizer} diverged")
    return min(whole, key=lambda run: run["validation"])


def like(best: Row, seed: int, steps: int, tau: float = math.inf) -> Setting:
    """The rates of a tuned run for another seed, length and tau."""
    rates = (best["lr"], best["table_lr"], best["decay"])
    return Setting(best["size"], best["optimizer"], *rates, tau, seed, steps)


def over_seeds(
    values: Sequence[float | None], ratios: bool = False
) -> tuple[float | None, float | None, float | None]:
    """Mean, of `ratios` the geometric one, and 95% interval of one value a seed; nothing when a seed has none."""
    if None in values:
        return None, None, None
    found = ratio_across(values) if ratios else across(values)
    return found["value"], found["low"], found["high"]


def minus(first: Row, second: Row, key: str = "validation") -> float | None:
    """A difference of two runs; None where one has diverged."""
    return None if None in (first[key], second[key]) else first[key] - second[key]
