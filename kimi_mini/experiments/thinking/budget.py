"""How much thinking does an answer need? Accuracy against a budget of tokens, with a hard stop.

Held-out chains of one to eight steps, mixed. Every task is answered under every budget: when the thought has that many
tokens and has not ended, we close it, and the model answers with what it has. Greedy, so that the thoughts under two
budgets are the same as far as both go, and only the stop differs.

Behind the stop the answer is held to digits. A second arm leaves it free: a model that was never stopped in training
may think on in its answer, and then the budget is only a word. And beside both the same tasks in reflex mode, where
the prompt itself gives an empty thought.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from matplotlib.figure import Figure

from kimi_mini.agent.folder import shipped_agent
from kimi_mini.base.command import in_one_line
from kimi_mini.base.evidence import Log
from kimi_mini.base.intervals import wilson
from kimi_mini.course.figures import style
from kimi_mini.experiments import harness
from kimi_mini.experiments.harness import arguments
from kimi_mini.experiments.thinking import shared
from kimi_mini.inference.thinking import Turn
from kimi_mini.worlds import Task
from kimi_mini.worlds.registry import held_out_tasks, trained_levels

BUDGETS = (0, 8, 16, 24, 32, 40, 48, 56, 64, 72, 80, None)
TASKS = 160  # a seed, spread over the lengths
LENGTHS = range(1, 9)
DEEP = range(6, 9)  # steps of the chains that count as deep


def main() -> None:
    """Answer all tasks under all budgets; write data/results/thinking_budget.json and its figure."""
    args = arguments(__doc__.splitlines()[0], checkpoint=shipped_agent())
    model, tokenizer, log = harness.begin("thinking_budget", args)
    lengths, count = trained_levels("chain"), max(8, int(TASKS * args.scale))
    digits = {tokenizer.token_id(digit) for digit in "0123456789"}
    arms = {str(budget): (True, budget, digits) for budget in BUDGETS} | {"reflex": (False, None, None)}
    arms |= {f"{budget} free": (True, budget, None) for budget in BUDGETS[1:-1]}
    for seed in args.seeds:
        tasks = held_out_tasks("chain", lengths, count, seed)
        for arm, (thinking, budget, form) in arms.items():
            prompts = [shared.prompt_ids(tokenizer, task, thinking) for task in tasks]
            options = {"budget": budget, "answer_ids": form, "max_tokens": 160}
            turns = shared.write_in_batches(model, tokenizer, prompts, **options)
            answers = [shared.number(turn, tokenizer) for turn in turns]
            for level in lengths:
                found = [item for item in zip(tasks, turns, answers) if item[0].level == level]
                log.row(seed=seed, arm=arm, level=level, **tally(found))
            value = sum(answer == task.data["answer"] for answer, task in zip(answers, tasks)) / count
            print(f"seed {seed}, {arm:>7}: {value:.3f}", flush=True)
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
    free = [row for row in log.rows if row["arm"].endswith("free")]
    over = max(row["longest_thought"] - int(row["arm"].split()[0]) for row in limited + free)
    says, card = "tokens by which any thought exceeded its budget", "K2 Thinking model card (budgets)"
    claim("thinking/budget_kept", claim=says, source=card, floor=0, at_most=True, value=over)
    says = "a thought closed by the hard stop is followed by an answer, when {} may follow"
    for name, what, rows in (("when_cut", "only digits", limited), ("unasked", "anything", free)):
        found = harness.rate(*answers_behind_the_stop(rows))
        claim(f"thinking/answers_{name}", claim=says.format(what), source=ours, floor=0.97, **found)

    says = "on mixed lengths more thinking buys more: no limit against 32 tokens"
    found = harness.across([gain(seed) for seed in log.seeds])
    more = {"source": "article (test-time compute)", "headline": True}
    claim("thinking/budget_gain", claim=says, floor=0.15, **found, **more)


def answers_behind_the_stop(rows: Iterable[dict]) -> tuple[int, int]:
    """(followed by a number, all) of the thoughts that were cut."""
    return sum(row["cut_answered"] for row in rows), sum(row["cut"] for row in rows)


# -- figure --------------------------------------------------------------------------------------------


@style.styled
def draw(log: dict) -> Figure:
    """Left: accuracy against budget, for the mix and for some lengths. Right: is a stop followed by a number?"""
    rows = log["rows"]
    fig, axes = style.figure(12, 4.8, 1, 2, width_ratios=(3, 2))
    left, right = axes[0]
    budgets = [budget for budget in BUDGETS if budget is not None]
    groups = {"all lengths": LENGTHS, "1-2 steps": (1, 2), "3-5 steps": (3, 4, 5), "6-8 steps": (6, 7, 8)}
    for (name, levels), colour, marker in zip(
        groups.items(), (style.BLACK, style.SKY, style.GREEN, style.PURPLE), "os^D"
    ):
        points = [success(rows, str(budget), levels) for budget in budgets]
        values = [point[0] for point in points]
        spread = [[value - low for value, low, _ in points], [high - value for value, _, high in points]]
        width = 3.4 if name == "all lengths" else 1.8
        left.errorbar(
            budgets, values, spread, color=colour, marker=marker, capsize=3, linewidth=width, label=name
        )
    reflex = success(rows, "reflex", LENGTHS)[0]
    left.axhline(reflex, color=style.ORANGE, linestyle="--", label=f"reflex ({reflex:.2f})")
    left.set(
        xlabel="thinking budget (tokens)",
        ylabel="right answers",
        ylim=(-0.03, 1.05),
        title="More budget, more right answers",
    )
    for ending, colour, name in (
        ("", style.BLUE, "answer held to digits"),
        (" free", style.RED, "answer left free"),
    ):
        found = {b: [row for row in rows if row["arm"] == f"{b}{ending}" and row["cut"]] for b in budgets[1:]}
        shares = {b: answers_behind_the_stop(part) for b, part in found.items() if part}
        right.plot(shares.keys(), [a / n for a, n in shares.values()], color=colour, marker="o", label=name)
    right.set(
        xlabel="thinking budget (tokens)",
        ylabel="share of stopped thoughts",
        ylim=(-0.03, 1.05),
        title="Does a number follow the stop?",
    )
    handles = [ax.get_legend_handles_labels() for ax in (left, right)]
    fig.legend(*([*a, *b] for a, b in zip(*handles)), loc="outside lower center", ncols=4)
    return fig


def success(rows: list[dict], arm: str, levels: Iterable[int]) -> tuple[float, float, float]:
    """Share of right answers of all seeds in an arm at some lengths, with its interval."""
    right, count = total(rows, "right", arm, levels), total(rows, "n", arm, levels)
    return right / count, *wilson(right, count)


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
