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
from dataclasses import replace

from tqdm import tqdm

from kimi_mini.agent.folder import load_agent
from kimi_mini.base.command import in_one_line
from kimi_mini.base.evidence import Log
from kimi_mini.base.intervals import difference, wilson
from kimi_mini.experiments.harness import arguments, entry, finish, gap, mean, row
from kimi_mini.experiments.verifiers.shared import TUNED, board, pools, success
from kimi_mini.pipeline.plan import Plan
from kimi_mini.training import sft
from kimi_mini.training.rl import rounds as rl
from kimi_mini.training.rl.config import RLConfig
from kimi_mini.training.synthesis import SOURCES
from kimi_mini.worlds import FAMILIES, WORLDS
from kimi_mini.worlds.registry import measured_levels

FAMILY, LONGER = "follow", range(6, 13)
# at the trained levels; what is varied is not for this agent
OTHERS = tuple(
    name for name, family in FAMILIES.items() if family.trained and not WORLDS[family.world].varied
)
ROUNDS = 12
TEMPERATURE = 0.8
PTX_POOL = 400_000  # tokens
TASKS, ATTEMPTS = 200, 8


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
    plan, tasks = Plan(), max(4, int(TASKS * args.scale))
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
    report(log, before, after, args.seeds, tasks)
    finish(log, rl_gap=board("Records beyond the trained length: what RL adds, and what it did elsewhere"))


def report(log: Log, before: dict, after: list[dict], seeds: list[int], tasks: int) -> None:
    """Success before and after, and the differences over seeds. Before RL there is one model: Wilson's interval."""
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
    # by tasks, not seeds
    lost = difference((round(mean_after * tasks), tasks), (round(before[worst] * tasks), tasks))
    place = {"figure": "figures/rl_gap.png", "notebook": "07_joint_reinforcement_learning.ipynb"}
    log.claim(
        "rl/gap",
        claim="RL with verifiable rewards raises success on tasks of moderate difficulty, as sampled",
        source="article (joint RL); K2 report 3.2",
        floor=0.10,
        headline=True,
        **interval(board["rl/gap"]),
        **place,
    )
    log.claim(
        "rl/forgetting",
        claim=f"RL with PTX forgets nothing elsewhere (worst of {len(OTHERS)} families: {worst})",
        source="K2 report 3.2.3 (PTX)",
        floor=-0.02,
        **dict(zip(("value", "low", "high"), lost)),
        **place,
    )
    log.claim(
        "rl/pass@8",
        claim="RL does not only sharpen: pass@8 does not fall",
        source="this project",
        floor=0.0,
        **interval(board["rl/pass@8_gap"]),
        **place,
    )


def interval(measured: dict) -> dict:
    """A scoreboard entry's {value, low, high}."""
    return {key: measured[key] for key in ("value", "low", "high")}


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
