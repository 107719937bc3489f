"""What a run leaves: its log and figures, in its own folder; and how the maintainers ship it.

`python -m kimi_mini publish` puts a finished run in the place of what this repository ships: checkpoints, run.json,
figures, and the pages that are written from the logs.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from kimi_mini.agent.folder import fingerprint
from kimi_mini.base import ledger
from kimi_mini.base.errors import KimiError
from kimi_mini.base.evidence import Log
from kimi_mini.base.files import read_json, replacing, write_json
from kimi_mini.base.paths import CHECKPOINTS, FIGURES, RESULTS
from kimi_mini.evaluation import scoreboard
from kimi_mini.pipeline.plan import COSTS, Plan, Run
from kimi_mini.training.machine.placement import choose_device
from kimi_mini.worlds import FAMILIES

SHIPPED = ("base", "tuned", "final")
READER, READER_PAGE = "reader", "06_the_verifier_economy.ipynb"
HEADLINE = "repair/pass@1"  # the claim of a run that README shows first


def report(run: Run, stages: Sequence[str]) -> dict:
    """The last stage: run.json and figures/ in the run's folder, of the `stages` before it."""
    began = time.perf_counter()
    log = run_log(run, stages)
    draw(log.as_dict(), run.folder / "figures")
    add_stage(log, "report", time.perf_counter() - began)
    return {"tokens": 0, "summary": f"see {log.save()}"}


def publish(folder: Path) -> None:
    """Ship the run in `folder`. KimiError for one that is not finished, or not the run of `make run` as it comes: a
    rehearsal, another seed or size."""
    run = Run(folder, Plan(processes=Run.begun_with(folder) or 1))
    weights = [folder / "checkpoints" / name / "model.safetensors" for name in SHIPPED]
    if not (run.finished and all(file.is_file() for file in weights)):
        raise KimiError(f"there is no finished run in {folder}: `make run` makes one")
    run.begin()
    for name in SHIPPED:
        ship(folder / "checkpoints" / name, CHECKPOINTS / name)
    shutil.copyfile(folder / "run.json", RESULTS / ledger.RUN)
    draw_shipped()
    ledger.update()
    print(f"{folder} is what this repository ships now: see git status")


def publish_reader(folder: Path) -> None:
    """Ship the agent that reads, beside the other: its weights, and its log, in which all rows and claims are named
    after it. Of a further course the log says what the courses before it took, too. KimiError for a run that is not
    finished, or a further course of another agent than the one that is shipped."""
    agent, processes = first_weights(folder), Run.begun_with(folder) or 1
    plan = (
        Plan.further(seed=seed_of(folder), processes=processes) if agent else Plan.reader(processes=processes)
    )
    run = Run(folder, plan)
    if not run.finished:
        raise KimiError(f"there is no finished run in {folder}: python -m kimi_mini run --reader makes one")
    run.begin()
    if agent and agent != fingerprint(CHECKPOINTS / READER):
        raise KimiError(f"{folder} is a further course of another agent than {CHECKPOINTS / READER}")
    ship_reader(folder, read_json(RESULTS / f"run_{READER}.json") if agent else None)
    draw_shipped()
    ledger.update()


def first_weights(folder: Path) -> str | None:
    """The checksum of the weights that the run in `folder` began with; None for random ones."""
    file = folder / "plan.json"
    return read_json(file).get("agent") if file.is_file() else None


def seed_of(folder: Path) -> int:
    """The seed of the run in `folder`: each further course has its own, or it would read the same trajectories."""
    return read_json(folder / "plan.json").get("seed", 0)


def ship_reader(folder: Path, before: dict | None = None) -> None:
    """Copy what the run in `folder` left. before: the log of the course that it goes on from."""
    ship(folder / "checkpoints" / "final", CHECKPOINTS / READER)
    log = read_json(folder / "run.json")
    log["command"] = "python -m kimi_mini run --reader"
    if before:
        log["command"] = f"{before['command']}; python -m kimi_mini run --further AGENT --seed {log['seed']}"
        log["command"] += " --mean AGENT ..." if read_json(folder / "plan.json").get("ends") else ""
        log["stages"] = before["stages"] + [stage for stage in log["stages"] if stage["seconds"] >= 0.1]
        kept = ("seed", "versions", "total_seconds", "peak_bytes", "rounds")
        log["earlier"] = [*before.get("earlier", []), {name: before[name] for name in kept}]
        log["total_seconds"] = log["seconds"] = round(before["total_seconds"] + log["total_seconds"], 1)
        log["peak_bytes"] = max(before["peak_bytes"], log["peak_bytes"])
    probes = {row.name for row in scoreboard.VARIED if not FAMILIES[row.family].trained}
    log["scoreboard"] = {
        f"{READER}/{name}": entry | {"main": name in probes} for name, entry in log["scoreboard"].items()
    }
    for claim in log["claims"]:
        drawn = "figures/generality.png" if claim["name"] in probes else None
        claim |= {"name": f"{READER}/{claim['name']}", "claim": f"the agent that reads: {claim['claim']}"}
        claim |= {"figure": drawn, "notebook": READER_PAGE}
    log["claims"] += cost_claims(log)
    write_json(RESULTS / f"run_{READER}.json", log)


def cost_claims(log: dict) -> list[dict]:
    """What the reader's run took, beside what the whole of it should take; one run has no interval."""
    costs = Log("costs", seeds=log["seeds"])
    for name, says, value, most in (
        ("minutes", "minutes of its whole run", log["total_seconds"] / 60, COSTS["minutes"]),
        ("memory", "gigabytes at the peak of its run", log["peak_bytes"] / 1e9, COSTS["gigabytes"]),
    ):
        costs.claim(
            f"{READER}/{name}",
            claim=f"the agent that reads: {says}",
            source="this project",
            value=value,
            floor=most,
            at_most=True,
            notebook=READER_PAGE,
        )
    return costs.claims


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


def run_log(run: Run, stages: Sequence[str]) -> Log:
    """The run as one log: stages, curves, scoreboard, claims."""
    notes = {stage: run.read(stage) for stage in stages}
    board = notes["evaluate"]["scoreboard"]
    log = Log(
        "run",
        seeds=[run.plan.seed],
        device=str(choose_device(run.plan.device)),
        folder=run.folder,
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
            headline=name == HEADLINE,
        )
    return log


def draw_shipped() -> None:
    """The figures of what is shipped: in the scoreboard both agents; beside the chains by length their control."""
    logs = ledger.read_logs(RESULTS)
    board = ledger.join(
        {name: log for name, log in logs.items() if name in (ledger.RUN, f"run_{READER}.json")}
    )
    control = logs.get("reflex_control.json", {}).get("scoreboard", {})
    draw({**logs[ledger.RUN], "scoreboard": board}, FIGURES, control)


def draw(log: dict, folder: Path, control: Mapping[str, dict] = MappingProxyType({})) -> None:
    """The figures of a run: the scoreboard's main rows, chains by length beside those of a control, and training from
    the first step to the last."""
    from kimi_mini.course.figures import scores, training

    board = log["scoreboard"]
    modes = ("thinking", "reflex", "reflex_control")
    lengths = {mode: chain_lengths({**control, **board}, mode) for mode in modes}
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
