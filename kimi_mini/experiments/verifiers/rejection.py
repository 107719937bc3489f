"""One round of rejection sampling: the model tries, the verifiers choose, the model learns from what passed.

Start: the agent of `filter_gap` that was spoilt by learning from everything, 60% of it wrong. It works on new training
tasks, four attempts each at temperature 1, and is tuned further on its own attempts: on those that passed, and, as a
control at equal tokens, on all of them. Every family and level has its quota in both. No expert takes part any more.

Read it with care: a model that repeats its own successes may only commit itself to what it could do before (then
pass@4 stands still while sampled success rises); that is why sampled, greedy and pass@4 are all measured.
"""

from __future__ import annotations

import copy
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure

from kimi_mini import worlds
from kimi_mini.agent import folder as folder_
from kimi_mini.agent.conversation import Conversation, training_rows
from kimi_mini.base.command import in_one_line
from kimi_mini.base.evidence import Log
from kimi_mini.course.figures import verifiers
from kimi_mini.evaluation import scoreboard
from kimi_mini.experiments.harness import across, arguments, finish, gap, mean, row
from kimi_mini.experiments.verifiers.filter_gap import LEVELS, MISTAKES
from kimi_mini.experiments.verifiers.shared import TUNED, pools, success, tune
from kimi_mini.training import sft
from kimi_mini.training.batch import Example
from kimi_mini.training.synthesis import Source
from kimi_mini.worlds.rows import LIMITS

START_TOKENS, OWN_TOKENS = 200_000, 120_000
PROMPTS, ATTEMPTS = 40, 4  # new tasks a family; attempts at each
TASKS = 50  # held-out tasks a family, of four families
SEEDS = (10, 11, 12, 13, 14, 15)  # fixed before the run
MEASURES = ("sampled", "pass@4", "greedy")
ARMS: dict[str, Callable[[Conversation], bool]] = {
    "passed": lambda conversation: conversation.verdict().passed,
    "everything": lambda conversation: True,
}


def training_tasks(source: Source, count: int, rng) -> list[worlds.Task]:
    """Tasks of the training side, levels in turn."""
    levels = source.levels
    return [worlds.generate(rng, source.family, levels[i % len(levels)]) for i in range(count)]


def own_pools(
    sources: Sequence[Source], attempts: Sequence[Conversation], keep: Callable[[Conversation], bool]
):
    """Kept attempts as training examples, by source and level; a level without any leaves its source."""
    found: sft.Pools = {}
    for conversation in filter(keep, attempts):
        source = next(s for s in sources if s.family == conversation.task.family)
        pool = found.setdefault((source, conversation.task.level), [])
        for ids, mask, _ in training_rows(conversation):
            pool.append(Example(np.asarray(ids, np.int32), np.asarray(mask, bool)))
    left = {s: replace(s, levels=tuple(level for level in s.levels if (s, level) in found)) for s in sources}
    return {(left[source], level): examples for (source, level), examples in found.items()}


def counted(attempts: Sequence[Conversation]) -> dict[str, dict[str, int]]:
    """ "family/level" -> how many attempts were made, how many ended with an answer, how many passed."""
    stages = {"made": lambda c: True, "answered": lambda c: c.finish == "stop", "passed": ARMS["passed"]}
    counts = {
        name: Counter((c.task.family, c.task.level) for c in attempts if reached(c))
        for name, reached in stages.items()
    }
    return {
        f"{family}/{level}": {name: count[family, level] for name, count in counts.items()}
        for family, level in sorted(counts["made"])
    }


def measure(model, tokenizer, sources: Sequence[Source], tasks: int, seed: int) -> dict[str, float]:
    """Success of a model: sampled at temperature 1, at least once in four, and greedily; mean over families."""
    sampled = [
        success(model, tokenizer, s.family, s.levels, tasks, 1.0, ATTEMPTS, seed=seed) for s in sources
    ]
    greedy = [success(model, tokenizer, s.family, s.levels, tasks, seed=seed) for s in sources]
    return {
        "sampled": float(np.mean([mean(outcomes) for outcomes in sampled])),
        "pass@4": float(np.mean([sum(map(any, outcomes)) / len(outcomes) for outcomes in sampled])),
        "greedy": float(np.mean([mean(outcomes) for outcomes in greedy])),
    }


def main() -> None:
    """Start, sample, choose, tune, measure, for every seed; write data/results/rejection.json."""
    args = arguments(__doc__.splitlines()[0], seeds=SEEDS, base=TUNED)
    sources = [Source(family, "think", 1 / len(LEVELS), levels) for family, levels in LEVELS.items()]
    start, own = int(START_TOKENS * args.scale), int(OWN_TOKENS * args.scale)
    prompts, tasks = max(8, int(PROMPTS * args.scale)), max(4, int(TASKS * args.scale))
    log = Log("rejection", seeds=args.seeds, folder=args.folder)
    for seed in args.seeds:
        model, tokenizer = folder_.load_agent(args.base)
        everything = pools(tokenizer, sources, start, seed, MISTAKES, lambda trajectory: True)
        tune(model, everything, start, seed, f"start, seed {seed}")
        note(log, seed, "before", measure(model, tokenizer, sources, tasks, seed))
        attempts = sample_attempts(model, tokenizer, sources, prompts, seed)
        log.more.setdefault("funnel", {})[str(seed)] = counted(attempts)
        for arm, keep in ARMS.items():
            student, kept = copy.deepcopy(model), own_pools(sources, attempts, keep)
            tune(student, kept, own, seed, f"{arm}, seed {seed}")
            count = sum(map(len, kept.values()))
            note(
                log,
                seed,
                arm,
                measure(student, tokenizer, sources, tasks, seed),
                attempts=len(attempts),
                kept=count,
            )
    report(log, args.seeds, tasks * len(LEVELS))
    finish(log, rejection=draw)


def sample_attempts(
    model, tokenizer, sources: Sequence[Source], prompts: int, seed: int
) -> list[Conversation]:
    """Four attempts at temperature 1 at each of `prompts` new tasks a family."""
    rng = random.Random(f"{seed}/rejection")
    tasks = [
        task for source in sources for task in training_tasks(source, prompts, rng) for _ in range(ATTEMPTS)
    ]
    return scoreboard.solve(model, tokenizer, tasks, LIMITS, temperature=1.0, seed=seed)


def note(log: Log, seed: int, arm: str, found: dict[str, float], **more: int) -> None:
    """One row of the log, printed as it comes."""
    log.row(seed=seed, arm=arm, **found, **more)
    print(f"seed {seed} {arm:11s} " + " ".join(f"{k} {v:.3f}" for k, v in found.items()), more, flush=True)


def report(log: Log, seeds: Sequence[int], count: int) -> None:
    """Scoreboard rows, and the claim that the verifier's choice beats learning from all attempts."""
    values = {(r["arm"], name): [] for r in log.rows for name in MEASURES}
    for entry in log.rows:
        for name in MEASURES:
            values[entry["arm"], name].append(entry[name])
    board = {
        f"rejection/{name}/{arm}": row(found, seeds, count, f"tuned on own attempts: {arm}, {name}")
        for (arm, name), found in values.items()
    }
    gains = {
        other: [a - b for a, b in zip(values["passed", "sampled"], values[other, "sampled"])]
        for other in ("before", "everything")
    }
    for name, other in (("gap", "before"), ("filter_gap", "everything")):
        says = f"tuned on own attempts: passed - {other}, sampled"
        board[f"rejection/{name}"] = gap(gains[other], seeds, count, says, main=True)
    log.more["scoreboard"] = board
    says = "one round of tuning on own attempts that passed raises sampled success"
    where = {"figure": "figures/rejection.png", "notebook": "06_the_verifier_economy.ipynb"}
    where["source"] = "K2 report 3.1.1 (large-scale rejection sampling)"
    log.claim("rejection/gap", claim=says, floor=0.0, **across(gains["before"]), **where)


def draw(log: dict) -> Figure:
    """Every arm by every measure, one dot a seed."""
    scores = {
        name: {
            arm: [entry[name] for entry in log["rows"] if entry["arm"] == arm] for arm in ("before", *ARMS)
        }
        for name in MEASURES
    }
    return verifiers.arms(scores, "One round on the model's own attempts", "held-out success")


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
