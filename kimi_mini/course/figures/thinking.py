"""Figures of thinking mode.

name_weights    attention weights of a head over the names that stand in tool results
reliability     chance that a run of calls succeeds, against its length
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from kimi_mini.course.figures.style import BLACK, FONT, GREEN, GREY, ORANGE, PALETTE, figure, styled


@styled
def name_weights(weights: Sequence[float], most: int, title: str = "", note: str = "") -> Figure:
    """A bar for each name in the context, oldest first; what is left of the head's look falls elsewhere.

    weights (n,): attention on each name, the newest last, which is the one to copy. most: names that the axis has room
    for, so that nothing jumps while a slider moves. Raises ValueError for more weights than that, or a sum above 1.
    """
    values = np.asarray(weights, float)
    if not 0 < len(values) <= most or values.sum() > 1.001:
        raise ValueError(f"{len(values)} weights of sum {values.sum():.3f} do not fit {most} names")
    fig, axes = figure(11, 4.0)
    ax = axes[0, 0]
    places = np.arange(1, len(values) + 1)
    ax.bar(places[:-1], values[:-1], color=ORANGE, label="names copied before")
    ax.bar(places[-1:], values[-1:], color=GREEN, label="the newest name, to be copied")
    ax.bar([0], [max(0.0, 1 - values.sum())], color=GREY, label="everything else")
    ax.set_xticks([0, *range(1, most + 1, 2)], ["else", *map(str, range(1, most + 1, 2))])
    ax.set(
        xlim=(-0.7, most + 0.7),
        ylim=(0, 1.03),
        xlabel="name brought by the result of call",
        ylabel="attention",
        title=title,
    )
    ax.text(
        0.99,
        0.93,
        note,
        transform=ax.transAxes,
        ha="right",
        va="top",
        fontsize=FONT,
        parse_math=False,
        color=BLACK,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8},
    )
    fig.legend(loc="outside lower center", ncols=3)
    return fig


@styled
def reliability(curves: Mapping[str, float], most: int = 300, title: str = "") -> Figure:
    """Chance of `n` right calls in a row, n up to `most`: label -> chance of a single one. Errors are independent."""
    fig, axes = figure(9, 3.8)
    ax = axes[0, 0]
    calls = np.arange(1, most + 1)
    for (label, chance), colour in zip(curves.items(), PALETTE):
        ax.plot(calls, chance**calls, color=colour, label=label)
    ax.set(
        xlim=(0, most), ylim=(-0.03, 1.03), xlabel="calls in a row", ylabel="all of them right", title=title
    )
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return fig
