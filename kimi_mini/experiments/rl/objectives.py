"""The losses of `training.rl.objective` on the same tasks, each at its own rate; and Muon against AdamW.

    python -m kimi_mini.experiments.rl.objectives

Every loss has three rates with one seed, which is none of those that are reported; the best of them, by held-out tasks
that are not those of the report, either, is run from three seeds fixed before. Everything else is equal: start, tasks,
attempts, updates; without PTX and the other safeguards, so that losses alone differ. Muon and AdamW optimise K2.5's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import torch
from matplotlib.figure import Figure

from kimi_mini.agent.folder import load_agent
from kimi_mini.base.command import in_one_line
from kimi_mini.base.evidence import Log
from kimi_mini.base.paths import RUNS
from kimi_mini.course.figures import rl as figures
from kimi_mini.experiments.harness import across, finish, mean, read, side_by_side
from kimi_mini.experiments.rl.safeguards import parser, scaled, sorted_rows
from kimi_mini.experiments.rl.shared import LIMITS, Job, attempts_at, close, curves, reinforced
from kimi_mini.model.kimi import KimiMini
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training.rl.config import OBJECTIVES, RLConfig

FAMILY, LEVELS = "follow", (8, 9)
CONFIG = RLConfig(
    tasks=tuple((FAMILY, level) for level in LEVELS),
    rounds=10,
    prompts=8,
    temperature=(1.0, 1.0),
    ptx=0.0,
    reward=(("verdict", 1.0),),
    least_moderate=0.0,
    limits=LIMITS,
)
RATES = (2e-4, 6e-4, 2e-3)  # of Muon; those of AdamW beside it are TABLES times as large
TABLES = 0.4
ADAMW = "k2.5, AdamW"
ADAMW_RATES = (1e-4, 3e-4, 1e-3)
ARMS = (*OBJECTIVES, ADAMW)
SEARCH_SEED, SEARCH_TASKS = 100, 1  # of the run; of its held-out tasks
TASKS, ATTEMPTS = 40, 4


def job(arm: str, rate: float, seed: int, tasks: int, scale: float, start: Path) -> Job:
    """The run of a loss at a rate."""
    with_adamw = arm == ADAMW
    rates = {"adamw_lr": rate} if with_adamw else {"lr": rate, "adamw_lr": TABLES * rate}
    config = replace(scaled(CONFIG, scale), objective=arm.partition(",")[0], **rates)
    return Job(arm, seed, config, tasks, start, "adamw" if with_adamw else "muonclip")


def measure(model: KimiMini, tokenizer: Tokenizer, tasks: int, seed: int = 0) -> float:
    """Success as sampled on held-out tasks."""
    groups = attempts_at(model, tokenizer, FAMILY, LEVELS, tasks, attempts=ATTEMPTS, seed=seed)
    passed = [[c.verdict().passed for c in group] for group in groups]
    close(groups)
    return mean(passed)


def run(job: Job) -> dict:
    """One run: its curves, and success on held-out tasks, in a search on others than in the report."""
    torch.set_num_threads(1)
    start, tokenizer = load_agent(job.start)
    model, rounds = reinforced(start, tokenizer, job.config, job.seed, {}, job.optimizer)
    found = measure(model, tokenizer, job.tasks, SEARCH_TASKS if job.seed == SEARCH_SEED else 0)
    rate = job.config.adamw_lr if job.optimizer == "adamw" else job.config.lr
    return {"arm": job.arm, "rate": rate, "seed": job.seed, "success": found, "rounds": curves(rounds)}


def best(rows: Sequence[dict]) -> dict[str, float]:
    """Of each arm the rate with the highest success in the search; the smaller one of two that are equal."""
    return {
        arm: max(
            (row for row in rows if row["arm"] == arm and row["seed"] == SEARCH_SEED),
            key=lambda row: (row["success"], -row["rate"]),
        )["rate"]
        for arm in ARMS
    }


def main() -> None:
    """Search the rates, run every arm from every seed; write data/results/rl_objectives.json."""
    options = parser(__doc__.splitlines()[0])
    args = read(options)
    if SEARCH_SEED in args.seeds:
        options.error(f"--seeds: {SEARCH_SEED} is that of the search for rates")
    tasks, kept = max(4, int(TASKS * args.scale)), RUNS / f"rl_objectives_{args.scale:g}.json"
    log = Log("rl_objectives", seeds=args.seeds, folder=args.folder, config=str(CONFIG))
    model, tokenizer = load_agent(args.start)
    log.row(arm="before", seed=None, success=measure(model, tokenizer, tasks))
    settings = (tasks, args.scale, args.start)
    search = [
        job(arm, rate, SEARCH_SEED, *settings)
        for arm in ARMS
        for rate in (ADAMW_RATES if arm == ADAMW else RATES)
    ]
    found = side_by_side(search, kept, args.processes, run, log)
    rates = log.more["rates"] = best(found)
    reported = [job(arm, rates[arm], seed, *settings) for seed in args.seeds for arm in ARMS]
    for row in (*found, *side_by_side(reported, kept, args.processes, run, log)):
        log.row(**row)
        print(
            f"{row['arm']:12s} rate {row['rate']:.0e} seed {row['seed']:3d}  {row['success']:.3f}", flush=True
        )
    report(log)
    finish(log, rl_objectives=draw)


def reported(rows: Sequence[dict], arm: str) -> list[dict]:
    """The rows of an arm from the seeds of the report."""
    return [row for row in sorted_rows(rows, arm) if row["seed"] != SEARCH_SEED]


CLAIMS = {  # name -> the better arm, the other, what is said, who says it
    "baseline": (
        "rloo",
        "reinforce",
        "a baseline from the other attempts helps REINFORCE",
        "arXiv 2402.14740",
    ),
    "std": ("dr_grpo", "grpo", "no division by the standard deviation and by lengths", "arXiv 2503.20783"),
    "sequence": ("gspo", "grpo", "one ratio an attempt in place of one a token", "arXiv 2507.18071"),
    "cispo": ("cispo", "grpo", "cutting the weight in place of the gradient", "arXiv 2506.13585"),
    "k2": ("k2", "grpo", "K2's square over whole attempts against GRPO", "K2 report 3.2.3"),
    "k2.5": ("k2.5", "k2", "tokens with a mask against whole attempts", "K2.5 report, Eq. 1"),
    "muon": (
        "k2.5",
        ADAMW,
        "Muon against AdamW as optimizer of RL, both at their best rate",
        "K2 report 3.2.3",
    ),
}


def report(log: Log) -> None:
    """The differences over seeds that the sources speak of."""
    place = {"figure": "figures/rl_objectives.png", "notebook": "07_joint_reinforcement_learning.ipynb"}
    for name, (one, other, says, source) in CLAIMS.items():
        pairs = zip(reported(log.rows, one), reported(log.rows, other), strict=True)
        gain = across([a["success"] - b["success"] for a, b in pairs])
        claim = f"{says}: success of {one} - {other}"
        log.claim(f"objectives/{name}", claim=claim, source=source, floor=0.0, **gain, **place)


def draw(log: dict) -> Figure:
    """Success of every arm at its rate, a dot a seed, and the rates that were tried."""
    rows: list[dict] = log["rows"]
    tried: dict[str, Mapping[float, float]] = {
        arm: {row["rate"]: row["success"] for row in sorted_rows(rows, arm) if row["seed"] == SEARCH_SEED}
        for arm in ARMS
    }
    seeds = {arm: [row["success"] for row in reported(rows, arm)] for arm in ARMS}
    before = fmean(row["success"] for row in sorted_rows(rows, "before"))
    return figures.objectives(seeds, tried, log["rates"], before, "The same tasks, each loss at its own rate")


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
