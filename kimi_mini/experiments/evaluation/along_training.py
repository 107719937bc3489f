"""When does each skill come? Benchmarks of a model that is stopped on its way through fine-tuning.

From the shipped base checkpoint, with the mixture, the curriculum and the schedule of the shipped plan and its text in
every step, on a third of its tokens: so a point at half of the tokens is also a point at half of the schedule. The
rates fall from a third of the way on, and longer tasks join until then: what rises late may rise because of either.
One model, so the intervals are over tasks and say nothing about another seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from kimi_mini.agent.folder import load_agent, save_agent
from kimi_mini.base.command import in_one_line
from kimi_mini.base.evidence import Log
from kimi_mini.base.files import read_json, write_json
from kimi_mini.base.paths import RUNS
from kimi_mini.course.figures import evaluation
from kimi_mini.evaluation.benchmarks import BENCHMARKS, measured
from kimi_mini.experiments import harness
from kimi_mini.experiments.verifiers.shared import BASE
from kimi_mini.model.kimi import KimiMini
from kimi_mini.pipeline import finetune, shared
from kimi_mini.pipeline.plan import Finetune, Plan, Run
from kimi_mini.pipeline.synthesise import trajectories
from kimi_mini.training import sft, synthesis

TOKENS = 4_000_000
POINTS = (0.0, 0.05, 0.12, 0.2, 0.3, 0.45, 0.7, 1.0)  # shares of the tokens
TASKS = 40  # of each part
ROWS = {  # benchmark -> parts that the shipped plan trains
    "mini_swe": ("one file",),
    "mini_math": ("chains of 6 to 8 steps", "sums of 4 digits"),
    "long_horizon": ("10 calls", "50 calls"),
}


def main() -> None:
    """Fine-tune, keep the checkpoints, measure each; write data/results/along_training.json and its figure."""
    args = harness.arguments(__doc__.splitlines()[0], seeds=(0,), base=BASE)
    weights = harness.fingerprint(args.base)
    log = Log("along_training", seeds=args.seeds, folder=args.folder, weights=weights, points=list(POINTS))
    for seed in args.seeds:
        plan = Plan(seed=seed, finetune=Finetune(tokens=int(TOKENS * args.scale)))
        run = Run(RUNS / "along_training" / f"{args.scale:g}-{seed}", plan)
        run.begin(weights=weights)
        checkpoints(run, args.base)
        measure(log, run, max(4, int(TASKS * args.scale)))
    harness.finish(log, along_training=draw)


def place_of(run: Run, share: float) -> Path:
    """The folder of the checkpoint at that share of the tokens."""
    return run.folder / "checkpoints" / f"{share:g}"


def checkpoints(run: Run, base: Path) -> None:
    """Fine-tune and save an agent at every point; goes on where it was stopped."""
    if (place_of(run, POINTS[-1]) / "config.json").is_file():
        return
    model, plan = load_agent(base)[0], run.plan
    save_agent(model, place_of(run, 0.0))
    made = trajectories(plan, synthesis.SOURCES, plan.finetune.tokens, plan.seed)
    pools = sft.pools_of({source: synthesis.passed_only(items) for source, items in made.items()})
    text = shared.windows_of(run)[0].reshape(-1, plan.finetune.text_tokens)

    def keep(done: int, of: int) -> None:
        for share in POINTS[1:]:
            if done == max(1, round(share * of)):
                save_agent(model, place_of(run, share))

    history = finetune.tune(model, pools, plan, text, run.folder / "finetune.pt", on_step=keep)
    write_json(run.folder / "tuned.json", {"tokens": sum(history.tokens), "seconds": history.seconds})


def measure(log: Log, run: Run, count: int) -> None:
    """A row of the log for every point and part."""
    tuned = read_json(run.folder / "tuned.json")
    log.more["tuned"] = tuned
    for share in POINTS:
        file = run.folder / f"board-{share:g}-{count}.json"
        if not file.is_file():
            write_json(file, board(load_agent(place_of(run, share)), count))
        for name, entry in read_json(file).items():
            tokens = round(share * tuned["tokens"])
            log.row(seed=run.plan.seed, share=share, tokens=tokens, part=name, **entry)
        print(f"{share:.0%}:", {n: round(e["value"], 2) for n, e in read_json(file).items()}, flush=True)


def board(agent: tuple[KimiMini, object], count: int) -> dict[str, dict]:
    """Scores of the trained parts."""
    found = {}
    for name, parts in ROWS.items():
        scores = measured(*agent, BENCHMARKS[name], count, only=parts)
        found |= {f"{name}/{part}": scores[f"{name}/{part}"] for part in parts}
    kept = ("value", "low", "high", "n", "seconds")
    return {name: {key: entry[key] for key in kept} for name, entry in found.items()}


def draw(log: dict) -> Figure:
    """Success against tokens, a line a part."""
    lines: dict[str, list[Sequence[float]]] = {}
    for row in log["rows"]:
        point = (row["tokens"], row["value"], row["low"], row["high"])
        name, _, part = row["part"].partition("/")
        lines.setdefault(f"{BENCHMARKS[name].title}: {part}", []).append(point)
    return evaluation.along(lines, title="Held-out success along fine-tuning, 40 tasks a point")


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
