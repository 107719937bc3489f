"""Reward landscapes: what RL makes of a model that refines and of one that writes from left to right.

Both have the same size, learned the same short texts (see `texts`), which keep each of three constraints only in part,
and get the same rollouts and the same reward: the share of constraints that a text keeps. What is kept before and
after, against KL to the start; and what is kept when two tokens at the end, the checksum and the second colour, are
*given*: from left to right they are not seen until it is too late, on a canvas they are.
"""

from __future__ import annotations

import copy
from pathlib import Path

from kimi_mini.base.command import in_one_line
from kimi_mini.base.evidence import Log
from kimi_mini.base.paths import RUNS
from kimi_mini.experiments.diffusion import drawings, texts
from kimi_mini.experiments.harness import across, arguments, finish
from kimi_mini.training.diffusion.estimators import by_steps

REFINING, WRITING = "refining", "left to right"
WAYS = {REFINING: texts.refining_by(by_steps), WRITING: texts.WRITING}
STRETCHES, ROUNDS, TASKS = (
    4,
    20,
    30,
)  # measured after every stretch of so many rounds; contexts of a measurement
WHERE = dict(notebook="11_diffusion.ipynb", figure="figures/diffusion_landscape.png")
SOURCE = "article (outlook: diffusion and RL, reward landscapes)"


def main() -> None:
    """Train both, reinforce both; write data/results/diffusion_landscape.json."""
    args = arguments(__doc__.splitlines()[0])
    log = Log("diffusion_landscape", seeds=args.seeds, folder=args.folder)
    rounds, tasks = max(2, int(ROUNDS * args.scale)), max(4, int(TASKS * args.scale))
    for seed in args.seeds:
        for name in WAYS:
            log.row(**arm(log, name, seed, rounds, tasks, max(20, int(texts.STEPS * args.scale))))
    report(log)
    finish(log, diffusion_landscape=drawings.landscape)


def arm(log: Log, name: str, seed: int, rounds: int, tasks: int, steps: int) -> dict:
    """One model: what it keeps before RL and after each stretch of it. Read, if it has been run already."""
    folder = RUNS / "diffusion_texts"
    file = folder / f"landscape_{name.replace(' ', '_')}_{seed}_{rounds}_{tasks}_{steps}.json"
    return log.part(file, lambda: reinforced(name, seed, rounds, tasks, steps, folder))


def reinforced(name: str, seed: int, rounds: int, tasks: int, steps: int, folder: Path) -> dict:
    """One model, learned and run now; what `folder` holds of it is read."""
    begun, way = texts.start(name == REFINING, seed, steps, folder), WAYS[name]
    model = copy.deepcopy(begun)
    found = [texts.measured(begun, begun, way, texts.KINDS, seed, tasks)]
    for stretch in range(STRETCHES):
        texts.by_rl(model, way, rounds, 100 * seed + stretch, texts.KINDS, share=True)
        found.append(texts.measured(model, begun, way, texts.KINDS, seed, tasks))
        print(f"seed {seed} {name:13s} all three kept {found[-1]['kept']['all']:.2f}", flush=True)
    return dict(name=name, seed=seed, rollouts=rounds * texts.TASKS * texts.GROUP, stretches=found)


def difference(log: Log, value) -> dict:
    """The refining model less the other, seed by seed, with its interval."""
    one, other = ([value(row["stretches"]) for row in log.rows if row["name"] == name] for name in WAYS)
    return across([a - b for a, b in zip(one, other)])


def report(log: Log) -> None:
    """The claims: each constraint, all of them, what is given, and how far the policies went."""
    for kind in (*texts.KINDS, "all"):
        what = "all three constraints" if kind == "all" else f"the constraint {kind!r}"
        log.claim(
            f"diffusion/landscape/{kind}",
            claim=f"after the same RL the refining model keeps {what} more often than from left to right (difference)",
            source=SOURCE,
            floor=0.0,
            **difference(log, lambda found, kind=kind: found[-1]["kept"][kind]),
            **WHERE,
        )
    for kind in ("checksum", "facts"):
        for when, place in (("before", 0), ("after", -1)):
            log.claim(
                f"diffusion/landscape/given_{kind}_{when}",
                claim=f"{when} RL, given its end, a refined text keeps {kind!r} more often than one from left to "
                "right (difference)",
                source="own comparison: infilling",
                floor=0.2,
                **difference(log, lambda found, kind=kind, place=place: found[place]["given"][kind]),
                **WHERE,
            )
    log.claim(
        "diffusion/landscape/kl",
        claim="the refining model goes less far from its start, in nats a text (difference of the KL of writing)",
        source="own comparison",
        floor=0.0,
        at_most=True,
        **difference(log, lambda found: found[-1]["kl"]),
        **WHERE,
    )


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
