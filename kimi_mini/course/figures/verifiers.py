"""Figures of verifiers and of what is learned from what they let through, as pure functions of plain numbers.

funnel            how many trajectories each stage lets through
error_rates       how often a verifier errs, kind by kind, with 95% intervals
arms              success of several trainings, one dot a seed
by_level          a share for each level, some pools side by side
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from kimi_mini.course.figures import style
from kimi_mini.course.figures.style import figure, styled


@styled
def funnel(
    stages: Mapping[str, int],
    notes: Mapping[str, str] | None = None,
    title: str = "",
    kept: str | None = None,
) -> Figure:
    """What is left after each stage: name -> count, from the top, and its share of the stage before; `notes` stand
    under a stage. Green is the stage that is `kept` (the last, unless it is named); what stands below only looks on."""
    fig, axes = figure(10, 0.9 * len(stages) + 0.8)
    ax = axes[0, 0]
    ax.axis("off")
    top, previous, end = max(stages.values()), None, 0.52
    last = list(stages).index(kept) if kept else len(stages) - 1
    for row, (name, count) in enumerate(stages.items()):
        width = max(count / top, 0.004)
        colour = style.PALETTE[0] if row < last else style.GREEN if row == last else style.GREY
        ax.barh(row, width, left=-width / 2, height=0.78, color=colour)
        text = f"{name}: {count:,}" + (f"  ({count / previous:.0%})" if previous else "")
        inside = width > 0.0125 * len(text)  # a wide bar holds its text, a narrow one has it beside
        ax.text(
            0 if inside else width / 2 + 0.015,
            row,
            text,
            va="center",
            ha="center" if inside else "left",
            color="white" if inside else style.BLACK,
            weight="bold",
        )
        if not inside:
            end = max(end, width / 2 + 0.0135 * len(text))
        if notes and name in notes:
            ax.text(
                0.0,
                row + 0.5,
                notes[name],
                ha="center",
                va="center",
                color="#555555",
                fontsize=style.FONT - 1,
            )
        previous = count
    ax.set(xlim=(-0.52, end), ylim=(len(stages) - 0.4, -0.6), title=title)
    return fig


@styled
def error_rates(
    rows: Sequence[Mapping],
    limit: float = 0.01,
    title: str = "",
    most: float | None = None,
    label: str = "errors",
) -> Figure:
    """One line a kind: {name, value, low, high, n}, with its 95% interval, and the limit to stay under.

    `most`: right end of the axis (by default what the intervals need).
    """
    fig, axes = figure(11, 0.38 * len(rows) + 1.6)
    ax = axes[0, 0]
    for y, row in enumerate(rows):
        colour = style.RED if row["value"] > limit else style.GREEN
        ax.plot([100 * row["low"], 100 * row["high"]], [y, y], color=colour, linewidth=3, alpha=0.45)
        ax.plot(100 * row["value"], y, "o", color=colour, markersize=9)
        text = f"{100 * row['value']:.1f}%  of {row['n']}"
        ax.annotate(
            text,
            (100 * row["high"], y),
            (8, 0),
            textcoords="offset points",
            va="center",
            fontsize=style.FONT - 1,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},  # over the dashed line
        )
    ax.axvline(100 * limit, color=style.BLACK, linestyle="--", linewidth=1.5)
    ax.set_yticks(range(len(rows)), [row["name"] for row in rows])
    end = 100 * (most or max(max(row["high"] for row in rows), 2 * limit))
    ax.set(
        xlim=(-0.02 * end, 1.22 * end),
        ylim=(len(rows) - 0.4, -0.6),
        xlabel=f"{label} (%), dashed: {limit:.0%}",
        title=title,
    )
    ax.grid(axis="y", visible=False)
    return fig


ARM_COLOURS = {"before": style.SKY, "everything": style.GREY, "broken": style.ORANGE, "passed": style.GREEN}


@styled
def arms(
    scores: Mapping[str, Mapping[str, Sequence[float]]], title: str = "", ylabel: str = "success"
) -> Figure:
    """Several trainings under several conditions: condition -> arm -> one value a seed. Bars are means."""
    names = list(next(iter(scores.values())))
    fig, axes = figure(10, 4.6)
    ax = axes[0, 0]
    width = 0.8 / len(names)
    for index, name in enumerate(names):
        colour = ARM_COLOURS.get(name, style.PALETTE[index % len(style.PALETTE)])
        for x, values in enumerate(scores[condition][name] for condition in scores):
            place = x + (index - (len(names) - 1) / 2) * width
            ax.bar(
                place, np.mean(values), width * 0.92, color=colour, alpha=0.75, label=name if x == 0 else None
            )
            ax.plot([place] * len(values), values, "o", color=style.BLACK, markersize=6, alpha=0.8)
            ax.text(place, max(values) + 0.03, f"{np.mean(values):.2f}", ha="center")
    ax.set_xticks(range(len(scores)), list(scores))
    ax.set(ylim=(0, 1.12), ylabel=ylabel, title=title)
    ax.grid(axis="x", visible=False)
    fig.legend(loc="outside lower center", ncols=len(names))
    return fig


@styled
def by_level(
    pools: Mapping[str, Mapping[int, float]], title: str = "", xlabel: str = "level", ylabel: str = ""
) -> Figure:
    """A share for each level, the pools side by side: pool -> level -> share (0 to 1)."""
    levels = list(next(iter(pools.values())))
    fig, axes = figure(10, 4.2)
    ax = axes[0, 0]
    width = 0.8 / len(pools)
    for index, ((name, shares), colour) in enumerate(
        zip(pools.items(), (style.GREY, style.BLUE, style.GREEN, style.ORANGE))
    ):
        places = np.arange(len(levels)) + (index - (len(pools) - 1) / 2) * width
        values = [100 * shares[level] for level in levels]
        ax.bar(places, values, width * 0.92, color=colour, label=name)
        for place, value in zip(places, values):
            ax.annotate(f"{value:.0f}", (place, value), (0, 3), textcoords="offset points", ha="center")
    ax.set_xticks(range(len(levels)), [str(level) for level in levels])
    ax.set(xlabel=xlabel, ylabel=ylabel, title=title)
    ax.margins(y=0.15)
    ax.grid(axis="x", visible=False)
    fig.legend(loc="outside lower center", ncols=len(pools))
    return fig
