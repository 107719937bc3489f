"""Figures of training runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kimi_mini.course.figures.style import GREY, PALETTE, figure, human, styled

Series = Mapping[str, tuple[Sequence[float], Sequence[float]]]


@styled
def lines(
    panels: Mapping[str, Series],
    xlabel: str = "",
    ylabels: Sequence[str] = (),
    smooth: int = 1,
    levels: Mapping[str, float] | None = None,
    zero: bool = True,
) -> Figure:
    """Panels side by side, each with a few lines: title -> {label: (x, y)}.

    smooth   running mean over so many points (the raw line stays, thin)
    levels   title -> a dotted horizontal line
    zero     whether the vertical axes begin at 0
    """
    fig, axes = figure(11, 4.2, 1, len(panels))
    for index, (ax, (title, series)) in enumerate(zip(axes[0], panels.items())):
        for (label, (x, y)), colour in zip(series.items(), PALETTE):
            thick = running_mean(y, smooth)
            if smooth > 1:
                ax.plot(x, y, color=colour, linewidth=0.8, alpha=0.3)
            ax.plot(x, thick, color=colour, label=label)
        if title in (levels or {}):
            ax.axhline(levels[title], color=GREY, linestyle=":")
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


@styled
def to_the_same_loss(curves: Series, loss: float, reached: Mapping[str, float | None], xlabel: str) -> Figure:
    """Loss against cost, one line a way of training, and where each of them reaches `loss`: way -> cost.

    A way whose runs all lie on one side of `loss` has None, and no mark.
    """
    fig, axes = figure(10, 4.6)
    ax = axes[0, 0]
    ax.axhline(loss, color=GREY, linestyle=":")
    for (way, (x, y)), colour in zip(curves.items(), PALETTE):
        cost = reached[way]
        ax.plot(x, y, "o-", color=colour, label=f"{way}: {'not measured' if cost is None else human(cost)}")
        if cost is None:
            continue
        ax.plot(
            [cost] * 2, [min(map(min, (y for _, y in curves.values()))), loss], color=colour, linewidth=1.2
        )
        ax.plot(cost, loss, "D", color=colour, markersize=9)
    ax.set(xscale="log", xlabel=xlabel, ylabel="validation loss", title=f"Cost of a loss of {loss:.2f}")
    low, high = ax.get_xlim()
    ticks = [size * 10**power for power in range(3, 9) for size in (1, 2, 5) if low < size * 10**power < high]
    if ticks:
        ax.set_xticks(ticks, map(human, ticks))
        ax.minorticks_off()
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return fig


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
    ax.plot(x, running_mean(y, width), color=colour)
