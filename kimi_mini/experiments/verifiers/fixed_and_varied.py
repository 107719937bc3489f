"""Varied synthesis against fixed synthesis at equal tokens: what does a change of surface do to each?

    python -m kimi_mini.experiments.verifiers.fixed_and_varied

From the same base checkpoint two agents are fine-tuned on the same number of tokens: one on the errands of world
`shop`, whose sentences, tools and formats are always the same, one on world `desk`, which draws them anew for every
trajectory. Both are measured on the generality rows of the desk, and on the errands that the fixed one was trained on.
"""

from __future__ import annotations

import copy

from kimi_mini.agent.folder import load_agent
from kimi_mini.base.command import in_one_line
from kimi_mini.base.evidence import Log
from kimi_mini.evaluation import scoreboard
from kimi_mini.experiments.harness import arguments, finish, gap, row
from kimi_mini.experiments.verifiers.shared import BASE, board, pools, tune
from kimi_mini.model.kimi import KimiMini
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training.synthesis import SOURCES, VARIED, Source
from kimi_mini.worlds import FAMILIES, WORLDS, registry

TOKENS, TASKS = 4_000_000, 48
MISTAKES = 0.15
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


def sources(world: str) -> list[Source]:
    """The thinking sources of one world, their shares as in the run."""
    return [
        source
        for source in (*SOURCES, *VARIED)
        if source.mode == "think" and FAMILIES[source.family].world == world
    ]


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
    args = arguments(__doc__.splitlines()[0], base=BASE)
    tokens, tasks = int(TOKENS * args.scale), max(4, int(TASKS * args.scale))
    log = Log("fixed_and_varied", seeds=args.seeds, folder=args.folder)
    start, tokenizer = load_agent(args.base)
    found: dict[str, list[dict[str, float]]] = {arm: [] for arm in ARMS}
    for seed in args.seeds:
        for arm, world in ARMS.items():
            model = copy.deepcopy(start)
            examples = pools(tokenizer, sources(world), tokens, seed, MISTAKES)
            history = tune(model, examples, tokens, seed, title=f"{arm} {seed}")
            found[arm].append(measure(model, tokenizer, tasks))
            log.row(seed=seed, arm=arm, tokens=sum(history.tokens), **found[arm][-1])
            print(f"seed {seed} {arm:7s} general {found[arm][-1]['general']:.3f}", flush=True)
            log.save()
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
        **says,
    )


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
