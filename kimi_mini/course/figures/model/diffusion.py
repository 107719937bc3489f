"""Figures of text that is refined.

canvas     tokens in boxes: given, masked, written, just written, taken back
noise      a text at time t, and how often and how much a token counts there
estimates  means over growing numbers of draws, against exact values
orders     when each token of a canvas was put down, a panel a way to choose
bounds     nats a token of two models, and the gaps that they fill
steps      success against the number of steps, for each way to choose where to write
landscape  probabilities of a few texts, coloured by their reward
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from kimi_mini.course.figures.style import (
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    PALETTE,
    RED,
    SKY,
    figure,
    styled,
    visible,
)

BROWN = "#8C564B"
Seeds = Mapping[str, Mapping[str, Sequence[float]]]  # group -> {bar: a value a seed}
BOXES = {  # kind of a token -> (box, edge, text)
    "given": ("#D9D9D9", GREY, BLACK),
    "masked": ("#4A4A4A", "#4A4A4A", "white"),
    "written": ("#DCEBF7", SKY, BLACK),
    "new": (BLUE, BLUE, "white"),
    "taken back": ("#FBE3D6", RED, RED),
}


def kinds(before: Sequence[int] | None, now: Sequence[int], mask: int, given: Sequence[bool]) -> list[str]:
    """The kind of each token of a canvas, a key of BOXES, by the canvas of the step before. mask: the token [MASK]."""
    found = []
    for place, token in enumerate(now):
        old = token if before is None else before[place]
        kind = "given" if given[place] else "written" if token == old else "new"
        if token == mask:
            kind = "masked" if old == mask else "taken back"
        found.append(kind)
    return found


@styled
def canvas(words: Sequence[str], of: Sequence[str], title: str = "", columns: int = 12) -> Figure:
    """Tokens in boxes, `columns` a line; of: the kind of each, a key of BOXES. A masked one shows no word."""
    lines = -(-len(words) // columns)
    fig, axes = figure(11, 0.62 * lines + 1.1)
    _boxes(axes[0, 0], words, of, columns)
    axes[0, 0].set_title(title)
    shown = [kind for kind in BOXES if kind in of]
    for kind in shown:
        box, edge, _ = BOXES[kind]
        axes[0, 0].plot([], [], "s", color=box, markeredgecolor=edge, markersize=13, label=kind)
    fig.legend(loc="outside lower left", ncols=len(shown))
    return fig


def _boxes(ax: Axes, words: Sequence[str], of: Sequence[str], columns: int) -> None:
    lines = -(-len(words) // columns)
    for place, (word, kind) in enumerate(zip(words, of)):
        (row, column), (box, edge, ink) = divmod(place, columns), BOXES[kind]
        ax.add_patch(Rectangle((column + 0.04, row + 0.1), 0.92, 0.8, facecolor=box, edgecolor=edge))
        shown = "·" if kind in ("masked", "taken back") else visible(word)
        size = min(13, 98 / len(shown))
        ax.text(
            column + 0.5,
            row + 0.52,
            shown,
            ha="center",
            va="center",
            color=ink,
            fontsize=size,
            parse_math=False,
        )
    ax.set(xlim=(0, columns), ylim=(lines, 0))
    ax.axis("off")


@styled
def noise(words: Sequence[str], dice: Sequence[float], t: float) -> Figure:
    """A text at time t: a token with a number below t is masked. Under it, how many are masked, the weight 1/t of each,
    and their product."""
    fig, axes = figure(11, 4.6, 2, height_ratios=(1, 1.9))
    masked = [number < t for number in dice]
    _boxes(axes[0, 0], words, ["masked" if one else "written" for one in masked], len(words))
    axes[0, 0].set_title(
        f"t = {t:.2f}: {sum(masked)} of {len(words)} tokens masked, each counts 1/t = {1 / t:.1f}"
    )
    times = np.linspace(0.01, 1, 200)
    share = np.array([(np.array(dice) < time).mean() for time in times])
    ax = axes[1, 0]
    ax.plot(times, share, color=BLACK, drawstyle="steps-mid", label="share masked")
    ax.plot(times, times, color=GREY, linestyle="--", linewidth=1.3, label="on average: t")
    ax.plot(times, share / times, color=ORANGE, label="share masked, times 1/t")
    ax.axvline(t, color=BLUE)
    ax.set(xlim=(0, 1.01), ylim=(0, 2.6), xlabel="time t")
    ax.legend(ncols=3, loc="upper right")
    return fig


@styled
def estimates(
    curves: Mapping[str, Sequence[float]],
    exact: Mapping[str, float],
    ylabel: str = "nats a text",
    title: str = "",
) -> Figure:
    """Each curve's running mean over its draws; exact: label -> a horizontal line."""
    fig, axes = figure(11, 4.6)
    ax = axes[0, 0]
    for (name, values), colour in zip(curves.items(), (BLUE, ORANGE, RED)):
        draws = np.arange(1, len(values) + 1)
        ax.plot(draws, np.cumsum(values) / draws, color=colour, label=name)
    for (name, value), dashes in zip(exact.items(), ("-", ":", "--")):
        ax.axhline(value, color=BLACK, linestyle=dashes, linewidth=1.5, label=name)
    lines = [*exact.values(), *(np.mean(values) for values in curves.values())]
    room = max(lines) - min(lines)
    ax.set(
        xscale="log",
        xlabel="draws",
        ylabel=ylabel,
        ylim=(min(lines) - 0.6 * room, max(lines) + room),
        title=title,
    )
    fig.legend(loc="outside right center")
    return fig


@styled
def orders(when: Mapping[str, Sequence[int]], ends: Mapping[str, int]) -> Figure:
    """A panel a way to choose where to write: the step at which each token of a canvas was put down, -1 for given ones.
    ends: way -> where the text ends; what lies behind is room."""
    fig, axes = figure(max(9, 3.4 * len(when)), 3.9, 1, len(when), sharey=True)
    for ax, (name, steps) in zip(axes[0], when.items()):
        place, steps = np.arange(len(steps)), np.array(steps)
        text = (place <= ends[name]) & (steps >= 0)
        room = (place > ends[name]) & (steps >= 0)
        ax.plot(place[text], steps[text], "s", color=BLUE, markersize=6, label="the text")
        ax.plot(place[room], steps[room], "s", color=ORANGE, markersize=6, label="room behind it")
        ax.set(title=name, xlabel="place on the canvas")
    axes[0, 0].set_ylabel("step")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return fig


@styled
def landscape(
    chances: Sequence[float],
    rewards: Sequence[float],
    labels: Sequence[str],
    title: str = "",
    top: float = 1.0,
) -> Figure:
    """Probabilities of a few texts as bars, the best rewarded first, coloured by reward."""
    fig, axes = figure(12, 4.2)
    order = sorted(range(len(labels)), key=lambda place: (-rewards[place], labels[place]))
    levels = sorted(set(rewards), reverse=True)
    colours = dict(zip(levels, (BLUE, SKY, ORANGE, "#C8C8C8")[-len(levels) :]))
    ax = axes[0, 0]
    for level in levels:
        own = [spot for spot, place in enumerate(order) if rewards[place] == level]
        values = [chances[order[spot]] for spot in own]
        label = f"reward {level:g}: {sum(values):.2f}"
        ax.bar(own, values, color=colours[level], label=label)
    ax.set_xticks(range(len(order)), [labels[place] for place in order], rotation=90)
    ax.set(ylim=(0, top), ylabel="probability", title=title)
    ax.grid(axis="x", visible=False)
    ax.legend()
    return fig


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
    for index, ((name, points), colour) in enumerate(zip(curves.items(), (*PALETTE, GREY, BROWN))):
        x, y, low, high = map(np.array, zip(*sorted(points)))
        errors = np.array([y - low, high - y])
        marker = "osD^vPX*h"[index % 9]
        ax.errorbar(x, y, errors, color=colour, marker=marker, markersize=8, capsize=3, label=name)
    ax.axhline(written, color=BLACK, linestyle="--", label="written from left to right")
    ax.axvline(length / 2, color="#BBBBBB", linestyle=":")
    ax.annotate("half the length", (length / 2, 1.03), (4, 0), textcoords="offset points", color="#666666")
    ax.set(xlim=(0, length + 2), ylim=(-0.03, 1.1), xlabel="steps", ylabel="tasks solved", title=title)
    fig.legend(loc="outside right center")
    return fig
