"""Routed mode: a reflex or a thought for each task. Accuracy against tokens: always one, always the other, routed.

The tasks are a mix as a server might see it: five of six are easy (one step of a chain), the sixth needs steps. It was
chosen after another mix had failed (see below). The shipped agent is taught the easy kind as a reflex and keeps its
thoughts (the model `both`). It does practice tasks, none of them held out, in both modes, and the verifier says what
came of it:

    surely   a threshold is set there on the log-probability of the reflex answer; nothing is trained
    itself   of the two turns the one with the higher reward, 1 if right less COST a token, becomes an example; tuned on
             these the model chooses with its first token behind <think>: </think> is a reflex
    oracle   looks at the verdict: a reflex where that is right. No router, only how far one could get

The routers get prompts, as tokens (`inference.attempts.routed`). Answers are compared when all are written.

Tried before: two digits times one as a second easy kind. Of the products that it had practised the model knew all, of
held-out ones two in three; what chose by practice trusted its reflex too much, and kept 0.88 of the accuracy. So the
saving holds for a mix whose easy part the reflex really has.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kimi_mini.agent.folder import load_agent, save_agent, shipped_agent
from kimi_mini.base.command import in_one_line
from kimi_mini.base.evidence import Log
from kimi_mini.base.paths import RUNS
from kimi_mini.course.figures import style
from kimi_mini.experiments import harness
from kimi_mini.experiments.thinking import shared
from kimi_mini.experiments.verifiers.shared import pools
from kimi_mini.inference.attempts import routed
from kimi_mini.inference.attempts.routed import Answered, Trial
from kimi_mini.model.kimi import KimiMini
from kimi_mini.pipeline import finetune
from kimi_mini.pipeline.plan import Finetune, Plan, Schedule
from kimi_mini.text.habits import Habits
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training.batch import Example
from kimi_mini.training.synthesis import Source
from kimi_mini.worlds import Task
from kimi_mini.worlds.registry import generate, held_out_tasks

EASY = {("chain", (1,)): 150}  # tasks a seed
HARD = {("chain", (2, 3, 4, 5, 6)): 16, ("add", (3,)): 7, ("times", (3,)): 7}
TASKS_SEED = 50  # other held-out tasks than those on which the recipe was tried
PRACTICE = 8  # practice tasks for each that is measured
COST = 0.005  # of a token, in right answers
KEPT = 0.98  # of the accuracy of thinking, that the threshold has to keep on practice tasks
BOTH = (
    Source("chain", "reflex", 0.6, (1,)),
    Source("chain", "think", 0.28, tuple(range(1, 9))),
    Source("add", "think", 0.06, (2, 3, 4)),
    Source("times", "think", 0.06, (2, 3, 4)),
)
TAUGHT = Finetune(
    1_000_000, ramp=(0.0, 0.01), reflex_after=0.0, schedule=Schedule(peak=0.8, decay_start=0.35)
)
CHOICE = Finetune(300_000, ramp=(0.0, 0.01), schedule=Schedule(peak=0.4, decay_start=0.35))
FAR = 99.0  # nats: what a log writes for infinity
ARMS = ("reflex", "thinking", "surely", "itself", "oracle")


@dataclass(frozen=True)
class Job:
    """One seed; start, weights: the agent it begins with. scale: of tokens and of tasks."""

    seed: int
    start: str
    weights: str
    scale: float

    def said(self) -> dict:
        """All that decides its numbers."""
        return asdict(self) | {
            "recipe": repr((EASY, HARD, TASKS_SEED, PRACTICE, COST, KEPT, BOTH, TAUGHT, CHOICE))
        }


def main() -> None:
    """All seeds; write data/results/routed.json and its figure."""
    args = harness.arguments(__doc__.splitlines()[0], start=shipped_agent())
    log = Log("routed", seeds=args.seeds, folder=args.folder, weights=harness.fingerprint(args.start))
    jobs = [Job(seed, str(args.start), harness.fingerprint(args.start), args.scale) for seed in args.seeds]
    for found in harness.side_by_side(jobs, RUNS / f"routed_{args.scale:g}.json", 1, run, log):
        for row in found["rows"]:
            log.row(seed=found["seed"], **row)
    report(log)
    harness.finish(log, routed=draw)


def run(job: Job) -> dict:
    """Teach, practise, measure: the rows of one seed. The model that chooses stays in data/run/routed."""
    torch.set_num_threads(1)
    both, tokenizer = load_agent(job.start)
    tune(
        both, pools(tokenizer, BOTH, int(TAUGHT.tokens * job.scale), job.seed, 0.0), TAUGHT, job, "both modes"
    )
    limit, examples = practise(both, tokenizer, job.seed, job.scale)
    chooser = copy.deepcopy(both)
    tune(chooser, examples, CHOICE, job, "choosing")
    save_agent(chooser, RUNS / "routed" / f"seed{job.seed}", Habits.load(job.start))
    return {"seed": job.seed, "rows": measured(both, chooser, tokenizer, job, limit)}


def tune(model: KimiMini, examples, settings: Finetune, job: Job, title: str) -> None:
    """Fine-tune in place."""
    settings = replace(settings, tokens=max(8192, int(settings.tokens * job.scale)))
    finetune.tune(model, examples, Plan(seed=job.seed, finetune=settings), title=f"{title}, seed {job.seed}")


# -- practice ------------------------------------------------------------------------------------------


def practice(seed: int, scale: float) -> list[Task]:
    """Tasks of both kinds that are not held out."""
    rng, tasks = random.Random(f"{seed}/practice"), []
    for (family, levels), count in (EASY | HARD).items():
        tasks += [
            generate(rng, family, rng.choice(levels)) for _ in range(max(2, int(PRACTICE * count * scale)))
        ]
    return tasks


def practise(model: KimiMini, tokenizer: Tokenizer, seed: int, scale: float):
    """Both modes on practice tasks: the threshold for `surely`, and the pools of examples for `itself`."""
    tasks = practice(seed, scale)
    prompts = [shared.prompt_ids(tokenizer, task) for task in tasks]
    reflex, thought = (routed.forced(model, tokenizer, prompts, mode) for mode in (False, True))
    right = [[is_right(one, task, tokenizer) for one, task in zip(of, tasks)] for of in (reflex, thought)]
    trials = [Trial(routed.sureness(one), *of) for one, *of in zip(reflex, *right)]
    chosen: dict[str, list[Example]] = {"reflex": [], "thought": []}
    for prompt, pair, of in zip(prompts, zip(reflex, thought), zip(*right)):
        worth = [passed - COST * one.tokens for one, passed in zip(pair, of)]
        if any(of):
            mode = int(np.argmax(worth))
            chosen[("reflex", "thought")[mode]].append(example(prompt, pair[mode]))
    examples = {(Source(mode, "think", 0.5, (1,)), 1): found for mode, found in chosen.items() if found}
    return routed.threshold(trials, KEPT), examples


def example(prompt: list[int], answered: Answered) -> Example:
    """A turn to learn from, its tags with it: to close the thought at once is the choice that is taught."""
    ids = [*prompt, *answered.turn.ids]
    return Example(np.array(ids, np.int32), np.arange(len(ids)) >= len(prompt))


def is_right(answered: Answered, task: Task, tokenizer: Tokenizer) -> bool:
    """Whether an answer is the task's."""
    return shared.number(answered.turn, tokenizer) == task.data["answer"]


# -- measures ------------------------------------------------------------------------------------------


def held_out(seed: int, scale: float) -> dict[str, list[Task]]:
    """The mix that is measured, by kind."""
    kinds = {}
    for (family, levels), count in (EASY | HARD).items():
        span = "-".join(map(str, sorted({levels[0], levels[-1]})))
        name = f"{'easy' if (family, levels) in EASY else 'hard'}: {family} {span}"
        kinds[name] = held_out_tasks(family, levels, max(2, int(count * scale)), TASKS_SEED + seed)
    return kinds


def answers(
    both: KimiMini, chooser: KimiMini, tokenizer: Tokenizer, prompts: Sequence[list[int]], limit: float
) -> dict[str, list[Answered]]:
    """What each arm answers: of the prompts alone."""
    return {
        "reflex": routed.forced(both, tokenizer, prompts, False),
        "thinking": routed.forced(both, tokenizer, prompts, True),
        "surely": routed.surely(both, tokenizer, prompts, limit),
        "itself": routed.itself(chooser, tokenizer, prompts),
    }


def measured(both: KimiMini, chooser: KimiMini, tokenizer: Tokenizer, job: Job, limit: float) -> list[dict]:
    """A row for each arm and kind: right answers, tokens, how many were thought through."""
    rows = []
    for kind, tasks in held_out(job.seed, job.scale).items():
        prompts = [shared.prompt_ids(tokenizer, task) for task in tasks]
        found = answers(both, chooser, tokenizer, prompts, limit)
        right = {arm: [is_right(one, t, tokenizer) for one, t in zip(of, tasks)] for arm, of in found.items()}
        best = [found["thinking" if not ok else "reflex"][i] for i, ok in enumerate(right["reflex"])]
        found["oracle"], right["oracle"] = best, [a or b for a, b in zip(right["reflex"], right["thinking"])]
        for arm, of in found.items():
            counts = {"n": len(of), "right": sum(right[arm]), "tokens": sum(one.tokens for one in of)}
            rows.append({"arm": arm, "kind": kind, **counts, "thought": sum(one.thought for one in of)})
        sure = [round(max(-FAR, routed.sureness(one)), 4) for one in found["reflex"]]
        trials = list(
            zip(sure, right["reflex"], right["thinking"], [one.tokens for one in found["thinking"]])
        )
        rows.append({"arm": "trials", "kind": kind, "limit": min(limit, FAR), "trials": trials})
    return rows


def per_task(rows: Sequence[dict], arm: str, key: str, seed: int) -> float:
    """A count of an arm in one seed, over all kinds, a task."""
    own = [row for row in rows if row["arm"] == arm and row["seed"] == seed]
    return sum(row[key] for row in own) / sum(row["n"] for row in own)


def report(log: Log) -> None:
    """The claims: what routing keeps of the accuracy of thinking, and for which share of its tokens."""
    common = {"notebook": shared.NOTEBOOK, "figure": "figures/routed.png"}

    def ratio(arm: str, key: str) -> Callable[[int], float]:
        return lambda seed: per_task(log.rows, arm, key, seed) / per_task(log.rows, "thinking", key, seed)

    words = {"itself": "routed by its own first token", "surely": "routed by the confidence of its reflex"}
    for arm, says in words.items():
        kept, spent = (harness.across([ratio(arm, key)(s) for s in log.seeds]) for key in ("right", "tokens"))
        more = {"source": "this project", "headline": arm == "itself"}
        claim = f"{says}: accuracy, of always thinking's (five of six tasks easy)"
        log.claim(f"routed/{arm}_kept", claim=claim, floor=0.95, **kept, **common, **more)
        claim = f"{says}: tokens, of always thinking's"
        log.claim(f"routed/{arm}_tokens", claim=claim, floor=0.60, at_most=True, **spent, **common, **more)
    found = harness.share_across([per_task(log.rows, "reflex", "right", seed) for seed in log.seeds])
    claim = "the mix answered always at once: without thoughts a part stays out of reach"
    log.claim(
        "routed/reflex", claim=claim, source="this project", floor=0.90, at_most=True, **found, **common
    )


# -- figure --------------------------------------------------------------------------------------------


@style.styled
def draw(log: dict) -> Figure:
    """Left: right answers against tokens, every seed. Right: tokens of thinking's, as the share of easy tasks grows."""
    fig, axes = style.figure(14, 5.0, 1, 2)
    left, right = axes[0]
    looks = dict(zip(ARMS, zip((style.ORANGE, style.BLUE, style.GREEN, style.PURPLE, style.GREY), "osD^*")))
    for arm, (colour, marker) in looks.items():
        spots = [
            [per_task(log["rows"], arm, key, seed) for seed in log["seeds"]] for key in ("tokens", "right")
        ]
        left.plot(*spots, color=colour, marker=marker, linestyle="", markersize=11, label=arm, alpha=0.85)
    left.plot(*thresholds(log["rows"]), color=style.GREEN, linewidth=1.5, label="surely, any threshold")
    left.set(
        xlabel="tokens a task",
        ylabel="right answers",
        ylim=(0.75, 1.02),
        title="The mix: five of six tasks easy",
    )
    draw_mixes(right, log["rows"], looks)
    fig.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=6)
    return fig


def thresholds(rows: Sequence[dict]) -> tuple[list[float], list[float]]:
    """(tokens a task, share of right answers) of `surely` at every threshold, over all seeds."""
    trials = [trial for row in rows if row["arm"] == "trials" for trial in row["trials"]]
    trials.sort(key=lambda trial: -trial[0])
    ends = [0, *range(len(trials))[:: max(1, len(trials) // 60)], len(trials)]  # so many are answered at once
    tokens = [(len(trials) * 3 + sum(trial[3] for trial in trials[end:])) / len(trials) for end in ends]
    right = [sum(t[1] for t in trials[:end]) + sum(t[2] for t in trials[end:]) for end in ends]
    return tokens, [count / len(trials) for count in right]


def draw_mixes(ax: Axes, rows: Sequence[dict], looks: dict) -> None:
    """How much routing saves hangs on the mix: the same answers, weighed otherwise."""
    shares = np.linspace(0, 1, 21)

    def spent(arm: str, kinds: str) -> float:
        own = [row for row in rows if row["arm"] == arm and row["kind"].startswith(kinds)]
        return sum(row["tokens"] for row in own) / sum(row["n"] for row in own)

    whole = (1 - shares) * spent("thinking", "hard") + shares * spent("thinking", "easy")
    for arm in ("surely", "itself"):
        tokens = (1 - shares) * spent(arm, "hard") + shares * spent(arm, "easy")
        ax.plot(shares, tokens / whole, color=looks[arm][0], label=arm)
    ax.axhline(0.6, color=style.GREY, linestyle=":")
    ax.axvline(5 / 6, color=style.GREY, linestyle=":")
    ax.set(
        xlabel="share of easy tasks",
        ylabel="tokens, of always thinking's",
        ylim=(0, 1.15),
        title="Other mixes",
    )


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
