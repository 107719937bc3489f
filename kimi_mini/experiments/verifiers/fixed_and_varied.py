"""Varied synthesis against fixed synthesis at equal tokens: what does a change of surface do to each?

    python -m kimi_mini.experiments.verifiers.fixed_and_varied

From the same weights two agents are fine-tuned on the same number of tokens, as the agent that reads is: one on the
errands of world `shop`, whose sentences, tools and formats are always the same, one on world `desk`, which draws them
anew for every trajectory. The weights come from the reader's own drills and real text, in which both learn to look up
any token. Both are measured on the generality rows of the desk, and on the errands that the fixed one was trained on.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from kimi_mini.agent.folder import load_agent
from kimi_mini.base import processes
from kimi_mini.base.command import in_one_line, positive
from kimi_mini.base.evidence import Log
from kimi_mini.base.paths import RUNS
from kimi_mini.evaluation import scoreboard
from kimi_mini.experiments.harness import common_parser, fingerprint, finish, gap, read, row, side_by_side
from kimi_mini.experiments.verifiers.shared import board
from kimi_mini.model.kimi import KimiMini
from kimi_mini.pipeline import finetune, text
from kimi_mini.pipeline.plan import Plan, Run
from kimi_mini.pipeline.synthesise import trajectories
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training import sft, synthesis
from kimi_mini.training.synthesis import SOURCES, VARIED, Source
from kimi_mini.worlds import FAMILIES, WORLDS, registry

TOKENS, TASKS = 4_000_000, 48
GENERAL = (
    "names",
    "wordings",
    "systems",
    "formats",
    "distractors",
    "renamed",
    "domains",
    "errors",
    "missing",
    "refuse",
)
ARMS = {"fixed": "shop", "varied": "desk"}
FLOOR = 0.5  # the gap that varied synthesis has to be worth


@dataclass(frozen=True)
class Job:
    """One agent to fine-tune and measure."""

    arm: str
    seed: int
    tokens: int
    tasks: int
    start: Path

    def said(self) -> dict:
        """All that decides its numbers."""
        return asdict(self) | {"start": self.start.name, "weights": fingerprint(self.start)}


def base(scale: float) -> Path:
    """The checkpoint that both arms start from: the first two stages of the reader's plan, made once."""
    run = Run(RUNS / f"fixed_and_varied_{scale:g}", Plan.reader().scaled(scale))
    if not (run.folder / "checkpoints" / "base" / "model.safetensors").is_file():
        text.drill(run)
        text.pretrain(run)
    return run.folder / "checkpoints" / "base"


def sources(world: str) -> list[Source]:
    """The thinking sources of one world: shares as in the run, together 1."""
    found = [
        one for one in (*SOURCES, *VARIED) if one.mode == "think" and FAMILIES[one.family].world == world
    ]
    whole = sum(one.share for one in found)
    return [replace(one, share=one.share / whole) for one in found]


def tuned(job: Job) -> tuple[KimiMini, Tokenizer, int]:
    """The agent of an arm, and how many tokens it was tuned on."""
    reader = Plan.reader(seed=job.seed)
    plan = replace(reader, finetune=replace(reader.finetune, tokens=job.tokens))
    model, tokenizer = load_agent(job.start)
    made = trajectories(plan, sources(ARMS[job.arm]), job.tokens, job.seed)
    examples = sft.pools_of({source: synthesis.passed_only(items) for source, items in made.items()})
    history = finetune.tune(model, examples, plan, title=f"{job.arm} {job.seed}")
    return model, tokenizer, sum(history.tokens)


def work(job: Job) -> dict:
    """A row of the log."""
    torch.set_num_threads(1)
    model, tokenizer, tokens = tuned(job)
    return {"seed": job.seed, "arm": job.arm, "tokens": tokens, **measure(model, tokenizer, job.tasks)}


def measure(model: KimiMini, tokenizer: Tokenizer, count: int) -> dict[str, float]:
    """Greedy success on every generality row and on the shop's errands; the same tasks for all."""
    found = {}
    for name in (*GENERAL, *WORLDS["shop"].families):
        limits = next(row.limits for row in (*scoreboard.ROWS, *scoreboard.VARIED) if row.family == name)
        tasks = registry.held_out_tasks(name, FAMILIES[name].measured, count, 0)
        done = scoreboard.solve(model, tokenizer, tasks, limits)
        found[name] = sum(conversation.verdict().passed for conversation in done) / len(done)
    return found | {
        "general": sum(found[name] for name in GENERAL) / len(GENERAL),
        "errands": sum(found[name] for name in WORLDS["shop"].families) / len(WORLDS["shop"].families),
    }


def main() -> None:
    """Fine-tune both arms from every seed; write data/results/fixed_and_varied.json."""
    parser = common_parser(__doc__.splitlines()[0])
    parser.add_argument(
        "--processes", type=positive, default=processes.default_count(), help="runs side by side"
    )
    args = read(parser)
    tokens, tasks = int(TOKENS * args.scale), max(4, int(TASKS * args.scale))
    log, start = Log("fixed_and_varied", seeds=args.seeds, folder=args.folder), base(args.scale)
    jobs = [Job(arm, seed, tokens, tasks, start) for seed in args.seeds for arm in ARMS]
    for told in side_by_side(jobs, start.parents[1] / "rows.json", args.processes, work, log):
        log.row(**told)
        print(f"seed {told['seed']} {told['arm']:7s} general {told['general']:.3f}", flush=True)
    found = {arm: [told for told in log.rows if told["arm"] == arm] for arm in ARMS}
    report(log, found, args.seeds, tasks)
    finish(
        log, fixed_and_varied=board("The same tokens: one form learned by heart, or every form drawn anew")
    )


def report(log: Log, found: dict[str, list[dict]], seeds: list[int], tasks: int) -> None:
    """Both arms row by row, and the gap of their means."""
    gaps = [varied["general"] - fixed["general"] for fixed, varied in zip(*(found[arm] for arm in ARMS))]
    rows = {
        f"{arm}/{name}": row([one[name] for one in found[arm]], seeds, tasks, name)
        for arm in ARMS
        for name in (*GENERAL, "errands")
    }
    rows["gap/general"] = gap(
        gaps, seeds, tasks * len(GENERAL), "varied - fixed, mean of the generality rows"
    )
    log.more["scoreboard"] = rows
    says = {key: rows["gap/general"][key] for key in ("value", "low", "high")}
    log.claim(
        "reading/varied against fixed",
        claim="varied synthesis is worth 50 points of the mean generality row at equal tokens",
        source="this project",
        floor=FLOOR,
        figure="figures/fixed_and_varied.png",
        notebook="06_the_verifier_economy.ipynb",
        **says,
    )


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
