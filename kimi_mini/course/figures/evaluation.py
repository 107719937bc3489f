"""Figures of the benchmarks.

along       success against tokens of training, a line a skill
board       success of several models on several benchmarks, with floors
real        what large models score on the real benchmarks, beside the mini ones
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from kimi_mini.course.figures.style import PALETTE, figure, human, styled

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
