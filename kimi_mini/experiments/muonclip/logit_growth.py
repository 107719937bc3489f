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
from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.figure import Figure

from kimi_mini.base.command import in_one_line
from kimi_mini.base.evidence import Log
from kimi_mini.base.intervals import over_seeds
from kimi_mini.course.figures import muonclip, style
from kimi_mini.experiments import harness
from kimi_mini.experiments.muonclip import logit_runs
from kimi_mini.experiments.muonclip.logit_runs import SIZES, Setting, train_one

STEPS, TRIAL_SEED = {"dense": 300, "moe": 400}, 100
OFF, K2_TAU, LOW_TAU = float("inf"), 100.0, 30.0
GRID = {"adamw": (1e-3, 2e-3, 4e-3, 8e-3), "muon": (2.5e-3, 5e-3, 1e-2, 2e-2)}
TABLE_RATES, DECAYS = (4e-3, 1.2e-2, 3.6e-2), (0.0, 0.1)
HOT = {
    "adamw": (1.2e-2, 1.2e-2),
    "muon": (3e-2, 4e-3),
}  # rate and the tables': far above the best, and no decay
PAIR, PAIR_SEEDS = ("AdamW", "Muon"), (3, 4, 5)
NOTEBOOK = "03_muonclip.ipynb"
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
    words = harness.parser(__doc__.splitlines()[0])
    words.add_argument("--sizes", nargs="+", choices=SIZES, default=None, help="train these, write no log")
    words.add_argument("--log", action="store_true", help="write the log although it holds some sizes only")
    args = harness.read(words)
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


# -- claims --------------------------------------------------------------------------------------------


def chosen(rows: Iterable[dict], arm: str, size: str | None = None) -> list[dict]:
    """The runs of an arm, of one size or both, by seed."""
    return [row for row in rows if row["arm"] == arm and size in (None, row["size"])]


def sizes_in(rows: Iterable[dict]) -> list[str]:
    """The model sizes that were run, in our order."""
    found = {row["size"] for row in rows}
    return [size for size in SIZES if size in found]


def interval(values: Sequence[float]) -> dict:
    """{value: mean, low, high}: t interval over seeds; nothing but the value below two."""
    if len(values) < 2:
        return {"value": float(np.mean(values)), "low": None, "high": None}
    return dict(zip(("value", "low", "high"), over_seeds(values)))


def held(rows: Iterable[dict], seeds: Sequence[int], when: str) -> dict:
    """How well clipped heads stay at tau: "after_clip" (next step, new tokens), "late", or on the "same_tokens".

    {clips, within: share up to 1.05 tau, worst_by_seed: largest S / tau, 0 where nothing was clipped}
    """
    found = [(row["seed"], row[when]) for row in rows if row[when]["n"]]
    count = sum(after["n"] for _, after in found)
    inside = sum(after["n"] * after["within"] for _, after in found)
    worst = [max((after["worst"] for own, after in found if own == seed), default=0.0) for seed in seeds]
    return {"clips": count, "within": inside / count if count else 1.0, "worst_by_seed": worst}


def harm(rows: list[dict], arm: str, plain: str, size: str) -> list[float]:
    """Validation loss of `arm` minus that of `plain`, seed by seed: same weights, same data, only tau differs."""
    pairs = zip(chosen(rows, arm, size), chosen(rows, plain, size))
    return [
        a["validation"] - b["validation"] for a, b in pairs if None not in (a["validation"], b["validation"])
    ]


def report(log: Log) -> None:
    """The claims, each with the number asked of it."""
    rows, seeds = log.rows, log.seeds
    common = {"notebook": NOTEBOOK, "figure": "figures/logit_growth.png"}
    clipping = [row for row in rows if "MuonClip" in row["arm"]]
    log.more["held"] = {when: held(clipping, seeds, when) for when in ("after_clip", "late", "same_tokens")}
    log.claim(
        "logits/held",
        claim="MuonClip: largest S/τ of any head at the step after its clip, worst seed",
        source="K2 report 2.1",
        value=max(log.more["held"]["after_clip"]["worst_by_seed"]),
        floor=1.05,
        at_most=True,
        **common,
    )
    log.claim(
        "logits/held_same_tokens",
        claim="the same on the tokens that triggered the clip, update included",
        source="K2 report 2.1",
        value=max(log.more["held"]["same_tokens"]["worst_by_seed"]),
        floor=1.05,
        at_most=True,
        **common,
    )
    for size in sizes_in(rows):
        hot = [row["peak"] for row in chosen(rows, "hot Muon", size)]
        log.claim(
            f"logits/muon_passes_100_{size}",
            claim=f"plain Muon, hot: smallest peak of any seed ({size})",
            source="K2 report 2.1",
            value=min(hot),
            floor=100.0,
            **common,
        )
        muon, adamw = (chosen(rows + log.more["pair"], arm, size) for arm in ("Muon", "AdamW"))
        pair = common | {"seeds": [row["seed"] for row in muon]}
        found = interval([one["peak"] / other["peak"] for one, other in zip(muon, adamw)])
        log.claim(
            f"logits/muon_over_adamw_{size}",
            claim=f"tuned Muon's peak logit over tuned AdamW's ({size})",
            source="K2 report 2.1 (the article says AdamW's)",
            floor=1.0,
            **found,
            **pair,
        )
        found = interval(harm(muon + adamw, "Muon", "AdamW", size))
        log.claim(
            f"logits/muon_loss_under_adamw_{size}",
            source="Moonlight 3.2",
            floor=0.0,
            at_most=True,
            claim=f"validation loss of tuned Muon minus that of tuned AdamW after the same steps ({size})",
            headline=size == "moe",
            **found,
            **pair,
        )
        quiet = [row for row in chosen(rows, "MuonClip 100", size) if not row["clips"]]
        untouched = [
            abs(d)
            for d, row in zip(harm(rows, "MuonClip 100", "Muon", size), chosen(rows, "MuonClip 100", size))
            if not row["clips"]
        ]
        losses = [row["validation"] for row in chosen(rows, "Muon", size)]
        noise = float(np.std(losses, ddof=1)) if len(seeds) > 1 else 0.0
        if quiet:
            log.claim(
                f"logits/no_harm_{size}",
                claim=f"τ = 100 that never triggers: change of loss ({size})",
                source="K2 report appendix D",
                value=max(untouched),
                floor=noise,
                at_most=True,
                seeds=[row["seed"] for row in quiet],
                **common,
            )
        log.more[f"change_of_loss_{size}"] = (
            {"noise": noise}
            | {
                arm: interval(harm(rows, arm, "hot AdamW" if "AdamW" in arm else "hot Muon", size))
                for arm in ARMS
                if "hot" in arm and "Clip" in arm
            }
            | {"MuonClip 30": interval(harm(rows, "MuonClip 30", "Muon", size))}
        )
    log.more["table"] = table(rows)


def table(rows: list[dict]) -> list[dict]:
    """Means over seeds for every size and arm; what README and notebook print."""
    found = []
    for size in sizes_in(rows):
        for arm in ARMS:
            runs = chosen(rows, arm, size)
            alive = [run for run in runs if run["validation"] is not None]
            found.append(
                {
                    "size": size,
                    "arm": arm,
                    **{key: runs[0][key] for key in ("lr", "table_lr", "decay", "tau")},
                    "peak": mean(runs, "peak"),
                    "validation": mean(alive, "validation") if alive else None,
                    "spikes": mean(runs, "spikes"),
                    "clips": mean(runs, "clips"),
                    "heads": mean(runs, "heads_ever_clipped"),
                    "diverged": len(runs) - len(alive),
                }
            )
    return found


def mean(runs: list[dict], key: str) -> float:
    """Mean of a number over runs."""
    return float(np.mean([run[key] for run in runs]))


# -- figure --------------------------------------------------------------------------------------------


def curves(rows: list[dict], size: str, arms: Iterable[str], key: str) -> dict:
    """name -> (steps, runs) of a curve; a run that ended early shortens its arm."""
    lines = {}
    for arm in arms:
        runs = [row[key] for row in chosen(rows, arm, size)]
        points, group = min(map(len, runs)), chosen(rows, arm, size)[0]["group"]
        shown = [run[:points] if key != "loss" else running_mean(run[:points]) for run in runs]
        lines[arm.removeprefix("hot ")] = (group * np.arange(1, points + 1), shown)
    return lines


def running_mean(values: Sequence[float], width: int = 7) -> np.ndarray:
    """The mean of each value and its neighbours; fewer at both ends."""
    window = np.ones(min(width, len(values)))
    return np.convolve(values, window, "same") / np.convolve(np.ones(len(values)), window, "same")


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
