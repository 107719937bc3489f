"""What filtering throws away, and the quota that mends it: long episodes pass less often.

An expert that errs in three steps out of ten finishes three steps without a fault one time in three, and eight steps
one time in seventeen. So what passed is short, although as many long episodes were tried. Two arms learn to buy
longer lists than the tuned agent was trained on, from the same trajectories, all of them passed, at equal tokens:

    as they come    every passed episode is as likely as any other
    quota           every level is as likely as any other; a level with few episodes repeats them

Neither has a curriculum, so that nothing but the quota differs. Success is measured greedily, level by level.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from kimi_mini.agent.folder import load_agent
from kimi_mini.base.command import in_one_line
from kimi_mini.base.evidence import Log
from kimi_mini.course.figures import verifiers
from kimi_mini.experiments.harness import across, arguments, finish, gap, mean, row
from kimi_mini.experiments.verifiers.shared import TUNED, success, tune
from kimi_mini.pipeline.plan import Plan
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training import sft, synthesis
from kimi_mini.training.synthesis import Source, Trajectory

FAMILY, LEVELS, LONG = "buy", (3, 4, 5, 6, 7, 8), (7, 8)
SLIP = 0.3  # how often a step goes wrong
TRIED = 600  # episodes a level
TOKENS, TASKS = 150_000, 100  # of an arm; held-out tasks a level
ARMS = ("as they come", "quota")
SEEDS = (10, 11, 12, 13, 14, 15)  # fixed before the run


def passed_episodes(tokenizer: Tokenizer, levels: Sequence[int], tried: int, seed: int, slip: float = SLIP):
    """level -> trajectories that passed, of `tried` by an expert whose every step goes wrong with chance `slip`."""

    def one(level: int, index: int) -> Trajectory:
        mistakes = 1 - (1 - slip) ** level
        return synthesis.trajectory(
            tokenizer, f"{seed}/quota/{level}/{index}", FAMILY, level, "think", mistakes
        )

    return {level: synthesis.passed_only([one(level, index) for index in range(tried)]) for level in levels}


def pools_of(passed: Mapping[int, Sequence[Trajectory]], arm: str) -> sft.Pools:
    """One source a level, with the share of the tokens that `arm` gives it.

    Shares count tokens, so equally many episodes of every level are shares in proportion to their lengths.
    """
    pools: sft.Pools = {}
    for level, episodes in passed.items():
        if not episodes:
            continue
        length = sum(len(item.example.ids) for item in episodes) / len(episodes)
        share = length * (len(episodes) if arm == "as they come" else 1)
        source = Source(f"{FAMILY} {level}", "think", share, (level,))
        pools[source, level] = [item.example for item in episodes]
    return pools


def seen(pools: sft.Pools, tokens: int, seed: int) -> dict[int, float]:
    """level -> its share of the episodes that fine-tuning on `tokens` tokens reads."""
    plan = sft.make_plan(pools, tokens, Plan().step_tokens, seed)
    counts = Counter(level for step in plan for (_, level), _ in step)
    return {level: counts[level] / counts.total() for level in sorted(counts)}


def main() -> None:
    """Both arms, every seed; write data/results/quota.json."""
    args = arguments(__doc__.splitlines()[0], seeds=SEEDS, base=TUNED)
    tokens, tasks = int(TOKENS * args.scale), max(4, int(TASKS * args.scale))
    log = Log("quota", seeds=args.seeds, folder=args.folder)
    for seed in args.seeds:
        model, tokenizer = load_agent(args.base)
        passed = passed_episodes(tokenizer, LEVELS, TRIED, seed)
        kept = {level: len(episodes) for level, episodes in passed.items()}
        print(f"seed {seed}: passed of {TRIED} a level {kept}", flush=True)
        log.row(
            arm="before", seed=seed, success=by_level(model, tokenizer, tasks, seed), tried=TRIED, kept=kept
        )
        for arm in ARMS:
            student, pools = load_agent(args.base)[0], pools_of(passed, arm)
            tune(student, pools, tokens, seed, f"{arm}, seed {seed}")
            found = by_level(student, tokenizer, tasks, seed)
            log.row(arm=arm, seed=seed, success=found, seen=seen(pools, tokens, seed), tokens=tokens)
            print(f"seed {seed} {arm:13s} {found}", flush=True)
    report(log, args.seeds, tasks)
    finish(log, quota=draw)


def by_level(model, tokenizer: Tokenizer, tasks: int, seed: int) -> dict[int, float]:
    """level -> greedy success on `tasks` held-out tasks."""
    return {level: mean(success(model, tokenizer, FAMILY, (level,), tasks, seed=seed)) for level in LEVELS}


def report(log: Log, seeds: Sequence[int], tasks: int) -> None:
    """Scoreboard rows of the longest levels, and the claim that the quota helps there."""

    def longest(arm: str) -> list[float]:
        return [sum(r["success"][level] for level in LONG) / len(LONG) for r in log.rows if r["arm"] == arm]

    count = tasks * len(LONG)
    log.more["scoreboard"] = {
        f"quota/long/{arm}": row(longest(arm), seeds, count, f"the longest lists: {arm}")
        for arm in ("before", *ARMS)
    }
    gains = [a - b for a, b in zip(longest("quota"), longest("as they come"))]
    says = "the longest lists: quota - as they come"
    log.more["scoreboard"]["quota/gap"] = gap(gains, seeds, count, says, main=True)
    says = "a quota for each level teaches the long episodes that filtering thins out"
    where = {"figure": "figures/quota.png", "notebook": "06_the_verifier_economy.ipynb"}
    log.claim("quota/gap", claim=says, source="this project", floor=0.0, **across(gains), **where)


def draw(log: dict) -> Figure:
    """Success by level, mean over seeds."""
    return verifiers.by_level(
        means(log["rows"]),
        "Lists of 3 to 8 purchases, learned from what passed",
        "items to buy",
        "held-out success (%)",
    )


def means(rows: Sequence[Mapping]) -> dict[str, dict[int, float]]:
    """arm -> level -> success, mean over seeds."""
    found = {}
    for arm in ("before", *ARMS):
        ours = [entry["success"] for entry in rows if entry["arm"] == arm]
        found[arm] = {
            level: sum(one.get(level, one.get(str(level))) for one in ours) / len(ours) for level in LEVELS
        }
    return found


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
