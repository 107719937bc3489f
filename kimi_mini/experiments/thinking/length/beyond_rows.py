"""The rows of `beyond`: rates and differences with their intervals, and the figure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kimi_mini.course.figures import style
from kimi_mini.experiments import harness
from kimi_mini.experiments.thinking.length.lists import TRAINED

CONTROL, TOOL, WINDOWS, BEST = "control", "tool", "windows", "gaps"
COLOURS = (style.GREY, style.BLUE, style.ORANGE, style.GREEN, style.RED, style.PURPLE, style.SKY)
STEPS, TWICE = (8, 10, 12, 16, 24), 2 * TRAINED
ASKED = {
    BEST: "asked at once, trained with gaps in the positions",
    WINDOWS: "shown eight steps at a time",
    TOOL: "one step at a time from a tool, old turns hidden",
}


def rows_at(rows: Sequence[dict], arm: str, steps: int) -> list[dict]:
    """The rows of an arm at a length, seed by seed."""
    return [row for row in rows if (row["part"], row["arm"], row.get("steps")) == ("success", arm, steps)]


def success(rows: Sequence[dict], arm: str, steps: int) -> dict:
    """Right answers of all seeds: the mean of the trained models, and its interval over them."""
    return harness.share_across([row["right"] / row["n"] for row in rows_at(rows, arm, steps)])


def difference(rows: Sequence[dict], arm: str, other: str, steps: int) -> dict:
    """Success of an arm minus another's, over seeds."""
    pairs = zip(rows_at(rows, arm, steps), rows_at(rows, other, steps), strict=True)
    return harness.across([a["right"] / a["n"] - b["right"] / b["n"] for a, b in pairs])


@style.styled
def draw(log: dict) -> Figure:
    """Left: success against length, a line an arm. Right: attention on the right step of the list where all steps are
    trained, and at twice that length."""
    fig, axes = style.figure(14, 5.6, 1, 2)
    left, right = axes[0]
    _success(left, log["rows"])
    _look(right, log["rows"])
    handles, labels = left.get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower left", ncols=4)
    return fig


def _success(ax: Axes, rows: Sequence[dict]) -> None:
    arms = list(dict.fromkeys(row["arm"] for row in rows if row["part"] == "success"))
    for place, arm in enumerate(arms):
        points = [success(rows, arm, steps) for steps in STEPS]
        values = [point["value"] for point in points]
        x = np.array(STEPS) + 0.09 * (place - len(arms) / 2)
        colour, marker = COLOURS[place % len(COLOURS)], "osv^D<>Ph"[place % 9]
        ax.plot(x, values, color=colour, marker=marker, markersize=8, label=arm)
        for at, point in zip(x, points):
            if point["low"] is not None:
                ax.plot([at, at], [point["low"], point["high"]], color=colour, linewidth=1.2)
    ax.axvspan(TRAINED + 0.5, STEPS[-1] + 0.6, color="#F3F0E6", zorder=0)
    ax.text(TRAINED + 0.8, 1.02, "longer than trained", fontsize=style.FONT - 1)
    ax.set(ylim=(-0.04, 1.09), xticks=STEPS, xlabel="steps in the chain", ylabel="success")
    ax.set_title("Held-out chains solved")


def _look(ax: Axes, rows: Sequence[dict]) -> None:
    looks = [row for row in rows if row["part"] == "look"]
    lines = [
        (CONTROL, TRAINED, style.BLUE, "s"),
        (CONTROL, TWICE, style.GREY, "o"),
        (BEST, TWICE, style.RED, "D"),
    ]
    for arm, steps, colour, marker in lines:
        own = [row for row in looks if (row["arm"], row["steps"]) == (arm, steps)]
        shape = {"color": colour, "marker": marker, "markersize": 6}
        if own:
            values = np.mean([row["right"] for row in own], 0)
            ax.plot(range(1, steps + 1), values, label=f"{arm}, a chain of {steps}", **shape)
    ax.set(ylim=(-0.04, 1.09), xlim=(0.5, TWICE + 0.5), xticks=range(1, TWICE + 1, 3))
    ax.set(xlabel="step of the chain", ylabel="attention on the right step of the list")
    ax.set_title("Where the head that keeps the place looks")
    ax.legend(loc="upper right", bbox_to_anchor=(1.0, 0.82), framealpha=0.9, frameon=True)
