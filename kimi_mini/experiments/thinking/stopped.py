"""Can an agent learn to be stopped? Thoughts that are cut, and what stands behind them.

    python -m kimi_mini.experiments.thinking.stopped

A thought that is closed from outside, by a hard stop or a soft target, is something that no training has shown: the
shipped agent thinks on in its answer (see `budget`), or answers what nothing had reached (see `thought_used`). Arms,
from the same weights and with as many tokens:

    stopped    two fifths of them are chains whose thought was cut anywhere and closed; the answer behind it, the number
               that was reached by then, is all that is learned of them
    replay     nothing but what the agent knows already, as much of each family: so are the other three fifths

Measured, before and after, on other held-out chains for every seed: whether a number follows where anything may;
whether that is the number that was reached; success without a limit; and what the agent can do elsewhere. How many
tokens, how many of them and at which rate was chosen on seed 10, which is not reported.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
from matplotlib.figure import Figure

from kimi_mini import worlds
from kimi_mini.agent import loop
from kimi_mini.agent.folder import load_agent, shipped_agent
from kimi_mini.base.command import in_one_line
from kimi_mini.base.evidence import Log
from kimi_mini.course.figures import scores
from kimi_mini.experiments import harness
from kimi_mini.experiments.harness import arguments
from kimi_mini.experiments.thinking import shared
from kimi_mini.experiments.thinking.interventions import reached, steps_kept
from kimi_mini.experiments.thinking.thought_used import solved_by
from kimi_mini.experiments.verifiers.shared import pools, success
from kimi_mini.inference.attempts.routed import write_in_batches
from kimi_mini.inference.thinking import Turn
from kimi_mini.model.kimi import KimiMini
from kimi_mini.pipeline import finetune
from kimi_mini.pipeline.plan import Finetune, Plan, Schedule
from kimi_mini.text import chat
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training import sft, synthesis
from kimi_mini.training.batch import Example
from kimi_mini.training.synthesis import Source
from kimi_mini.worlds import Task
from kimi_mini.worlds.registry import held_out_tasks, measured_levels

ARMS = {"stopped": 0.4, "replay": 0.0}  # the share of the tokens that are cut thoughts
BEFORE = "before"
TOKENS, RATE, LENGTH = 300_000, 0.15, 110  # of training; of the plan's rates; tokens of a cut chain, about
LENGTHS = tuple(range(1, 9))
STOPS, TARGETS, NUDGE = (8, 16, 24, 32, 40, 48, 56, 64, 72, 80), (8, 16, 24, 32, 40, 48, 56, 64), 1.0
TASKS = 80  # chains a seed; of every other family, too
ELSEWHERE = ("repair", "follow", "cheapest", "condition", "buy", "add", "times")
MEASURES = {
    "answered": "a number follows a thought that the hard stop closed, when anything may follow",
    "hurried": "a number follows a thought that was hurried to its end, when anything may follow",
    "reached": "the answer behind a thought cut short is the number that it had reached, when anything may follow",
    "whole": "chains are solved without a limit",
    "elsewhere": "what the agent can do elsewhere (mean of seven families)",
}
FLOORS = {"answered": 0.97, "hurried": 0.97, "reached": 0.90}
KEPT = -0.02


# ---- what is taught ------------------------------------------------------------------------------------------


def cut_thought(tokenizer: Tokenizer, task: Task, rng: random.Random) -> Example:
    """The expert's work on a chain, its thought cut behind any of its tokens but the last and closed; behind it the
    number that it had reached, the one that the chain starts with if there is none yet. Only that is learned."""
    played = loop.play(task, rng)
    *asked, message = played.messages
    thought = tokenizer.encode_plain(message["reasoning_content"])
    kept = tokenizer.decode(thought[: rng.randrange(1, len(thought))])  # without any it would be a reflex
    found = [part.partition("=")[2] for part in kept.split()]
    found = [number for number in found if len(number) == 2]  # a number cut in two is none
    number = found[-1] if found else f"{task.data['start']:02d}"
    ids, mask = chat.encode(tokenizer, [*asked, {**message, "reasoning_content": kept, "content": number}])
    closed = ids.index(tokenizer.special["</think>"])
    return Example(np.asarray(ids, np.int32), np.asarray(mask, bool) & (np.arange(len(ids)) > closed))


def lessons(tokenizer: Tokenizer, tokens: int, share: float, seed: int) -> sft.Pools:
    """Cut thoughts for a share of the tokens, levels in turn, of tasks that are not held out; the rest is replay."""
    found: sft.Pools = {}
    source = Source("chain", "think", share, LENGTHS, LENGTH)
    for index in range(synthesis.wanted(source, tokens, mistakes=0.0) if share else 0):
        rng, level = random.Random(f"{seed}/cut/{index}"), LENGTHS[index % len(LENGTHS)]
        task = worlds.generate(rng, "chain", level)
        found.setdefault((source, level), []).append(cut_thought(tokenizer, task, rng))
    return found | pools(tokenizer, synthesis.replay(1 - share, even=True), tokens, seed, mistakes=0.0)


def taught(start: Path, arm: str, tokens: int, seed: int) -> tuple[KimiMini, dict]:
    """The agent after an arm, and how its training went."""
    model, tokenizer = load_agent(start)
    plan = Plan(seed=seed, finetune=Finetune(tokens=tokens, schedule=Schedule(peak=RATE, decay_start=0.35)))
    history = finetune.tune(model, lessons(tokenizer, tokens, ARMS[arm], seed), plan, title=f"{arm} {seed}")
    return model, {
        "tokens": sum(history.tokens),
        "seconds": round(history.seconds, 1),
        "loss": history.loss[-1],
    }


# ---- what is measured ----------------------------------------------------------------------------------------


def measure(model: KimiMini, tokenizer: Tokenizer, count: int, seed: int) -> dict[str, float]:
    """MEASURES, each a share."""
    tasks = held_out_tasks("chain", LENGTHS, count, seed)
    prompts = [shared.prompt_ids(tokenizer, task) for task in tasks]

    def answered(closed: str, **options) -> list[bool]:
        turns = write_in_batches(model, tokenizer, prompts, max_tokens=160, **options)
        return [is_answered(turn, tokenizer) for turn in turns if getattr(turn, closed)]

    stopped = [one for budget in STOPS for one in answered("was_cut", budget=budget)]
    hurried = [one for target in TARGETS for one in answered("hurried", target=target, nudge=NUDGE)]
    right = [shared.number(turn, tokenizer) for turn in write_in_batches(model, tokenizer, prompts)]
    elsewhere = [success(model, tokenizer, one, measured_levels(one), count, seed=seed) for one in ELSEWHERE]
    return {
        "answered": fmean(stopped),
        "hurried": fmean(hurried),
        "reached": fmean(says_what_it_reached(model, tokenizer, tasks, seed)),
        "whole": fmean(answer == task.data["answer"] for answer, task in zip(right, tasks)),
        "elsewhere": fmean(map(harness.mean, elsewhere)),
    }


def is_answered(turn: Turn, tokenizer: Tokenizer) -> bool:
    """Whether the turn ends with a number and nothing else."""
    return turn.finish == "stop" and shared.number(turn, tokenizer) is not None


def says_what_it_reached(
    model: KimiMini, tokenizer: Tokenizer, tasks: Sequence[Task], seed: int
) -> list[bool]:
    """For each chain that the model solves undisturbed, its thought cut behind some step: whether it says that number.
    False for all where there is none: who solves nothing has reached nothing."""
    rng = random.Random(f"{seed}/cut short")
    solved = solved_by(model, tokenizer, tasks)
    kept = [(task, turn, steps) for task, turn in solved if (steps := steps_kept(task, rng))]
    cuts = [reached(turn, tokenizer, task, steps) for task, turn, steps in kept]
    prompts, budget = [turn.prompt for _, turn, _ in kept], [tokens for tokens, _ in cuts]
    turns = write_in_batches(model, tokenizer, prompts, budget=budget)
    return [shared.number(turn, tokenizer) == number for turn, (_, number) in zip(turns, cuts)] or [False]


def main() -> None:
    """Every arm from every seed; write data/results/stopped.json and its figure."""
    args = arguments(__doc__.splitlines()[0], start=shipped_agent())
    tokens, count = max(16_384, int(TOKENS * args.scale)), max(8, int(TASKS * args.scale))
    log = Log("stopped", seeds=args.seeds, folder=args.folder, weights=harness.fingerprint(args.start))
    for seed in args.seeds:
        log.row(seed=seed, arm=BEFORE, **measure(*load_agent(args.start), count, seed))
        for arm in ARMS:
            model, done = taught(args.start, arm, tokens, seed)
            log.row(seed=seed, arm=arm, **done, **measure(model, Tokenizer.load(), count, seed))
            print(log.rows[-1], flush=True)
    report(log, count)
    harness.finish(log, stopped=draw)


def values(log: Log, arm: str, name: str) -> list[float]:
    """A measure of an arm, by seed."""
    return [row[name] for row in log.rows if row["arm"] == arm]


def report(log: Log, count: int) -> None:
    """Scoreboard rows of all arms; claims about the one that was taught, and its price beside replay alone."""
    place = {
        "figure": "figures/stopped.png",
        "notebook": shared.NOTEBOOK,
        "source": "article (thinking mode)",
    }
    log.more["scoreboard"] = {
        f"{arm}/{name}": harness.row(values(log, arm, name), log.seeds, count, f"{arm}: {says}", main=True)
        for arm in (BEFORE, *ARMS)
        for name, says in MEASURES.items()
    }
    for name, floor in FLOORS.items():
        says, found = f"taught to be stopped: {MEASURES[name]}", values(log, "stopped", name)
        log.claim(f"stopped/{name}", claim=says, floor=floor, **harness.share_across(found), **place)
    for name in ("whole", "elsewhere"):
        lost = [a - b for a, b in zip(values(log, "stopped", name), values(log, BEFORE, name))]
        says = f"and costs nothing: {MEASURES[name]}, after - before"
        log.claim(f"stopped/kept/{name}", claim=says, floor=KEPT, **harness.across(lost), **place)


def draw(log: dict) -> Figure:
    """Every measure of every arm, with its spread over seeds."""
    return scores.scoreboard(log["scoreboard"], title="Before, taught to be stopped, and replay alone")


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
