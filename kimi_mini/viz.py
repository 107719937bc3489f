"""Figures as pure functions of plain numbers: no model, no file, no global state of pyplot.

    scoreboard          held-out success with 95% intervals, from data/results/run.json
    training_curves     loss, largest attention logit and load imbalance over all stages
    accuracy_by_length  success against the number of steps, one line a mode
    budget_table        two or more models beside each other, counted
    shares              where a whole goes, in per cent
    bars                a few numbers, on a linear or logarithmic axis
Made for a projector: 13 points and up, the colours of Okabe and Ito, which colour-blind readers tell apart.
`viz_model` draws what happens inside a model, `trace_view` draws conversations.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, GREY, BLACK = "#CC79A7", "#56B4E9", "#8A8A8A", "#222222"
PALETTE = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY, BLACK)
FONT = 13
STYLE = {
    "font.size": FONT, "axes.titlesize": FONT + 2, "axes.labelsize": FONT, "xtick.labelsize": FONT,
    "ytick.labelsize": FONT, "legend.fontsize": FONT, "axes.spines.top": False, "axes.spines.right": False,
    "axes.titlelocation": "left", "axes.grid": True, "grid.color": "#E4E4E4", "axes.axisbelow": True,
    "figure.facecolor": "white", "lines.linewidth": 2.2, "legend.frameon": False, "figure.dpi": 100,
}  # fmt: skip


styled = rc_context(STYLE)  # decorates every function that draws


def figure(width: float, height: float, rows: int = 1, columns: int = 1, **options) -> tuple[Figure, np.ndarray]:
    """A figure in inches and its axes (rows, columns); to be called inside a `styled` function."""
    fig = Figure(figsize=(width, height), layout="constrained")
    axes = fig.subplots(rows, columns, squeeze=False, **options)
    for ax in axes.flat:
        ax.tick_params(labelsize=FONT)  # ticks are made when the figure is drawn, outside of our style
    return fig, axes


# -- the scoreboard ------------------------------------------------------------------------------------

MODES = {"thinking": BLUE, "reflex": ORANGE, "reflex_control": GREY}
WORLD_COLOURS = {"chain": BLUE, "shop": GREEN, "repair": PURPLE}


@styled
def scoreboard(
    rows: Mapping[str, Mapping], floors: Mapping[str, float] | None = None, title: str = "Held-out success"
) -> Figure:
    """One bar a row of a scoreboard, grouped by what stands before the slash, with its 95% interval.

    rows: name -> {value, low, high, n}; low and high may be None. Rows ending in "gap" are differences and get a
    panel of their own, around zero. floors: name -> the value to reach, drawn as a red tick.
    """
    gaps = {name: rows[name] for name in _in_groups(rows) if name.endswith("gap")}
    levels = {name: rows[name] for name in _in_groups(rows) if name not in gaps}
    if not levels and not gaps:
        raise ValueError("the scoreboard has no rows")
    panels = [part for part in (levels, gaps) if part]
    slots = [_slots(part) for part in panels]
    heights = [0.42 * max(slot.values()) + 1.3 for slot in slots]
    fig, axes = figure(10, sum(heights), len(panels), height_ratios=heights)
    for ax, part, slot in zip(axes[:, 0], panels, slots):
        _bars_with_intervals(ax, part, slot, floors or {})
        if part is gaps:
            ax.axvline(0, color=BLACK, linewidth=1)
            ax.set_title("What a step adds (difference of success rates)")
        else:
            ax.set_xlim(0, 1.34)
            ax.set_xticks(np.linspace(0, 1, 6))
            ax.set_title(title + (" (red: floor to reach)" if floors else ""))
    return fig


def _in_groups(names: Iterable[str]) -> list[str]:
    """Groups stay in order of appearance, rows too; but the modes of thinking come first in theirs."""
    groups, modes = list(dict.fromkeys(name.split("/")[0] for name in names)), list(MODES)

    def place(name: str) -> tuple[int, int]:
        group, _, row = name.partition("/")
        return groups.index(group), modes.index(row) if row in modes else len(modes)

    return sorted(names, key=place)


def _slots(rows: Mapping) -> dict[str, float]:
    """Where each bar stands, from the top, with some air between groups."""
    places, y, last = {}, 0.0, None
    for name in rows:
        group = name.split("/")[0]
        y += 1.0 if last in (None, group) else 1.5
        places[name], last = y, group
    return places


def _bars_with_intervals(ax: Axes, rows: Mapping, slots: Mapping[str, float], floors: Mapping[str, float]) -> None:
    names = list(rows)
    y, values = [slots[name] for name in names], [rows[name]["value"] for name in names]
    ax.barh(y, values, height=0.72, color=[_row_colour(name) for name in names])
    for name, place in slots.items():
        row = rows[name]
        low, high = row.get("low"), row.get("high")
        if low is not None and high is not None:
            ax.plot([low, high], [place, place], color=BLACK, linewidth=2, marker="|", markersize=9)
        if name in floors:
            ax.plot([floors[name]] * 2, [place - 0.42, place + 0.42], color=RED, linewidth=3, label="floor")
        end = max(row["value"], high or 0, 0)
        ax.annotate(_in_words(row), (end, place), (8, 0), textcoords="offset points", va="center", color=BLACK)
    ax.set_yticks(y, [name.replace("_", " ") for name in names])
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.margins(x=0.35)


def _row_colour(name: str) -> str:
    world, _, row = name.partition("/")
    return MODES.get(row.split("/")[0]) or WORLD_COLOURS.get(world, SKY)


def _in_words(row: Mapping) -> str:
    text = _share(row["value"])
    if row.get("low") is None or row.get("high") is None:
        return text
    return f"{text} [{_share(row['low'])}, {_share(row['high'])}]"


def _share(value: float) -> str:
    """0.87, 0.975, 1: three digits at the most, so that an interval never seems to leave its value out."""
    return f"{value:.3f}".rstrip("0").rstrip(".") if abs(value) >= 0.0005 else "0"


# -- training ------------------------------------------------------------------------------------------

CURVES = {"loss": "loss (nats a token)", "max_logit": "largest attention logit", "max_violation": "MaxVio"}


@styled
def training_curves(curves: Mapping[str, Mapping[str, Sequence[float]]], smooth: int = 9) -> Figure:
    """Loss, largest attention logit and MaxVio of all stages, one after the other.

    curves: stage -> {loss, max_logit, max_violation: one number a point; tokens: since the last point}. A list that a
    stage lacks is left out; without `tokens` the axis counts points. The thin line is what was logged, the thick one
    its running mean over `smooth` points.
    """
    stages = {name: lists for name, lists in curves.items() if lists.get("loss")}
    if not stages:
        raise ValueError("no stage has a loss to draw")
    counted = all(lists.get("tokens") for lists in stages.values())
    names = [name for name in CURVES if any(lists.get(name) for lists in stages.values())]
    fig, axes = figure(10, 2.4 * len(names) + 0.6, len(names), sharex=True)
    start = 0.0
    for index, (stage, lists) in enumerate(stages.items()):
        steps = np.asarray(lists["tokens"], float) / 1e6 if counted else np.ones(len(lists["loss"]))
        x = start + np.cumsum(steps)
        for ax, name in zip(axes[:, 0], names):
            values = lists.get(name)
            if values:
                _thin_and_thick(ax, x[: len(values)], np.asarray(values, float), PALETTE[index % 6], smooth)
            if index:
                ax.axvline(start, color=GREY, linewidth=1, linestyle=":")
        axes[0, 0].plot([], [], color=PALETTE[index % 6], linewidth=5, label=stage)
        start = x[-1]
    for ax, name in zip(axes[:, 0], names):
        ax.set_ylabel(CURVES[name])
        ax.set_ylim(bottom=0)
    axes[-1, 0].set_xlabel("tokens seen (millions)" if counted else "logged points")
    axes[-1, 0].set_xlim(0, start)
    fig.legend(loc="outside upper center", ncols=5)
    return fig


def _thin_and_thick(ax: Axes, x: np.ndarray, y: np.ndarray, colour: str, width: int) -> None:
    ax.plot(x, y, color=colour, linewidth=0.8, alpha=0.35)
    window = np.ones(min(width, len(y)))
    mean = np.convolve(y, window, "same") / np.convolve(np.ones(len(y)), window, "same")  # shorter at both ends
    ax.plot(x, mean, color=colour)


# -- comparisons ---------------------------------------------------------------------------------------


@styled
def accuracy_by_length(
    series: Mapping[str, Sequence[Mapping]], chance: float | None = None, trained_to: int | None = None,
    xlabel: str = "steps that the task needs", title: str = "",
) -> Figure:  # fmt: skip
    """Success against length with 95% intervals: series name -> points {length, value, low, high}.

    `chance` draws what guessing gives, `trained_to` shades the lengths beyond training.
    """
    fig, axes = figure(9, 4.8)
    ax = axes[0, 0]
    longest = max(point["length"] for points in series.values() for point in points)
    for (name, points), colour, marker in zip(series.items(), PALETTE * 2, "os^Dv<>" * 2):
        x, y = [point["length"] for point in points], [point["value"] for point in points]
        spread = [[p["value"] - p["low"] for p in points], [p["high"] - p["value"] for p in points]]
        ax.errorbar(x, y, np.maximum(spread, 0), color=colour, marker=marker, markersize=8, capsize=4, label=name)
    if chance is not None:
        ax.axhline(chance, color=GREY, linestyle=":", label=f"guessing ({chance:g})")
    if trained_to is not None and trained_to < longest:
        ax.axvspan(trained_to + 0.5, longest + 0.5, color="#F3F0E6", zorder=0, label="longer than trained")
    ax.set(ylim=(-0.03, 1.05), xlabel=xlabel, ylabel="success", title=title)
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
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


def human(value: float | str) -> str:
    """A number for people: 1.026T, 32.9B, 792k, 0.42; text stays text."""
    if isinstance(value, str):
        return value
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            scaled = value / (1e3 if unit == "k" else size)
            return f"{scaled:.4g}{unit}"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.3g}"


@styled
def shares(parts: Mapping[str, Mapping[str, float]], title: str = "") -> Figure:
    """One stacked bar a whole, each scaled to 100%: whole -> {part: amount}."""
    fig, axes = figure(10, 0.85 * len(parts) + 2.0)
    ax = axes[0, 0]
    names = list(dict.fromkeys(part for whole in parts.values() for part in whole))
    left = np.zeros(len(parts))
    for name, colour in zip(names, (BLUE, SKY, GREEN, ORANGE, PURPLE, GREY, BLACK)):
        share = np.array([100 * whole.get(name, 0) / sum(whole.values()) for whole in parts.values()])
        ax.barh(list(parts), share, left=left, color=colour, label=name, height=0.6)
        for row, (size, start) in enumerate(zip(share, left)):
            if size >= 6:
                ax.text(start + size / 2, row, f"{size:.0f}%", ha="center", va="center", color="white", weight="bold")
        left += share
    ax.set(xlim=(0, 100), xlabel="% of the parameters", title=title)
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    fig.legend(loc="outside lower center", ncols=3)
    return fig


@styled
def bars(
    values: Mapping[str, float], unit: str = "", title: str = "", limits: tuple[float, float] | None = None
) -> Figure:
    """A few numbers as bars; `limits` makes the axis logarithmic and keeps it in place while a slider moves."""
    fig, axes = figure(10, 0.75 * len(values) + 1.6)
    ax = axes[0, 0]
    ax.barh(list(values), list(values.values()), color=[*PALETTE[: len(values)]], height=0.62)
    for row, value in enumerate(values.values()):
        ax.annotate(f"{human(value)} {unit}", (value, row), (6, 0), textcoords="offset points", va="center")
    ax.set(xlabel=unit, title=title)
    ax.margins(x=0.25)
    if limits is not None:
        ax.set(xscale="log", xlim=limits)
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    return fig
