"""What a run leaves for others: checkpoint folders, its log, the figures."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

from kimi_mini.base import ledger
from kimi_mini.base.evidence import Log
from kimi_mini.base.files import read_json, replacing
from kimi_mini.base.paths import CHECKPOINTS, FIGURES, RESULTS

if TYPE_CHECKING:
    from kimi_mini.pipeline.plan import Run


SHIPPED = ("base", "tuned", "final")


def publish(run: Run) -> Path:
    """Write run.json, the figures and the tables of README, and copy the checkpoints to data/checkpoints/.

    A rehearsal, another seed or size, and a run in a folder of its own keep everything there: what is shipped is only
    replaced by the same again.
    """
    from kimi_mini.pipeline.plan import DEFAULT_FOLDER, Plan

    began = time.perf_counter()
    full = run.plan == Plan() and run.folder == DEFAULT_FOLDER
    results, figures = (RESULTS, FIGURES) if full else (run.folder, run.folder / "figures")
    log = run_log(run, results)
    board = log.more["scoreboard"] | (from_experiments() if full else {})
    draw(log.as_dict() | {"scoreboard": board}, figures)
    if full:
        for name in SHIPPED:
            ship(run.folder / "checkpoints" / name, CHECKPOINTS / name)
    add_stage(log, "publish", time.perf_counter() - began)
    path = log.save()
    if full:
        ledger.update()
    return path


def add_stage(log: Log, name: str, seconds: float, tokens: int = 0) -> None:
    """One stage more, and the time of the run with it (of the run, not of writing this log)."""
    log.more["stages"].append({"name": name, "seconds": round(seconds, 2), "tokens": tokens})
    total = round(sum(stage["seconds"] for stage in log.more["stages"]), 1)
    log.more |= dict(total_seconds=total, seconds=total)


def ship(source: Path, target: Path) -> None:
    """Copy a checkpoint folder. Each file is replaced, not written over: whoever has the old weights mapped into
    memory (a chat, a notebook) keeps them."""
    target.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        with replacing(target / file.name) as part:
            shutil.copyfile(file, part)


def run_log(run: Run, folder: Path) -> Log:
    """The run as one log: stages, curves, scoreboard, claims."""
    from kimi_mini.pipeline.plan import STAGES

    notes = {stage: run.read(stage) for stage in STAGES[:-1]}  # all but this one
    board = notes["evaluate"]["scoreboard"]
    log = Log(
        "run",
        seeds=[run.plan.seed],
        device=run.plan.device,
        folder=folder,
        command="make run",
        seed=run.plan.seed,
        stages=[],
        scoreboard=board,
        peak_bytes=max(note["peak_bytes"] for note in notes.values()),
        funnel=notes["filter"]["funnel"],
        rounds=notes["reinforce"]["rounds"],
        validation={k: notes["pretrain"][k] for k in ("validation_before", "validation_loss")},
        curves={stage: n["curve"] for stage, n in notes.items() if "curve" in n},
    )
    for stage, note in notes.items():
        add_stage(log, stage, note["seconds"], note["tokens"])
    for name, entry in board.items():
        if entry["floor"] is None:
            continue
        log.claim(
            name,
            claim=entry["says"],
            source="this project",
            **{key: entry[key] for key in ("value", "low", "high", "floor")},
            figure="figures/scoreboard.png",
            notebook="00_kimi_k2_on_one_page.ipynb",
        )
    return log


def from_experiments() -> dict[str, dict]:
    """Scoreboard rows that need several seeds and come from the logs of experiments, where those exist."""
    rows = {}
    for file in sorted(RESULTS.glob("*.json")):
        if file.name != "run.json":
            rows |= read_json(file).get("scoreboard", {})
    return rows


def draw(log: dict, folder: Path) -> None:
    """The figures of a run: the scoreboard, chains by length, and training from the first step to the last."""
    from kimi_mini.course.figures import scores, training

    board = log["scoreboard"]
    lengths = {mode: chain_lengths(board, mode) for mode in ("thinking", "reflex", "reflex_control")}
    figures = {
        "scoreboard": scores.scoreboard({name: row for name, row in board.items() if row["main"]}),
        "chain_by_length": scores.accuracy_by_length(
            {mode: points for mode, points in lengths.items() if points},
            chance=0.01,
            trained_to=8,
            xlabel="operations in the chain",
            title="Held-out chains: with and without a thought",
        ),
        "training": training.training_curves(log["curves"]),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=110, bbox_inches="tight")


def chain_lengths(board: dict[str, dict], mode: str) -> list[dict]:
    """Points {length, value, low, high} of the rows chain/MODE/LENGTH, and of those beyond training."""
    prefixes = (f"chain/{mode}/", "chain/beyond/") if mode == "thinking" else (f"chain/{mode}/",)
    points = [
        {"length": int(name.rsplit("/", 1)[1]), **entry}
        for name, entry in board.items()
        if name.startswith(prefixes) and name[-1].isdigit()
    ]
    return sorted(points, key=lambda point: point["length"])
