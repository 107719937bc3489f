"""What was measured of mixtures of experts, as figures of plain numbers. `routing` shows single texts.

specialisation    what experts say about domain and kind of token, and what each domain loses without its expert
balance           MaxVio over training, load at its end, and the price in loss
sparsity          what more experts buy at equal activated FLOPs, and what they cost in seconds
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from kimi_mini.course.figures.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PALETTE,
    PURPLE,
    RED,
    figure,
    styled,
)

Interval = Mapping[str, float | None]  # {value, low, high}
Curves = Mapping[str, tuple[Sequence[float], Sequence[float], Sequence[float]]]  # name -> tokens, FLOPs, loss


@styled
def specialisation(
    measured: Mapping[str, Sequence[Interval]],
    control: Mapping[str, Sequence[float]],
    rises: Mapping[str, Sequence[float]],
    domains: Sequence[str],
) -> Figure:
    """Left: bits that expert and label share, a bar a layer and label, its shuffled control as a red line. Right: how
    much each domain's loss rises (columns) when the expert that a domain prefers falls silent (rows).

    measured and control: label -> one entry a layer; measured entries are {value, low, high}. rises: row -> nats.
    """
    fig, axes = figure(14, 4.8, 1, 2, width_ratios=[1, 1.15])
    _information(axes[0, 0], measured, control)
    _silence(axes[0, 1], np.array(list(rises.values()), float), list(rises), domains)
    return fig


def _information(ax: Axes, measured: Mapping, control: Mapping) -> None:
    layers, width = len(next(iter(measured.values()))), 0.8 / len(measured)
    for index, (label, bars) in enumerate(measured.items()):
        x = np.arange(layers) + (index - (len(measured) - 1) / 2) * width
        values = np.array([bar["value"] for bar in bars])
        ax.bar(x, values, width * 0.92, color=PALETTE[index], label=label)
        _whiskers(ax, x, bars)
        for place, bar, chance in zip(x, bars, control[label]):
            ax.plot([place - 0.46 * width, place + 0.46 * width], [chance] * 2, color=RED, linewidth=4)
            ax.annotate(
                f"+{bar['value'] - chance:.2f}",
                (place, bar["high"] or bar["value"]),
                (0, 5),
                textcoords="offset points",
                ha="center",
                color=BLACK,
            )
    ax.plot([], [], color=RED, linewidth=4, label="labels shuffled")
    ax.set_xticks(range(layers), [f"MoE layer {layer + 1}" for layer in range(layers)])
    ax.set(ylabel="bits", title="what an expert's number says; above it, bits more than chance")
    ax.margins(y=0.12)
    ax.grid(axis="x", visible=False)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=3, columnspacing=1, handlelength=1.2)


def _silence(ax: Axes, rises: np.ndarray, names: Sequence[str], domains: Sequence[str]) -> None:
    shown = rises / max(np.abs(rises).max(), 1e-9)  # one scale for all rows
    ax.imshow(shown, cmap="Reds", vmin=0, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(rises):
        colour = "white" if shown[row, column] > 0.6 else BLACK
        ax.text(column, row, f"{value:+.3f}", ha="center", va="center", color=colour)
    ax.set_xticks(range(len(domains)), domains)
    ax.set_yticks(
        range(len(names)), [f"top expert of\n{name}" if name in domains else name for name in names]
    )
    ax.grid(visible=False)
    ax.set(title="silenced: rise of each domain's loss (nats)")


COLOURS = {"none": GREY, "sign": BLUE, "centred": ORANGE, "loss": PALETTE[2]}
WORDS = {
    "none": "nothing",
    "sign": "DeepSeek's bias",
    "centred": "Moonshot's bias",
    "loss": "sequence-wise loss",
}


@styled
def balance(
    curves: Mapping[str, Sequence[float]],
    load: Mapping[str, Sequence[float]],
    price: Mapping[str, Interval],
    tokens: int,
) -> Figure:
    """MaxVio over training; load at its end, experts sorted (1 is an equal share); loss over the unbalanced one, %."""
    fig, axes = figure(13, 4.6, 1, 3, width_ratios=[1.25, 1.1, 0.8])
    left, middle, right = axes[0]
    for name, values in curves.items():
        left.plot(np.linspace(0, tokens / 1e6, len(values)), values, color=COLOURS[name], label=WORDS[name])
        middle.plot(np.arange(1, len(load[name]) + 1), load[name], color=COLOURS[name])
    left.axhline(0.35, color=RED, linewidth=1.5, linestyle="--")
    left.set(xlabel="tokens seen (millions)", title="MaxVio of a step", ylim=(0, None))
    middle.axhline(1, color=BLACK, linewidth=1, linestyle=":")
    middle.set(xlabel="experts, busiest first", title="load at the end", ylim=(0, None))
    middle.xaxis.get_major_locator().set_params(integer=True)
    for row, (name, bar) in enumerate(price.items()):
        right.barh(row, bar["value"], color=COLOURS[name], height=0.5)
        if bar["low"] is not None:
            right.plot([bar["low"], bar["high"]], [row, row], color=BLACK, marker="|", markersize=9)
    right.axvline(0, color=BLACK, linewidth=1)
    right.axvline(1, color=RED, linewidth=1.5, linestyle="--")
    right.set(xlabel="% of the unbalanced loss", title="price", yticks=[])
    right.invert_yaxis()
    fig.legend(loc="outside lower center", ncols=4)
    return fig


@styled
def sparsity(
    parts: Mapping[
        str, tuple[Mapping[str, Interval], Mapping[str, float], Mapping[float, Interval] | None, Curves]
    ],
    k2: Mapping[float, float],
) -> Figure:
    """A row for each reading: loss by experts at equal activated FLOPs, by the clock, over the tokens, and the FLOPs
    that experts save or, where they cannot be read off, the loss over activated FLOPs.

    parts: reading -> (model -> loss {value, low, high}, model -> seconds, sparsity -> FLOPs saved over its first entry
    or None, model -> (tokens, FLOPs, training loss)). Models whose names are numbers have that many experts. k2:
    sparsity -> FLOPs saved, over sparsity 8.
    """
    fig, axes = figure(17, 4.2 * len(parts) + 0.6, len(parts), 4)
    for (left, middle, over, right), (reading, (loss, seconds, ours, curves)) in zip(axes, parts.items()):
        routed = [name for name in loss if name.isdigit()]
        x, y = [int(name) for name in routed], [loss[name]["value"] for name in routed]
        left.plot(x, y, color=BLUE, marker="o", label="experts, equal activated FLOPs")
        _whiskers(left, x, [loss[name] for name in routed])
        middle.plot([seconds[name] for name in routed], y, color=BLUE, marker="o")
        for name in (routed[0], routed[len(routed) // 2], routed[-1]):
            middle.annotate(name, (seconds[name], loss[name]["value"]), (9, -4), textcoords="offset points")
        left.plot([], [], color=BLACK, linewidth=1.8, marker="_", label="95% t interval over the seeds")
        for name, colour in zip((name for name in loss if not name.isdigit()), (ORANGE, GREY)):
            left.axhline(loss[name]["value"], color=colour, linestyle="--", label=name)
            middle.plot(
                seconds[name], loss[name]["value"], color=colour, marker="s", markersize=10, linestyle=""
            )
        left.set(title=f"{reading}: loss", ylabel="nats", xlabel="experts")
        middle.set(title=f"{reading}: by the clock", xlim=(0, None), xlabel="seconds of training")
        if max(y) > 5 * min(y):
            # cuts whiskers
            left.set(yscale="log", ylim=(0.5 * min(bar["value"] for bar in loss.values()), None))
            middle.set_yscale("log")
        _log_ticks(left, x)
        _over(over, curves, 0)
        over.set(title=f"{reading}: over the tokens", xlabel="thousand tokens")
        over.legend()
        if ours is None:
            _over(right, curves, 1)
            right.set(title=f"{reading}: over activated FLOPs", xlabel="TFLOP")
        else:
            _flops_saved(right, ours, k2, f"{reading}: FLOPs saved")
    lines, names = axes[0, 0].get_legend_handles_labels()
    fig.legend(lines, names, loc="outside lower center", ncols=4)
    return fig


def _log_ticks(ax: Axes, ticks: Sequence[float]) -> None:
    ax.set_xscale("log")
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.xaxis.set_minor_locator(NullLocator())


def _flops_saved(ax: Axes, ours: Mapping[float, Interval], k2: Mapping[float, float], title: str) -> None:
    ax.plot(
        list(ours),
        [bar["value"] for bar in ours.values()],
        color=BLUE,
        marker="o",
        label="ours, over sparsity 2",
    )
    _whiskers(ax, list(ours), list(ours.values()))
    ax.plot(list(k2), list(k2.values()), color=RED, marker="D", label="K2 report, over sparsity 8")
    ax.axhline(1, color=BLACK, linewidth=1, linestyle=":")
    ax.set(title=title, xlabel="sparsity: experts / chosen")
    ax.margins(y=0.2)
    _log_ticks(ax, list(ours))
    ax.legend()


def _over(ax: Axes, curves: Curves, column: int) -> None:
    """Training loss over thousands of tokens (column 0) or TFLOP (column 1)."""
    experts, dense = iter((BLUE, GREEN, PURPLE)), iter((ORANGE, GREY))
    for name, curve in curves.items():
        x = np.asarray(curve[column]) / (1e3, 1e12)[column]
        if name.isdigit():
            ax.plot(x, curve[2], color=next(experts), label=f"{name} experts")
        else:
            ax.plot(x, curve[2], color=next(dense), linestyle="--")  # named below the figure
    ax.set_ylabel("training loss (nats)")


def _whiskers(ax: Axes, x: Sequence[float], bars: Sequence[Interval]) -> None:
    for place, bar in zip(x, bars):
        if bar["low"] is not None:
            ax.plot(
                [place, place],
                [bar["low"], bar["high"]],
                color=BLACK,
                linewidth=1.8,
                marker="_",
                markersize=8,
            )
