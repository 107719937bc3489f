"""QK-Clip puts a head's largest logit at tau; where is it one step later? The learning rate and the batch decide.

Between the clip and the next look lie the next update and the next text: S at the step after a clip may stand above tau
through either. A hot run (Muon at a high rate, no decay, tau 30) goes on from one and the same state at several rates,
with small steps and with larger ones; each time a head was clipped, its S of the next step over tau is kept.

K2 trained at 2e-4 with 67 million tokens a step; the hot run's rate is 150 times as high and its step 65,000 times
smaller.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from matplotlib.figure import Figure

from kimi_mini.base.command import in_one_line
from kimi_mini.base.evidence import Log
from kimi_mini.course.figures import style
from kimi_mini.experiments import harness
from kimi_mini.experiments.harness import arguments
from kimi_mini.experiments.muonclip import logit_growth, logit_runs
from kimi_mini.experiments.muonclip.logit_claims import NOTEBOOK
from kimi_mini.experiments.muonclip.logit_runs import Recorder, Setting
from kimi_mini.model.kimi import KimiMini
from kimi_mini.training.batch import Batch, text_batch
from kimi_mini.training.loop import train
from kimi_mini.training.optim.muonclip import MuonClip

TAU, BOUND = logit_growth.LOW_TAU, 1.05
HOT, TABLES = logit_growth.HOT["muon"]
HOT_STEPS = 150
RATES = (1.0, 1 / 3, 1 / 10, 1 / 30, 1 / 100)  # of the hot one
STEPS = {4: 60, 32: 60, 256: 20}  # by the windows of 256 tokens in a step
LARGEST = max(STEPS)  # too dear for all rates: at the gentlest alone
MICRO = 8  # windows at once


def main() -> None:
    """All seeds; write data/results/clip_overshoot.json and its figure."""
    args = arguments(__doc__.splitlines()[0])
    log = Log("clip_overshoot", seeds=args.seeds, folder=args.folder, tau=TAU, hot_rate=HOT, bound=BOUND)
    for seed in args.seeds:
        start = hot_run(seed, max(30, int(HOT_STEPS * args.scale)))
        for windows, steps in STEPS.items():
            for rate in RATES[-1:] if windows == LARGEST else RATES:
                row = go_on(start, seed, rate, windows, max(10, int(steps * args.scale)))
                log.row(**row)
                print(
                    "seed {seed}: rate x{rate:.3f}, {tokens} tokens a step: {clips} clips, S/tau at most "
                    "{worst:.3f}, within {within:.3f}, loss {loss:.3f}".format(**row),
                    flush=True,
                )
    report(log)
    harness.finish(log, clip_overshoot=draw)


def text(seed: int, windows: int) -> Callable[[int], list[Batch]]:
    """step -> micro-batches of `windows` windows of the standard library in the order of that seed."""
    training, _ = logit_runs.windows("dense")
    order = np.random.default_rng(seed).permutation(len(training))

    def data(step: int) -> list[Batch]:
        picks = np.take(order, np.arange(step * windows, (step + 1) * windows), mode="wrap")
        return [text_batch(training[part]) for part in np.array_split(picks, -(-windows // MICRO))]

    return data


def build(seed: int) -> tuple[KimiMini, MuonClip]:
    """A fresh model and its hot optimizer."""
    model = logit_runs.build("dense", seed)
    return model, logit_runs.optimizer_for(
        model, Setting("dense", "muon", HOT, TABLES, 0.0, TAU, seed, HOT_STEPS)
    )


def hot_run(seed: int, steps: int) -> tuple[dict, dict]:
    """The state of model and optimizer after a hot run that keeps clipping."""
    model, optimizer = build(seed)
    train(
        model, optimizer, text(seed, logit_runs.STEP_WINDOWS), steps, lambda step: min(1.0, (step + 1) / 20)
    )
    return model.state_dict(), optimizer.state_dict()


def go_on(start: tuple[dict, dict], seed: int, rate: float, windows: int, steps: int) -> dict:
    """From that state on at `rate` times the hot rates: S / tau of every clipped head, one step after its clip."""
    began = time.perf_counter()
    model, optimizer = build(seed)
    # training writes into what it was given
    for part, state in zip((model, optimizer), copy.deepcopy(start)):
        part.load_state_dict(state)
    recorder = Recorder(model, optimizer, probe=None, every=1)
    data = text(seed + 1000, windows)  # not the order of the hot run
    history = train(
        model, optimizer, data, steps, lambda step: rate, progress=lambda step, _: note(recorder, data, step)
    )
    found = recorder.after_clips()
    return {
        "seed": seed,
        "rate": rate,
        "lr": HOT * rate,
        "tokens": windows * logit_runs.WINDOW_TOKENS,
        "steps": steps,
        "clips": len(found),
        "worst": max(found, default=0.0),
        "same_tokens": max(recorder.again, default=0.0),
        "within": float(np.mean(np.asarray(found) <= BOUND)) if found else 1.0,
        "loss": float(np.mean(history.loss[-10:])),
        "seconds": round(time.perf_counter() - began, 1),
    }


def note(recorder: Recorder, data: Callable[[int], list[Batch]], step: int) -> None:
    """Let the recorder look at this step, and now and then at its tokens once more."""
    recorder(step, torch.cat([batch.ids for batch in data(step)]))


def worst(rows: Sequence[dict], rate: float, tokens: int, key: str = "worst") -> list[float]:
    """The largest S / tau of every seed."""
    return [row[key] for row in rows if row["rate"] == rate and row["tokens"] == tokens]


def report(log: Log) -> None:
    """The claims: the gentlest rate must hold with large steps in every seed; and both causes must be seen."""
    small, large = (windows * logit_runs.WINDOW_TOKENS for windows in (min(STEPS), LARGEST))
    figure, rate = "figures/clip_overshoot.png", f"{1 / RATES[-1]:.0f}th of the hot rate"
    claim = partial(log.claim, notebook=NOTEBOOK, figure=figure, source="K2 report 2.1")
    bound = {"floor": BOUND, "at_most": True}
    gentle, hot = worst(log.rows, RATES[-1], large), worst(log.rows, 1.0, small)
    # all seeds and sizes of a step
    same = [row["same_tokens"] for row in log.rows if row["rate"] == RATES[-1]]
    # 0: no clip in that seed, nothing shown
    shown = lambda values: max(values) if values and all(values) else None
    says = f"largest S/τ at the step after a clip, worst seed, at a {rate} and {large} tokens a step"
    claim("overshoot/held", claim=says, value=shown(gentle), **bound)
    says = f"the same from the same state at the hot rate and {small} tokens a step"
    claim("overshoot/hot", claim=says, value=shown(hot), **bound)
    says = f"largest S/τ after a clip on the very text that triggered it, at a {rate}, worst seed and size of a step"
    claim("overshoot/same_text", claim=says, value=shown(same), **bound)
    slow = worst(log.rows, RATES[-1], small)
    for name, before, after, says in (
        ("rate", hot, slow, "overshoot (in τ) that the gentlest rate saves at small steps"),
        ("batch", slow, gentle, "overshoot (in τ) that large steps save at the gentlest rate"),
    ):
        differences = [a - b for a, b in zip(before, after)]
        found = harness.across(differences) if all([*before, *after]) else {"value": None}
        claim(f"overshoot/{name}", claim=says, floor=0.0, **found)


@style.styled
def draw(log: dict) -> Figure:
    """Left: the largest S / tau after a clip against the rate, a dot a seed. Right: how many clips stay in bounds."""
    fig, axes = style.figure(11, 4.6, 1, 2)
    for windows, colour, marker in zip(STEPS, (style.RED, style.BLUE, style.GREEN), "os^"):
        tokens = windows * logit_runs.WINDOW_TOKENS
        found = [rate for rate in RATES if worst(log["rows"], rate, tokens)]
        for ax, key in zip(axes[0], ("worst", "within")):
            points = np.array([worst(log["rows"], rate, tokens, key) for rate in found])  # (rates, seeds)
            rates = HOT * np.array(found)
            ax.plot(rates, points.mean(1), color=colour, marker=marker, label=f"{tokens} tokens a step")
            ax.plot(rates, points, color=colour, marker=".", linestyle="none", alpha=0.6)
    for ax, title, label in zip(
        axes[0],
        ("One step after a clip", "How many stay"),
        ("largest S / τ", f"share of clips up to {BOUND} τ"),
    ):
        ax.set(title=title, xlabel="learning rate of Muon", ylabel=label, xscale="log")
    axes[0][0].axhline(BOUND, color=style.GREY, linestyle="--")
    axes[0][0].legend()
    return fig


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
