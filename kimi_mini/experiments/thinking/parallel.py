"""Thinking wider in place of longer: several attempts at a repair, chosen by tests or by a vote, at equal tokens.

Eight attempts at every task, sampled. From the first n of them (n = 1, 2, 4, 8):

    best of n by public tests    the first whose public tests pass; the hidden inputs, which decide, are not looked at
    majority                     the final source that most attempts end in
    one of n at random           what n attempts are worth without any choice (pass@1)
    stopping at the first        best of n, but no further attempt once the public tests pass: the same choice for less

The first three have paid for n attempts and are compared with each other; the last spends fewer tokens, is drawn where
it belongs on the axis of tokens, and is never subtracted from the others (attempts.compare refuses it).
"""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from kimi_mini.agent.conversation import Conversation
from kimi_mini.agent.folder import shipped_agent
from kimi_mini.base.command import in_one_line
from kimi_mini.base.evidence import Log
from kimi_mini.base.intervals import bootstrap
from kimi_mini.course.figures import style
from kimi_mini.evaluation.scoreboard import solve
from kimi_mini.experiments import harness
from kimi_mini.experiments.harness import arguments
from kimi_mini.experiments.thinking import shared
from kimi_mini.inference.attempts import (
    Attempt,
    Chooser,
    best_of,
    compare,
    lucky,
    majority,
    score,
    stop_at_first,
)
from kimi_mini.worlds.registry import held_out_tasks, trained_levels
from kimi_mini.worlds.rows import LIMITS

SIZES = (1, 2, 4, 8)
TASKS, TEMPERATURE = 80, 1.0  # tasks a seed; K2 Thinking is sampled at temperature 1 too
CHOICES: dict[str, Chooser] = {
    "best of n by public tests": best_of,
    "stopping at the first": stop_at_first,
    "majority": majority,
    "one of n at random": lucky,
}


def main() -> None:
    """Sample all attempts and choose in every way; write data/results/parallel.json and its figure."""
    args = arguments(__doc__.splitlines()[0], checkpoint=shipped_agent())
    model, tokenizer, log = harness.begin("parallel", args)
    log.more["temperature"] = TEMPERATURE
    count, most = max(4, int(TASKS * args.scale)), max(SIZES)
    for seed in args.seeds:
        tasks = held_out_tasks("repair", trained_levels("repair"), count, seed)
        copies = [task for task in tasks for _ in range(most)]
        done = [
            attempt(talk)
            for talk in solve(model, tokenizer, copies, LIMITS, temperature=TEMPERATURE, seed=seed)
        ]
        groups = [done[i : i + most] for i in range(0, len(done), most)]
        for name, value, tokens, size in scores(groups):
            log.row(seed=seed, choice=name, attempts=size, n=count, success=value, tokens=tokens)
        for size in SIZES[1:]:
            log.row(seed=seed, attempts=size, n=count, **margins(groups, size))
        for choice in CHOICES:
            found = [row for row in log.rows if row["seed"] == seed and row.get("choice") == choice]
            print(
                f"seed {seed}, {choice}:",
                {row["attempts"]: round(row["success"], 3) for row in found},
                flush=True,
            )
    report(log)
    harness.finish(log, parallel=draw)


def attempt(talk: Conversation) -> Attempt:
    """A finished repair as an attempt: its answer is the source that it leaves behind."""
    bench = talk.environment.state
    return Attempt(tuple(bench.lines), talk.written, bench.public_tests_pass, talk.verdict().passed)


def scores(groups: Sequence[Sequence[Attempt]]) -> list[tuple[str, float, float, int]]:
    """(choice, success, tokens a task, attempts) for every choice at every size."""
    found = []
    for name, choose in CHOICES.items():
        for size in SIZES:
            one = score(choose, [group[:size] for group in groups])
            found.append((name, one.value, one.tokens, size))
    return found


def margins(groups: Sequence[Sequence[Attempt]], size: int) -> dict[str, float]:
    """What choosing by tests adds to a vote, at equal tokens; wins and losses: tasks that only one of them solves."""
    cut = [group[:size] for group in groups]
    pairs = [(best_of(group).passed, majority(group).passed) for group in cut]
    return {
        "over_majority": compare(score(best_of, cut), score(majority, cut)),
        "wins": sum(a > b for a, b in pairs),
        "losses": sum(a < b for a, b in pairs),
    }


def paired(rows: Sequence[dict]) -> dict:
    """Mean difference over the tasks of all seeds, {value, low, high}, with a bootstrap interval over tasks."""
    wins, losses, count = (sum(row[key] for row in rows) for key in ("wins", "losses", "n"))
    differences = [1.0] * wins + [-1.0] * losses + [0.0] * (count - wins - losses)
    return dict(zip(("value", "low", "high"), bootstrap(differences)))


def report(log: Log) -> None:
    """The claims."""
    common = {"notebook": shared.NOTEBOOK, "figure": "figures/parallel.png"}
    best = [
        row for row in log.rows if row.get("choice") == "best of n by public tests" and row["attempts"] == 4
    ]
    right = round(sum(row["success"] * row["n"] for row in best))
    log.claim(
        "parallel/best_of_4",
        claim="repair: the best of four attempts by their public tests",
        source="K2 report (multiple attempts, internal scorer)",
        floor=0.92,
        **common,
        **harness.rate(right, sum(row["n"] for row in best)),
    )
    for size in (4, 8):
        rows = [row for row in log.rows if "over_majority" in row and row["attempts"] == size]
        gain = paired(rows)
        log.claim(
            f"parallel/tests_over_vote_{size}",
            floor=0.0,
            claim=f"choosing among {size} attempts by tests beats a vote over the same {size}, at equal tokens",
            source="article (verifiers)",
            **common,
            **gain,
        )


@style.styled
def draw(log: dict) -> Figure:
    """Success against the tokens that were spent a task, one line a choice."""
    rows = [row for row in log["rows"] if "choice" in row]
    fig, axes = style.figure(11, 5.0)
    ax = axes[0, 0]
    for (name, marker), colour in zip(
        zip(CHOICES, "oD^s"), (style.BLUE, style.SKY, style.PURPLE, style.GREY)
    ):
        points = [mean_point(rows, name, size) for size in SIZES]
        tokens, values = [x for x, *_ in points], [y for _, y, *_ in points]
        spread = [[y - low for _, y, low, _ in points], [high - y for _, y, _, high in points]]
        ax.errorbar(tokens, values, spread, color=colour, marker=marker, markersize=9, capsize=3, label=name)
        if name == "best of n by public tests":
            for size, (x, _, _, high) in zip(SIZES, points):
                ax.annotate(f"n = {size}", (x, high), (0, 6), textcoords="offset points", ha="center")
    ax.set(
        xscale="log",
        xlabel="tokens that the model wrote for a task",
        ylabel="repaired for every input",
        title="Repair, sampled: the same attempts, chosen in four ways",
    )
    ticks = [round(mean_point(rows, "majority", size)[0]) for size in SIZES]
    ax.set_xticks(ticks, [str(tick) for tick in ticks])
    ax.minorticks_off()
    ax.margins(y=0.12)
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return fig


def mean_point(rows: Sequence[dict], choice: str, size: int) -> tuple[float, float, float, float]:
    """(tokens, success, low, high) over all seeds."""
    chosen = [row for row in rows if row["choice"] == choice and row["attempts"] == size]
    count = sum(row["n"] for row in chosen)
    rate = harness.rate(round(sum(row["success"] * row["n"] for row in chosen)), count)
    return sum(row["tokens"] for row in chosen) / len(chosen), rate["value"], rate["low"], rate["high"]


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
