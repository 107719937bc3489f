"""Ten minutes of pre-training of preset mini on this machine's Python packages, with samples on the way."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kimi_mini.base.files import read_json
from kimi_mini.experiments.gpu import timing
from kimi_mini.experiments.gpu.sheet import Row, Sheet, finished
from kimi_mini.experiments.gpu.site import OutOfTime, Site
from kimi_mini.pipeline.plan import Optimizer, Plan
from kimi_mini.pipeline.pretrain import sample
from kimi_mini.pipeline.shared import curve
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training.batch import Batch, in_turn, text_batch
from kimi_mini.training.loop import History, evaluate_loss, save_state, train

SECONDS = 600
SAMPLES = 5
PROMPTS = ("def read(", "The ")
SAVE_SECONDS = 150  # a state has two gigabytes


def rates(site: Site) -> Optimizer:
    """Those that were tuned for Muon in the part `logits`, if it has been measured; else those of `make run`."""
    file = site.folder / "logits.json"
    if not finished(file):
        return Optimizer()
    row = next(row for row in read_json(file)["rows"] if row["name"] == "mini, muon, seed 0")
    return Optimizer(row["lr"], row["table_lr"], row["decay"])


def pace(site: Site) -> Row:
    """The default step and micro-batch of the preset, its seconds, and how many fit."""
    site.clear()
    config = site.config("mini")
    choice = site.choice(config)
    ids = timing.text_of_a_step(site, choice.window, choice.step_tokens)
    step = timing.our_step(site, timing.fresh(site, config), ids, choice.micro_tokens)
    seconds = timing.quartiles(*timing.times(site, step, rounds=site.pick(10, 1)))[0]
    return choice._asdict() | {"seconds": seconds, "steps": site.pick(max(20, int(SECONDS / seconds)), 6)}


def read_on(sheet: Sheet, site: Site, plan: Row, optimizer: Optimizer) -> Row:
    """Train, or go on from the saved state; the curve, the loss before and after, tokens a second."""
    site.clear()
    training, validation = site.windows(plan["window"])
    rows, steps, place = (
        plan["step_tokens"] // plan["window"],
        plan["steps"],
        site.place(plan["micro_tokens"]),
    )
    model, tokenizer = timing.fresh(site, site.config("mini")), Tokenizer.load()
    chosen, steps_by = in_turn(training, rows, [0, 2]), optimizer.build(model)
    parts = [text_batch(part) for part in np.array_split(validation[: 4 * rows], 4)]
    before = evaluate_loss(model, parts, place)

    def data(step: int) -> list[Batch]:
        return [text_batch(chosen(step))]

    def write(step: int, history: History) -> None:
        try:
            site.in_time()
        except OutOfTime:
            save_state(state_file(site, steps), model, steps_by, history)
            raise
        if (step + 1) % max(1, steps // SAMPLES) == 0:
            texts = {prompt: sample(model, tokenizer, prompt, site.pick(80, 4)) for prompt in PROMPTS}
            tokens = sum(history.tokens)
            sheet.once(f"samples after {tokens} tokens", lambda: {"tokens": tokens, "texts": texts})

    history = train(
        model,
        steps_by,
        data,
        steps,
        Plan().pretrain.schedule.over(steps),
        bias_rate=Plan().bias_rate,
        state_file=state_file(site, steps),
        save_seconds=SAVE_SECONDS,
        progress=write,
        place=place,
    )
    tokens = sum(history.tokens)
    after = {"validation_before": before, "validation": evaluate_loss(model, parts, place)}
    speed = {"tokens": tokens, "seconds": history.seconds, "tokens_per_second": tokens / history.seconds}
    return after | speed | {"peak": max(history.max_logit), "curve": curve(history)}


def state_file(site: Site, steps: int) -> Path:
    """Where the training saves itself."""
    return site.work / f"pretraining-{steps}.pt"


def measure(site: Site) -> Sheet:
    """Text, pace, training."""
    sheet = Sheet(site, "pretraining")
    sheet.once("text", lambda: {name: int(site.text()[name]) for name in ("bytes", "files")})
    plan, told = sheet.once("pace", lambda: pace(site)), sheet.once("rates", lambda: vars(rates(site)))
    # those of the first start: a part that goes on may find `logits` measured meanwhile
    optimizer = Optimizer(**{name: value for name, value in told.items() if name != "name"})
    sheet.once("mini", lambda: read_on(sheet, site, plan, optimizer))
    state_file(site, plan["steps"]).unlink(missing_ok=True)
    return sheet
