"""What the experiments of joint RL share: a start, the kinds of task, one run with its measures, and runs side by side.

The start is the shipped agent before RL. It was fine-tuned on chains of 1 to 5 records and, in windows, a little longer
ones; of 8 and 9 it follows about half: there RL has most to win. The hardest kinds of three other families, of three
worlds (shop, repair, chain) in all, are beside them; four families are only measured, greedily: what is forgotten
there.
A run is one process with one thread, and depends on its settings alone: not on how many run beside it.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from statistics import fmean
from time import perf_counter

import torch

from kimi_mini.agent.conversation import Conversation
from kimi_mini.agent.folder import load_agent
from kimi_mini.base.paths import CHECKPOINTS, short
from kimi_mini.evaluation import scoreboard
from kimi_mini.experiments.harness import fingerprint, mean
from kimi_mini.experiments.verifiers.shared import pools, success
from kimi_mini.inference.attempts import pass_at
from kimi_mini.model.kimi import KimiMini
from kimi_mini.pipeline.plan import Plan
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training import sft
from kimi_mini.training.rl import measures
from kimi_mini.training.rl import rounds as rl
from kimi_mini.training.rl.config import RLConfig
from kimi_mini.training.synthesis import SOURCES
from kimi_mini.worlds.registry import held_out_tasks, measured_levels
from kimi_mini.worlds.rows import Limits

START = CHECKPOINTS / "tuned"
JOINT: dict[str, tuple[int, ...]] = {"follow": (8, 9), "repair": (3, 4), "cheapest": (5,), "times": (4,)}
KINDS = tuple((family, level) for family, levels in JOINT.items() for level in levels)
ELSEWHERE = ("chain", "add", "condition", "buy")
LIMITS = Limits(turn_tokens=96, turns=12, context=1024)
PTX_POOL = 200_000  # tokens
WATCHED = 1  # attempts at each task of a round whose entropy and KL are measured
ATTEMPTS, SAMPLED = 8, 0.4  # held-out attempts, at this share of the held-out tasks
TEMPERATURE = 1.0


@dataclass(frozen=True)
class Job:
    """A run: an arm of an experiment, from one seed. tasks: held out, a family; start: folder of the agent;
    optimizer: muonclip or adamw, at the rates of the config; each_round: held-out tasks of a family that are tried
    before every update."""

    arm: str
    seed: int
    config: RLConfig
    tasks: int = 60
    start: Path = START
    optimizer: str = "muonclip"
    each_round: int = 0

    def said(self) -> dict:
        """All that decides its numbers, as JSON reads it back."""
        told = asdict(self) | {"start": short(self.start), "weights": fingerprint(self.start)}
        return json.loads(json.dumps(told))


@cache
def ptx_pools(tokens: int) -> sft.Pools:
    """Examples that passed, of all families and modes: the pre-training side. Made once a process."""
    return pools(Tokenizer.load(), SOURCES, tokens, 100, mistakes=0.0)


def optimizer_of(model: KimiMini, config: RLConfig, name: str):
    """MuonClip as the plan has it, or torch's AdamW for all weights, at the rates of the config."""
    if name == "adamw":
        return torch.optim.AdamW(model.parameters(), lr=config.adamw_lr, betas=(0.9, 0.95), weight_decay=0.0)
    return replace(Plan().optimizer, lr=config.lr, adamw_lr=config.adamw_lr).build(model)


def reinforced(
    start: KimiMini,
    tokenizer: Tokenizer,
    config: RLConfig,
    seed: int,
    examples: sft.Pools,
    optimizer: str = "muonclip",
    judge: rl.Judge | None = None,
    each_round: int = 0,
) -> tuple[KimiMini, list[rl.Round]]:
    """RL on a copy of `start`: the copy, and its rounds, each with entropy and KL to the start as `seen`, and, of
    `each_round` held-out tasks a family, success as sampled."""
    model = copy.deepcopy(start)

    def watch(groups: Sequence[Sequence[Conversation]], temperature: float) -> dict[str, float]:
        some = [c for group in groups for c in group[:WATCHED]]
        found = measures.drift(model, start, some, temperature)
        return found | ({"held_out": held_out(model, tokenizer, each_round)} if each_round else {})

    ptx = sft.mixed(examples, config.ptx_tokens, Plan().micro_tokens, seed) if config.ptx else lambda _: ()
    optimizing = optimizer_of(model, config, optimizer)
    rounds = rl.reinforce(model, tokenizer, optimizing, config, seed, ptx, watch=watch, judge=judge)
    return model, rounds


def held_out(model: KimiMini, tokenizer: Tokenizer, tasks: int) -> float:
    """Success on so many held-out tasks of each family of JOINT, one attempt at each, sampled; the same tasks and dice
    every time."""
    passed = []
    for family, levels in JOINT.items():
        groups = attempts_at(model, tokenizer, family, levels, tasks, attempts=1, seed=1)
        passed += [c.verdict().passed for group in groups for c in group]
        close(groups)
    return fmean(passed)


def attempts_at(
    model: KimiMini,
    tokenizer: Tokenizer,
    family: str,
    levels: Iterable[int],
    tasks: int,
    limits: Limits = LIMITS,
    attempts: int = ATTEMPTS,
    seed: int = 0,
) -> list[list[Conversation]]:
    """`attempts` attempts, sampled, at each of `tasks` held-out tasks; another seed has other tasks."""
    held_out = held_out_tasks(family, list(levels), tasks, seed)
    copies = [task for task in held_out for _ in range(attempts)]
    done = scoreboard.solve(model, tokenizer, copies, limits, temperature=TEMPERATURE)
    return [done[i : i + attempts] for i in range(0, len(done), attempts)]


def measure(model: KimiMini, start: KimiMini, tokenizer: Tokenizer, tasks: int) -> dict:
    """A model on held-out tasks: success of each family, sampled and greedy; "elsewhere", of the families that RL has
    not; and means over the families of pass@8, distinct right answers, tokens an answer, entropy, KL to the start."""
    found: dict = {"sampled": {}, "greedy": {}, "elsewhere": {}}
    parts: list[dict[str, float]] = []
    for family, levels in JOINT.items():
        groups = attempts_at(model, tokenizer, family, levels, max(2, int(SAMPLED * tasks)))
        passed = [[c.verdict().passed for c in group] for group in groups]
        found["sampled"][family] = mean(passed)
        parts.append(
            {
                f"pass@{ATTEMPTS}": pass_at(ATTEMPTS, passed),
                "distinct": measures.distinct(groups),
                "tokens": measures.tokens([c for group in groups for c in group]),
                **measures.drift(model, start, [group[0] for group in groups], TEMPERATURE),
            }
        )
        close(groups)
        found["greedy"][family] = mean(success(model, tokenizer, family, levels, tasks))
    for family in ELSEWHERE:
        found["elsewhere"][family] = mean(success(model, tokenizer, family, measured_levels(family), tasks))
    totals = {key: fmean(of.values()) for key, of in found.items()}
    means = {name: fmean(part[name] for part in parts) for name in parts[0]}
    return found | means | {"success": totals["sampled"], "kept": totals["elsewhere"]}


def close(groups: Iterable[Iterable[Conversation]]) -> None:
    """Release what the environments hold."""
    for conversation in (c for group in groups for c in group):
        conversation.environment.close()


def curves(rounds: Sequence[rl.Round]) -> dict[str, list[float]]:
    """What the rounds have measured, one list a name."""
    told = [{**vars(one), **one.seen} for one in rounds]
    names = ("reward", "success", "tokens", "moderate", "entropy", "kl", "held_out")
    names = [name for name in names if name in told[0]]
    return {name: [round(one[name], 4) for one in told] for name in names}


def run(job: Job) -> dict:
    """One run and its measures: a row of a log."""
    torch.set_num_threads(1)
    start, tokenizer = load_agent(job.start)
    given, began = (job.config, job.seed, ptx_pools(PTX_POOL), job.optimizer), perf_counter()
    model, rounds = reinforced(start, tokenizer, *given, each_round=job.each_round)
    seconds = round(perf_counter() - began, 1)
    row = {"arm": job.arm, "seed": job.seed, "seconds": seconds, "rounds": curves(rounds)}
    row["learned"] = sum(one.tokens * len(one.successes) * job.config.attempts for one in rounds)
    return row | measure(model, start, tokenizer, job.tasks)


def values(rows: Sequence[dict], arm: str, name: str) -> list[float]:
    """A measure of an arm, in the order of its seeds."""
    return [row[name] for row in sorted_rows(rows, arm)]


def sorted_rows(rows: Sequence[dict], arm: str) -> list[dict]:
    """The rows of an arm in the order of its seeds."""
    return sorted((row for row in rows if row["arm"] == arm), key=lambda row: row["seed"] or 0)
