"""A budget that always holds, one that holds in every other phase (Toggle), and none.

    python -m kimi_mini.experiments.rl.toggle

There is nothing to save in thoughts that say each step once. So the start is made wordy first: the shipped agent before
RL is tuned on arithmetic whose thoughts are said once or twice, at random. Then RL, with three arms that differ in the
budget alone. Measured with as many tokens a turn as the budget of a family allows, and with three times as many: on the
lengths that RL has, and on the longest ones that the start can do, which take more tokens than the budget.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from matplotlib.figure import Figure

from kimi_mini import worlds
from kimi_mini.agent import loop
from kimi_mini.agent.conversation import Conversation
from kimi_mini.agent.folder import load_agent
from kimi_mini.base.command import in_one_line
from kimi_mini.base.evidence import Log
from kimi_mini.base.paths import RUNS
from kimi_mini.course.figures import rl as figures
from kimi_mini.experiments.harness import SEEN, across, finish, read, side_by_side
from kimi_mini.experiments.rl.safeguards import parser, scaled, sorted_rows
from kimi_mini.experiments.rl.shared import Job, attempts_at, close, curves, reinforced
from kimi_mini.experiments.verifiers.shared import tune
from kimi_mini.model.kimi import KimiMini
from kimi_mini.text import chat
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training import sft
from kimi_mini.training.batch import Example
from kimi_mini.training.rl import measures
from kimi_mini.training.rl.config import RLConfig
from kimi_mini.training.synthesis import Source
from kimi_mini.worlds.rows import Limits

KINDS = {"chain": (2, 3, 4), "add": (2, 3), "times": (2, 3)}
LONGEST = {"chain": (7, 8), "add": (4,), "times": (4,)}
BOTH = {"RL's lengths": KINDS, "the longest": LONGEST}
WORDY_TOKENS, WORDY_SEED, TWICE = 200_000, 50, 0.5
PERCENTILE, PHASE, TIMES = 50.0, 3, 3
LIMITS = Limits(turn_tokens=256, turns=2, context=512)
CONFIG = RLConfig(
    objective="k2.5",
    lr=5e-4,
    adamw_lr=2e-4,
    tasks=tuple((family, level) for family, levels in KINDS.items() for level in levels),
    rounds=24,
    prompts=14,
    temperature=(1.0, 0.8),
    ptx=0.0,
    least_moderate=0.0,
    limits=LIMITS,
)
ARMS = {
    "no budget": CONFIG,
    "always": replace(CONFIG, budget=PERCENTILE),
    "Toggle": replace(CONFIG, budget=PERCENTILE, toggle=PHASE),
}
TASKS = 60


@dataclass(frozen=True)
class WordyJob(Job):
    """A run from the wordy agent: how many tokens of tuning made it."""

    wordy: int = WORDY_TOKENS


def wordy_pools(tokenizer: Tokenizer, count: int, seed: int) -> sft.Pools:
    """`count` right trajectories of each kind, the longest ones too, whose thoughts stand once or twice."""
    made: sft.Pools = {}
    for family, levels in KINDS.items():
        levels = (*levels, *LONGEST[family])
        source = Source(family, "think", 1 / len(KINDS), levels)
        for level in levels:
            made[source, level] = [
                _wordy(tokenizer, family, level, f"{seed}/wordy/{family}/{level}/{i}") for i in range(count)
            ]
    return made


def _wordy(tokenizer: Tokenizer, family: str, level: int, seed: str) -> Example:
    rng = random.Random(seed)
    played = loop.play(worlds.generate(rng, family, level), rng)
    times = 2 if rng.random() < TWICE else 1
    messages = [
        {**message, "reasoning_content": " ".join([message["reasoning_content"]] * times)}
        if message["role"] == "assistant"
        else message
        for message in played.messages
    ]
    ids, mask = chat.encode(tokenizer, messages, played.tools)
    return Example(np.asarray(ids, np.int32), np.asarray(mask, bool))


@cache
def wordy_start(folder: Path, tokens: int) -> tuple[KimiMini, Tokenizer]:
    """The agent of `folder`, tuned on so many tokens of wordy thoughts; made once a process."""
    model, tokenizer = load_agent(folder)
    kinds = sum(len(KINDS[family]) + len(LONGEST[family]) for family in KINDS)
    tune(model, wordy_pools(tokenizer, max(4, tokens // kinds // 120), WORDY_SEED), tokens, WORDY_SEED)
    return model, tokenizer


def limited(limits: Limits, tokens: float) -> Limits:
    """The same with so many tokens a turn."""
    return replace(limits, turn_tokens=max(1, int(tokens)))


def measure(model: KimiMini, tokenizer: Tokenizer, tasks: int, budgets: dict[str, float]) -> dict:
    """Median tokens an answer, and success with the family's budget of tokens and with TIMES as many; each on RL's
    lengths and on the longest."""
    found: dict[str, dict[str, float]] = {}
    for name, kinds in BOTH.items():
        parts = []
        for family, levels in kinds.items():

            def tried(tokens: float, family=family, levels=levels) -> list[Conversation]:
                limits = limited(LIMITS, min(tokens, LIMITS.turn_tokens))
                groups = attempts_at(model, tokenizer, family, levels, tasks, limits, attempts=1)
                return [group[0] for group in groups]

            once, thrice = tried(budgets[family]), tried(TIMES * budgets[family])
            parts.append((passed(once), passed(thrice), measures.tokens(thrice)))
            close([once, thrice])
        found[name] = dict(zip(("once", "thrice", "tokens"), map(fmean, zip(*parts))))
    return found


def passed(conversations: Iterable[Conversation]) -> float:
    """The share that the verifier accepts."""
    return fmean(conversation.verdict().passed for conversation in conversations)


def budgets_of(model: KimiMini, tokenizer: Tokenizer, tasks: int) -> dict[str, float]:
    """What right answers of the start take, family by family, at the percentile that RL has: the budget of the test."""
    found = {}
    for family, levels in KINDS.items():
        groups = attempts_at(model, tokenizer, family, levels, tasks, LIMITS, attempts=2)
        lengths = [c.written for group in groups for c in group if c.verdict().passed]
        found[family] = float(np.percentile(lengths, PERCENTILE)) if lengths else float(LIMITS.turn_tokens)
        close(groups)
    return found


def run(job: WordyJob) -> dict:
    """One arm from one seed: its curves, and its measures beside those of the start."""
    torch.set_num_threads(1)
    start, tokenizer = wordy_start(job.start, job.wordy)
    budgets = budgets_of(start, tokenizer, job.tasks)
    model, rounds = reinforced(start, tokenizer, job.config, job.seed, {})
    before, after = (measure(one, tokenizer, job.tasks, budgets) for one in (start, model))
    row = {"arm": job.arm, "seed": job.seed, "budgets": budgets, "rounds": curves(rounds)}
    return row | {"before": before, "after": after}


def main() -> None:
    """Every arm from every seed; write data/results/rl_toggle.json."""
    args = read(parser(__doc__.splitlines()[0]))
    tasks, wordy = max(6, int(TASKS * args.scale)), max(8192, int(WORDY_TOKENS * args.scale))
    log = Log("rl_toggle", seeds=args.seeds, folder=args.folder, config=str(ARMS["Toggle"]))
    jobs = [
        WordyJob(arm, seed, scaled(config, args.scale), tasks, args.start, wordy=wordy)
        for seed in args.seeds
        for arm, config in ARMS.items()
    ]
    for row in side_by_side(jobs, RUNS / f"rl_toggle_{args.scale:g}.json", args.processes, run, log):
        log.row(**row)
        print(f"{row['arm']:10s} seed {row['seed']}", row["before"], "->", row["after"], flush=True)
    report(log)
    finish(log, rl_toggle=draw)


def report(log: Log) -> None:
    """Tokens saved and success kept, and what is left where three times the budget may be used."""
    place = {"figure": "figures/rl_toggle.png", "notebook": "07_joint_reinforcement_learning.ipynb"}
    source, (usual, longest) = "K2.5 report 4.4.2 (Toggle)", BOTH

    def after(arm: str, lengths: str, name: str) -> list[float]:
        return [row["after"][lengths][name] for row in sorted_rows(log.rows, arm)]

    before = [row["before"][usual] for row in sorted_rows(log.rows, "Toggle")]
    for arm in ("always", "Toggle"):
        saved = across([1 - a / b["tokens"] for a, b in zip(after(arm, usual, "tokens"), before)])
        says = f"a budget ({arm}) saves median tokens an answer: share of those before"
        log.claim(f"toggle/saved/{arm}", claim=says, source=source, floor=0.25, **saved, **place)
        kept = across([a - b["thrice"] for a, b in zip(after(arm, usual, "thrice"), before)])
        says = f"and keeps success ({arm}), with three budgets at test time: after - before"
        log.claim(f"toggle/kept/{arm}", claim=says, source=source, floor=-0.02, **kept, **place)
    alone = [1 - a / b["tokens"] for a, b in zip(after("no budget", usual, "tokens"), before)]
    says = f"RL without a budget saves median tokens an answer: share of those before{SEEN}"
    log.claim("toggle/saved/no budget", claim=says, source=source, floor=0.25, **across(alone), **place)
    for arm in ("always", "Toggle"):
        more = [
            1 - a / b["tokens"] - one
            for a, b, one in zip(after(arm, usual, "tokens"), before, alone, strict=True)
        ]
        says = f"a budget ({arm}) saves more than RL without one: share of the tokens before{SEEN}"
        log.claim(f"toggle/budget/{arm}", claim=says, source=source, floor=0.0, **across(more), **place)
        pairs = zip(after(arm, usual, "thrice"), after("no budget", usual, "thrice"), strict=True)
        says = f"a budget ({arm}) costs no success, with three of them at test time: against RL without one{SEEN}"
        cost = across([held - free for held, free in pairs])
        log.claim(f"toggle/cost/{arm}", claim=says, source=source, floor=-0.02, **cost, **place)
    pairs = zip(after("Toggle", longest, "thrice"), after("always", longest, "thrice"))
    says = "with three times the budget, Toggle keeps what a rigid one loses: success on the longest tasks"
    gain = across([toggle - always for toggle, always in pairs])
    log.claim("toggle/thrice", claim=says, source=source, floor=0.0, **gain, **place)


def draw(log: dict) -> Figure:
    """Tokens over the rounds, and success with one and three budgets."""
    rows, (usual, longest) = log["rows"], BOTH
    tokens = {arm: [row["rounds"]["tokens"] for row in sorted_rows(rows, arm)] for arm in ARMS}
    success = {
        f"{lengths}, {times}": {
            "before": [row["before"][lengths][key] for row in sorted_rows(rows, "Toggle")],
            **{arm: [row["after"][lengths][key] for row in sorted_rows(rows, arm)] for arm in ARMS},
        }
        for lengths in (usual, longest)
        for times, key in (("budget", "once"), (f"{TIMES} budgets", "thrice"))
    }
    return figures.toggle(tokens, success, "A budget of tokens: always, in every other phase, never")


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
