"""The rows of `context`: which part each belongs to, rates and differences with their intervals, and the figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kimi_mini.course.figures import style
from kimi_mini.experiments import harness
from kimi_mini.worlds.rows import Limits

BUDGET, TODAY = 1024, 320  # tokens


@dataclass(frozen=True)
class Part:
    """An agent in a budget with one way to make room."""

    agent: str
    budget: int
    way: str

    def limits(self, calls: int) -> Limits:
        """Those of so many calls."""
        hides = self.way != "whole"
        return Limits(48, calls + 20, self.budget, manage=hides, hide=self.way if hides else "turns")


def rows_at(rows: Sequence[dict], part: Part, calls: int) -> list[dict]:
    """The rows of a part at one number of calls, seed by seed."""
    wanted = {"part": "calls", "agent": part.agent, "budget": part.budget, "way": part.way, "calls": calls}
    return [row for row in rows if all(row.get(key) == value for key, value in wanted.items())]


def passed(rows: Sequence[dict], part: Part, calls: int) -> dict:
    """Success of all seeds, as a rate with its interval."""
    own = rows_at(rows, part, calls)
    return harness.rate(sum(row["passed"] for row in own), sum(row["n"] for row in own))


def passed_tuned(rows: Sequence[dict], part: Part, calls: int) -> dict:
    """`passed` of agents that were trained, one a seed: the wider of the interval over seeds and of that over tasks."""
    over = harness.share_across([row["passed"] / row["n"] for row in rows_at(rows, part, calls)])
    return harness.wider(over, passed(rows, part, calls))


def numbered(rows: Sequence[dict], part: Part, calls: int) -> dict:
    """Share of the calls with the right number in their id. The calls of a dialogue are no independent trials, one slip
    is carried on: the wider of the interval over seeds and of Wilson's over dialogues, of which so many as the share
    says are right from end to end."""
    own = rows_at(rows, part, calls)
    over = harness.share_across([row["numbered"] / max(1, row["made"]) for row in own])
    count = sum(row["n"] for row in own)
    return harness.wider(over, harness.rate(round(over["value"] * count), count))


def difference(rows: Sequence[dict], first: Part, second: Part, calls: int) -> dict:
    """Success of the first part minus that of the second, over seeds."""
    pairs = zip(rows_at(rows, first, calls), rows_at(rows, second, calls), strict=True)
    return harness.across([a["passed"] / a["n"] - b["passed"] / b["n"] for a, b in pairs])


SHIPPED, DROPPED = Part("shipped", TODAY, "turns"), Part("dropped", BUDGET, "turns")
HIDDEN, KEPT = Part("hidden", BUDGET, "results"), Part("hidden", BUDGET, "whole")


LINES = (
    (SHIPPED, style.BLUE, "o", f"shipped, {TODAY} tokens, old turns dropped"),
    (Part("shipped", TODAY, "all"), style.SKY, "v", f"shipped, {TODAY} tokens, all but the last turn"),
    (DROPPED, style.GREEN, "s", f"tuned, {BUDGET} tokens, old turns dropped"),
    (Part("dropped", BUDGET, "all"), style.ORANGE, "D", f"tuned, {BUDGET} tokens, all but the last turn"),
    (HIDDEN, style.RED, "^", f"tuned for it, {BUDGET} tokens, results hidden, calls kept (K2)"),
    (KEPT, style.GREY, "x", f"tuned, {BUDGET} tokens, nothing hidden"),
)


@style.styled
def draw(log: dict) -> Figure:
    """Left: success against calls. Right: the share of calls whose id bears the right number."""
    fig, axes = style.figure(13, 5.4, 1, 2)
    left, right = axes[0]
    _lines(left, log["rows"], passed)
    _lines(right, log["rows"], numbered)
    left.set(ylabel="success", title="Held-out tasks solved")
    right.set(ylabel="share of the calls made", title="Calls whose id bears their number")
    fig.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return fig


def _lines(ax: Axes, rows: Sequence[dict], measure: Callable[..., dict]) -> None:
    counts = sorted({row["calls"] for row in rows if row["part"] == "calls"})
    for place, (part, colour, marker, label) in enumerate(LINES):
        points = [measure(rows, part, calls) for calls in counts]
        aside = 1 + 0.03 * (place - len(LINES) / 2)
        values = [point["value"] for point in points]
        ends = [[p["value"] if p[end] is None else p[end] for p in points] for end in ("low", "high")]
        spread = [[abs(value - end) for value, end in zip(values, side)] for side in ends]
        shape = {"color": colour, "marker": marker, "markersize": 8, "capsize": 4}
        ax.errorbar([calls * aside for calls in counts], values, spread, label=label, **shape)
    ax.set(xscale="log", ylim=(-0.04, 1.06), xlabel="calls in a row")
    ax.set_xticks(counts, [str(count) for count in counts], minor=False)
    ax.minorticks_off()
