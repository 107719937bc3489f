"""The whole of `make run` three times, only the seed differs: which rows belong to the recipe, and which to luck?

The seed decides weights, drills, order of the text, trajectories, RL's tasks; the held-out tasks are the same for all:
those of the scoreboard, and the mini benchmarks that the agent of a run is meant for and taught in it. Seed 0 is the
run that is shipped, read from data/results/run.json and suite.json. Each other one is trained in
data/run/seeds/SEED by the stages of `make run` (twenty-five minutes each), and may be stopped and gone on with.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from kimi_mini.agent.folder import load_agent
from kimi_mini.base import paths
from kimi_mini.base.command import in_one_line
from kimi_mini.base.errors import KimiError
from kimi_mini.base.evidence import Log
from kimi_mini.base.files import read_json
from kimi_mini.base.intervals import difference
from kimi_mini.base.paths import RESULTS
from kimi_mini.course.figures import style
from kimi_mini.evaluation.benchmarks import BENCHMARKS, measured
from kimi_mini.evaluation.benchmarks.suite import Way
from kimi_mini.evaluation.scoreboard import ROWS
from kimi_mini.experiments import harness
from kimi_mini.experiments.harness import arguments

RUNS = paths.RUNS / "seeds"
# at the edge of training, or past it
UNSURE = ("chain/beyond/9", "shop/follow_practised/8", "shop/follow_beyond/12")
SUITE = [  # benchmarks of which a run teaches some part
    one
    for one in BENCHMARKS.values()
    if one.agent == "final" and any(part.floor is not None and part.taught is None for part in one.parts)
]


class Floor(NamedTuple):
    """What is asked, and how much of it is to be done."""

    says: str
    floor: float


FLOORS = {row.name: Floor(row.says, row.floor) for row in ROWS if row.floor is not None} | {
    f"suite/{one.name}/{part.name}": Floor(f"{one.title}, {part.name}", part.floor)
    for one in SUITE
    for part in one.parts
    if part.floor is not None and part.taught is None
}
MAIN = [row.name for row in ROWS if row.main] + [name for name in FLOORS if name.startswith("suite/")]
KEPT = ("value", "low", "high", "n")
SHIPPED = (0, 1)  # seed and scale
SPREAD = 0.1  # at most, or the row is luck
NOTEBOOK = "00_kimi_k2_on_one_page.ipynb"


def main() -> None:
    """Train what is not there yet; write data/results/other_seeds.json and its figure."""
    args = arguments(__doc__.splitlines()[0])
    log = Log("other_seeds", seeds=args.seeds, folder=args.folder, seconds=0.0, stages={}, rounds={})
    for seed in args.seeds:
        run = run_of(seed, args.scale)
        for name, entry in (run["scoreboard"] | suite_of(log, seed, args.scale)).items():
            log.row(seed=seed, name=name, **{key: entry[key] for key in KEPT})
        log.more["stages"][seed] = run["stages"]
        log.more["seconds"] = round(log.more["seconds"] + run["total_seconds"], 1)
        log.more["rounds"][seed] = [{key: r[key] for key in ("success", "reward")} for r in run["rounds"]]
    report(log)
    harness.finish(log, other_seeds=draw)


def run_of(seed: int, scale: float) -> dict:
    """The log of a whole run with that seed: the shipped one, or one trained now in a folder of its own."""
    if (seed, scale) == SHIPPED and (RESULTS / "run.json").is_file():
        return read_json(RESULTS / "run.json")
    train(seed, scale, folder_of(seed, scale))
    return read_json(folder_of(seed, scale) / "run.json")


def folder_of(seed: int, scale: float) -> Path:
    """Where a whole run with that seed is kept."""
    return RUNS / (f"{seed}" if scale == 1 else f"{seed}-{scale:g}")


def suite_of(log: Log, seed: int, scale: float) -> dict[str, dict]:
    """What the agent of a run makes of the mini benchmarks: rows named suite/BENCHMARK/PART."""
    if (seed, scale) == SHIPPED and (RESULTS / "suite.json").is_file():
        rows = read_json(RESULTS / "suite.json")["rows"]
        found = {row["part"]: row for row in rows if row["arm"] == "final"}
    else:
        found, folder, most = {}, folder_of(seed, scale), None if scale >= 1 else max(4, int(200 * scale))
        for one in SUITE:
            agent = load_agent(folder / "checkpoints" / "final")
            found |= log.part(folder / f"{one.name}.json", partial(measured, *agent, one, most, Way()))
    return {
        f"suite/{part}": entry
        for part, entry in found.items()
        if part.split("/")[0] in {one.name for one in SUITE}
    }


def train(seed: int, scale: float, folder: Path) -> None:
    """`python -m kimi_mini run` with that seed, on all cores. KimiError when it does not come to its end."""
    words = ("run", "--seed", seed, "--scale", scale, "--folder", folder)
    if subprocess.run([sys.executable, "-m", "kimi_mini", *map(str, words)], check=False).returncode:
        raise KimiError(f"the run of seed {seed} has not ended: the same command goes on with it")


def found_at(rows: Sequence[dict], name: str) -> list[dict]:
    """A row of the scoreboard at every seed, worst first."""
    return sorted((row for row in rows if row["name"] == name), key=lambda row: row["value"])


def report(log: Log) -> None:
    """A claim for every row with a floor, on its worst seed, with the interval of that run's tasks; and how far apart
    the seeds are past training."""
    common = {"source": "this project", "figure": "figures/other_seeds.png", "notebook": NOTEBOOK}
    for name, row in FLOORS.items():
        worst, *others = found_at(log.rows, name)
        claim = f"worst of {1 + len(others)} whole runs: {row.says}"
        measured = {key: worst[key] for key in ("value", "low", "high")}
        log.claim(f"seeds/{name}", claim=claim, floor=row.floor, **measured, **common)
    for name in UNSURE:
        worst, *others = found_at(log.rows, name)
        claim = f"largest minus smallest of {1 + len(others)} whole runs, at the edge of training: {name}"
        pairs = [(round(row["value"] * row["n"]), row["n"]) for row in (others[-1], worst)]
        spread = dict(zip(("value", "low", "high"), difference(*pairs)))
        log.claim(f"seeds/{name}", claim=claim, floor=SPREAD, at_most=True, **spread, **common)


@style.styled
def draw(log: dict) -> Figure:
    """A line a row, a dot a seed; floors in red."""
    names = [name for name in dict.fromkeys(row["name"] for row in log["rows"]) if name in (*MAIN, *UNSURE)]
    fig, axes = style.figure(10, 0.34 * len(names) + 1.6)
    ax, spread = axes[0, 0], np.linspace(-0.2, 0.2, len(log["seeds"]))
    for seed, shift, colour in zip(log["seeds"], spread, style.PALETTE):
        found = {row["name"]: row["value"] for row in log["rows"] if row["seed"] == seed}
        ax.plot(
            [found[name] for name in names],
            np.arange(len(names)) + shift,
            "o",
            color=colour,
            label=f"seed {seed}",
        )
    for place, name in enumerate(names):
        if name in FLOORS:
            ax.plot([FLOORS[name].floor] * 2, [place - 0.4, place + 0.4], color=style.RED, linewidth=3)
    ax.set(
        yticks=range(len(names)),
        yticklabels=names,
        xlim=(-0.03, 1.03),
        xlabel="held-out success",
        title="Whole runs that differ in their seed (red: floor)",
    )
    ax.invert_yaxis()
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return fig


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
