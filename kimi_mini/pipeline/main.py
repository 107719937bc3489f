"""`make run`: from random weights to a thinking, tool-using, verifier-checked agent, stage by stage.

    drill        recall and copy drills: the circuits that read a prompt
    pretrain     real text: Python's standard library and Moby-Dick
    synthesise   scripted experts work on generated tasks, some of them err on purpose; verifiers judge each trajectory
    filter       only what passed is kept, counted by family and level; no held-out task may be among it
    finetune     on what passed
    reinforce    K2's policy objective with verifiable rewards, on tasks of three worlds
    evaluate     the scoreboard on held-out tasks
    report       the run as one log, and its figures

All of it stays in the run's folder, data/run. A stage leaves a note of what it did, STAGE.json. `kill -9` loses what
came after the last save: half a minute of training, a round of RL, a row of the scoreboard, or all of synthesise, which
saves at its end. The same command goes on from there and ends with the numbers of an uninterrupted run.

`run --further AGENT` begins with an agent that reads in place of random weights: its first two stages train nothing.
What is read depends on the seed alone, so each further course takes another one. With `--mean END ...` it ends in the
mean of its own last weights and those of the agents named: the ends of the courses before it.

It works on every core, by a process each (kimi_mini.base.processes): all go through the stages together.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from kimi_mini.base import processes
from kimi_mini.base.errors import KimiError
from kimi_mini.base.files import locked, write_json
from kimi_mini.base.paths import RUNS
from kimi_mini.pipeline.plan import Plan, Run


def main(args: argparse.Namespace) -> int | None:
    """`python -m kimi_mini run`: do what is not done yet. args.again: the same command, for processes of its own."""
    kind = "rehearsal" if args.rehearsal else "reader" if args.reader else "further" if args.further else ""
    folder = Path(args.folder or RUNS / kind)
    named = dict(seed=args.seed, device=args.device)
    if args.preset:
        named["preset"] = args.preset
    if args.further and not (Path(args.further) / "model.safetensors").is_file():
        raise KimiError(f"no checkpoint in {args.further}: --further names an agent's folder")
    if args.mean and not args.further:
        raise KimiError("--mean goes with --further: the mean is of the ends of courses")
    for end in args.mean or ():
        if not (Path(end) / "model.safetensors").is_file():
            raise KimiError(f"no checkpoint in {end}: --mean names agents' folders")
    plan = (getattr(Plan, kind) if kind else Plan)(**named).scaled(args.scale)
    plan = plan.shared_by(_count(args, folder, plan.rows))
    run = Run(folder, plan, Path(args.further) if args.further else None, tuple(map(Path, args.mean or ())))
    if plan.processes > 1 and "WORLD_SIZE" not in os.environ and not run.finished:
        return processes.start(args.again, plan.processes, args.threads or 1)
    return go_on(run)


def _count(args: argparse.Namespace, folder: Path, most: int) -> int:
    """How many processes: of those started together, as asked for, as the run was begun, or what the machine has, of
    which `most` find work."""
    if "WORLD_SIZE" in os.environ:
        return int(os.environ["WORLD_SIZE"])
    on_gpu = args.device != "cpu"
    return args.processes or Run.begun_with(folder) or (1 if on_gpu else min(processes.default_count(), most))


def go_on(run: Run) -> None:
    """Do what is not done yet of a run. Raises KimiError, before anything is written, for a plan that this machine
    cannot follow, or a folder of another one."""
    if run.finished:  # said without torch, which takes a while to load
        run.begin()
        print(f"everything is done: see {run.folder / 'run.json'}; delete {run.folder} to train again")
        return
    from kimi_mini.base import ranks
    from kimi_mini.model.kernels import engine
    from kimi_mini.pipeline.shared import first_model
    from kimi_mini.pipeline.stages import STAGES, tables
    from kimi_mini.text.tokenizer import Tokenizer
    from kimi_mini.training.machine.distributed import joined
    from kimi_mini.training.machine.probe import settle_engine

    named = os.environ.get(engine.VARIABLE, "probe")
    with joined(run.plan.device), ExitStack() as held:
        Tokenizer.load(), first_model(run.plan)
        ranks.first_rank(lambda: held.enter_context(locked(run.folder)))
        ranks.first_rank(lambda: run.begin(**tables(run)))
        settle_engine(run.folder, named)
        done = ranks.first_rank(lambda: [stage for stage in STAGES if run.done(stage)])
        for number, stage in enumerate(STAGES, 1):
            title = f"[{number}/{len(STAGES)}] {stage}"
            _say(f"{title}: done before" if stage in done else title)
            if stage not in done:
                _do(run, stage, STAGES[stage])


def _do(run: Run, stage: str, function: Callable[[Run], dict]) -> None:
    """One stage, by all ranks; the first one notes what came out."""
    from kimi_mini.base import ranks
    from kimi_mini.training.machine.placement import choose_device, peak_memory

    began = time.perf_counter()
    note = function(run)
    note.setdefault("seconds", round(time.perf_counter() - began, 2))
    note["peak_bytes"] = int(ranks.total(peak_memory(choose_device(run.plan.device)))[0])
    ranks.first_rank(lambda: write_json(run.note(stage), note))
    _say(f"      {note.pop('summary', 'done')} ({note['seconds']:.0f} s)")


def _say(line: str) -> None:
    """A line of the first rank; the others' standard output goes nowhere when they are started by `processes`."""
    from kimi_mini.base import ranks

    if not ranks.rank():
        print(line, flush=True)
