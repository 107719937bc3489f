"""Figures of RL over text that is refined, as pure functions of a log.

policy_gradients   error of each estimator as samples grow; success over rollouts and over looks; distinct right texts
landscape          what is kept of each constraint against KL to the start, and what is kept when the end is given
sums_alone         of models that learned sums alone: the bound of each kind of sum, and success in each style
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kimi_mini.course.figures.style import BLUE, GREY, ORANGE, RED, figure, styled

COLOURS = {
    "by steps": BLUE,
    "at a glance": RED,
    "by the bound": ORANGE,
    "refining": BLUE,
    "left to right": ORANGE,
}
LEAST = 0.01  # where the axis of distances from the exact gradient ends
BESIDE = {"textcoords": "offset points"}


@styled
def policy_gradients(log: Mapping) -> Figure:
    """A log of `diffusion_rl`."""
    fig, axes = figure(13.5, 8.4, 2, 2)
    (error, bars), (rollouts, passes) = axes
    for name, toys in log["toy"].items():
        samples = [int(count) for count in toys[0]["error"]]
        curves = np.array([list(one["error"].values()) for one in toys])
        error.plot(samples, curves.mean(0), "o-", color=COLOURS[name], label=name)
        bias = float(np.mean([one["bias"] for one in toys]))
        if bias < LEAST:
            error.annotate(
                f"bias {name}: {bias:.0e}, below this axis", (1, LEAST), (4, 5), color=COLOURS[name], **BESIDE
            )
        else:
            error.axhline(bias, color=COLOURS[name], linestyle=":", linewidth=1.3)
    error.set(
        xscale="log",
        yscale="log",
        ylim=(LEAST, None),
        xlabel="sampled texts",
        ylabel="distance / length",
        title="Toy: distance from the exact gradient (dotted: bias)",
    )
    for ax, over in ((rollouts, "rollouts"), (passes, "forward passes a text")):
        for name in log["toy"]:
            for row in (row for row in log["rows"] if row["name"] == name):
                _curve(ax, row, over == "rollouts", COLOURS[name])
        ax.axhline(0.8, color=GREY, linestyle="--", linewidth=1.2)
        ax.set(ylim=(0, 1.03), ylabel="right texts", title=f"RL: success by {over}")
    rollouts.set_xlabel("rounds")
    passes.set_xlabel("forward passes over a canvas, added up over rounds")
    _distinct(bars, log["rows"], list(log["toy"]))
    fig.legend(*error.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return fig


def _curve(ax: Axes, row: Mapping, by_rounds: bool, colour: str, width: int = 5) -> None:
    right = np.array([one["right"] for one in row["rounds"]])
    looks = np.cumsum([one["looks"] for one in row["rounds"]])
    width = min(width, len(right))
    smooth = np.convolve(right, np.ones(width) / width, "valid")
    x = np.arange(width, len(right) + 1) if by_rounds else looks[width - 1 :]
    shown = x <= row["rollouts"] if by_rounds else x >= 0
    ax.plot(x[shown], smooth[shown], color=colour, linewidth=1.5, alpha=0.85)


def _distinct(ax: Axes, rows: Sequence[Mapping], names: Sequence[str]) -> None:
    labels, values, colours = ["start"], [[row["before"]["distinct"] for row in rows]], [GREY]
    for name in names:
        own = [row for row in rows if row["name"] == name]
        kl = np.mean([row["after"]["kl"] for row in own])
        labels.append(f"{name}\nKL {kl:.1f}")
        values.append([row["after"]["distinct"] for row in own])
        colours.append(COLOURS[name])
    ax.bar(labels, [np.mean(value) for value in values], color=colours, width=0.6)
    for place, value in enumerate(values):
        ax.plot([place] * len(value), value, "o", color="black", markersize=4)
    ax.set(ylim=(0, 16.5), ylabel="of 16 texts", title="Distinct right texts, before and after RL")
    ax.grid(axis="x", visible=False)


KINDS = {
    "checksum": "checksum holds",
    "word": "word at its place",
    "facts": "facts agree",
    "all": "all three",
}


@styled
def landscape(log: Mapping) -> Figure:
    """A log of `diffusion_landscape`."""
    fig, axes = figure(14, 8, 2, 4)
    names = list(dict.fromkeys(row["name"] for row in log["rows"]))
    for ax, (kind, title) in zip(axes[0], KINDS.items()):
        for row in log["rows"]:
            found = row["stretches"]
            ax.plot(
                [one["kl"] for one in found],
                [one["kept"][kind] for one in found],
                "o-",
                color=COLOURS[row["name"]],
                markersize=4,
                linewidth=1.5,
            )
        ax.set(ylim=(0, 1.03), xlabel="KL to the start, nats", title=title)
    axes[0, 0].set_ylabel("share of texts")
    for ax, (kind, title) in zip(axes[1], KINDS.items()):
        _pairs(ax, log["rows"], names, kind)
        ax.set(ylim=(0, 1.03), title=f"{title}: end given")
    axes[1, 0].set_ylabel("share of texts")
    handles = [axes[0, 0].plot([], [], color=COLOURS[name], label=name)[0] for name in names]
    fig.legend(handles, names, loc="outside lower center", ncols=2)
    return fig


def _pairs(ax: Axes, rows: Sequence[Mapping], names: Sequence[str], kind: str) -> None:
    """Bars before and after RL, a pair a model."""
    for place, name in enumerate(names):
        own = [row["stretches"] for row in rows if row["name"] == name]
        for shift, found, alpha in ((-0.2, 0, 0.45), (0.2, -1, 1.0)):
            values = [one[found]["given"][kind] for one in own]
            x = place + shift
            ax.bar(x, np.mean(values), 0.36, color=COLOURS[name], alpha=alpha)
            ax.plot([x] * len(values), values, "o", color="black", markersize=4)
    ticks = [place + shift for place in range(len(names)) for shift in (-0.2, 0.2)]
    ax.set_xticks(ticks, ["before", "after"] * len(names), rotation=35)
    ax.grid(axis="x", visible=False)


@styled
def sums_alone(log: Mapping) -> Figure:
    """A log of `diffusion_sums`; its seeds are dots."""
    fig, axes = figure(13.5, 4.8, 1, 2, width_ratios=(1, 2.2))
    parts, (near, right) = log["parts"], axes[0]
    bounds = {name: [part["nats"][name]["bound"] for part in parts] for name in parts[0]["nats"]}
    styles = dict.fromkeys(row["style"] for row in parts[0]["styles"])
    rates = {name: [_of_style(part, name) for part in parts] for name in styles}
    writers = [list(part["writing"].values()) for part in parts]
    rates["left to right"] = [float(np.mean(values)) for values in writers]
    _dotted(near, bounds, [BLUE] * len(bounds))
    near.axhline(0.15, color=GREY, linestyle="--", linewidth=1.2)
    near.set(ylabel="nats a token", title="Bound of held-out sums")
    _dotted(right, rates, [BLUE] * len(styles) + [ORANGE])
    right.axhline(0.9, color=GREY, linestyle="--", linewidth=1.2)
    right.set(ylim=(0, 1.05), title="Sums and products solved (steps of a turn)")
    steps = [_of_style(parts[0], name, "steps") for name in styles]
    labels = [f"{name.replace(', ', ',' + chr(10))}\n({count:.0f})" for name, count in zip(styles, steps)]
    right.set_xticks(range(len(rates)), [*labels, "left to right"])
    return fig


def _of_style(part: Mapping, name: str, key: str = "success") -> float:
    return float(np.mean([row[key] for row in part["styles"] if row["style"] == name]))


def _dotted(ax: Axes, groups: Mapping[str, Sequence[float]], colours: Sequence[str]) -> None:
    """A bar a group, its seeds as dots."""
    means = [np.mean(values) for values in groups.values()]
    ax.bar(list(groups), means, color=colours, width=0.6)
    for place, (values, mean) in enumerate(zip(groups.values(), means)):
        ax.plot([place] * len(values), values, "o", color="black", markersize=4)
        ax.annotate(f"{mean:.2f}", (place, 0), (0, 6), ha="center", color="white", **BESIDE)
    ax.grid(axis="x", visible=False)
