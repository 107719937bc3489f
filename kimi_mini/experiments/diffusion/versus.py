"""Text that is refined against text that is written from left to right: equal weights, examples, optimizer and steps.

A masked-diffusion model and an autoregressive one begin as the same checkpoint, the fine-tuned one, and learn sums and
products with their thoughts, and some chains, repairs and calls of tools. Held-out tasks then tell how tight the bound
is, how success depends on the order and the number of steps, what stands in a gap that is given from both sides, and
what a text costs. The start can write from left to right already: equal tokens are a head start for the one that
writes.

Seconds are of processor time, so that a busy machine changes little; speeds are ratios within one run. What a canvas
costs beyond its turn is counted: the bound pays for the room behind a turn, and a step looks at all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial

import numpy as np

from kimi_mini.base.command import in_one_line
from kimi_mini.base.evidence import Log, check_plan
from kimi_mini.base.files import read_json, write_json
from kimi_mini.base.paths import RUNS
from kimi_mini.course.figures.model.diffusion import bounds, steps
from kimi_mini.experiments import harness
from kimi_mini.experiments.diffusion import measures
from kimi_mini.experiments.diffusion.runs import ARMS, LEVELS, SUMS, Recipe, learned
from kimi_mini.experiments.verifiers.shared import TUNED

TASKS, TURNS, GAPS = 60, 36, 24  # a seed and family: tasks to solve, turns for the bound, gaps to fill
RECIPE = Recipe()
NOTEBOOK = "11_diffusion.ipynb"
SOURCE, STEPS = "article (outlook: text that is refined)", "figures/diffusion_steps.png"
LATER = " (a row added when the log had been seen)"


def main() -> None:
    """Train both in every seed and measure; write data/results/diffusion_versus.json and its figures."""
    args = harness.arguments(__doc__.splitlines()[0], base=TUNED)
    recipe = RECIPE.scaled(args.scale)
    folder = RUNS / ("diffusion" if args.scale == 1 else f"diffusion_{args.scale:g}")
    check_plan(
        folder, {"recipe": asdict(recipe), "scale": args.scale, "start": harness.fingerprint(args.base)}
    )
    log = Log("diffusion_versus", seeds=args.seeds, folder=args.folder)
    log.more |= {"recipe": asdict(recipe), "parts": []}
    for seed in args.seeds:
        kept = folder / f"seed-{seed}.json"
        if not kept.is_file():
            models = [learned(arm, args.base, recipe, seed, folder, f"{arm}, seed {seed}") for arm in ARMS]
            write_json(kept, measured(seed, models, args.scale))
        log.more["parts"].append(read_json(kept))
        print(told(log.more["parts"][-1]), flush=True)
    report(log)
    harness.finish(log, diffusion_versus=draw_bounds, diffusion_steps=draw_steps)


def measured(seed: int, models: Sequence[tuple], scale: float = 1.0) -> dict:
    """All that is measured in one seed; models: what `learned` gives, in the order of ARMS."""
    (refining, tokenizer, first), (writing, _, second) = models
    tasks, turns, gaps = (max(6, int(count * scale)) for count in (TASKS, TURNS, GAPS))
    part = {"seed": seed, "training": dict(zip(ARMS, (first, second)))}
    part["nats"] = measures.nats(refining, writing, tokenizer, turns, seed)
    part["writing"] = measures.written(writing, tokenizer, tasks, seed)
    part["styles"] = measures.by_style(refining, tokenizer, tasks, seed)
    part["gaps"] = {
        kind: measures.filled(refining, writing, tokenizer, kind, gaps, seed) for kind in measures.GAPS
    }
    style = measures.equal(part["styles"], part["writing"])
    part["speed"] = measures.speeds(refining, writing, tokenizer, style, seed, rows=max(2, int(32 * scale)))
    return part


def of_style(part: dict, name: str) -> float:
    """Success of a style in a seed, over sums and products."""
    return float(np.mean([rate for family, rate in by_family(part, name).items() if family in SUMS]))


def by_family(part: dict, name: str, key: str = "success") -> dict[str, float]:
    """family -> a number of a style in a seed."""
    return {row["family"]: row[key] for row in part["styles"] if row["style"] == name}


def against(part: dict, name: str) -> float:
    """Success of a style less that of the one that writes, over the families that are not SUMS."""
    rates = by_family(part, name)
    return float(
        np.mean([rates[family] - part["writing"][family] for family in LEVELS if family not in SUMS])
    )


def length_share(part: dict, name: str) -> float:
    """Steps of a turn over the tokens of its canvas, sums and products."""
    cost = by_family(part, name, "steps")
    return float(np.mean([cost[family] for family in SUMS])) / measures.LENGTH


def gap_of(part: dict, kind: str) -> float:
    """How much oftener the gap is filled rightly by the one that refines."""
    refining, writing = (np.mean(part["gaps"][kind][arm]) for arm in ARMS)
    return float(refining - writing)


def told(part: dict) -> str:
    """One line about a seed."""
    nats = " ".join(f"{name} {n['bound']:.3f}/{n['loss']:.3f}" for name, n in part["nats"].items())
    chosen = (measures.ONE, measures.HALF, measures.SURELY, measures.IN_BLOCKS)
    half = ", ".join(f"{name}: {of_style(part, name):.2f}" for name in chosen)
    gaps = " ".join(f"{kind} {gap_of(part, kind):+.2f}" for kind in part["gaps"])
    return (
        f"seed {part['seed']}: nats {nats}; {half}; written {part['writing']}; gaps {gaps}; {part['speed']}"
    )


# ---- claims ------------------------------------------------------------------------------------------------


def report(log: Log) -> None:
    """Rows and claims from the parts of the log."""
    parts = log.more["parts"]
    for part in parts:
        log.rows += [{"seed": part["seed"], "arm": "refining", **row} for row in part["styles"]]
        log.rows += [
            {"seed": part["seed"], "arm": "writing", "family": name, "success": rate}
            for name, rate in part["writing"].items()
        ]

    quality(partial(claimed, log))
    cost(partial(claimed, log), compared(parts))


def claimed(log: Log, name: str, says: str, floor: float, value: Callable[[dict], float], **more) -> None:
    """A claim about a number that every seed of the log has."""
    parts = log.more["parts"]
    common = {"figure": "figures/diffusion_versus.png", "notebook": NOTEBOOK, "source": SOURCE}
    common["seeds"] = [part["seed"] for part in parts]
    found = harness.across([value(part) for part in parts])
    log.claim(f"diffusion/{name}", claim=says, floor=floor, **found, **common | more)


def quality(claim: Callable[..., None]) -> None:
    """The bound, success in few steps, and gaps."""
    claim(
        "bound",
        "the bound is within 0.15 nats a token of the autoregressive loss, on the same held-out turns",
        0.15,
        lambda part: float(np.mean([n["bound"] - n["loss"] for n in part["nats"].values()])),
        at_most=True,
        source="LLaDA (arXiv 2502.09992), likelihoods",
    )
    few_steps(claim)
    claim(
        "surely_steps",
        f"steps of a turn over the tokens of its canvas ({measures.SURELY})",
        0.5,
        lambda part: length_share(part, measures.SURELY),
        at_most=True,
        figure=STEPS,
    )
    claim(
        "others",
        f"chains, repairs and calls are right as often refined ({measures.SURELY}) as written: difference",
        -0.05,
        lambda part: against(part, measures.SURELY),
    )
    claim(
        "filling",
        "the question from its answer: digits of the question, given all around them, against the left alone",
        0.20,
        lambda part: gap_of(part, "question"),
        headline=True,
    )
    claim(
        "filling_thoughts",
        "the middle of a thought, given both ends, against a writer that sees question and beginning alone",
        0.20,
        lambda part: gap_of(part, "thought"),
    )


def few_steps(claim: Callable[..., None], prefix: str = "", where: str = "", figure: str = STEPS) -> None:
    """Success in at most half as many steps as the canvas has tokens, in three ways to choose where to write."""
    for style, name in (
        (measures.HALF, "half_the_steps"),
        (measures.SURELY, "surely"),
        (measures.IN_BLOCKS, "surely_in_blocks"),
    ):
        claim(
            prefix + name,
            f"sums and products{where} in at most half as many steps as the canvas has tokens ({style})",
            0.90,
            partial(of_style, name=style),
            figure=figure,
        )


def compared(parts: Sequence[dict]) -> str:
    """Whose seconds were measured (`measures.equal`): the refiner's at equal success, or of its best style, if none is
    as good as the writer in every seed."""
    rates = [of_style(part, part["speed"]["style"]) for part in parts]
    written = [float(np.mean([part["writing"][family] for family in SUMS])) for part in parts]
    if all(rate >= other - measures.NEAR for rate, other in zip(rates, written)):
        return "the refiner at equal success"
    says = f"success {min(rates):.2f} to {max(rates):.2f}, the writer's {float(np.mean(written)):.2f}"
    return f"the refiner's most successful style ({says})"


def cost(claim: Callable[..., None], who: str) -> None:
    """Seconds of `who`, and what caches save."""
    says = f"texts a second of {who}, over those of a writer with its cache, "
    claim("speed", says + "32 at a time", 1.0, lambda part: part["speed"]["many"], figure=STEPS)
    claim("speed_one", says + f"one at a time{LATER}", 1.0, lambda part: part["speed"]["one"], figure=STEPS)
    claim(
        "context_cache",
        "a step with the context cached is at least 1.2 times as fast as one that computes it anew",
        1.2,
        lambda part: part["speed"]["context"],
        figure=STEPS,
    )
    claim(
        "frozen_blocks",
        "blocks that join the cache when they are finished lose at most 5 points of success",
        -0.05,
        lambda part: of_style(part, measures.FROZEN) - of_style(part, measures.IN_BLOCKS),
        figure=STEPS,
    )
    claim(
        "frozen_speed",
        f"texts a second where finished blocks join the cache, over those where they stay on the canvas{LATER}",
        1.0,
        lambda part: part["speed"]["frozen"],
        figure=STEPS,
    )


# ---- figures -----------------------------------------------------------------------------------------------


def draw_bounds(log: dict):
    """Nats a token of both models, and gaps filled."""
    parts = log["parts"]
    nats = {
        name: {
            "bound, refining": [part["nats"][name]["bound"] for part in parts],
            "loss, writing": [part["nats"][name]["loss"] for part in parts],
        }
        for name in LEVELS
    }
    gaps = {
        {"question": "digits of the question", "thought": "middle of the thought"}[kind]: {
            arm: [float(np.mean(part["gaps"][kind][arm])) for part in parts] for arm in ARMS
        }
        for kind in measures.GAPS
    }
    return bounds(nats, gaps, title="")


def draw_steps(log: dict):
    """Success against steps, for each way to choose where to write."""
    parts = log["parts"]
    curves: dict[str, list[tuple[float, float]]] = {}
    for name in measures.STYLES:
        rates = [of_style(part, name) for part in parts]
        cost = float(np.mean([length_share(part, name) for part in parts])) * measures.LENGTH
        point = (cost, float(np.mean(rates)), float(np.min(rates)), float(np.max(rates)))
        curves.setdefault(measures.kind_of(name), []).append(point)
    written = float(np.mean([part["writing"][family] for part in parts for family in SUMS]))
    return steps(curves, written, measures.LENGTH)


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
