"""Figures of reinforcement learning, as pure functions of plain numbers.

bandit       probability of the better arm while one round of attempts is used again and again
rounds       success, tokens and share of moderate tasks over the rounds of a run
attempts     what K attempts at one task did, step by step, and what each was worth
mismatch     error of the gradient when another policy has sampled, and what each repair leaves of it
over_rounds  what several runs measured, a line a seed, and when they collapsed
safeguards   what each safeguard changes, with intervals, a panel a measure
objectives   success of several losses at their best rates, and of the rates that were tried
toggle       tokens over the rounds, and success under several budgets, arm by arm
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kimi_mini.course.figures.style import BLACK, FONT, GREEN, GREY, PALETTE, RED, figure, styled


@styled
def bandit(
    curves: Mapping[str, Sequence[float]], goals: Mapping[str, float] | None = None, title: str = ""
) -> Figure:
    """Label -> probability of the better arm, before the first update and after each; dotted, in the same colour: the
    policy that the label's pull allows, where `goals` has one."""
    fig, axes = figure(10, 4.2)
    ax = axes[0, 0]
    for (label, values), colour in zip(curves.items(), PALETTE):
        ax.plot(range(len(values)), values, color=colour, label=label)
        if label in (goals or {}):
            ax.axhline(goals[label], color=colour, linestyle=":")
    ax.set(ylim=(0, 1.03), xlabel="updates on the same attempts", ylabel="P(better arm)", title=title)
    ax.margins(x=0.01)
    fig.legend(loc="outside lower center", ncols=4)
    return fig


PANELS = {"success": "success", "tokens": "tokens an attempt", "moderate": "tasks that teach"}


@styled
def rounds(runs: Mapping[str, Sequence[Mapping]], most: int | None = None, title: str = "") -> Figure:
    """What the rounds measured, a panel each: run -> {success, tokens, moderate} of every round so far.

    most: rounds that the axes have room for, so that nothing jumps while a run goes on.
    """
    fig, axes = figure(12, 3.8, 1, len(PANELS))
    room = most or max(map(len, runs.values()))
    for ax, (name, label) in zip(axes[0], PANELS.items()):
        for (run, found), colour in zip(runs.items(), PALETTE):
            values = [one[name] for one in found]
            ax.plot(range(1, len(found) + 1), values, "o-", color=colour, label=run, markersize=5)
        ax.set(xlim=(0.5, room + 0.5), xlabel="round", title=label)
        ax.set_ylim(bottom=0, top=None if name == "tokens" else 1.03)
        ax.xaxis.get_major_locator().set_params(integer=True)
    if len(runs) > 1:
        fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    fig.suptitle(title)
    return fig


COLUMNS, LINES = 78, 2  # characters a line, lines an attempt


@styled
def attempts(found: Sequence[Mapping], title: str = "") -> Figure:
    """K attempts at one task: {advantage, reward, tokens, steps} each; steps are (text, is it right?) in their order.

    An attempt has two lines; what does not fit in ends with dots. The first wrong step is red, what follows it grey.
    """
    fig, (row,) = figure(12.5, 0.62 * len(found) + 1.3, 1, 2, sharey=True, width_ratios=(1, 4.2))
    bars, text = row
    gains = [one["advantage"] for one in found]
    bars.barh(range(len(found)), gains, color=[GREEN if gain > 0 else RED for gain in gains], height=0.6)
    bars.axvline(0, color=BLACK, linewidth=1)
    bars.set(xlim=(-1.1, 1.1), ylim=(len(found) - 0.5, -0.5), xlabel="advantage", yticks=range(len(found)))
    bars.set_yticklabels([f"{one['reward']:+.1f}, {one['tokens']} tokens" for one in found])
    bars.grid(axis="y", visible=False)
    text.set(xlim=(0, COLUMNS + 2), title=title)
    text.axis("off")
    for place, one in enumerate(found):
        for line, x, words, colour in laid_out(one["steps"]):
            _field(text, x, place + 0.42 * (line - (LINES - 1) / 2), words, colour)
    return fig


def laid_out(steps: Sequence[tuple[str, bool]]) -> list[tuple[int, int, str, str]]:
    """(line, column, words, colour) of the steps of an attempt that there is room for, and of three dots if not all."""
    fields, line, x, colour = [], 0, 0, GREEN
    for whole, right in steps:
        words = whole[: COLUMNS - 5]
        colour = GREY if colour != GREEN else GREEN if right else RED
        if x + len(words) > COLUMNS:
            line, x = line + 1, 0
        fields.append((line, x, words, colour))
        x += len(words) + 2
    if line < LINES:
        return fields
    fields = [field for field in fields if field[0] < LINES]
    while fields[-1][1] + len(fields[-1][2]) + 5 > COLUMNS:
        fields.pop()
    last, x, words, _ = fields[-1]
    return [*fields, (last, x + len(words) + 2, "...", GREY)]


def _field(ax: Axes, x: float, y: float, words: str, colour: str) -> None:
    ax.text(
        x + 0.5,
        y,
        words,
        family="monospace",
        fontsize=FONT - 1,
        va="center",
        color=BLACK,
        parse_math=False,
        bbox={"facecolor": colour, "alpha": 0.25, "edgecolor": "none", "pad": 1.5},
    )


@styled
def over_rounds(
    runs: Mapping[str, Sequence[Mapping[str, Sequence[float]]]],
    panels: Mapping[str, str],
    marks: Mapping[str, Sequence[int | None]] | None = None,
    title: str = "",
    rows: Sequence[Sequence[str]] = (),
) -> Figure:
    """Arm -> runs, one a seed, each {measure: a value a round}; panels: measure -> label. Thin lines are seeds, the
    thick one is their mean; a cross stands where a run has collapsed: arm -> its round, from 0, or None. rows: which
    arms stand in which row of panels, where there are too many for one. ValueError where a row has no colour left."""
    groups = [own for row in rows if (own := [arm for arm in row if arm in runs])] or [list(runs)]
    fig, axes = figure(max(12.5, 4.0 * len(panels)), 4.2 * len(groups), len(groups), len(panels))
    if (most := max(map(len, groups))) > len(PALETTE):
        raise ValueError(f"{most} arms in a row, and {len(PALETTE)} colours")
    for row, group in zip(axes, groups):
        for ax, (name, label) in zip(row, panels.items()):
            for arm, colour in zip(group, PALETTE):
                _curves(ax, arm, [one[name] for one in runs[arm]], colour, (marks or {}).get(arm))
            ax.set(xlabel="round", title=label)
            ax.xaxis.get_major_locator().set_params(integer=True)
        if len(groups) > 1:
            row[-1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    if len(groups) == 1:
        fig.legend(
            *axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=min(4, len(runs))
        )
    fig.suptitle(title)
    return fig


def _curves(ax: Axes, arm: str, lines: Sequence[Sequence[float]], colour: str, dates=None) -> None:
    """The seeds of an arm, their mean, and the rounds in which they have collapsed."""
    for line, date in zip(lines, dates or [None] * len(lines)):
        ax.plot(range(1, len(line) + 1), line, color=colour, linewidth=0.9, alpha=0.45)
        if date is not None:
            ax.plot(date + 1, line[date], "X", color=colour, markersize=11)
    middle = np.mean([line[: min(map(len, lines))] for line in lines], axis=0)
    ax.plot(range(1, len(middle) + 1), middle, color=colour, linewidth=2.8, label=arm)


@styled
def safeguards(effects: Mapping[str, Mapping[str, Mapping[str, float | None]]], title: str = "") -> Figure:
    """Measure -> safeguard -> {value, low, high} of with - without; black where the interval is clear of 0."""
    names = list(next(iter(effects.values())))
    fig, axes = figure(14, 0.5 * len(names) + 2.0, 1, len(effects), sharey=True)
    for ax, (label, found) in zip(axes[0], effects.items()):
        for y, name in enumerate(names):
            value, low, high = (found[name][key] for key in ("value", "low", "high"))
            clear = low is not None and (low > 0 or high < 0)
            if low is not None:
                ax.plot([low, high], [y, y], color=BLACK if clear else GREY, linewidth=3, alpha=0.5)
            ax.plot(value, y, "o", color=BLACK if clear else GREY, markersize=8)
        ax.axvline(0, color=BLACK, linewidth=1)
        ax.set(title=label, ylim=(len(names) - 0.5, -0.5))
        ax.grid(axis="y", visible=False)
    axes[0, 0].set_yticks(range(len(names)), names)
    fig.suptitle(title)
    return fig


@styled
def objectives(
    seeds: Mapping[str, Sequence[float]],
    tried: Mapping[str, Mapping[float, float]],
    rates: Mapping[str, float],
    before: float,
    title: str = "",
) -> Figure:
    """Left: arm -> success, a dot a seed, the bar is their mean, dashed: before. Right: arm -> rate -> success in the
    search; a ring stands around the rate that was taken."""
    fig, (row,) = figure(13, 0.5 * len(seeds) + 2.2, 1, 2, width_ratios=(1.3, 1))
    bars, search = row
    for y, (arm, found) in enumerate(seeds.items()):
        bars.barh(y, np.mean(found), color=PALETTE[y % len(PALETTE)], alpha=0.6, height=0.66)
        bars.plot(found, [y] * len(found), "o", color=BLACK, markersize=6)
        rising = sorted(tried[arm].items())
        style = {"color": PALETTE[y % len(PALETTE)], "linestyle": "--" if y >= len(PALETTE) else "-"}
        search.plot(*zip(*rising), marker="o", label=arm, **style)
        search.plot(rates[arm], tried[arm][rates[arm]], "o", mfc="none", mec=BLACK, markersize=12)
    bars.axvline(before, color=BLACK, linestyle="--")
    bars.set_yticks(range(len(seeds)), list(seeds))
    bars.set(xlim=(0, 1.03), ylim=(len(seeds) - 0.5, -0.5), xlabel="held-out success", title=title)
    bars.grid(axis="y", visible=False)
    search.set(xscale="log", ylim=(0, 1.03), xlabel="rate", title="the search, another seed")
    fig.legend(*search.get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return fig


@styled
def toggle(
    tokens: Mapping[str, Sequence[Sequence[float]]],
    success: Mapping[str, Mapping[str, Sequence[float]]],
    title: str = "",
) -> Figure:
    """Left: arm -> seeds -> tokens an attempt, round by round. Right: condition -> arm -> success, a dot a seed."""
    fig, (row,) = figure(13.5, 4.6, 1, 2, width_ratios=(1, 1.5))
    lines, bars = row
    colours = dict(zip(next(iter(success.values())), (GREY, *PALETTE)))
    for arm, found in tokens.items():
        for line in found:
            lines.plot(range(1, len(line) + 1), line, color=colours[arm], linewidth=1.2, alpha=0.7)
    lines.set(xlabel="round", title="tokens an attempt")
    lines.set_ylim(bottom=0)
    width = 0.8 / len(colours)
    for x, arms in enumerate(success.values()):
        for index, (arm, found) in enumerate(arms.items()):
            place = x + (index - (len(arms) - 1) / 2) * width
            label = arm if x == 0 else None
            bars.bar(place, np.mean(found), 0.92 * width, color=colours[arm], alpha=0.7, label=label)
            bars.plot([place] * len(found), found, "o", color=BLACK, markersize=5)
    bars.set_xticks(range(len(success)), [name.replace(", ", "\n") for name in success])
    bars.set(ylim=(0, 1.08), title="held-out success")
    bars.grid(axis="x", visible=False)
    fig.legend(*bars.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    fig.suptitle(title)
    return fig


ENOUGH = 0.5  # effective share of the attempts
REPAIRS = ("none", "mask", "truncated", "replay", "replay + mask", "replay + truncated")
REFERENCES = {
    "error": "to the exact on-policy gradient",
    "tokens_error": "to the sampler's, same tokens",
    "dice_error": "to the on-policy one, same dice",
}


@styled
def mismatch(log: Mapping, title: str = "A rollout by another policy: distance of the gradient") -> Figure:
    """Of the log `mismatch`: the relative error of the gradient for each mismatch and repair, a panel a reference; a
    dot a seed, a line at the mean. Dotted: what other dice do to the last reference. Grey: too few attempts count, or,
    as a bar from below, what chance does without any repair."""
    fig, (axes,) = figure(15, 5.6, 1, len(REFERENCES))
    rows = [row for row in log["rows"] if row["mismatch"] != "other dice"]
    names = list(dict.fromkeys(row["mismatch"] for row in rows))
    for ax, (key, label) in zip(axes, REFERENCES.items()):
        for place, repair in enumerate(REPAIRS):
            some = [row for row in rows if row["repair"] == repair]
            _a_repair(ax, some, key, names, 0.13 * (place - 2.5), PALETTE[place], repair)
        plain = [row for row in rows if row["repair"] == "none"]
        for x, values in _by_mismatch(plain, key.replace("error", "chance"), names):
            label_of = None if x else "chance"
            ax.bar(x, sum(values) / len(values), width=0.8, color=GREY, alpha=0.25, label=label_of)
        ax.set(yscale="log", title=label, xlim=(-0.6, len(names) - 0.4), xticks=range(len(names)))
        ax.set_xticklabels(names, rotation=30)
    floor = [row["dice_error"] for row in log["rows"] if row["mismatch"] == "other dice"]
    axes[-1].axhline(sum(floor) / len(floor), color=GREY, linestyle=":", label="other dice")
    few = {row["mismatch"] for row in rows if row.get("effective", 1) < ENOUGH}
    for name in few:
        axes[0].axvspan(names.index(name) - 0.5, names.index(name) + 0.5, color=GREY, alpha=0.15, linewidth=0)
    axes[0].set_ylabel("relative error")
    fig.legend(*axes[-1].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    fig.suptitle(title)
    return fig


def _a_repair(
    ax: Axes, rows: Sequence[Mapping], key: str, names: Sequence[str], shift: float, colour: str, label: str
) -> None:
    """A dot a row, and a line at the mean of each mismatch."""
    found = _by_mismatch(rows, key, names)
    dots = [(x + shift, value) for x, values in found for value in values]
    ax.plot([x for x, _ in dots], [y for _, y in dots], "o", color=colour, label=label, markersize=5)
    for x, values in found:
        mean = sum(values) / len(values)
        ax.hlines(mean, x + shift - 0.06, x + shift + 0.06, colour, linewidth=2.5)


def _by_mismatch(rows: Sequence[Mapping], key: str, names: Sequence[str]) -> list[tuple[int, list[float]]]:
    """(place of the mismatch, its values) where there are any."""
    found = [[row[key] for row in rows if row["mismatch"] == name and key in row] for name in names]
    return [(x, values) for x, values in enumerate(found) if values]
