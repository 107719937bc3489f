"""Refining against writing where nothing but sums and products is learned.

The experiment of five families (`versus`) pays for its breadth. Here the same two models learn add and times alone,
with the same plan of examples, optimizer and steps, and the same measures tell how far the bound is from the loss, and
how many are right in half as many steps as a canvas has tokens.

Equal tokens are not equal seconds: a canvas has more tokens than its turn, so that the one that refines costs more a
step. With its seconds the other would read more. How much better its loss would become need not be trained: no loss is
below 0, so what the bound is above 0 is at least its distance from any writer, whatever that one's seconds. Success at
equal seconds was not measured.

Six trainings, in as many processes as there are cores; each goes on from its last state, and what is measured is kept.
The tokens were 6 million first, with both bars left open by their intervals; 8 are about what half an hour of two quiet
cores has room for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from kimi_mini.base import processes
from kimi_mini.base.command import in_one_line, positive
from kimi_mini.base.evidence import Log, check_plan
from kimi_mini.base.paths import RUNS
from kimi_mini.experiments import harness
from kimi_mini.experiments.diffusion import drawings, measures
from kimi_mini.experiments.diffusion.runs import ARMS, SUMS, Recipe, learned
from kimi_mini.experiments.diffusion.versus import claimed, few_steps, of_style
from kimi_mini.experiments.verifiers.shared import TUNED

RECIPE = Recipe(tokens=8_000_000, families=SUMS)
TASKS, TURNS = 120, 60  # a seed and family: tasks to solve, turns for the bound
FIGURE = "figures/diffusion_sums.png"
RAISED = ", from 8M tokens (raised when what 6M bring had been seen)"


@dataclass(frozen=True)
class Job:
    """One arm in one seed. scale: of tokens and of tasks; folder: where its weights are kept."""

    arm: str
    seed: int
    start: Path = TUNED
    scale: float = 1.0
    folder: Path = RUNS / "diffusion_sums"

    def said(self) -> dict:
        """All that decides its numbers."""
        told = {"arm": self.arm, "seed": self.seed, "scale": self.scale, "tasks": TASKS, "turns": TURNS}
        return told | {"weights": harness.fingerprint(self.start), "recipe": repr(RECIPE)}


def main() -> None:
    """Train and measure every arm in every seed; write data/results/diffusion_sums.json and its figure."""
    parser = harness.common_parser(__doc__.splitlines()[0], base=TUNED)
    parser.add_argument("--processes", type=positive, default=processes.default_count())
    args = harness.read(parser)
    folder = RUNS / f"diffusion_sums_{args.scale:g}"
    recipe = RECIPE.scaled(args.scale)
    check_plan(
        folder, {"recipe": asdict(recipe), "scale": args.scale, "start": harness.fingerprint(args.base)}
    )
    log = Log("diffusion_sums", seeds=args.seeds, folder=args.folder)
    jobs = [Job(arm, seed, args.base, args.scale, folder) for arm in ARMS for seed in args.seeds]
    found = harness.side_by_side(jobs, folder / "measured.json", args.processes, work, log)
    log.more |= {"recipe": asdict(recipe), "parts": joined_by_seed(found)}
    report(log)
    harness.finish(log, diffusion_sums=drawings.sums_alone)


def work(job: Job) -> dict:
    """What one arm has learned in one seed, measured."""
    torch.set_num_threads(1)
    recipe, title = RECIPE.scaled(job.scale), f"{job.arm}, seed {job.seed}"
    model, tokenizer, note = learned(job.arm, job.start, recipe, job.seed, job.folder, title)
    tasks, turns = (max(6, int(count * job.scale)) for count in (TASKS, TURNS))
    spent = {name: note[name] for name in ("tokens", "examples", "processor_seconds")}
    found = {"arm": job.arm, "seed": job.seed, "training": spent}
    if job.arm == "refining":
        styles = dict.fromkeys(SUMS, measures.FEW)
        found["nats"] = measures.bounds(model, tokenizer, SUMS, turns, job.seed)
        found["styles"] = measures.in_styles(model, tokenizer, styles, tasks, job.seed)
    else:
        found["nats"] = measures.losses(model, tokenizer, SUMS, turns, job.seed)
        found["success"] = measures.written(model, tokenizer, tasks, job.seed, SUMS)
    rates = {row["style"]: of_style(found, row["style"]) for row in found.get("styles", ())}
    print(f"{title}: {spent} {found['nats']} {rates or found['success']}", flush=True)
    return found


def joined_by_seed(found: Sequence[dict]) -> list[dict]:
    """Both arms of each seed together."""
    refining, writing = ([one for one in found if one["arm"] == arm] for arm in ARMS)
    return [joined(*pair) for pair in zip(refining, writing, strict=True)]


def joined(refining: dict, writing: dict) -> dict:
    """Both arms of a seed, as `versus` has its parts."""
    nats = {name: {"bound": refining["nats"][name], "loss": writing["nats"][name]} for name in SUMS}
    training = {arm: one["training"] for arm, one in zip(ARMS, (refining, writing))}
    part = {"seed": refining["seed"], "training": training, "nats": nats, "styles": refining["styles"]}
    return part | {"writing": writing["success"]}


def above(part: dict, writer: bool = True) -> float:
    """The bound less the loss of the one that writes, nats a token; without `writer`, less nothing."""
    return float(np.mean([n["bound"] - (n["loss"] if writer else 0) for n in part["nats"].values()]))


def report(log: Log) -> None:
    """Rows and claims from the parts of the log."""
    for part in log.more["parts"]:
        seed = part["seed"]
        log.rows += [{"seed": seed, "arm": "refining", **row} for row in part["styles"]]
        log.rows += [
            {"seed": seed, "arm": "writing", "family": name, "success": rate}
            for name, rate in part["writing"].items()
        ]
    claims(partial(claimed, log))


def claims(claim: Callable[..., None]) -> None:
    """The bound at equal tokens and at equal seconds, and success in few steps."""
    near = dict(at_most=True, figure=FIGURE, source="LLaDA (arXiv 2502.09992), likelihoods")
    claim(
        "sums/bound",
        "sums and products alone: the bound is within 0.15 nats a token of the loss of a writer of equal tokens"
        + RAISED,
        0.15,
        above,
        **near,
    )
    claim(
        "sums/bound_at_equal_seconds",
        "sums and products alone: it is within 0.15 nats of any writer, also one of equal processor seconds (derived:"
        " the writer's loss is taken as 0; success at equal seconds was not measured)" + RAISED,
        0.15,
        partial(above, writer=False),
        **near,
    )
    few_steps(claim, "sums/", f", learned alone{RAISED},", FIGURE)


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
