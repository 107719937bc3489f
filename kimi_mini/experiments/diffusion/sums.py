"""Refining against writing where nothing but sums and products is learned.

The experiment of five families (`versus`) pays for its breadth. Here the same two models learn add and times alone,
with the same plan of examples, optimizer and steps, and the same measures tell how far the bound is from the loss, and
how many are right in half as many steps as a canvas has tokens.

Equal tokens are not equal seconds: a canvas has more tokens than its turn, so that the one that refines costs more a
step. With its seconds the other would read more. How much better its loss would become need not be trained: no loss is
below 0, so what the bound is above 0 is at least its distance from any writer, whatever that one's seconds. Success at
equal seconds was not measured.

The refiners are trained first, in all seeds; each training and each measurement is kept, and what is kept is read. With
`--kept` nothing is trained: a seed whose writer is missing tells of its refiner alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np

from kimi_mini.base.command import in_one_line
from kimi_mini.base.evidence import Log, check_plan
from kimi_mini.base.files import read_json, write_json
from kimi_mini.base.paths import RUNS
from kimi_mini.experiments import harness
from kimi_mini.experiments.diffusion import drawings, measures
from kimi_mini.experiments.diffusion.runs import ARMS, SUMS, Recipe, learned
from kimi_mini.experiments.diffusion.versus import claimed, few_steps, of_style
from kimi_mini.experiments.verifiers.shared import TUNED

RECIPE = Recipe(tokens=6_000_000, families=SUMS)
TASKS, TURNS = 120, 60  # a seed and family: tasks to solve, turns for the bound
FIGURE = "figures/diffusion_sums.png"


def main() -> None:
    """Train one arm after the other and measure each; write data/results/diffusion_sums.json and its figure."""
    parser = harness.common_parser(__doc__.splitlines()[0], base=TUNED)
    parser.add_argument("--kept", action="store_true", help="train nothing, tell of what is kept")
    args = harness.read(parser)
    recipe = RECIPE.scaled(args.scale)
    folder = RUNS / ("diffusion_sums" if args.scale == 1 else f"diffusion_sums_{args.scale:g}")
    check_plan(
        folder, {"recipe": asdict(recipe), "scale": args.scale, "start": harness.fingerprint(args.base)}
    )
    log = Log("diffusion_sums", seeds=args.seeds, folder=args.folder)
    each = partial(one, start=args.base, recipe=recipe, folder=folder, scale=args.scale, kept=args.kept)
    found = {arm: [each(arm, seed) for seed in args.seeds] for arm in ARMS}
    parts = [joined(*pair) for pair in zip(*found.values()) if pair[0]]
    log.more |= {"recipe": asdict(recipe), "parts": parts}
    report(log)
    harness.finish(log, diffusion_sums=drawings.sums_alone)


def one(
    arm: str, seed: int, start: Path, recipe: Recipe, folder: Path, scale: float, kept: bool = False
) -> dict | None:
    """What one arm has learned in one seed, measured; read, if it was measured already. kept: None, if it was not."""
    file = folder / f"measured-{arm}-{seed}.json"
    if kept and not file.is_file():
        return None
    if not file.is_file():
        model, tokenizer, note = learned(arm, start, recipe, seed, folder, f"{arm}, seed {seed}")
        tasks, turns = (max(6, int(count * scale)) for count in (TASKS, TURNS))
        spent = {name: note[name] for name in ("tokens", "examples", "processor_seconds")}
        found = {"seed": seed, "training": spent}
        if arm == "refining":
            found["nats"] = measures.bounds(model, tokenizer, SUMS, turns, seed)
            styles = dict.fromkeys(SUMS, measures.FEW)
            found["styles"] = measures.in_styles(model, tokenizer, styles, tasks, seed)
        else:
            found["nats"] = measures.losses(model, tokenizer, SUMS, turns, seed)
            found["success"] = measures.written(model, tokenizer, tasks, seed, SUMS)
        write_json(file, found)
    found = read_json(file)
    rates = {row["style"]: of_style(found, row["style"]) for row in found.get("styles", ())}
    print(f"{arm}, seed {seed}: {found['training']} {found['nats']} {rates or found['success']}", flush=True)
    return found


def joined(refining: dict, writing: dict | None) -> dict:
    """Both arms of a seed, as `versus` has its parts; a writer that is missing has no loss and no success."""
    losses = writing["nats"] if writing else dict.fromkeys(SUMS)
    nats = {name: {"bound": refining["nats"][name], "loss": losses[name]} for name in SUMS}
    training = {arm: found["training"] for arm, found in zip(ARMS, (refining, writing)) if found}
    part = {"seed": refining["seed"], "training": training, "nats": nats, "styles": refining["styles"]}
    return part | {"writing": writing["success"] if writing else {}}


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
        "sums and products alone: the bound is within 0.15 nats a token of the loss of a writer of equal tokens",
        0.15,
        above,
        among=lambda part: bool(part["writing"]),
        **near,
    )
    claim(
        "sums/bound_at_equal_seconds",
        "sums and products alone: it is within 0.15 nats of any writer, also one of equal processor seconds (derived:"
        " the writer's loss is taken as 0; success at equal seconds was not measured)",
        0.15,
        partial(above, writer=False),
        **near,
    )
    few_steps(claim, "sums/", ", learned alone", FIGURE)


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
