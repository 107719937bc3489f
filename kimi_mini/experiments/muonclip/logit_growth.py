"""Whose attention logits explode, and does QK-Clip hold them? AdamW, Muon and MuonClip at two model sizes.

1. A grid of learning rate, rate of the tables (embedding, head, norms: AdamW's in every run) and decay for each
   optimizer, the same number of trials for both, each as long as the runs it decides, on a seed of its own.
2. The best setting of each, three seeds; MuonClip at the report's tau of 100 and at a lower one beside it. Three more
   seeds for tuned AdamW and tuned Muon, whose difference is a claim: with three, an interval is wide.
3. The same at a hot setting, high rates and no decay: where logits explode, and QK-Clip has something to do.

Runs are kept under data/run/logit_growth/ and read back, so that the command may be stopped and started again;
`--sizes dense` trains one size only (two cores: one size on each, then once without the option to write the log).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
from matplotlib.figure import Figure

from kimi_mini.base.command import in_one_line
from kimi_mini.base.evidence import Log
from kimi_mini.course.figures import muonclip, style
from kimi_mini.course.figures.training import running_mean
from kimi_mini.experiments import harness
from kimi_mini.experiments.muonclip import logit_runs
from kimi_mini.experiments.muonclip.logit_claims import chosen, report, sizes_in
from kimi_mini.experiments.muonclip.logit_runs import SIZES, Setting, train_one

STEPS, TRIAL_SEED = {"dense": 300, "moe": 400}, 100
OFF, K2_TAU, LOW_TAU = float("inf"), 100.0, 30.0
GRID = {"adamw": (1e-3, 2e-3, 4e-3, 8e-3), "muon": (2.5e-3, 5e-3, 1e-2, 2e-2)}
TABLE_RATES, DECAYS = (4e-3, 1.2e-2, 3.6e-2), (0.0, 0.1)
# rate and the tables': far above the best, and no decay
HOT = {"adamw": (1.2e-2, 1.2e-2), "muon": (3e-2, 4e-3)}
PAIR, PAIR_SEEDS = ("AdamW", "Muon"), (3, 4, 5)
ARMS = {  # name: (optimizer, hot?, tau)
    "AdamW": ("adamw", False, OFF),
    "Muon": ("muon", False, OFF),
    "MuonClip 100": ("muon", False, K2_TAU),
    "MuonClip 30": ("muon", False, LOW_TAU),
    "hot AdamW": ("adamw", True, OFF),
    "hot Muon": ("muon", True, OFF),
    "hot MuonClip 100": ("muon", True, K2_TAU),
    "hot MuonClip 30": ("muon", True, LOW_TAU),
    "hot AdamW + QK-Clip 30": ("adamw", True, LOW_TAU),
}
COLOURS = {
    "AdamW": style.GREY,
    "Muon": style.RED,
    "MuonClip 100": style.BLUE,
    "MuonClip 30": style.SKY,
    "AdamW + QK-Clip 30": style.ORANGE,
}
DASHES = {"MuonClip 100": "--", "MuonClip 30": ":"}  # where they do not clip they lie on Muon


def main() -> None:
    """Train all runs that are not there yet; write data/results/logit_growth.json and its figure."""
    parser = harness.common_parser(__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=None, help="train these, write no log")
    parser.add_argument("--log", action="store_true", help="write the log although it holds some sizes only")
    args = harness.read(parser)
    log = Log(
        "logit_growth",
        seeds=args.seeds,
        folder=args.folder,
        grid=[],
        pair=[],
        low_tau=LOW_TAU,
        hot=HOT,
        edges=logit_runs.EDGES.round(3).tolist(),
        step_tokens=logit_runs.WINDOW_TOKENS * logit_runs.STEP_WINDOWS,
        spike_rule={"window": logit_runs.WINDOW, "sigmas": logit_runs.SIGMAS},
    )
    for size in args.sizes or SIZES:
        steps = max(30, int(STEPS[size] * args.scale))
        best = tune(log, size, steps)
        more_seeds = [seed for seed in PAIR_SEEDS if seed not in args.seeds]
        for seed, name in [*itertools.product(args.seeds, ARMS), *itertools.product(more_seeds, PAIR)]:
            record = {"arm": name, **train_one(setting(size, name, best, seed, steps))}
            (log.more["pair"] if seed in more_seeds else log.rows).append(record)
            print(line(record, f"{size} seed {seed} {name}"), flush=True)
    if args.sizes is None or args.log:
        runs = log.rows + log.more["pair"] + log.more["grid"]
        log.more["training_seconds"] = round(sum(run["seconds"] for run in runs))
        report(log)
        harness.finish(log, logit_growth=draw)


def tune(log: Log, size: str, steps: int) -> dict[str, tuple[float, float, float]]:
    """optimizer -> (lr, table_lr, decay) of lowest validation loss; every trial is printed and kept."""
    best = {}
    for optimizer, rates in GRID.items():
        trials = []
        for lr, table_lr, decay in itertools.product(rates, TABLE_RATES, DECAYS):
            trials.append(train_one(Setting(size, optimizer, lr, table_lr, decay, OFF, TRIAL_SEED, steps)))
            title = f"grid {size} {optimizer} lr {lr:g} tables {table_lr:g} decay {decay:g}"
            print(line(trials[-1], title), flush=True)
        keys = ("size", "optimizer", "lr", "table_lr", "decay", "validation", "peak", "spikes", "seconds")
        log.more["grid"] += [{key: trial[key] for key in keys} for trial in trials]
        finished = [trial for trial in trials if trial["validation"] is not None]
        winner = min(finished, key=lambda trial: trial["validation"])
        best[optimizer] = (winner["lr"], winner["table_lr"], winner["decay"])
    return best


def line(record: dict, title: str) -> str:
    """One run in one line."""
    loss = record["stopped"] or f"{record['validation']:.3f}"
    return (
        f"{title}: loss {loss}, peak {record['peak']:.1f}, clips {record['clips']}, {record['seconds']:.0f} s"
    )


def setting(
    size: str, arm: str, best: dict[str, tuple[float, float, float]], seed: int, steps: int
) -> Setting:
    """The run of one arm."""
    optimizer, hot, tau = ARMS[arm]
    lr, table_lr, decay = (*HOT[optimizer], 0.0) if hot else best[optimizer]
    return Setting(size, optimizer, lr, table_lr, decay, tau, seed, steps)


# -- figure --------------------------------------------------------------------------------------------


def curves(rows: list[dict], size: str, arms: Iterable[str], key: str) -> dict:
    """name -> (steps, runs) of a curve; a run that ended early shortens its arm."""
    lines = {}
    for arm in arms:
        runs = [row[key] for row in chosen(rows, arm, size)]
        points, group = min(map(len, runs)), chosen(rows, arm, size)[0]["group"]
        shown = [run[:points] if key != "loss" else running_mean(run[:points], 7) for run in runs]
        lines[arm.removeprefix("hot ")] = (group * np.arange(1, points + 1), shown)
    return lines


def draw(log: dict) -> Figure:
    """A row a size and setting (tuned, hot): the largest logit, and the loss beside it."""
    heats = {
        "tuned": [arm for arm in ARMS if not arm.startswith("hot")],
        "hot": [arm for arm in ARMS if arm.startswith("hot")],
    }
    panels, marks = {}, []
    for size in sizes_in(log["rows"]):
        for heat, arms in heats.items():
            panels[f"{size}, {heat}: logits"] = curves(log["rows"], size, arms, "max_logit")
            panels[f"{size}, {heat}: loss"] = curves(log["rows"], size, arms, "loss")
            marks += [(LOW_TAU,) if heat == "tuned" else (LOW_TAU, K2_TAU), ()]
    rows = len(panels) // 2
    fig = muonclip.bands(
        panels,
        ["largest attention logit", "nats a token"] * rows,
        [True, False] * rows,
        COLOURS,
        marks,
        columns=2,
        styles=DASHES,
    )
    for ax in fig.axes[1::2]:  # the first steps fall so far that nothing else would show
        ends = [line.get_ydata()[-10:].mean() for line in ax.lines]
        ax.set_ylim(min(ends) - 0.15, max(ends) + 0.6)
    return fig


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
