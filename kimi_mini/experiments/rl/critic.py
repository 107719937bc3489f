"""A critic trained alongside the policy: is it right, and does style win over correctness where it gives the rewards?

The tuned agent first learns to report (see `training.rl.styles`), in any style, from experts of whom some err: what it
samples then is right or wrong, short or padded, in order or not, polite or flattering, grounded or invented. From it
four arms of RL go on, with the same tasks, dice and steps:

    objective first     the critic learned from verified pairs, then from pairs of style; the reward is its win rate,
                        the mean of five rubrics, and it is refreshed on the verdicts of every round
    subjective first    the same steps and kinds of pairs, style first
    frozen              as objective first, never refreshed
    no critic           the verdict is the reward

The second lesson is five times as long as the first one, and half of it repeats that. A critic whose second lesson is
as short as its first knows best what it learned first; such ones are measured beside (SHORT) and give no rewards. Three
times as long was enough on seeds 10 and 11, which are not reported, and left one quality of style to chance in two of
those that are. The critic is a copy of the agent from before it learned from those who err. Where it judges, no verdict
is paid for. Measured: pairwise accuracy on held-out tasks, rubric by rubric, before RL; accuracy on the fresh rollouts
of every round, before the refresh; true success and true style, before and after.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from matplotlib.figure import Figure

from kimi_mini.agent.conversation import Conversation
from kimi_mini.agent.folder import load_agent
from kimi_mini.base.command import in_one_line
from kimi_mini.base.evidence import Log
from kimi_mini.course.figures import rl as figures
from kimi_mini.evaluation import scoreboard
from kimi_mini.experiments.harness import SEEN, across, arguments, finish, share_across
from kimi_mini.experiments.verifiers.shared import TUNED, tune
from kimi_mini.model.kimi import KimiMini
from kimi_mini.pipeline.plan import Optimizer, Plan, Schedule
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training.rl import rounds as rl
from kimi_mini.training.rl.config import RLConfig
from kimi_mini.training.rl.critic import (
    RIGHT,
    Critic,
    CriticReward,
    Groups,
    Pair,
    accuracy,
    train_critic,
    verifiable,
)
from kimi_mini.training.rl.pairs import pairs_of, reports, style_pair, verified_pair
from kimi_mini.training.rl.styles import FAMILY, TRUTHS
from kimi_mini.training.synthesis import Source
from kimi_mini.worlds.registry import held_out_tasks
from kimi_mini.worlds.rows import Limits

LEVELS = (2, 3)
RUBRICS = (RIGHT, *TRUTHS)
FIRST, LAST, FROZEN, NONE = ARMS = ("objective first", "subjective first", "frozen", "no critic")
ERRING = 0.35  # of the experts whom the agent learns to report from
REPORT_TOKENS = 300_000
LESSONS, EACH = (60, 300), 8  # steps of a critic's two lessons, pairs a step
SHORT, SHORT_LESSONS = ", short lessons", (60, 60)  # behind the name of an order; measured, and not paid by
CRITIC = Optimizer(lr=0.004, adamw_lr=0.006)
REFRESH = Optimizer(lr=0.001, adamw_lr=0.001)
HELD_OUT, TASKS, LATE = 100, 100, 3  # pairs, tasks; rounds at the end that are compared
CONFIG = RLConfig(
    lr=1e-3,
    adamw_lr=3e-4,
    tasks=tuple((FAMILY, level) for level in LEVELS),
    rounds=8,
    prompts=8,
    temperature=(1.0, 1.0),
    solved=1.0,
    limits=Limits(turn_tokens=64, turns=6, context=512),
)
PAID = {True: (("critic", 1.0), ("budget", 0.5)), False: (("verdict", 1.0), ("budget", 0.5))}


def speaker(start: Path, tokens: int) -> tuple[KimiMini, KimiMini, Tokenizer]:
    """The agent before and after it learned to report, and its tokenizer."""
    before, tokenizer = load_agent(start)
    source, each = Source(FAMILY, "think", 1.0, LEVELS), max(8, tokens // (250 * len(LEVELS)))
    after = copy.deepcopy(before)
    examples = {(source, level): reports(tokenizer, level, each, ERRING) for level in LEVELS}
    tune(after, examples, tokens, seed=0, title="to report")
    return before, after, tokenizer


def taught(
    agent: KimiMini, tokenizer: Tokenizer, lessons: Sequence[Sequence[Pair]], steps, seed: int
) -> Critic:
    """A critic after two lessons, of `steps` (first, second): the first one alone, then both."""
    critic, whole = Critic(agent, tokenizer), Schedule(warmup=10, decay_fraction=0.4).over(sum(steps))
    optimizer, (first, then) = CRITIC.build(critic.model), lessons
    train_critic(critic, optimizer, first, steps[0], EACH, seed, whole)
    train_critic(
        critic, optimizer, [*first, *then], steps[1], EACH, seed + 1, lambda step: whole(steps[0] + step)
    )
    return critic


def schooled(
    agent: KimiMini, tokenizer: Tokenizer, scale: float, seed: int
) -> tuple[dict[str, Critic], list[Pair]]:
    """A critic of each order, after long and after short lessons; and all pairs that they learned from."""
    lengths = {"": LESSONS, SHORT: SHORT_LESSONS}
    lengths = {name: [max(4, int(steps * scale)) for steps in lesson] for name, lesson in lengths.items()}
    each = EACH * max(map(max, lengths.values()))
    right, style = (pairs_of(make, LEVELS, each, 100 + seed) for make in (verified_pair, style_pair))
    orders = {FIRST: (right, style), LAST: (style, right)}
    critics = {
        arm + name: taught(agent, tokenizer, lessons, steps, seed)
        for name, steps in lengths.items()
        for arm, lessons in orders.items()
    }
    return critics, [*right, *style]


def styles(conversations: Sequence[Conversation]) -> dict[str, float]:
    """Every truth, averaged over conversations; "style" is their mean."""
    found = {name: fmean(map(truth, conversations)) for name, truth in TRUTHS.items()}
    return found | {"style": fmean(found.values())}


def measure(model: KimiMini, tokenizer: Tokenizer, tasks: int) -> dict[str, float]:
    """True success and true style on held-out tasks, sampled as in RL."""
    copies = held_out_tasks(FAMILY, LEVELS, tasks, 0)
    done = scoreboard.solve(model, tokenizer, copies, CONFIG.limits, True, CONFIG.temperature[-1], 0)
    found = {"success": fmean(one.verdict().passed for one in done)} | styles(done)
    for one in done:
        one.environment.close()
    return found


def reinforced(start, tokenizer, critic: Critic, arm: str, kept: Sequence[Pair], config, seed: int):
    """A copy of `start` after RL in this arm, and what its rounds measured. The critic looks on where it is not paid
    for; it is moved where it is refreshed."""
    model, judge = copy.deepcopy(start), None
    if arm != NONE:
        refreshed = None if arm == FROZEN else REFRESH.build(critic.model)
        judge = CriticReward(critic, RUBRICS, refreshed, kept)

    def seen(groups: Groups, temperature: float) -> dict:
        fresh = accuracy(critic, verifiable(groups, most=config.attempts))
        return {"critic": fresh.get(RIGHT)} | styles([one for group in groups for one in group])

    config = replace(config, reward=PAID[judge is not None])
    optimizer = replace(Plan().optimizer, lr=config.lr, adamw_lr=config.adamw_lr).build(model)
    found = rl.reinforce(model, tokenizer, optimizer, config, seed, watch=seen, judge=judge)
    names = ("critic", "style", *TRUTHS)
    over = {name: [one.seen[name] for one in found] for name in names}
    return model, {"success": [one.success for one in found], "tokens": [one.tokens for one in found]} | over


def main() -> None:
    """Critics and policies from every seed; write data/results/rl_critic.json."""
    args = arguments(__doc__.splitlines()[0], start=TUNED)

    def scaled(number: int, least: int) -> int:
        return max(least, int(number * args.scale))

    tasks = scaled(TASKS, 8)
    log = Log("rl_critic", seeds=args.seeds, folder=args.folder)
    agent, start, tokenizer = speaker(args.start, scaled(REPORT_TOKENS, 8192))
    held_out = [
        pair
        for make in (verified_pair, style_pair)
        for pair in pairs_of(make, LEVELS, scaled(HELD_OUT, 8), 1, True)
    ]
    config = replace(CONFIG, rounds=scaled(CONFIG.rounds, 2))
    log.row(seed=None, arm="before", **measure(start, tokenizer, tasks))
    print("before", log.rows[-1], flush=True)
    for seed in args.seeds:
        critics, kept = schooled(agent, tokenizer, args.scale, seed)
        for arm, critic in critics.items():
            log.row(seed=seed, arm=arm, critic=accuracy(critic, held_out))
            print(f"seed {seed}, {arm}", log.rows[-1]["critic"], flush=True)
        for arm in (FROZEN, NONE, FIRST, LAST):  # those that leave the critic alone, before one that moves it
            critic = critics[LAST if arm == LAST else FIRST]
            model, over = reinforced(start, tokenizer, critic, arm, kept, config, seed)
            log.row(seed=seed, arm=arm, rounds=over, **measure(model, tokenizer, tasks))
            print(
                f"seed {seed}, {arm}", {name: log.rows[-1][name] for name in ("success", "style")}, flush=True
            )
    report(log)
    finish(log, rl_critic=draw)


def of(log: dict, arm: str, key: str) -> list[dict]:
    """Rows of an arm that have this entry, by seed."""
    return sorted(
        (row for row in log["rows"] if row["arm"] == arm and key in row), key=lambda row: row["seed"]
    )


def report(log: Log) -> None:
    """The critic's accuracy; what refreshing, the order and the critic itself are worth to it and to the policy."""
    place = {"figure": "figures/rl_critic.png", "notebook": "07_joint_reinforcement_learning.ipynb"}
    place |= {"source": "K2 report 3.2.2; article (objective first, subjective later)"}
    found = {"rows": log.rows}
    for arm, name in ((FIRST, "accuracy"), (LAST, "accuracy of the other")):
        whose = "the critic" if arm == FIRST else "the critic that learned style first"
        for rubric in RUBRICS:
            value = share_across([row["critic"][rubric] for row in of(found, arm, "critic")])
            says = f"{whose} knows which of two attempts is better, held-out tasks: {rubric}{SEEN}"
            floor = 0.90 if rubric == RIGHT else 0.80
            log.claim(f"critic/{name}/{rubric}", claim=says, floor=floor, **value, **place)
    known = [[_style(row) for row in of(found, arm + SHORT, "critic")] for arm in (LAST, FIRST)]
    says = "after short lessons a critic knows style better that learned it first, pairs of four qualities: what it won"
    told = across([one - other for one, other in zip(*known)])
    log.claim("critic/short lessons", claim=says + SEEN, floor=0.0, **told, **place)
    (before,) = [row for row in log.rows if row["arm"] == "before"]

    def gap(one: str, other: str, name: str) -> dict:
        rows = zip(of(found, one, "rounds"), of(found, other, "rounds"))
        return across([a[name] - b[name] for a, b in rows])

    late = [[_late(row) for row in of(found, arm, "rounds")] for arm in (FIRST, FROZEN)]
    fresh = [a - b for a, b in zip(*late) if a is not None and b is not None]
    refreshed = across(fresh) if fresh else {"value": None}
    rows = of(found, FIRST, "rounds")
    claims = {
        "refreshed": (
            refreshed,
            "on fresh rollouts a refreshed critic is more often right than a frozen one",
        ),
        "success": (
            across([row["success"] - before["success"] for row in rows]),
            "its rewards raise true success",
        ),
        "style": (across([row["style"] - before["style"] for row in rows]), "and true style"),
        "against the verdict": (
            gap(FIRST, NONE, "success"),
            "true success: the critic's rewards - the verdict's",
        ),
        "frozen": (gap(FIRST, FROZEN, "success"), "true success: refreshed - frozen critic"),
        "order": (gap(FIRST, LAST, "success"), "true success: objective first - subjective first"),
        "order/style": (gap(FIRST, LAST, "style"), f"true style: objective first - subjective first{SEEN}"),
    }
    for name, (value, says) in claims.items():
        floor = -0.02 if name == "against the verdict" else 0.0
        log.claim(f"critic/{name}", claim=says, floor=floor, **value, **place)


def _style(row: dict) -> float:
    """Accuracy on pairs of style, the mean of the qualities."""
    return fmean(row["critic"][rubric] for rubric in TRUTHS)


def _late(row: dict) -> float | None:
    """Accuracy on fresh rollouts, the mean of the last rounds in which there were both right and wrong ones."""
    known = [value for value in row["rounds"]["critic"][-LATE:] if value is not None]
    return fmean(known) if known else None


def draw(log: dict) -> Figure:
    """True success, true style and the critic's accuracy over the rounds, every arm; a gap where all were right."""
    runs = {
        arm: [
            {
                name: [float("nan") if one is None else one for one in values]
                for name, values in row["rounds"].items()
            }
            for row in of(log, arm, "rounds")
        ]
        for arm in ARMS
    }
    panels = {"success": "true success", "style": "true style", "critic": "critic right, fresh attempts"}
    return figures.over_rounds(runs, panels, title="Who gives the rewards: does style win over correctness?")


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
