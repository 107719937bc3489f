"""`make run`: from random weights to a thinking, tool-using, verifier-checked agent, stage by stage.

    drill        recall and copy drills: the circuits that read a prompt
    pretrain     real text: Python's standard library and Moby-Dick
    synthesise   scripted experts work on generated tasks, some of them err on purpose; verifiers judge each trajectory
    filter       only what passed is kept, counted by family and level; no held-out task may be among it
    finetune     on what passed
    reinforce    K2's policy objective with verifiable rewards
    evaluate     the scoreboard on held-out tasks
    report       the run as one log, and its figures

All of it stays in the run's folder, data/run. A stage saves as it goes and leaves a note of what it did, STAGE.json.
`kill -9` loses at most a minute: the same command goes on from the last save and ends with the numbers of an
uninterrupted run.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from kimi_mini.base.files import locked, write_json
from kimi_mini.base.paths import RUNS
from kimi_mini.pipeline.plan import Plan, Run


def main(args: argparse.Namespace) -> None:
    """`python -m kimi_mini run`: do what is not done yet."""
    named = dict(preset=args.preset, seed=args.seed, device=args.device)
    plan = Plan.rehearsal(**named) if args.rehearsal else Plan(**named)
    folder = args.folder or (RUNS / "rehearsal" if args.rehearsal else RUNS)
    go_on(Run(Path(folder), plan.scaled(args.scale)))


def go_on(run: Run) -> None:
    """Do what is not done yet of a run. Raises KimiError, before anything is written, for a plan that this machine
    cannot follow, or a folder of another one."""
    if run.finished:  # said without torch, which takes a while to load
        run.begin()
        print(f"everything is done: see {run.folder / 'run.json'}; delete {run.folder} to train again")
        return
    from kimi_mini.pipeline.shared import first_model
    from kimi_mini.pipeline.stages import STAGES, tables
    from kimi_mini.text.tokenizer import Tokenizer
    from kimi_mini.training.machine.placement import choose_device, peak_memory

    Tokenizer.load(), first_model(run.plan)
    with locked(run.folder):
        run.begin(**tables(run.plan))
        for number, (stage, function) in enumerate(STAGES.items(), 1):
            title = f"[{number}/{len(STAGES)}] {stage}"
            if run.done(stage):
                print(f"{title}: done before")
                continue
            began = time.perf_counter()
            print(title, flush=True)
            note = function(run)
            note.setdefault("seconds", round(time.perf_counter() - began, 2))
            note["peak_bytes"] = peak_memory(choose_device(run.plan.device))
            write_json(run.note(stage), note)
            print(f"      {note.pop('summary', 'done')} ({note['seconds']:.0f} s)", flush=True)
