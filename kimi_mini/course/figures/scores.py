"""The scoreboard, success by length, and thinking budgets as figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kimi_mini.course.figures.style import BLACK, FONT, GREY, ORANGE, PALETTE, RED, SKY, figure, human, styled
from kimi_mini.worlds import WORLDS


@styled
def scoreboard(
    rows: Mapping[str, Mapping], title: str = "Held-out success", gains: str = "What a step adds"
) -> Figure:
    """One bar a row of a scoreboard, grouped by what stands before the slash, with its 95% interval.

    rows: name -> the entry of a log {value, low, high, n, floor, thinking, gap}; low and high may be None, the rest
    may be missing. Differences (gap) get a panel of their own, around zero, with the title `gains`; a floor is a red
    tick. A world's rows have its colour, but those without a thought are orange.
    """
    gaps = {name: rows[name] for name in _in_groups(rows) if rows[name].get("gap")}
    levels = {name: rows[name] for name in _in_groups(rows) if name not in gaps}
    if not levels and not gaps:
        raise ValueError("the scoreboard has no rows")
    panels = [part for part in (levels, gaps) if part]
    slots = [_slots(part) for part in panels]
    heights = [0.42 * max(slot.values()) + 1.3 for slot in slots]
    fig, axes = figure(10, sum(heights), len(panels), height_ratios=heights)
    for ax, part, slot in zip(axes[:, 0], panels, slots):
        _bars_with_intervals(ax, part, slot)
        if part is gaps:
            ax.axvline(0, color=BLACK, linewidth=1)
            ax.set_title(f"{gains} (difference of success rates)")
        else:
            ax.set_xlim(0, 1.4)
            ax.set_xticks(np.linspace(0, 1, 6))
            ax.set_title(
                title
                + (" (red: floor to reach)" if any(_floor(row) is not None for row in part.values()) else "")
            )
    return fig


def _in_groups(names: Iterable[str]) -> list[str]:
    """Groups in order of appearance, and rows in theirs."""
    groups = list(dict.fromkeys(name.split("/")[0] for name in names))
    return sorted(names, key=lambda name: groups.index(name.split("/")[0]))


def _slots(rows: Mapping) -> dict[str, float]:
    """Where each bar stands, from the top, with some air between groups."""
    places, y, last = {}, 0.0, None
    for name in rows:
        group = name.split("/")[0]
        y += 1.0 if last in (None, group) else 1.5
        places[name], last = y, group
    return places


def _bars_with_intervals(ax: Axes, rows: Mapping, slots: Mapping[str, float]) -> None:
    names = list(rows)
    y, values = [slots[name] for name in names], [rows[name]["value"] for name in names]
    ax.barh(y, values, height=0.72, color=[_colour(name, rows[name]) for name in names])
    for name, place in slots.items():
        row = rows[name]
        low, high = row.get("low"), row.get("high")
        if low is not None and high is not None:
            ax.plot([low, high], [place, place], color=BLACK, linewidth=2, marker="|", markersize=9)
        if _floor(row) is not None:
            ax.plot([_floor(row)] * 2, [place - 0.42, place + 0.42], color=RED, linewidth=3, label="floor")
        end = max(row["value"], high or 0, _floor(row) or 0, 0)  # numbers stand right of all that is drawn
        ax.annotate(
            _in_words(row), (end, place), (8, 0), textcoords="offset points", va="center", color=BLACK
        )
    ax.set_yticks(y, [name.replace("_", " ") for name in names])
    ax.set_ylim(max(y) + 0.8, min(y) - 0.8)
    ax.grid(axis="y", visible=False)
    ax.margins(x=0.35)


def _floor(row: Mapping) -> float | None:
    return row.get("floor")


def _colour(name: str, row: Mapping) -> str:
    world = WORLDS.get(name.split("/")[0])
    return SKY if world is None else world.colour if row.get("thinking", True) else ORANGE


def _in_words(row: Mapping) -> str:
    text = _share(row["value"])
    if row.get("low") is None or row.get("high") is None:
        return text
    return f"{text} [{_share(row['low'])}, {_share(row['high'])}]"


def _share(value: float) -> str:
    """0.87, 0.975, 1: three digits at the most, so that an interval never seems to leave its value out."""
    return f"{value:.3f}".rstrip("0").rstrip(".") if abs(value) >= 0.0005 else "0"


@styled
def accuracy_by_length(
    series: Mapping[str, Sequence[Mapping]],
    chance: float | None = None,
    trained_to: int | None = None,
    xlabel: str = "steps that the task needs",
    title: str = "",
) -> Figure:
    """Success against length with 95% intervals: series name -> points {length, value, low, high}.

    `chance` draws what guessing gives, `trained_to` shades the lengths beyond training.
    """
    fig, axes = figure(9, 4.8)
    ax = axes[0, 0]
    longest = max(point["length"] for points in series.values() for point in points)
    for (name, points), colour, marker in zip(series.items(), PALETTE * 2, "os^Dv<>" * 2):
        x, y = [point["length"] for point in points], [point["value"] for point in points]
        spread = [[p["value"] - p["low"] for p in points], [p["high"] - p["value"] for p in points]]
        ax.errorbar(
            x, y, np.maximum(spread, 0), color=colour, marker=marker, markersize=8, capsize=4, label=name
        )
    if chance is not None:
        ax.axhline(chance, color=GREY, linestyle=":", label=f"guessing ({chance:g})")
    if trained_to is not None and trained_to < longest:
        ax.axvspan(trained_to + 0.5, longest + 0.5, color="#F3F0E6", zorder=0, label="longer than trained")
    ax.set(ylim=(-0.03, 1.05), xlabel=xlabel, ylabel="success", title=title)
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return fig


@styled
def reliability(models: Mapping[str, Sequence[Mapping]], title: str = "") -> Figure:
    """Does a model know when it is right? model -> bins {sure, right, low, high, count} of its attempts.

    On the diagonal the model is right as often as it is sure; below it, it is surer than right. Beneath: how many
    attempts stand in each bin.
    """
    fig, axes = figure(9.5, 6.2, 2, 1, height_ratios=[3, 1], sharex=True)
    top, bottom = axes[:, 0]
    top.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="as often right as sure")
    width = 0.7 / 10 / len(models)
    for number, (name, bins) in enumerate(models.items()):
        x, y = [one["sure"] for one in bins], [one["right"] for one in bins]
        spread = [[one["right"] - one["low"] for one in bins], [one["high"] - one["right"] for one in bins]]
        shape = {"color": PALETTE[number], "marker": "os^D"[number % 4], "markersize": 8, "capsize": 4}
        top.errorbar(x, y, np.maximum(spread, 0), label=name, **shape)
        shift = (number - (len(models) - 1) / 2) * width
        bottom.bar(np.array(x) + shift, [one["count"] for one in bins], width, color=PALETTE[number])
    top.set(ylabel="share that is right", title=title, xlim=(-0.04, 1.04), ylim=(-0.04, 1.06))
    bottom.set(xlabel="how sure the model is of all that it wrote", ylabel="attempts")
    top.legend(loc="upper left", bbox_to_anchor=(0.0, 0.98))
    return fig


@styled
def budget_table(columns: Mapping[str, Mapping[str, float | str]], title: str = "") -> Figure:
    """Models side by side: column name -> {row name: number or text}. Rows are those of the first column."""
    names, rows = list(columns), list(next(iter(columns.values())))
    cells = [[row, *(human(columns[name].get(row, "-")) for name in names)] for row in rows]
    first = max(0.34, 0.011 * max(map(len, rows)) + 0.02)
    widths = [first, *[(1 - first) / len(names)] * len(names)]
    fig, axes = figure(10, 0.46 * (len(rows) + 1) + (0.55 if title else 0.1))
    ax = axes[0, 0]
    ax.axis("off")
    table = ax.table(cells, colLabels=["", *names], colWidths=widths, bbox=(0, 0, 1, 1), cellLoc="right")
    table.auto_set_font_size(False)
    for (row, column), cell in table.get_celld().items():
        cell.set(edgecolor="#DDDDDD", linewidth=0.8, facecolor="#F5F5F5" if row % 2 == 0 else "white")
        cell.set_text_props(fontsize=FONT + 1, color=BLACK, fontweight="bold" if row == 0 else "normal")
        cell.get_text().set_horizontalalignment("left" if column == 0 else "right")
        cell.visible_edges = "B"
    ax.set_title(title)
    return fig
