"""Figures of text that is refined.

bounds    nats a token of two models, and the gaps that they fill
steps     success against the number of steps, for each way to choose where to write
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kimi_mini.course.figures.style import BLACK, BLUE, GREY, ORANGE, PALETTE, figure, styled

Seeds = Mapping[str, Mapping[str, Sequence[float]]]  # group -> {bar: a value a seed}


@styled
def bounds(nats: Seeds, gaps: Seeds, title: str = "") -> Figure:
    """Two panels of bars, seeds as dots: nats a token of each family (lower is better), and the share of gaps that are
    filled exactly (higher is better)."""
    fig, axes = figure(13, 4.6, columns=2)
    _bars(axes[0, 0], nats)
    axes[0, 0].set(ylabel="nats a token", title="Likelihood of held-out turns (lower is better)")
    _bars(axes[0, 1], gaps)
    axes[0, 1].set(ylabel="filled exactly", ylim=(0, 1.05), title="Gaps filled (higher is better)")
    if title:
        fig.suptitle(title)
    return fig


def _bars(ax: Axes, groups: Seeds) -> None:
    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    width = 0.8 / len(names)
    for index, (name, colour) in enumerate(zip(names, (BLUE, ORANGE))):
        at = np.arange(len(groups)) + (index - (len(names) - 1) / 2) * width
        seeds = [group[name] for group in groups.values()]
        means = [float(np.mean(values)) for values in seeds]
        ax.bar(at, means, width * 0.9, color=colour, label=name)
        for place, values, mean in zip(at, seeds, means):
            ax.plot([place] * len(values), values, "o", color=BLACK, markersize=5)
            ax.annotate(f"{mean:.2f}", (place, max(values)), (0, 5), textcoords="offset points", ha="center")
    ax.set_xticks(range(len(groups)), list(groups))
    ax.margins(y=0.15)
    ax.grid(axis="x", visible=False)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=2)


@styled
def steps(
    curves: Mapping[str, Sequence[tuple[float, float, float, float]]],
    written: float,
    length: int,
    title: str = "Fewer steps, and what they cost",
) -> Figure:
    """curves: way -> points (steps, success, lowest and highest seed). written: success of the writer; length: tokens
    of the canvas, which are the steps of a writer."""
    fig, axes = figure(11, 5.2)
    ax = axes[0, 0]
    for index, ((name, points), colour) in enumerate(zip(curves.items(), (*PALETTE, GREY))):
        x, y, low, high = map(np.array, zip(*sorted(points)))
        errors = np.array([y - low, high - y])
        marker = "osD^vPX*"[index % 8]
        ax.errorbar(x, y, errors, color=colour, marker=marker, markersize=8, capsize=3, label=name)
    ax.axhline(written, color=BLACK, linestyle="--", label="written from left to right")
    ax.axvline(length / 2, color="#BBBBBB", linestyle=":")
    ax.annotate("half the length", (length / 2, 1.03), (4, 0), textcoords="offset points", color="#666666")
    ax.set(xlim=(0, length + 2), ylim=(-0.03, 1.1), xlabel="steps", ylabel="tasks solved", title=title)
    fig.legend(loc="outside right center")
    return fig
