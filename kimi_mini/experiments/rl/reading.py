"""Does RL on trained surfaces cost reading? The agent that reads, before and after joint RL on forms it was shown.

    python -m kimi_mini.experiments.rl.reading

RL has chains, sums and repairs, with PTX on examples of all worlds. An earlier agent solved about half of them; today's
solves nearly all, so that the bar of ten points more is out of its reach. Measured greedily on the same held-out tasks
before and after: these families, and every row of surfaces, errors and kinds of task that no training holds.
"""

from __future__ import annotations

from functools import cache
from statistics import fmean

import torch
from matplotlib.figure import Figure

from kimi_mini.agent.folder import load_agent
from kimi_mini.base.command import in_one_line
from kimi_mini.base.evidence import Log
from kimi_mini.base.intervals import wilson
from kimi_mini.base.paths import CHECKPOINTS, RUNS
from kimi_mini.course.figures import scores
from kimi_mini.evaluation import scoreboard
from kimi_mini.experiments.harness import SEEN, across, entry, fingerprint, finish, gap, read, side_by_side
from kimi_mini.experiments.rl import safeguards, shared
from kimi_mini.experiments.rl.shared import Job
from kimi_mini.experiments.verifiers.generality import ROWS
from kimi_mini.experiments.verifiers.shared import pools
from kimi_mini.model.kimi import KimiMini
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training import sft, synthesis
from kimi_mini.training.rl.config import RLConfig
from kimi_mini.worlds.registry import held_out_tasks
from kimi_mini.worlds.rows import LIMITS

READER = CHECKPOINTS / "reader"
TRAINED: dict[str, tuple[int, ...]] = {
    "chain": (1, 2, 3, 4),
    "add": (2, 3),
    "times": (2, 3),
    "repair": (2, 3, 4),
}
CONFIG = RLConfig(
    tasks=tuple((family, level) for family, levels in TRAINED.items() for level in levels),
    prioritised=True,
    rounds=20,
    ptx_tokens=2048,
    least_moderate=0.0,
    limits=LIMITS,
)
BEFORE, AFTER = "before", "after"
PTX_POOL, PLAIN = 200_000, 0.2  # tokens; the share of forms that are always the same, as in its fine-tuning
TASKS = 24  # a row, and a family
SAYS = {"trained": "the families that RL has", "reading": "mean of the rows that no training holds"}


@cache
def ptx_pools(tokens: int) -> sft.Pools:
    """Examples of all worlds that passed; made once a process."""
    return pools(Tokenizer.load(), synthesis.mixture(PLAIN), tokens, 100, mistakes=0.0)


def measure(model: KimiMini, tokenizer: Tokenizer, count: int) -> dict:
    """Greedy success of each family and row, and the means of both kinds."""
    found: dict = {}
    asked = {family: (family, levels, LIMITS) for family, levels in TRAINED.items()}
    asked |= {one.name: (one.family, one.levels, one.limits) for one in ROWS}
    for name, (family, levels, limits) in asked.items():
        done = scoreboard.solve(model, tokenizer, held_out_tasks(family, list(levels), count, 0), limits)
        found[name] = fmean(conversation.verdict().passed for conversation in done)
        shared.close([done])
    found["trained"] = fmean(found[family] for family in TRAINED)
    found["reading"] = fmean(found[one.name] for one in ROWS)
    return found


def work(job: Job) -> dict:
    """One run and its measures; without rounds, the agent as it is."""
    torch.set_num_threads(1)
    model, tokenizer = load_agent(job.start)
    told: dict = {"arm": job.arm, "seed": job.seed}
    if job.arm == AFTER:
        model, rounds = shared.reinforced(model, tokenizer, job.config, job.seed, ptx_pools(PTX_POOL))
        told["rounds"] = shared.curves(rounds)
    return told | measure(model, tokenizer, job.tasks)


def main() -> None:
    """Measure, reinforce from every seed, measure again; write data/results/rl_reading.json."""
    options = safeguards.parser(__doc__.splitlines()[0])
    options.set_defaults(start=READER)
    args = read(options)
    tasks = max(4, int(TASKS * args.scale))
    told = {"config": str(CONFIG), "weights": fingerprint(args.start)}
    log = Log("rl_reading", seeds=args.seeds, folder=args.folder, **told)
    config = safeguards.scaled(CONFIG, args.scale)
    jobs = [Job(BEFORE, 0, config, tasks, args.start)]
    jobs += [Job(AFTER, seed, config, tasks, args.start) for seed in args.seeds]
    kept = RUNS / f"rl_reading_{args.scale:g}.json"
    for told in side_by_side(jobs, kept, args.processes, work, log):
        log.row(**told)
        print(
            f"{told['arm']:12s} seed {told['seed']}", *(f"{key} {told[key]:.3f}" for key in SAYS), flush=True
        )
    report(log, tasks)
    finish(log, rl_reading=draw)


def report(log: Log, tasks: int) -> None:
    """What RL won on what it has, and lost elsewhere. A log without `weights` is of an agent that was replaced."""
    before, *after = log.rows
    whose = (
        f"the agent that reads ({log.more['weights']})"
        if "weights" in log.more
        else "an earlier agent that reads"
    )
    board: dict = {}
    for name in (*SAYS, *TRAINED, *(one.name for one in ROWS)):
        change = [told[name] - before[name] for told in after]
        board[f"after - before/{name}"] = gap(
            change, log.seeds, tasks, f"{name}: after - before", name in SAYS
        )
    for name in (*TRAINED, *(one.name for one in ROWS)):
        low, high = wilson(round(before[name] * tasks), tasks)
        board[f"before/{name}"] = entry(before[name], low, high, tasks, [0], f"{name}: before RL")
    log.more["scoreboard"] = board
    for name, floor, source in (
        ("trained", 0.1, "K2 report 3.2"),
        ("reading", -0.02, "K2 report 3.2.3 (PTX)"),
    ):
        log.claim(
            f"rl/{name}",
            claim=f"joint RL of {whose}, with PTX: {SAYS[name]}, after - before",
            source=source,
            floor=floor,
            figure="figures/rl_reading.png",
            notebook="07_joint_reinforcement_learning.ipynb",
            **across([told[name] - before[name] for told in after]),
        )
    worst = min((one.name for one in ROWS), key=lambda name: board[f"after - before/{name}"]["value"])
    log.claim(
        "rl/reading/worst",
        claim=f"joint RL of {whose}, with PTX: the row that loses most ({worst}), after - before{SEEN}",
        source="K2 report 3.2.3 (PTX)",
        floor=-0.02,
        figure="figures/rl_reading.png",
        notebook="07_joint_reinforcement_learning.ipynb",
        **across([told[worst] - before[worst] for told in after]),
    )


def draw(log: dict) -> Figure:
    """The change of every row."""
    shown = {name: one for name, one in log["scoreboard"].items() if one.get("gap")}
    return scores.scoreboard(shown, title="The agent that reads: after joint RL - before")


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
