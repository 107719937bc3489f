"""How much thinking does an answer need? Accuracy against tokens of thought, under a hard stop and a soft target.

Held-out chains of one to eight steps, mixed. Every task is answered under every budget: when the thought has that many
tokens and has not ended, we close it, and the model answers with what it has. Greedy, so that the thoughts under two
budgets are the same as far as both go, and only the stop differs.

Behind the stop the answer is held to digits. A second arm leaves it free: a model that was never stopped in training
may think on in its answer, and then the budget is only a word. And beside both the same tasks in reflex mode, where
the prompt itself gives an empty thought.

A soft target hurries in place of stopping: from there on </think> gains NUDGE nats with every token, and the model
ends the thought itself. It is compared with the stop at equal tokens of thought: between two budgets the accuracy of
the stop is read off the straight line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kimi_mini.agent.folder import shipped_agent
from kimi_mini.base.command import in_one_line
from kimi_mini.base.evidence import Log
from kimi_mini.base.intervals import wilson
from kimi_mini.course.figures import style
from kimi_mini.experiments import harness
from kimi_mini.experiments.harness import arguments
from kimi_mini.experiments.thinking import shared
from kimi_mini.inference.attempts.routed import write_in_batches
from kimi_mini.inference.thinking import Turn
from kimi_mini.worlds import Task
from kimi_mini.worlds.registry import held_out_tasks, trained_levels

BUDGETS = (0, 8, 16, 24, 32, 40, 48, 56, 64, 72, 80, None)
TARGETS, NUDGE = (8, 16, 24, 32, 40, 48, 56, 64), 1.0
TASKS = 160  # a seed, spread over the lengths
LENGTHS = range(1, 9)
DEEP = range(6, 9)  # steps of the chains that count as deep


def main() -> None:
    """Answer all tasks under all budgets; write data/results/thinking_budget.json and its figure."""
    args = arguments(__doc__.splitlines()[0], checkpoint=shipped_agent())
    model, tokenizer, log = harness.begin("thinking_budget", args)
    lengths, count = trained_levels("chain"), max(8, int(TASKS * args.scale))
    digits = {tokenizer.token_id(digit) for digit in "0123456789"}
    arms = {str(budget): {"budget": budget, "answer_ids": digits} for budget in BUDGETS} | {"reflex": {}}
    arms |= {f"{budget} free": {"budget": budget} for budget in BUDGETS[1:-1]}
    arms |= {f"{target} soft": {"target": target, "nudge": NUDGE, "answer_ids": digits} for target in TARGETS}
    arms |= {f"{target} soft free": {"target": target, "nudge": NUDGE} for target in TARGETS}
    for seed in args.seeds:
        tasks = held_out_tasks("chain", lengths, count, seed)
        for arm, options in arms.items():
            prompts = [shared.prompt_ids(tokenizer, task, arm != "reflex") for task in tasks]
            turns = write_in_batches(model, tokenizer, prompts, max_tokens=160, **options)
            answers = [shared.number(turn, tokenizer) for turn in turns]
            for level in lengths:
                found = [item for item in zip(tasks, turns, answers) if item[0].level == level]
                log.row(seed=seed, arm=arm, level=level, **tally(found))
            value = sum(answer == task.data["answer"] for answer, task in zip(answers, tasks)) / count
            print(f"seed {seed}, {arm:>12}: {value:.3f}", flush=True)
    report(log)
    harness.finish(log, thinking_budget=draw)


def tally(found: list[tuple[Task, Turn, int | None]]) -> dict[str, int]:
    """Counts over (task, turn, answer): right ones, cut ones, cut ones that still answer with a number, tokens."""
    cut = [(turn, answer) for _, turn, answer in found if turn.was_cut]
    return {
        "n": len(found),
        "right": sum(answer == task.data["answer"] for task, _, answer in found),
        "cut": len(cut),
        "cut_answered": sum(turn.finish == "stop" and answer is not None for turn, answer in cut),
        "thought": sum(turn.thought_tokens for _, turn, _ in found),
        "longest_thought": max(turn.thought_tokens for _, turn, _ in found),
        "hurried": sum(turn.hurried for _, turn, _ in found),
        "hurried_answered": sum(
            turn.hurried and turn.finish == "stop" and a is not None for _, turn, a in found
        ),
        "written": sum(turn.written for _, turn, _ in found),
    }


def total(
    rows: Iterable[dict], key: str, arm: str, levels: Iterable[int] = LENGTHS, seed: int | None = None
) -> int:
    """Sum of a count over the rows of an arm, at some lengths, in one seed or all."""
    return sum(r[key] for r in rows if r["arm"] == arm and r["level"] in levels and seed in (None, r["seed"]))


def report(log: Log) -> None:
    """The claims."""

    def accuracy(arm: str, levels: Iterable[int], seed: int | None = None) -> tuple[int, int]:
        return total(log.rows, "right", arm, levels, seed), total(log.rows, "n", arm, levels, seed)

    def gain(seed: int) -> float:
        (more, count), (less, _) = accuracy("None", LENGTHS, seed), accuracy("32", LENGTHS, seed)
        return (more - less) / count

    article, ours = "article (thinking mode)", "this project"
    claim = partial(log.claim, notebook=shared.NOTEBOOK, figure="figures/thinking_budget.png")
    says = "six to eight dependent steps are solved when they are thought through"
    claim("thinking/deep", claim=says, source=article, floor=0.97, **harness.rate(*accuracy("None", DEEP)))
    says = "six to eight dependent steps answered at once by the same weights"
    found = harness.rate(*accuracy("reflex", DEEP))
    claim("thinking/reflex_deep", claim=says, source=article, floor=0.30, at_most=True, **found)

    limited = [row for row in log.rows if row["arm"].isdigit()]
    free = [row for row in log.rows if row["arm"] in {f"{budget} free" for budget in BUDGETS}]
    over = max(row["longest_thought"] - int(row["arm"].split()[0]) for row in limited + free)
    says, card = "tokens by which any thought exceeded its budget", "K2 Thinking model card (budgets)"
    claim("thinking/budget_kept", claim=says, source=card, floor=0, at_most=True, value=over)
    says = "a thought closed by the hard stop is followed by an answer, when {} may follow"
    for name, what, rows in (("when_cut", "only digits", limited), ("unasked", "anything", free)):
        found = harness.rate(*answers_behind_the_stop(rows), tasks=total(log.rows, "n", "None"))
        claim(f"thinking/answers_{name}", claim=says.format(what), source=ours, floor=0.97, **found)

    says = "on mixed lengths more thinking buys more: no limit against 32 tokens"
    whole = (accuracy(arm, LENGTHS) for arm in ("None", "32"))
    found = harness.on_same_tasks([gain(seed) for seed in log.seeds], *whole)
    more = {"source": "article (test-time compute)", "headline": True}
    claim("thinking/budget_gain", claim=says, floor=0.15, **found, **more)
    soft_claims(log, claim)


def soft_claims(log: Log, claim: Callable[..., None]) -> None:
    """What the soft target does beside the stop: at equal tokens, and with an answer that is left free."""
    says, ours = "soft target - hard stop, at equal tokens of thought (mean over the targets)", "this project"
    found = harness.across([soft_gain(log.rows, seed) for seed in log.seeds])
    claim("thinking/soft_gain", claim=says, source=ours, floor=-0.03, **found)
    rows = [row for row in log.rows if row["arm"].endswith("soft free")]
    says = "a thought that was hurried to its end is followed by an answer, when anything may follow"
    counts = (sum(row[key] for row in rows) for key in ("hurried_answered", "hurried"))
    found = harness.rate(*counts, tasks=total(log.rows, "n", "None"))
    claim("thinking/soft_answers", claim=says, source=ours, floor=0.97, **found)
    over = max(row["longest_thought"] - int(row["arm"].split()[0]) for row in rows)
    says = "tokens by which a thought ran over its soft target at most: it hurries, and bounds nothing"
    claim("thinking/soft_overrun", claim=says, source=ours, floor=0, at_most=True, value=over)


def point(rows: Iterable[dict], arm: str, seed: int | None = None) -> tuple[float, float]:
    """(tokens of thought a task, share of right answers) of an arm."""
    count = total(rows, "n", arm, seed=seed)
    return tuple(total(rows, key, arm, seed=seed) / count for key in ("thought", "right"))


def soft_gain(rows: list[dict], seed: int) -> float:
    """Accuracy under the soft targets less that of the stop at as many tokens, mean over the targets."""
    tokens, right = zip(*sorted(point(rows, str(budget), seed) for budget in BUDGETS))
    soft = [point(rows, f"{target} soft", seed) for target in TARGETS]
    return float(np.mean([value - np.interp(spent, tokens, right) for spent, value in soft]))


def answers_behind_the_stop(rows: Iterable[dict]) -> tuple[int, int]:
    """(followed by a number, all) of the thoughts that were cut."""
    return sum(row["cut_answered"] for row in rows), sum(row["cut"] for row in rows)


# -- figure --------------------------------------------------------------------------------------------


@style.styled
def draw(log: dict) -> Figure:
    """Accuracy against budget, for the mix and some lengths; against tokens, stop and target; is there an answer?"""
    rows = log["rows"]
    fig, axes = style.figure(16, 4.8, 1, 3, width_ratios=(3, 2.4, 2))
    draw_budgets(axes[0, 0], rows)
    draw_both(axes[0, 1], rows)
    draw_answers(axes[0, 2], rows)
    fig.legend(*sum_legends(axes[0]), loc="outside lower center", ncols=5)
    return fig


def sum_legends(axes: Iterable[Axes]) -> tuple[list, list[str]]:
    """Handles and labels of several panels."""
    both = [ax.get_legend_handles_labels() for ax in axes]
    return [handle for handles, _ in both for handle in handles], [
        name for _, names in both for name in names
    ]


def draw_budgets(ax: Axes, rows: list[dict]) -> None:
    """Right answers against the hard stop's budget."""
    budgets = [budget for budget in BUDGETS if budget is not None]
    groups = {"all lengths": LENGTHS, "1-2 steps": (1, 2), "3-5 steps": (3, 4, 5), "6-8 steps": (6, 7, 8)}
    colours = (style.BLACK, style.SKY, style.GREEN, style.PURPLE)
    for (name, levels), colour, marker in zip(groups.items(), colours, "os^D"):
        points = [success(rows, str(budget), levels) for budget in budgets]
        values = [point[0] for point in points]
        spread = [[value - low for value, low, _ in points], [high - value for value, _, high in points]]
        width = 3.4 if name == "all lengths" else 1.8
        ax.errorbar(
            budgets, values, spread, color=colour, marker=marker, capsize=3, linewidth=width, label=name
        )
    reflex = success(rows, "reflex", LENGTHS)[0]
    ax.axhline(reflex, color=style.ORANGE, linestyle="--", label=f"reflex ({reflex:.2f})")
    ax.set(xlabel="thinking budget (tokens)", ylabel="right answers", ylim=(-0.03, 1.05))
    ax.set_title("More budget, more right answers")


def draw_both(ax: Axes, rows: list[dict]) -> None:
    """Right answers against tokens of thought: hard stop and soft target."""
    arms = {"hard stop": [str(b) for b in BUDGETS], "soft target": [f"{t} soft" for t in TARGETS]}
    for (name, own), colour, marker in zip(arms.items(), (style.BLUE, style.RED), "ov"):
        ax.plot(*zip(*sorted(point(rows, arm) for arm in own)), color=colour, marker=marker, label=name)
    ax.set(xlabel="tokens of thought a task", ylim=(-0.03, 1.05), title="At equal tokens")


def draw_answers(ax: Axes, rows: list[dict]) -> None:
    """The share of cut thoughts that a number follows; and of hurried ones."""
    endings = {
        "": "stop, digits only",
        " free": "stop, answer left free",
        " soft free": "target, answer left free",
    }
    colours = (style.BLUE, style.SKY, style.RED)
    for (ending, name), colour, marker in zip(endings.items(), colours, "osv"):
        counts = ("hurried_answered", "hurried") if "soft" in ending else ("cut_answered", "cut")
        shares = {}
        for budget in TARGETS if "soft" in ending else BUDGETS[1:-1]:
            own = [row for row in rows if row["arm"] == f"{budget}{ending}"]
            if all_ := sum(row[counts[1]] for row in own):
                shares[budget] = sum(row[counts[0]] for row in own) / all_
        ax.plot(shares.keys(), shares.values(), color=colour, marker=marker, label=name)
    ax.set(xlabel="budget or target (tokens)", ylim=(-0.03, 1.05), title="Does a number follow the end?")


def success(rows: list[dict], arm: str, levels: Iterable[int]) -> tuple[float, float, float]:
    """Share of right answers of all seeds in an arm at some lengths, with its interval."""
    right, count = total(rows, "right", arm, levels), total(rows, "n", arm, levels)
    return right / count, *wilson(right, count)


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
