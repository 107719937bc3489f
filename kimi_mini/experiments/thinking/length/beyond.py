"""Chains twice as long as any that was trained, and longer: which change to training, thought or loop carries so far?

    python -m kimi_mini.experiments.thinking.length.beyond

Every arm goes on from the fine-tuned agent with equally many tokens of chains of 1 to 8 steps; the control's are put as
ever. The lists that all are measured on are the world's, held out, with their letters in alphabetical order.

labels            letters in any order in training
words around      other sentences before and behind the list in training
gaps              positions left out at random in training, before each step of the list and of the thought
rest of the list  the thought repeats what is left of the list before each step
tool              a tool hands one step at a time, old turns are hidden
windows           the control, shown eight steps at a time (`long_chains`)

Where it breaks: attention of the head that finds the place in the list, step by step (see `places`).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import fmean

from kimi_mini.agent import loop
from kimi_mini.agent.conversation import begin
from kimi_mini.agent.folder import load_agent
from kimi_mini.agent.policy import LocalPolicy
from kimi_mini.base.command import in_one_line
from kimi_mini.base.evidence import Log, check_plan
from kimi_mini.base.files import read_json, write_json
from kimi_mini.base.paths import RUNS
from kimi_mini.experiments import harness
from kimi_mini.experiments.thinking import shared
from kimi_mini.experiments.thinking.length import lists, places, tuning
from kimi_mini.experiments.thinking.length.beyond_rows import (
    ASKED,
    BEST,
    CONTROL,
    STEPS,
    TOOL,
    TWICE,
    WINDOWS,
    difference,
    draw,
    success,
)
from kimi_mini.experiments.thinking.long_chains import in_windows
from kimi_mini.experiments.verifiers.shared import TUNED
from kimi_mini.inference.attempts.routed import write_in_batches
from kimi_mini.model.kimi import KimiMini
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training.batch import Example
from kimi_mini.worlds import Task
from kimi_mini.worlds.registry import held_out_tasks

TOKENS, TASKS, LOOKS = 300_000, 120, 12
# tokens an arm; tasks a seed and length, of which 40 said too little; tasks in which attention is measured


@dataclass(frozen=True)
class Fix:
    """What an arm does otherwise: to the question and to the positions in training, to the thought, or a tool.
    most: tokens that it may write about a chain."""

    changes: tuple[Callable[[Task, random.Random], Task], ...] = ()
    gaps: bool = False
    thought: Callable[[Task], str] = lists.plain
    tool: bool = False
    most: int = 400

    def examples(self, tokenizer: Tokenizer, task: Task) -> list[Example]:
        """A task as it is trained on."""
        if self.tool:
            return lists.dialogue(tokenizer, task)
        return [lists.answered(tokenizer, task, self.thought(task))]

    def right(self, model: KimiMini, tokenizer: Tokenizer, tasks: list[Task]) -> int:
        """How many of the tasks it solves."""
        if self.tool:
            talks = [lists.stepwise(task) for task in tasks]
            for talk in talks:
                begin(talk, tokenizer)
            limits = replace(lists.STEPWISE, turns=tasks[0].level + 10)
            loop.converse(LocalPolicy(model, tokenizer), talks, tokenizer, limits)
            return sum(talk.verdict().passed for talk in talks)
        ids = [shared.prompt_ids(tokenizer, task) for task in tasks]
        turns = write_in_batches(model, tokenizer, ids, max_tokens=self.most)
        return sum(shared.number(turn, tokenizer) == task.data["answer"] for turn, task in zip(turns, tasks))


FIXES = {
    CONTROL: Fix(),
    "labels": Fix((lists.relabelled,)),
    "words around": Fix((lists.padded,)),
    "gaps": Fix(gaps=True),
    "rest of the list": Fix(thought=lists.restated, most=2_000),
    TOOL: Fix(tool=True),
}
LOOKED_AT = (CONTROL, BEST)


def main() -> None:
    """All arms of all seeds; write data/results/beyond.json and its figure."""
    args = harness.arguments(__doc__.splitlines()[0], tuned=TUNED)
    folder = RUNS / "beyond" if args.scale == 1 else harness.REHEARSAL / f"beyond_{args.scale:g}"
    weights = harness.fingerprint(args.tuned)
    log = Log("beyond", seeds=args.seeds, folder=args.folder, weights=weights)
    plan = {"scale": args.scale, "tokens": TOKENS, "tasks": TASKS, "steps": list(STEPS)}
    check_plan(folder, plan | {"weights": weights})
    for seed in args.seeds:
        for arm in FIXES:
            file = folder / f"{arm.replace(' ', '_')}_{seed}.json"
            if not file.is_file():
                write_json(file, {"rows": rows_of(args, arm, seed)})
            for row in read_json(file)["rows"]:
                log.row(**row)
    report(log)
    harness.finish(log, beyond=draw)


def rows_of(args, arm: str, seed: int) -> list[dict]:
    """Train one arm and measure it at every length; the control in windows too, and where some of them look."""
    (model, tokenizer), fix = load_agent(args.tuned), FIXES[arm]

    def make(rng: random.Random, number: int) -> list[Example]:
        return fix.examples(tokenizer, lists.drawn(rng, 1 + number % lists.TRAINED, fix.changes))

    examples = tuning.until(int(TOKENS * args.scale), tuning.forever(make, f"{seed}/beyond/{arm}"))
    history = tuning.tune(model, examples, seed, gaps=lists.step_starts(tokenizer) if fix.gaps else ())
    about = {"tokens": sum(history.tokens), "loss": round(fmean(history.loss[-5:]), 5)}
    rows = [{"part": "training", "arm": arm, "seed": seed, **about, "seconds": round(history.seconds, 1)}]
    for steps in STEPS:
        tasks = held_out_tasks("chain", [steps], max(4, int(TASKS * args.scale)), seed)
        found = {arm: fix.right(model, tokenizer, tasks)}
        if arm == CONTROL:
            numbers = in_windows(model, tokenizer, [task.prompt for task in tasks], lists.TRAINED)
            found[WINDOWS] = sum(number == task.data["answer"] for number, task in zip(numbers, tasks))
        for name, right in found.items():
            rows.append(
                {
                    "part": "success",
                    "arm": name,
                    "seed": seed,
                    "steps": steps,
                    "n": len(tasks),
                    "right": right,
                }
            )
    print(f"seed {seed}:", {(row["arm"], row["steps"]): row["right"] for row in rows[1:]}, flush=True)
    if arm in LOOKED_AT:
        rows += [looked(model, tokenizer, arm, seed, steps) for steps in (lists.TRAINED, TWICE)]
    return rows


def looked(model: KimiMini, tokenizer: Tokenizer, arm: str, seed: int, steps: int) -> dict:
    """One row of attention, of the head that finds the place where all steps are trained."""
    seen = {
        n: places.look(model, tokenizer, held_out_tasks("chain", [n], LOOKS, seed))
        for n in (lists.TRAINED, steps)
    }
    layer, head = places.keeper(seen[lists.TRAINED]["right"], lists.TRAINED)
    of_head = {key: [step[layer][head] for step in seen[steps][key]] for key in ("right", "list")}
    about = {
        "part": "look",
        "arm": arm,
        "seed": seed,
        "steps": steps,
        "n": LOOKS,
        "layer": layer,
        "head": head,
    }
    return about | of_head | {"chance": seen[steps]["chance"]}


def report(log: Log) -> None:
    """The claims: every fix against the control at twice the trained length, and the best of them by itself."""
    common = {"notebook": shared.NOTEBOOK, "figure": "figures/beyond.png", "source": "this project"}
    for arm in [*FIXES, WINDOWS]:
        if arm != CONTROL:
            log.claim(
                f"beyond/{arm.replace(' ', '_')}",
                claim=f"chains of {TWICE} steps (trained: {lists.TRAINED}): what '{arm}' adds to the control",
                floor=0.50,
                **common,
                **difference(log.rows, arm, CONTROL, TWICE),
            )
    for arm in (BEST, WINDOWS, TOOL):
        log.claim(
            f"beyond/{TWICE}_{arm.replace(' ', '_')}",
            claim=f"chains of {TWICE} steps (trained: {lists.TRAINED}), {ASKED[arm]}; "
            f"{TASKS} a seed, as 40 said too little",
            floor=0.90,
            **common,
            **success(log.rows, arm, TWICE),
        )


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
