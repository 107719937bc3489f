"""The figure of test-time compute: accuracy against the tokens that were written for a task, a panel a suite."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kimi_mini.base.intervals import wilson
from kimi_mini.course.figures import style

PANELS = {"repair": "Repairs, temperature 1", "chains": "Chains of 6 to 8 steps, temperature 1.5"}
ARMS = {  # arm: colour, marker, line
    "pass@n": (style.GREY, None, ":"),
    "best by public tests": (style.BLUE, "o", "-"),
    "stopping at the first": (style.SKY, "D", "-"),
    "revision": (style.ORANGE, "v", "-"),
    "heavy": (style.RED, "s", "-"),
    "majority": (style.PURPLE, "^", "-"),
    "surest": (style.GREEN, "P", "-"),
    "one at random": (style.BLACK, None, "--"),
    "shorter thought": (style.BLACK, "x", "-"),
    "greedy": (style.BLACK, "*", ""),
}
NAMES = {
    "pass@n": "any of n (pass@n)",
    "best by public tests": "best of n by public tests",
    "stopping at the first": "the same, stopping at the first",
    "revision": "revisions after failed public tests",
    "heavy": "heavy mode: n attempts, one aggregation",
    "majority": "majority vote",
    "surest": "the most probable",
    "one at random": "one of n at random",
    "shorter thought": "one attempt, its thought cut",
    "greedy": "one greedy attempt",
}


def points(rows: Sequence[dict], suite: str, arm: str) -> list[tuple[float, float, float, float]]:
    """(tokens, success, low, high) of an arm, one for each of its sizes, over the tasks of all seeds."""
    own = [row for row in rows if row["suite"] == suite and row["arm"] == arm]
    found = []
    for size in dict.fromkeys(row["attempts"] for row in own):
        some = [row for row in own if row["attempts"] == size]
        count = sum(row["n"] for row in some)
        success, tokens = (sum(row[key] * row["n"] for row in some) / count for key in ("success", "tokens"))
        found.append((tokens, success, *wilson(round(success * count), count)))
    return sorted(found)


@style.styled
def draw(log: dict) -> Figure:
    """A panel for each suite, a line for each arm, and one legend for both."""
    fig, axes = style.figure(15, 7.0, 1, len(PANELS))
    for ax, (suite, title) in zip(axes[0], PANELS.items()):
        _panel(ax, log["rows"], suite, title)
    axes[0][0].set_ylabel("right (95% interval over tasks)")
    handles = {name: handle for ax in axes[0] for handle, name in zip(*ax.get_legend_handles_labels())}
    order = [name for name in NAMES.values() if name in handles]
    fig.legend([handles[name] for name in order], order, loc="outside lower center", ncols=3)
    return fig


def _panel(ax: Axes, rows: Sequence[dict], suite: str, title: str) -> None:
    for arm, (colour, marker, line) in ARMS.items():
        found = points(rows, suite, arm)
        if not found:
            continue
        tokens, values, low, high = zip(*found)
        spread = [[v - a for v, a in zip(values, low)], [b - v for v, b in zip(values, high)]]
        error = None if arm in ("pass@n", "one at random") else spread
        look = {
            "color": colour,
            "marker": marker,
            "linestyle": line,
            "markersize": 13 if arm == "greedy" else 8,
        }
        ax.errorbar(tokens, values, error, capsize=3, label=NAMES[arm], **look)
    ticks = [round(tokens) for tokens, *_ in points(rows, suite, "majority")]
    ax.set(xscale="log", xlabel="tokens that the model wrote for a task", title=title)
    ax.set_xticks(ticks, [str(tick) for tick in ticks])
    ax.minorticks_off()
