"""`make run`: from random weights to a thinking, tool-using, verifier-checked agent, stage by stage.

    drill        recall and copy drills: the circuits that read a prompt
    pretrain     real text: Python's standard library and Moby-Dick
    synthesise   scripted experts work on generated tasks, some of them err on purpose; verifiers judge each trajectory
    filter       only what passed is kept, counted by family and level; no held-out task may be among it
    finetune     on what passed
    reinforce    K2's policy objective with verifiable rewards
    evaluate     the scoreboard on held-out tasks
    publish      data/results/run.json, data/checkpoints/, figures/

A stage saves as it goes and leaves a note of what it did, data/run/STAGE.json. `kill -9` loses at most a minute: the
same command goes on from the last save and ends with the numbers of an uninterrupted run.
This module only keeps the order; the work is in kimi_mini.stages.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kimi_mini.base.evidence import check_plan
from kimi_mini.base.files import read_json, write_json
from kimi_mini.base.paths import RUNS

STAGES = ("drill", "pretrain", "synthesise", "filter", "finetune", "reinforce", "evaluate", "publish")
DEFAULT_FOLDER = RUNS


@dataclass(frozen=True)
class Plan:
    """What a run does. Everything that decides its numbers is here, so a folder of another plan is refused."""

    preset: str = "nano"
    seed: int = 0
    device: str = "cpu"
    scale: float = 1.0  # of all token budgets; below 1 a run is a rehearsal and publishes nothing
    drill_tokens: int = 1_200_000  # at most: the drill ends when its loss is below 0.3
    text_tokens: int = 1_300_000
    finetune_tokens: int = 12_000_000
    rl_rounds: int = 12
    tasks: int = 200  # held-out tasks a row

    def scaled(self, tokens: int) -> int:
        """A token budget times ``scale``."""
        return max(8192, int(tokens * self.scale))


class Run:
    """A run's folder: which stages are done, and what each of them noted."""

    def __init__(self, folder: Path, plan: Plan):
        self.folder, self.plan = Path(folder), plan

    def note(self, stage: str) -> Path:
        """The file that says a stage is done."""
        return self.folder / f"{stage}.json"

    def done(self, stage: str) -> bool:
        """Whether ``stage`` is complete."""
        return self.note(stage).is_file()

    def read(self, stage: str) -> dict[str, Any]:
        """What a finished stage noted."""
        return read_json(self.note(stage))

    def check_plan(self) -> None:
        """Write the plan of a new folder, or refuse a folder that was begun with another one."""
        check_plan(self.folder, asdict(self.plan))


def main(args: argparse.Namespace) -> None:
    """`python -m kimi_mini run`: do what is not done yet."""
    plan = Plan(preset=args.preset, seed=args.seed, device=args.device, scale=args.scale)
    run = Run(Path(args.folder), plan)
    if not run.done(STAGES[0]):
        from kimi_mini import stages

        stages.new_model(run)  # a device or preset that this machine cannot hold must not begin a folder
    run.check_plan()
    if all(run.done(stage) for stage in STAGES):
        print(f"everything is done: {run.read(STAGES[-1])['summary']}; delete {run.folder} to train again")
        return
    from kimi_mini import stages  # torch and its friends load only when there is work
    from kimi_mini.training.machine import placement

    for number, stage in enumerate(STAGES, 1):
        title = f"[{number}/{len(STAGES)}] {stage}"
        if run.done(stage):
            print(f"{title}: done before")
            continue
        began = time.perf_counter()
        print(title, flush=True)
        note = stages.STAGE_FUNCTIONS[stage](run)
        note.setdefault("seconds", round(time.perf_counter() - began, 2))
        note["peak_bytes"] = placement.peak_memory(placement.choose_device(plan.device))
        write_json(run.note(stage), note)
        print(f"      {note.pop('summary', 'done')} ({note['seconds']:.0f} s)", flush=True)
