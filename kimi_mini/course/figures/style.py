"""What all figures share: colours, sizes, `figure` and `styled`, and bars that any subject may use.

Every figure is a pure function of plain numbers: no model, no file, no global state of pyplot. Made for a projector:
13 points and up, the colours of Okabe and Ito, which colour-blind readers tell apart.

shares    where a whole goes, in per cent
bars      a few numbers, on a linear or logarithmic axis
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, GREY, BLACK = "#CC79A7", "#56B4E9", "#8A8A8A", "#222222"
PALETTE = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY, BLACK)
FONT = 13
STYLE = {
    "font.size": FONT,
    "axes.titlesize": FONT + 2,
    "axes.labelsize": FONT,
    "xtick.labelsize": FONT,
    "ytick.labelsize": FONT,
    "legend.fontsize": FONT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "grid.color": "#E4E4E4",
    "axes.axisbelow": True,
    "figure.facecolor": "white",
    "lines.linewidth": 2.2,
    "legend.frameon": False,
    "figure.dpi": 100,
}
styled = rc_context(STYLE)  # decorates every function that draws


def figure(
    width: float, height: float, rows: int = 1, columns: int = 1, **options
) -> tuple[Figure, np.ndarray]:
    """A figure in inches and its axes (rows, columns); to be called inside a `styled` function."""
    fig = Figure(figsize=(width, height), layout="constrained")
    axes = fig.subplots(rows, columns, squeeze=False, **options)
    for ax in axes.flat:
        ax.tick_params(labelsize=FONT)  # ticks are made when the figure is drawn, outside of our style
    return fig, axes


def human(value: float | str) -> str:
    """A number for people: 1.026T, 32.9B, 792k, 0.42; text stays text."""
    if isinstance(value, str):
        return value
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            scaled = value / (1e3 if unit == "k" else size)
            return f"{scaled:.4g}{unit}"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.3g}"


def visible(token: str) -> str:
    """White space as signs, so that a label shows every token."""
    return token.replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥") or "∅"


@styled
def shares(parts: Mapping[str, Mapping[str, float]], title: str = "", of: str = "the parameters") -> Figure:
    """One stacked bar a whole, each scaled to 100%: whole -> {part: amount}. `of` says what is shared out."""
    fig, axes = figure(10, 0.85 * len(parts) + 2.0)
    ax = axes[0, 0]
    names = list(dict.fromkeys(part for whole in parts.values() for part in whole))
    left = np.zeros(len(parts))
    for name, colour in zip(names, (BLUE, SKY, GREEN, ORANGE, PURPLE, GREY, BLACK)):
        share = np.array([100 * whole.get(name, 0) / sum(whole.values()) for whole in parts.values()])
        ax.barh(list(parts), share, left=left, color=colour, label=name, height=0.6)
        for row, (size, start) in enumerate(zip(share, left)):
            if size >= 6:
                ax.text(
                    start + size / 2,
                    row,
                    f"{size:.0f}%",
                    ha="center",
                    va="center",
                    color="white",
                    weight="bold",
                )
        left += share
    ax.set(xlim=(0, 100), xlabel=f"% of {of}", title=title)
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
