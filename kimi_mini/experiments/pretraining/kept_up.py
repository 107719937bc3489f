"""Does a model that has learned to look things up still do so after a little text? Drills once, or in every step.

A drilled model looks up nearly every pair of symbols. Then it reads real text, in two arms of the same steps and the
same text: alone, and with drills of a few hundred tokens in every step (`Drill.kept`). Measured before and after: the
share of pairs that it looks up, in drills that it has never seen, and the loss on documents held out.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from matplotlib.figure import Figure

from kimi_mini.base.command import in_one_line
from kimi_mini.base.evidence import Log
from kimi_mini.base.paths import RUNS
from kimi_mini.course.figures import style
from kimi_mini.experiments import harness
from kimi_mini.model.kimi import KimiMini
from kimi_mini.pipeline import shared, text
from kimi_mini.pipeline.plan import Drill, Plan, Pretrain, Run
from kimi_mini.text import drills

ARMS = {"alone": 0, "with drills": 512}  # tokens of drills in each step of 4096
DRILLS = Drill(tokens=1_200_000, stop_loss=0.1)
TEXT = Pretrain(tokens=400_000)
ASKED = 100  # drills


@torch.no_grad()
def looked_up(model: KimiMini, alphabet: np.ndarray, count: int, seed: int) -> float:
    """Share of the pairs of `count` new recall drills whose value the model says."""
    rng, right = np.random.default_rng([seed, 5]), []
    for _ in range(count):
        symbols = rng.choice(alphabet, drills.KINDS[drills.recall], replace=False).astype(np.int32)
        ids, mask = drills.recall(rng, symbols)
        said = model(torch.from_numpy(ids[None].astype(np.int64))).logits[0, :-1].argmax(-1).numpy()
        right += (said == ids[1:])[mask[1:]].tolist()
    return float(np.mean(right))


def run_seed(log: Log, seed: int, scale: float) -> None:
    """One drilled model, then both arms from it."""
    folder = RUNS / "kept_up"
    shutil.rmtree(folder, ignore_errors=True)
    plan = Plan(seed=seed, drill=DRILLS, pretrain=TEXT).scaled(scale)
    alphabet, count = shared.drill_alphabet(plan), max(5, int(ASKED * scale))
    drilled = Run(folder, plan)
    text.drill(drilled)
    before = looked_up(shared.load_checkpoint(drilled, "drilled").eval(), alphabet, count, seed)
    for arm, kept in ARMS.items():
        run = Run(folder, replace(plan, drill=replace(plan.drill, kept=kept)))
        (folder / "pretrain.pt").unlink(missing_ok=True)
        found = text.pretrain(run)
        after = looked_up(shared.load_checkpoint(run, "base").eval(), alphabet, count, seed)
        losses = {key: found[key] for key in ("validation_before", "validation_loss")}
        log.row(seed=seed, arm=arm, before=before, after=after, seconds=found["seconds"], **losses)
        print(
            f"seed {seed}, {arm:>11}: {before:.3f} -> {after:.3f}, loss {losses['validation_loss']:.3f}",
            flush=True,
        )
    shutil.rmtree(folder)


def main() -> None:
    """All seeds; write data/results/kept_up.json and its figure."""
    args = harness.arguments(__doc__.splitlines()[0])
    log = Log("kept_up", seeds=args.seeds, folder=args.folder, tokens=TEXT.tokens, kept=ARMS["with drills"])
    for seed in args.seeds:
        run_seed(log, seed, args.scale)
    report(log)
    harness.finish(log, kept_up=draw)


def by_arm(rows: Sequence[dict], arm: str, key: str) -> list[float]:
    """One number a seed."""
    return [row[key] for row in rows if row["arm"] == arm]


def differences(rows: Sequence[dict], key: str) -> list[float]:
    """With drills minus alone, a seed each."""
    return [a - b for a, b in zip(by_arm(rows, "with drills", key), by_arm(rows, "alone", key))]


def report(log: Log) -> None:
    """The claims."""
    claim = partial(log.claim, notebook="04_pretraining.ipynb", figure="figures/kept_up.png", source="ours")
    lost = harness.share_across(by_arm(log.rows, "alone", "after"))
    says = "pairs still looked up after 0.4M tokens of text alone (of a model that looked up nearly all)"
    claim("kept_up/alone", claim=says, floor=0.5, at_most=True, **lost)
    kept = harness.share_across(by_arm(log.rows, "with drills", "after"))
    claim("kept_up/with_drills", claim="the same with drills in every step", floor=0.5, **kept)
    loss = harness.across(differences(log.rows, "validation_loss"))
    says = "loss on held-out text, with drills minus alone, at equal tokens of text (nats)"
    claim("kept_up/loss", claim=says, floor=0.05, at_most=True, **loss)


@style.styled
def draw(log: dict) -> Figure:
    """Left: pairs looked up, before and after. Right: the loss on held-out text."""
    fig, axes = style.figure(10, 4.4, 1, 2)
    found, loss = axes[0]
    for arm, colour, mark in (("alone", style.RED, "o"), ("with drills", style.BLUE, "s")):
        for number, row in enumerate(row for row in log["rows"] if row["arm"] == arm):
            name = f"text {arm}" if number == 0 else None
            found.plot(
                (0, 1), (100 * row["before"], 100 * row["after"]), "-" + mark, color=colour, label=name
            )
            loss.plot(
                (0, 1),
                (row["validation_before"], row["validation_loss"]),
                "-" + mark,
                color=colour,
                label=name,
            )
    for ax in (found, loss):
        ax.set_xticks((0, 1), ("drilled", f"after {log['tokens'] / 1e6:.1f}M tokens of text"))
        ax.set_xlim(-0.2, 1.2)
    found.set(ylim=(-3, 103), ylabel="pairs looked up (%)", title="What it could")
    loss.set(ylabel="nats a token", title="What it learns: held-out text")
    found.legend()
    return fig


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
