"""bf16 against fp32 on a CPU: how long a training step takes in each, and what a million tokens come to.

    python -m kimi_mini.experiments.pretraining.formats

A step is a whole one: forward, backward and MuonClip, of the nano and of a model of the middle size, with one thread,
both formats in turn. Then the nano reads the same text in both, from the same weights, a run a seed; what is compared
is the loss on documents held out. And the minutes of `make run`, where data/run/amx holds one that is done
(`python -m kimi_mini run --folder data/run/amx`). Claims are made of a processor with AMX, which multiplies bf16 in
tiles; elsewhere they wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial

import torch
from matplotlib.figure import Figure

from kimi_mini.base import processes
from kimi_mini.base.command import in_one_line, positive
from kimi_mini.base.evidence import Log
from kimi_mini.base.paths import RUNS
from kimi_mini.course.figures import style
from kimi_mini.experiments import harness
from kimi_mini.experiments.deployment.compared import MID, NANO, STEP_TOKENS, batch, build
from kimi_mini.experiments.deployment.stopwatch import Action, Bench
from kimi_mini.model.config import KimiConfig
from kimi_mini.model.kernels import engine
from kimi_mini.pipeline import shared
from kimi_mini.pipeline.plan import Plan, Pretrain, Run
from kimi_mini.pipeline.pretrain import read_text
from kimi_mini.training.batch import text_batch, token_losses
from kimi_mini.training.machine.placement import CPU_MICRO_TOKENS, DTYPES, Placement, keep_freed_memory
from kimi_mini.training.optim.muonclip import MuonClip

SIZES = {"nano": (NANO, 256, 1.6), "mid": (MID, 512, 2.0)}  # config, window, floor of the ratio
MICRO = (2048, 4096)  # tokens of a micro-batch; what is claimed is with the first, as `make run` has it
ROUNDS = 15
TOKENS = 1_000_000
NATS, MINUTES = 0.02, 12.0  # at most


def has_amx() -> bool:
    """Whether this processor multiplies bf16 in tiles."""
    return torch.cpu._is_amx_tile_supported()


def whole_step(config: KimiConfig, window: int, tokens: int, place: Placement) -> Action:
    """Forward and backward in micro-batches, then MuonClip."""
    model = build(config).train()
    optimizer = MuonClip(model, lr=1e-4)
    parts = place.cut([text_batch(batch(config, tokens, window).numpy())])

    def step() -> None:
        model.zero_grad(set_to_none=True)
        with place.step(model):
            for part in parts:
                (place.run(token_losses, model, part).sum() / tokens).backward()
        optimizer.step()

    return step


def time_steps(log: Log, scale: float) -> None:
    """Both formats in turn, a row for each size and micro-batch."""
    keep_freed_memory()
    bench = Bench(1, max(3, int(ROUNDS * scale)), scale)
    for label, (config, window, _) in SIZES.items():
        for micro in MICRO:
            tokens, length = bench.size(STEP_TOKENS), bench.size(window)
            bf16, fp32 = (
                whole_step(config, length, tokens, Placement(dtype=DTYPES[name], micro_tokens=micro))
                for name in ("bf16", "fp32")
            )
            row = bench.compare(f"step {label} in bf16 / in fp32, micro-batches of {micro}", bf16, fp32)
            log.row(what="step", size=label, micro=micro, **row)


@dataclass(frozen=True)
class Job:
    """A run of one seed in one format."""

    seed: int
    dtype: str
    tokens: int

    def said(self) -> dict:
        """All that decides its numbers."""
        return asdict(self)


def work(job: Job) -> dict:
    """A row: the loss on documents held out, before and after."""
    torch.set_num_threads(1)
    plan = Plan(seed=job.seed, pretrain=Pretrain(tokens=job.tokens))
    place = Placement(dtype=DTYPES[job.dtype], micro_tokens=CPU_MICRO_TOKENS)
    folder = RUNS / "formats" / f"{job.dtype}-{job.seed}-{job.tokens}"
    run = Run(folder, plan)
    folder.mkdir(parents=True, exist_ok=True)
    model = shared.first_model(plan)
    windows = shared.windows_of(run)
    history, losses = read_text(model, windows, plan, place, lambda *_: None, folder / "state.pt")
    return {"what": "text", "seed": job.seed, "dtype": job.dtype, "tokens": sum(history.tokens), **losses}


def claims(log: Log, minutes: float | None) -> None:
    """What a processor with AMX has to give; of another one nothing is said."""
    say = partial(log.claim if has_amx() else log.later, source="this project", figure="figures/formats.png")
    measured = lambda **values: values if has_amx() else {}
    where = "on a processor with AMX"
    for row in (row for row in log.rows if row["what"] == "step" and row["micro"] == MICRO[0]):
        size = row["size"]
        found = measured(value=row["ratio"], low=row["low"], high=row["high"])
        says = f"times as fast: whole step {size} in bf16 / in fp32, {where}"
        say(f"amx/step/{size}", claim=says, floor=SIZES[size][2], **found)
    says = f"validation loss after 1M tokens: in bf16 - in fp32, nats, {where}"
    say("amx/loss", claim=says, floor=NATS, at_most=True, **measured(**harness.across(gaps(log.rows))))
    says = f"minutes of `make run`, {where}"
    say = say if minutes else partial(log.later, source="this project")
    found = measured(value=minutes, seeds=[0]) if minutes else {}
    say("amx/run", claim=says, floor=MINUTES, at_most=True, **found)


def gaps(rows: Sequence[dict]) -> list[float]:
    """The loss in bf16 minus that in fp32, a seed each."""
    loss = {(row["seed"], row["dtype"]): row["validation_loss"] for row in rows if row["what"] == "text"}
    return [loss[seed, "bf16"] - loss[seed, "fp32"] for seed, dtype in loss if dtype == "fp32"]


def run_minutes() -> float | None:
    """Of the `make run` in data/run/amx, when it is done."""
    run = Run(RUNS / "amx")
    return run.read("run")["total_seconds"] / 60 if run.finished else None


def main() -> None:
    """Steps, then runs; write data/results/formats.json and its figure."""
    parser = harness.common_parser(__doc__.splitlines()[0])
    parser.add_argument(
        "--processes", type=positive, default=processes.default_count(), help="runs side by side"
    )
    args = harness.read(parser)
    engine.choose(engine.probe())
    log = Log("formats", seeds=args.seeds, folder=args.folder, amx=has_amx(), engine=engine.chosen())
    time_steps(log, args.scale)
    tokens = int(TOKENS * args.scale)
    jobs = [Job(seed, dtype, tokens) for seed in args.seeds for dtype in DTYPES]
    for row in harness.side_by_side(jobs, RUNS / "formats" / "rows.json", args.processes, work, log):
        log.row(**row)
        print(f"seed {row['seed']} {row['dtype']}: {row['validation_loss']:.4f}", flush=True)
    claims(log, run_minutes() if args.scale == 1 else None)
    harness.finish(log, formats=draw)


@style.styled
def draw(log: dict) -> Figure:
    """Left: how many times as fast a step is in bf16. Right: the loss after the same text."""
    fig, axes = style.figure(11, 4.4, 1, 2)
    times, loss = axes[0]
    steps = [row for row in log["rows"] if row["what"] == "step"]
    for place, row in enumerate(steps):
        spread = [[row["ratio"] - row["low"]], [row["high"] - row["ratio"]]]
        times.errorbar(place, row["ratio"], spread, fmt="o", color=style.BLUE, capsize=4, markersize=8)
        floor = SIZES[row["size"]][2]
        times.plot((place - 0.4, place + 0.4), (floor, floor), "--", color=style.RED)
    times.axhline(1, color="0.6", linewidth=1)
    times.set_xticks(range(len(steps)), [f"{row['size']}\n{row['micro']:,}" for row in steps])
    times.set(
        xlabel="tokens of a micro-batch",
        ylabel="times as fast in bf16",
        title="A whole step (dashed: the bar)",
    )
    for seed in log["seeds"]:
        pair = [
            next(r["validation_loss"] for r in log["rows"] if r.get("dtype") == d and r["seed"] == seed)
            for d in DTYPES
        ]
        loss.plot(range(len(pair)), pair, "-o", label=f"seed {seed}")
    loss.set_xticks(range(len(DTYPES)), list(DTYPES))
    loss.set_xlim(-0.4, 1.4)
    loss.set(ylabel="nats a token, held-out text", title="After the same tokens")
    loss.legend()
    return fig


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
