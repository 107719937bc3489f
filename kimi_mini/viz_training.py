"""Figures of training runs, as pure functions of plain numbers like those of `viz`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from kimi_mini import viz

Series = Mapping[str, tuple[Sequence[float], Sequence[float]]]


@viz.styled
def lines(panels: Mapping[str, Series], xlabel: str = "", ylabels: Sequence[str] = (), smooth: int = 1,
          levels: Mapping[str, float] | None = None, zero: bool = True) -> Figure:  # fmt: skip
    """Panels side by side, each with a few lines: title -> {label: (x, y)}.

    smooth   running mean over so many points (the raw line stays, thin)
    levels   title -> a dotted horizontal line
    zero     whether the vertical axes begin at 0
    """
    fig, axes = viz.figure(11, 4.2, 1, len(panels))
    for index, (ax, (title, series)) in enumerate(zip(axes[0], panels.items())):
        for (label, (x, y)), colour in zip(series.items(), viz.PALETTE):
            thick = running_mean(y, smooth)
            if smooth > 1:
                ax.plot(x, y, color=colour, linewidth=0.8, alpha=0.3)
            ax.plot(x, thick, color=colour, label=label)
        if title in (levels or {}):
            ax.axhline(levels[title], color=viz.GREY, linestyle=":")
        ax.set(title=title, xlabel=xlabel, ylabel=ylabels[index] if index < len(ylabels) else "")
        if zero:
            ax.set_ylim(bottom=0)
        if len(series) > 1:
            ax.legend()
    return fig


def running_mean(values: Sequence[float], width: int) -> np.ndarray:
    """Mean of each value's `width` neighbours, fewer at both ends."""
    values, window = np.asarray(values, float), np.ones(min(width, len(values)))
    return np.convolve(values, window, "same") / np.convolve(np.ones(len(values)), window, "same")


@viz.styled
def to_the_same_loss(curves: Series, loss: float, reached: Mapping[str, float], xlabel: str) -> Figure:
    """Loss against cost, one line a way of training, and where each of them reaches `loss`: way -> cost."""
    fig, axes = viz.figure(10, 4.6)
    ax = axes[0, 0]
    ax.axhline(loss, color=viz.GREY, linestyle=":")
    for (way, (x, y)), colour in zip(curves.items(), viz.PALETTE):
        ax.plot(x, y, "o-", color=colour, label=f"{way}: {viz.human(reached[way])}")
        ax.plot([reached[way]] * 2, [min(map(min, (y for _, y in curves.values()))), loss], color=colour, linewidth=1.2)
        ax.plot(reached[way], loss, "D", color=colour, markersize=9)
    ax.set(xscale="log", xlabel=xlabel, ylabel="validation loss", title=f"Cost of a loss of {loss:.2f}")
    low, high = ax.get_xlim()
    ticks = [size * 10**power for power in range(3, 9) for size in (1, 2, 5) if low < size * 10**power < high]
    if ticks:
        ax.set_xticks(ticks, map(viz.human, ticks))
        ax.minorticks_off()
    ax.legend()
    return fig
