"""Figures of what serving costs.

published  how far published deployments stay behind the roofline, a bar each
serving    one deployment, from its settings: what a step waits for, and what comes out (for a slider)
routing    success against cost when a router shares tasks out between two modes
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from kimi_mini.course.figures.style import (
    BLACK,
    BLUE,
    FONT,
    GREEN,
    GREY,
    ORANGE,
    PALETTE,
    RED,
    SKY,
    figure,
    human,
    styled,
)
from kimi_mini.inference.serving.roofline import (
    CARDS,
    GB,
    decode,
    largest_batch,
    memory_per_card,
    prefill,
    price_per_million,
)
from kimi_mini.model.config import KimiConfig
from kimi_mini.model.costs import FORMATS

KINDS = {"memory": GREEN, "prefill": ORANGE, "decode": BLUE, "money": GREY}
RESOURCES = {"weights": BLUE, "cache": SKY, "compute": ORANGE, "exchange": RED}


@styled
def published(rows: Sequence[Mapping], title: str = "") -> Figure:
    """Rows {"name", "kind", "ratio"}: predicted over published. At 1 a deployment does what the data sheet allows."""
    fig, axes = figure(12, 0.42 * len(rows) + 1.8)
    ax = axes[0, 0]
    ax.barh(
        range(len(rows)),
        [row["ratio"] - 1 for row in rows],
        0.66,
        1,
        color=[KINDS[row["kind"]] for row in rows],
    )
    ax.set_yticks(range(len(rows)), [row["name"] for row in rows])
    for place, row in enumerate(rows):
        ax.annotate(
            f"{row['ratio']:.3g}",
            (max(row["ratio"], 1), place),
            (6, 0),
            textcoords="offset points",
            va="center",
        )
    ax.axvline(1, color=BLACK, linewidth=1)
    ax.set(xscale="log", xlim=(0.8, 1.5 * max(row["ratio"] for row in rows)), title=title)
    ax.set_xticks([1, 2, 5, 10], ["1", "2", "5", "10"])
    ax.minorticks_off()
    ax.set_xlabel("computed from config and data sheet / published")
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.grid(axis="y", visible=False)
    for kind, colour in KINDS.items():
        if any(row["kind"] == kind for row in rows):
            ax.bar(0, 0, color=colour, label=kind)
    ax.legend(loc="upper right")
    return fig


@styled
def serving(
    model: str = "k2",
    form: str = "int4",
    card: str = "H200",
    cards: int = 8,
    batch: int = 32,
    context: int = 8192,
    layout: str = "tensor",
) -> Figure:
    """What one decoding step waits for, resource by resource, and what the deployment then gives at best."""
    config, kind, one = KimiConfig.preset(model), FORMATS[form], CARDS[card]
    step = decode(config, kind, one, cards, batch, context, layout)
    first = prefill(config, kind, one, cards, context, 1, layout)
    full = memory_per_card(config, kind, cards, batch, context, layout) / GB
    room = largest_batch(config, kind, one, cards, context, layout)
    fig, axes = figure(12, 4.6, 1, 2, width_ratios=(3, 2))
    left, right = axes[0]
    shown = {name: 1e3 * getattr(step, name) for name in RESOURCES}
    left.barh(list(shown), list(shown.values()), color=list(RESOURCES.values()), height=0.6)
    left.axvline(1e3 * step.seconds, color=BLACK, linestyle="--")
    left.set(xlabel="milliseconds a step", title=f"{cards} x {card}, {form}: bound by {step.bound}")
    left.set_xlim(0, 1.15e3 * step.seconds)
    left.invert_yaxis()
    fits = "fits" if batch <= room else "DOES NOT FIT"
    lines = (
        f"memory a card: {full:.0f} of {one.memory} GB, {fits}",
        f"room for {max(room, 0)} sequences of {context:,} tokens",
        f"a token every {1e3 * step.seconds:.1f} ms in each sequence",
        f"{human(round(step.rate))} tokens a second together",
        f"first token after {first.seconds:.2f} s, alone",
        f"${price_per_million(step.rate, one, cards):.2f} a million tokens written",
        f"${price_per_million(first.rate, one, cards):.3f} a million tokens read",
    )
    right.axis("off")
    for place, line in enumerate(lines):
        colour = RED if fits in line and batch > room else BLACK
        right.text(0, 0.94 - 0.13 * place, line, fontsize=FONT + 1, color=colour, transform=right.transAxes)
    right.set_title("at best (lower bounds of time)")
    return fig


@styled
def routing(curves: Mapping[str, Sequence[tuple[float, float]]], title: str = "") -> Figure:
    """Router -> (cost, success) as more and more tasks go to the dear mode."""
    fig, axes = figure(10, 4.8)
    ax = axes[0, 0]
    for (name, points), colour in zip(curves.items(), PALETTE):
        ax.plot(*zip(*points), "o-", color=colour, markersize=4, label=name)
    ax.set(xlabel="cost of a task (every task to the dear mode: 1)", ylabel="success", title=title)
    ax.set_ylim(None, 1.03)
    ax.legend(loc="lower right")
    return fig
