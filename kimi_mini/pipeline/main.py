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
This module only keeps the order; the work is in kimi_mini.pipeline.shared.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from kimi_mini.base.files import write_json
from kimi_mini.pipeline.plan import STAGES, Plan, Run


def main(args: argparse.Namespace) -> None:
    """`python -m kimi_mini run`: do what is not done yet."""
    plan = Plan(preset=args.preset, seed=args.seed, device=args.device, scale=args.scale)
    run = Run(Path(args.folder), plan)
    if not run.done(STAGES[0]):
        from kimi_mini.pipeline import shared, stages

        shared.tokenizer_of(run), shared.new_model(run)  # what cannot be done here must not begin a folder
    run.check_plan()
    if all(run.done(stage) for stage in STAGES):
        print(f"everything is done: {run.read(STAGES[-1])['summary']}; delete {run.folder} to train again")
        return
    from kimi_mini.pipeline import shared, stages  # torch and its friends load only when there is work
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
