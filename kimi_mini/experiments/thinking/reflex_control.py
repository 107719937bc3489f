"""Is the thought needed, or was answering at once only trained too little? Two controls at equal tokens.

Both start from the same base checkpoint and read the same number of tokens of chains, and of nothing else:

    reflex     answers at once. One step alone until it is learned; then all lengths, a step more at a time, while one
               step goes on. Only a model that can do one step says anything about several.
    thinking   a thought before the answer, all lengths, beside sheets of single steps

A step is one of 2,200 facts (a number, an operation, an operand): a reflex has them by heart, and so has each step of a
thought. Held-out chains are new as wholes, not their facts. What separates the two is only whether results may be
written down. What this does not show: that no amount of training could do without; a pass through more layers, or more
tokens, would carry a few steps more.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import torch
from matplotlib.figure import Figure

from kimi_mini.agent.folder import load_agent
from kimi_mini.base.command import in_one_line
from kimi_mini.base.evidence import Log
from kimi_mini.base.paths import RUNS, short
from kimi_mini.course.figures import scores
from kimi_mini.experiments.harness import (
    arguments,
    fingerprint,
    finish,
    mean,
    row,
    share_across,
    side_by_side,
)
from kimi_mini.experiments.thinking.shared import NOTEBOOK
from kimi_mini.experiments.verifiers.shared import BASE, pools, success
from kimi_mini.pipeline import finetune
from kimi_mini.pipeline.plan import Finetune, Plan, Schedule
from kimi_mini.pipeline.publish import chain_lengths
from kimi_mini.training.synthesis import Source
from kimi_mini.worlds.registry import trained_levels

TOKENS = 2_000_000
TASKS, TASKS_SEED = 200, 17  # at each length; other tasks than those on which the recipes were chosen
LENGTHS = trained_levels("chain")
DEEP = range(6, 9)  # steps of the chains that count as deep
ARMS = {
    "reflex": (
        (Source("chain", "reflex", 0.3, (1,)), Source("chain", "reflex", 0.7, LENGTHS)),
        Finetune(TOKENS, ramp=(0.4, 0.6), schedule=Schedule(decay_start=0.6)),
    ),
    "thinking": (
        (Source("chain", "think", 0.85, LENGTHS), Source("chain", "sheet", 0.15, (1,))),
        Finetune(TOKENS),
    ),
}
SAYS = {"reflex": "chains answered at once", "thinking": "chains answered after a thought"}


@dataclass(frozen=True)
class Job:
    """One control from one seed; weights: those it starts from. scale: of tokens and of tasks."""

    arm: str
    seed: int
    base: str
    weights: str
    scale: float

    def said(self) -> dict:
        """All that decides its numbers."""
        sources, settings = ARMS[self.arm]
        return asdict(self) | {"recipe": repr((sources, settings, TASKS, TASKS_SEED))}


def main() -> None:
    """Train and measure both controls; write data/results/reflex_control.json and its figure."""
    args = arguments(__doc__.splitlines()[0], base=BASE)
    log = Log("reflex_control", seeds=args.seeds, folder=args.folder)
    start = (str(args.base), fingerprint(args.base), args.scale)
    jobs = [Job(arm, seed, *start) for seed in args.seeds for arm in ARMS]
    for found in side_by_side(jobs, RUNS / f"reflex_control_{args.scale:g}.json", 1, run, log):
        log.row(**found)
    log.more["base"] = short(args.base)
    report(log, max(4, int(TASKS * args.scale)))
    finish(log, reflex_control=draw)


def run(job: Job) -> dict:
    """Train one control and try it on held-out chains of every length: a row of the log."""
    torch.set_num_threads(1)
    model, tokenizer = load_agent(job.base)
    sources, settings = ARMS[job.arm]
    settings = replace(settings, tokens=int(settings.tokens * job.scale))
    examples = pools(tokenizer, sources, settings.tokens, job.seed, mistakes=0.0, passes=3)
    title = f"{job.arm}, seed {job.seed}"
    history = finetune.tune(model, examples, Plan(seed=job.seed, finetune=settings), title=title)
    count, thinking = max(4, int(TASKS * job.scale)), job.arm == "thinking"
    passed = {
        str(length): mean(
            success(model, tokenizer, "chain", [length], count, thinking=thinking, seed=TASKS_SEED)
        )
        for length in LENGTHS
    }
    print(title, " ".join(f"{length}:{value:.2f}" for length, value in passed.items()), flush=True)
    spent = {"tokens": sum(history.tokens), "seconds": round(history.seconds, 1), "loss": history.loss[-1]}
    return {"arm": job.arm, "seed": job.seed, **spent, "success": passed}


def shares(rows: list[dict], arm: str, lengths) -> list[float]:
    """Success of an arm over some lengths, one a seed."""
    own = [row["success"] for row in rows if row["arm"] == arm]
    return [sum(found[str(n)] for n in lengths) / len(lengths) for found in own]


def report(log: Log, tasks: int) -> None:
    """Scoreboard rows of every length and of the long ones, and the claims."""
    board: dict[str, dict] = {}
    for arm in ARMS:

        def entry(lengths, says: str, main: bool = False, arm: str = arm) -> dict:
            values = shares(log.rows, arm, lengths)
            says = f"{SAYS[arm]}, trained on nothing else: {says}"
            return row(values, log.seeds, tasks * len(lengths), says, main) | {"thinking": arm == "thinking"}

        board |= {f"chain/{arm}_control/{n}": entry([n], f"length {n} alone") for n in LENGTHS}
        board[f"chain/{arm}_control"] = entry(LENGTHS, "all lengths", main=True)
        board[f"chain/{arm}_control_6_to_8"] = entry(DEEP, "lengths 6 to 8")
    log.more["scoreboard"] = board

    def claim(name: str, says: str, arm: str, lengths, floor: float, **more) -> None:
        where = {"figure": "figures/reflex_control.png", "notebook": NOTEBOOK}
        found = share_across(shares(log.rows, arm, lengths))
        source = "article (thinking mode beside a reflex mode)"
        log.claim(f"chain/{name}", claim=says, source=source, floor=floor, **found, **where, **more)

    one = board["chain/reflex_control/1"]["value"]
    claim("reflex_one_step", "a reflex trained long enough does one step", "reflex", [1], 0.95)
    says = "six to eight dependent steps are learned with a thought, at equal tokens"
    claim("thinking_control", says, "thinking", DEEP, 0.95)
    says = f"and are not learned without one, by a reflex that does one step (success there: {one:.2f})"
    claim("reflex_control", says, "reflex", DEEP, 0.30, at_most=True)
    says = "the same reflex at two steps (both facts known; a thought does nearly all)"
    claim("reflex_two_steps", says, "reflex", [2], 0.30, at_most=True)


def draw(log: dict) -> Figure:
    """Success against length, of both controls."""
    series = {
        "with a thought": chain_lengths(log["scoreboard"], "thinking_control"),
        "at once, one step learned first": chain_lengths(log["scoreboard"], "reflex_control"),
    }
    title = "Depth, not learning: the same base, the same tokens"
    return scores.accuracy_by_length(series, chance=0.01, xlabel="steps of the chain", title=title)


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
