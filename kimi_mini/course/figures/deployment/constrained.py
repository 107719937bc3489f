"""Calls held to their schemas: how many come out valid with the constraint and without it, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from kimi_mini.course.figures.style import BLUE, GREY, ORANGE, PALETTE, RED, figure, styled

NAMES = {"random": "random weights", "final": "agent", "reader": "agent that reads"}


@styled
def calls_held_to_schemas(log: Mapping) -> Figure:
    """Left: share of turns that end with valid calls only, by model. Right: what masks cost. log: constrained.json."""
    fig, axes = figure(12, 4.6, 1, 2)
    left, right = axes[0]
    places = np.arange(len(NAMES))
    for held, colour, shift in ((True, BLUE, -0.2), (False, ORANGE, 0.2)):
        values = [_share(log, name, held) for name in NAMES]
        bars = left.bar(places + shift, values, 0.38, color=colour, label="held" if held else "free")
        left.bar_label(bars, fmt="%.2f", padding=2)
    left.set_xticks(places, NAMES.values())
    left.set(
        ylim=(0, 1.18),
        ylabel="turns that end in valid calls only",
        title="Schemas never seen (held, the rest: no room)",
    )
    left.legend(loc="upper left", ncols=2)
    costs = [row for row in log["rows"] if row["what"] == "cost"]
    for name, colour in zip(("final", "reader"), PALETTE):
        rows = [row for row in costs if row["model"] == name]
        spread = [[r["share"] - r["low"] for r in rows], [r["high"] - r["share"] for r in rows]]
        spread = 100 * np.abs(np.array(spread))
        values = [100 * row["share"] for row in rows]
        label = NAMES[name]
        right.errorbar(
            [r["places"] for r in rows], values, spread, color=colour, marker="o", capsize=3, label=label
        )
    right.axhline(20, color=RED, linestyle="--", label="bar")
    right.axhline(0, color=GREY, linewidth=1)
    right.set_xscale("log", base=2)
    right.set_xticks(ticks := sorted({row["places"] for row in costs}), map(str, ticks))
    right.set(
        ylim=(None, max(26.0, right.get_ylim()[1] * 1.2)),  # room for the legend
        xlabel="rows decoded at once",
        ylabel="% of decoding time",
        title="What masks cost, every token held",
    )
    right.legend(loc="upper left", ncols=3)
    return fig


def _share(log: Mapping, model: str, held: bool) -> float:
    rows = [r for r in log["rows"] if r["what"] == "calls" and r["model"] == model and r["held"] is held]
    return sum(row["right_turns"] for row in rows) / max(1, sum(row["turns"] for row in rows))
