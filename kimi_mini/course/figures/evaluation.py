"""Figures of the benchmarks.

along       success against tokens of training, a line a skill
board       success of several models on several benchmarks, with floors
real        what large models score on the real benchmarks, beside the mini ones
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from kimi_mini.course.figures.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PALETTE,
    PURPLE,
    RED,
    SKY,
    figure,
    human,
    styled,
)

Point = Sequence[float]  # x, value, low, high


@styled
def along(lines: Mapping[str, Sequence[Point]], title: str = "") -> Figure:
    """Success against tokens: name -> points (tokens, value, low, high), in the order of the tokens."""
    fig, axes = figure(12, 5.0)
    ax = axes[0, 0]
    for (name, points), colour, marker in zip(lines.items(), PALETTE, "osD^vP*"):
        x, value, low, high = zip(*points)
        spread = [[max(0, v - b) for v, b in zip(value, low)], [max(0, t - v) for v, t in zip(value, high)]]
        ax.errorbar(x, value, spread, color=colour, marker=marker, markersize=8, capsize=3, label=name)
    ax.set(ylim=(-0.03, 1.03), xlabel="tokens of fine-tuning", ylabel="solved", title=title)
    ax.xaxis.set_major_formatter(lambda x, _: human(x))
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return fig


ARMS = {
    "base": GREY,
    "tuned": SKY,
    "final": BLUE,
    "reader": ORANGE,
    "final_taught": PURPLE,
    "reader_taught": BLACK,
    "reflex": RED,
    "best of 4": GREEN,
    "majority of 4": GREEN,
}


@styled
def board(
    parts: Mapping[str, Mapping[str, Mapping]], floors: Mapping[str, float | None], title: str = ""
) -> Figure:
    """Success by part and arm: part -> arm -> {value, low, high}; a tick where the floor is."""
    fig, axes = figure(13, 0.62 * len(parts) + 1.8)
    ax = axes[0, 0]
    shown = [arm for arm in ARMS if any(arm in arms for arms in parts.values())]
    markers = dict(zip(ARMS, "osDv<>^P*"))
    for arm in shown:
        rows = [(row, arms[arm]) for row, arms in enumerate(parts.values()) if arm in arms]
        place = [row + 0.1 * (shown.index(arm) - (len(shown) - 1) / 2) for row, _ in rows]
        value = [entry["value"] for _, entry in rows]
        spread = [[max(0, entry["value"] - entry["low"]) for _, entry in rows]]
        spread += [[max(0, entry["high"] - entry["value"]) for _, entry in rows]]
        ax.errorbar(value, place, xerr=spread, fmt=markers[arm], color=ARMS[arm], markersize=8, label=arm)
    marked = [(row, floors[part]) for row, part in enumerate(parts) if floors.get(part) is not None]
    ax.vlines(
        [f for _, f in marked],
        [r - 0.45 for r, _ in marked],
        [r + 0.45 for r, _ in marked],
        BLACK,
        lw=3,
        label="floor",
    )
    for row in range(1, len(parts)):
        ax.axhline(row - 0.5, color="#DDDDDD", lw=1)
    ax.set_yticks(range(len(parts)), list(parts))
    ax.set(xlim=(-0.02, 1.02), ylim=(len(parts) - 0.5, -0.5), xlabel="solved", title=title)
    ax.grid(axis="y", visible=False)
    fig.legend(loc="outside lower center", ncols=len(shown) + 1)
    return fig


FAMILIES = {  # model -> (colour of who made it, marker)
    "K2 Instruct (July 2025)": (BLUE, "o"),
    "K2 Thinking": (BLUE, "*"),
    "GPT-4.1": (GREEN, "s"),
    "GPT-5": (GREEN, "D"),
    "Claude Opus 4": (RED, "v"),
    "Claude Sonnet 4.5, thinking": (RED, "^"),
    "DeepSeek-V3-0324": (PURPLE, "<"),
    "DeepSeek-V3.2": (PURPLE, ">"),
}


@styled
def real(
    said: Mapping[str, Mapping[str, float]],
    minis: Mapping[str, Mapping[str, Mapping]],
    titles: Mapping[str, str],
) -> Figure:
    """Left what reports say: benchmark -> model -> per cent; right what our agents solve of its miniature: benchmark ->
    part -> {value, low, high}. Two axes, because they are not one scale. titles: of the miniatures."""
    fig, (axes,) = figure(15, 0.95 * len(said) + 2.2, 1, 2, sharey=True, width_ratios=(3, 2))
    left, right = axes
    for model, (colour, marker) in FAMILIES.items():
        points = [(scores[model], row) for row, scores in enumerate(said.values()) if model in scores]
        if points:
            size = 15 if marker == "*" else 10
            left.plot(*zip(*points), marker, color=colour, markersize=size, label=model, alpha=0.85)
    for row, name in enumerate(said):
        for place, (part, entry) in enumerate(minis[name].items()):
            y = row + 0.22 * (place - (len(minis[name]) - 1) / 2)
            spread = [[max(0, entry["value"] - entry["low"])], [max(0, entry["high"] - entry["value"])]]
            right.errorbar([entry["value"]], [y], xerr=spread, fmt="o", color=BLACK, markersize=8)
            at_left = entry["value"] > 0.5
            side = dict(ha="right" if at_left else "left", va="center")
            shift = (-14 if at_left else 14, 0)
            right.annotate(
                part,
                (entry["low"] if at_left else entry["high"], y),
                shift,
                textcoords="offset points",
                **side,
            )
        right.annotate(titles[name], (1.06, row), va="center", weight="bold", annotation_clip=False)
    left.set_yticks(range(len(said)), list(said))
    left.set(
        xlim=(0, 101),
        ylim=(len(said) - 0.5, -0.5),
        xlabel="per cent, as reported",
        title="Large models, real benchmarks",
    )
    right.set(
        xlim=(-0.03, 1.03), xlabel="solved, measured here", title="One or two million parameters, miniatures"
    )
    right.tick_params(axis="y", length=0)
    fig.legend(loc="outside lower center", ncols=4)
    return fig
