"""Figures of experts in few bits.

int4   what formats cost, rounded afterwards and trained with; and how far they are along a long decode
kept   one matrix, and what rounding leaves of it (for a slider)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from matplotlib.figure import Figure
from torch import Tensor

from kimi_mini.course.figures.style import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, RED, figure, styled

FORMATS = {"fp32": BLACK, "int4": BLUE, "mxfp4": GREEN, "int3": ORANGE, "int2": RED}
NAMES = {"int4": "INT4", "mxfp4": "MXFP4", "int3": "3 bits", "int2": "2 bits"}


def told(name: str) -> str:
    """A format as people write it."""
    return NAMES.get(name, name)


def picked(rows: Sequence[Mapping], training: str, name: str) -> list[Mapping]:
    """The rows of one training and one format, one a seed."""
    found = [row for row in rows if row["kind"] == "trained"]
    return [row for row in found if (row["training"], row["format"]) == (training, name)]


@styled
def int4(log: Mapping, title: str = "Experts in few bits") -> Figure:
    """Left: mean success over the rows, a dot a seed, rounded afterwards and trained with the rounding; and the agent
    that reads, on rows of its own. Middle: the loss on text. Right: KL from the model in fp32 in each tenth of a long
    decode, rounded afterwards; its tokens are given."""
    fig, axes = figure(16, 5.2, 1, 3)
    success, text, drift = axes[0]
    for ax, measure in (
        (success, lambda row: fmean(row["success"].values())),
        (text, lambda row: row["text"]),
    ):
        for training, colour, marker, shift in (("plain", BLUE, "o", -0.12), ("aware", PURPLE, "D", 0.12)):
            label = "rounded afterwards" if training == "plain" else "trained with it"
            for place, name in enumerate(FORMATS):
                values = [measure(row) for row in picked(log["rows"], training, name)]
                if values:
                    ax.plot(
                        [place + shift] * len(values), values, marker, color=colour, alpha=0.6, label=label
                    )
                    ax.plot(place + shift, fmean(values), "_", color=colour, markersize=22, markeredgewidth=3)
                    label = None
        ax.set_xticks(range(len(FORMATS)), [told(name) for name in FORMATS])
    reader = {row["format"]: fmean(row["success"].values()) for row in log["rows"] if row["kind"] == "reader"}
    places = [place for place, name in enumerate(FORMATS) if name in reader]
    label = "the agent that reads, rounded"
    success.plot(places, [reader[list(FORMATS)[i]] for i in places], "s", color=ORANGE, label=label)
    success.set(title=title, ylabel="success, mean of held-out rows", ylim=(-0.03, 1.05))
    text.set(title="Loss on held-out text", ylabel="nats a token")
    for name, colour in list(FORMATS.items())[1:]:
        runs = [row["drift"]["kl"] for row in picked(log["rows"], "plain", name)]
        if runs:
            parts = [fmean(values) for values in zip(*runs)]
            drift.plot(range(1, len(parts) + 1), parts, "o-", color=colour, label=told(name))
    drift.set(
        title="Along a hundred calls",
        xlabel="tenth of the way (tokens given, old calls hidden)",
        ylabel="KL from fp32, nats",
        yscale="log",
    )
    drift.legend()
    success.legend(loc="lower left")
    return fig


@styled
def kept(weight: Tensor, rounded: Tensor, title: str = "", columns: int = 64) -> Figure:
    """A matrix (out, in) and what is kept of it: the first row side by side, and the errors of all weights."""
    fig, axes = figure(12, 3.8, 1, 2)
    left, right = axes[0]
    left.plot(weight[0, :columns], "o", color=GREY, label="weight")
    left.plot(rounded[0, :columns], "_", markersize=10, markeredgewidth=2.5, color=BLUE, label="kept")
    left.set(xlabel="column of the first row", title=title)
    left.legend(loc="lower right")
    error = (rounded - weight).flatten()
    right.hist(error.numpy(), 50, range=(-0.15, 0.15), color=ORANGE)
    right.set_xticks([-0.1, 0, 0.1])
    right.set(
        xlabel="error of a weight", title=f"{float(error.norm() / weight.norm()):.1%} of the norm is lost"
    )
    return fig
