"""What RL with verifiable rewards adds, and what it only sharpens.

K2 keeps tasks of moderate difficulty for RL, because a group of attempts that all pass or all fail teaches nothing.
For the tuned agent that is `follow` beyond its training: it was shown chains of 1 to 5 records; we measure longer
ones and take the two neighbouring lengths of which it solves about half. K2's objective on that family, with PTX on
all of them, from several seeds. Measured before and after on held-out tasks: success at the temperature that RL
samples with, greedy success, pass@8 (did it learn, or only commit itself?), and every other family (did it forget?).
"""

from __future__ import annotations

import copy
import itertools
import time
from dataclasses import replace

from tqdm import tqdm

from kimi_mini.agent.folder import load_agent
from kimi_mini.base.command import in_one_line
from kimi_mini.base.evidence import Log
from kimi_mini.base.intervals import difference, wilson
from kimi_mini.experiments.harness import SEEN, across, arguments, entry, finish, gap, mean, row, wider
from kimi_mini.experiments.verifiers.shared import TUNED, board, pools, success
from kimi_mini.pipeline.plan import Plan
from kimi_mini.training import sft
from kimi_mini.training.rl import rounds as rl
from kimi_mini.training.rl.config import RLConfig
from kimi_mini.training.synthesis import SOURCES
from kimi_mini.worlds import FAMILIES, WORLDS
from kimi_mini.worlds.registry import measured_levels

FAMILY, LONGER = "follow", range(6, 13)
OTHERS = tuple(
    name for name, family in FAMILIES.items() if family.trained and not WORLDS[family.world].varied
)
ROUNDS = 12
TEMPERATURE = 0.8
PTX_POOL = 400_000  # tokens
TASKS, ATTEMPTS = 200, 8
BAR, MINUTES = 0.85, 10  # asked: success after RL, and the time it may take on two cores


def moderate(model, tokenizer, tasks: int) -> tuple[tuple[int, int], dict[int, float]]:
    """The two neighbouring lengths beyond training with sampled success nearest to a half; and that of all lengths."""
    found = {n: mean(success(model, tokenizer, FAMILY, [n], tasks, TEMPERATURE, attempts=4)) for n in LONGER}
    pairs = itertools.pairwise(LONGER)
    return min(pairs, key=lambda pair: abs(found[pair[0]] + found[pair[1]] - 1)), found


def measure(model, tokenizer, levels: tuple[int, ...], tasks: int) -> dict[str, float]:
    """Success of one model: the RL family in three ways, the others greedily; `tasks` of each."""
    sampled = success(model, tokenizer, FAMILY, levels, tasks, TEMPERATURE, ATTEMPTS)
    found = {"sampled": mean(sampled), "pass@8": sum(map(any, sampled)) / len(sampled)}
    found["greedy"] = mean(success(model, tokenizer, FAMILY, levels, tasks))
    for family in OTHERS:
        found[family] = mean(success(model, tokenizer, family, measured_levels(family), tasks))
    return found


def main() -> None:
    """Reinforce from every seed; write data/results/rl_gap.json."""
    args = arguments(__doc__.splitlines()[0], base=TUNED)
    plan, tasks, began = Plan(), max(4, int(TASKS * args.scale)), time.perf_counter()
    log = Log("rl_gap", seeds=args.seeds, folder=args.folder)
    start, tokenizer = load_agent(args.base)
    examples = pools(tokenizer, SOURCES, int(PTX_POOL * args.scale), 100, mistakes=0.0)
    levels, by_length = moderate(start, tokenizer, max(4, tasks // 4))
    print(f"as sampled, by length: {by_length}; RL on {levels}", flush=True)
    config = RLConfig(
        tasks=tuple((FAMILY, level) for level in levels),
        rounds=max(2, int(ROUNDS * args.scale)),
        temperature=(TEMPERATURE, TEMPERATURE),
    )
    before = measure(start, tokenizer, levels, tasks)
    log.row(seed=None, when="before", levels=levels, by_length=by_length, **before)
    print("before", before, flush=True)
    after = []
    for seed in args.seeds:
        model = copy.deepcopy(start)
        optimizer = replace(plan.optimizer, lr=plan.rl.lr, adamw_lr=plan.rl.adamw_lr).build(model)
        with tqdm(total=config.rounds, unit="round", leave=False, desc=f"seed {seed}") as bar:
            rounds = rl.reinforce(
                model,
                tokenizer,
                optimizer,
                config,
                seed,
                sft.mixed(examples, config.ptx_tokens, plan.micro_tokens, seed),
                on_round=lambda index, found: bar.update(),
            )
        after.append(measure(model, tokenizer, levels, tasks))
        log.row(seed=seed, when="after", **after[-1], rounds=[vars(found) for found in rounds])
        print(f"seed {seed}", after[-1], flush=True)
    report(log, before, after, args.seeds, tasks, time.perf_counter() - began)
    finish(log, rl_gap=board("Records beyond the trained length: what RL adds, and what it did elsewhere"))


def report(log: Log, before: dict, after: list[dict], seeds: list[int], tasks: int, seconds: float) -> None:
    """Success before and after, and the differences over seeds. Before RL there is one model: Wilson's interval.
    seconds: those of all seeds, measurements included."""
    board, three = {}, ("sampled", "greedy", "pass@8")
    for name in (*three, *OTHERS):
        found = [measured[name] for measured in after]
        what = f"{FAMILY} past training, {name}" if name in three else name
        gains = [value - before[name] for value in found]
        board[f"rl/{name}_gap"] = gap(gains, seeds, tasks, f"{what}: after RL - before", main=name in three)
        if name in three:
            low, high = wilson(round(before[name] * tasks), tasks)
            board[f"rl/{name}_before"] = entry(before[name], low, high, tasks, [0], f"{what}: before RL")
            board[f"rl/{name}_after"] = row(found, seeds, tasks, f"{what}: after RL")
    board["rl/gap"] = board.pop("rl/sampled_gap")
    log.more["scoreboard"] = dict(sorted(board.items(), key=lambda named: "gap" not in named[1]))
    worst = min(OTHERS, key=lambda family: board[f"rl/{family}_gap"]["value"])
    mean_after = sum(found[worst] for found in after) / len(after)
    # few tasks are lost: the interval by tasks is the wider one
    by_tasks = difference((round(mean_after * tasks), tasks), (round(before[worst] * tasks), tasks))
    by_tasks = dict(zip(("value", "low", "high"), by_tasks))
    forgotten = wider(across([found[worst] - before[worst] for found in after]), by_tasks)
    says = f"RL with PTX forgets nothing elsewhere (worst of {len(OTHERS)} families: {worst})"
    claimed(log, "rl/forgetting", says, "K2 report 3.2.3 (PTX)", -0.02, forgotten)
    claim_success(log, board, seconds)


def claim_success(log: Log, board: dict, seconds: float) -> None:
    """What is claimed of success in the family that RL has, and of the time it takes."""
    says = "RL with verifiable rewards raises success on tasks of moderate difficulty, as sampled"
    claimed(log, "rl/gap", says, "article (joint RL); K2 report 3.2", 0.10, board["rl/gap"], headline=True)
    says, ours = "RL does not only sharpen: pass@8 does not fall", "this project"
    claimed(log, "rl/pass@8", says, ours, 0.0, board["rl/pass@8_gap"])
    says = f"success after RL, as sampled, from {board['rl/sampled_before']['value']:.2f} before it{SEEN}"
    claimed(log, "rl/bar", says, ours, BAR, board["rl/sampled_after"])
    says = f"minutes of RL on one core, {len(log.seeds)} seeds and all that is measured of them{SEEN}"
    spent = {"value": seconds / 60, "low": None, "high": None}
    claimed(log, "rl/minutes", says, ours, MINUTES, spent, at_most=True)


def claimed(log: Log, name: str, says: str, source: str, floor: float, measured: dict, **more: bool) -> None:
    """A claim with a scoreboard entry's {value, low, high}."""
    place = {"figure": "figures/rl_gap.png", "notebook": "07_joint_reinforcement_learning.ipynb"}
    found = {key: measured[key] for key in ("value", "low", "high")}
    log.claim(name, claim=says, source=source, floor=floor, **found, **more, **place)


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
