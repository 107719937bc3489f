"""Which expert gets which token, as figures of plain numbers.

dense_routing      chosen experts and their gate weights as a table (experts, tokens)
routing_heatmap    that table as a picture; one expert may be picked out
violation          MaxVio over steps
use_by_domain      which share of a domain's choices each expert gets, layer by layer
meetings           which experts are chosen together
gate_weights       how the weights of first, second, ... choice are spread
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from kimi_mini.course.figures.style import BLACK, FONT, PALETTE, RED, figure, styled, visible


def dense_routing(
    experts: Sequence[Sequence[int]], weights: Sequence[Sequence[float]], count: int
) -> np.ndarray:
    """Chosen experts (T, k) and their gate weights (T, k) -> (count, T), zero where an expert was not chosen."""
    table = np.zeros((count, len(experts)))
    for token, (chosen, weight) in enumerate(zip(experts, weights)):
        table[np.asarray(chosen), token] = weight
    return table


@styled
def routing_heatmap(
    tokens: Sequence[str], table: np.ndarray, title: str = "", expert: int | None = None
) -> Figure:
    """Gate weight by expert (rows) and token (columns); white is an expert that this token did not visit.

    tokens (T,) as text; table (E, T) as dense_routing gives it; `expert` is framed, its tokens are red.
    Raises ValueError when they do not fit.
    """
    table = np.asarray(table, float)
    if table.ndim != 2 or table.shape[1] != len(tokens):
        raise ValueError(f"{len(tokens)} tokens need a table (experts, {len(tokens)}), not {table.shape}")
    if expert is not None and not 0 <= expert < len(table):
        raise ValueError(f"there is no expert {expert} in a table of {len(table)}")
    width = 12 if expert is not None else max(8, 0.27 * len(tokens) + 2)  # a slider's figure keeps its size
    fig, axes = figure(width, 0.28 * len(table) + 2.2)
    ax = axes[0, 0]
    shown = np.ma.masked_equal(table, 0)
    image = ax.imshow(shown, aspect="auto", cmap="viridis_r", vmin=0, interpolation="nearest")
    names, plain = [visible(token) for token in tokens], {"family": "monospace", "parse_math": False}
    ax.set_xticks(range(len(tokens)), names, rotation=90, **plain)
    if expert is not None:
        ax.axhspan(expert - 0.5, expert + 0.5, fill=False, edgecolor=RED, linewidth=2.5)
        for label, weight in zip(ax.get_xticklabels(), table[expert]):
            label.set(color=RED if weight else BLACK, fontweight="bold" if weight else "normal")
    ax.set_yticks(range(0, len(table), max(1, len(table) // 16)))
    ax.grid(visible=False)
    ax.set(ylabel="expert", title=title)
    fig.colorbar(image, label="gate weight", pad=0.01).ax.tick_params(labelsize=FONT)
    return fig


@styled
def violation(curves: Mapping[str, Sequence[float]], title: str = "", floor: float | None = None) -> Figure:
    """MaxVio (fullest expert over mean, minus 1) step by step, one line a way of balancing; `floor` dashed."""
    fig, axes = figure(9, 3.8)
    ax = axes[0, 0]
    for (name, values), colour in zip(curves.items(), PALETTE):
        ax.plot(np.arange(1, len(values) + 1), values, color=colour, label=name)
    if floor is not None:
        ax.axhline(floor, color=BLACK, linestyle="--", linewidth=1.2, label=f"{floor:g}")
    ax.set(xlabel="step", ylabel="MaxVio", title=title, ylim=(0, None))
    ax.legend()
    return fig


@styled
def use_by_domain(shares: np.ndarray, names: Sequence[str], title: str = "") -> Figure:
    """A heat map a layer: share of each domain's choices that goes to each expert, over an equal share.

    shares (L, domains, E), rows summing to 1; 1 in the figure is what an expert without preferences gets.
    """
    shares = np.asarray(shares)
    layers, _, experts = shares.shape
    fig, axes = figure(10, (0.42 * len(names) + 0.9) * layers + 0.7, layers, sharex=True)
    top = max(2.0, float((shares * experts).max()))
    for layer, ax in enumerate(axes[:, 0]):
        image = ax.imshow(shares[layer] * experts, cmap="Blues", vmin=0, vmax=top, aspect="auto")
        ax.set_yticks(range(len(names)), names)
        ax.grid(visible=False)
        ax.set_title(f"MoE layer {layer + 1}")
    axes[-1, 0].set_xticks(range(0, experts, max(1, experts // 16)))
    axes[-1, 0].set_xlabel("expert")
    bar = fig.colorbar(image, ax=axes[:, 0], label="times an equal share", pad=0.01)
    bar.ax.tick_params(labelsize=FONT)
    fig.suptitle(title, x=0.01, ha="left")
    return fig


@styled
def meetings(table: np.ndarray, title: str = "") -> Figure:
    """Which experts serve the same token; 1 is as often as by chance. table (E, E) as `coactivation` gives it."""
    table = np.ma.masked_where(np.eye(len(table), dtype=bool), np.asarray(table, float))
    fig, axes = figure(7, 5.6)
    ax = axes[0, 0]
    image = ax.imshow(table, cmap="PuOr_r", vmin=0, vmax=2)
    ax.grid(visible=False)
    ax.set(xlabel="expert", ylabel="expert", title=title)
    fig.colorbar(image, label="meetings over chance", extend="max").ax.tick_params(labelsize=FONT)
    return fig


@styled
def gate_weights(weights: np.ndarray, factor: float, title: str = "") -> Figure:
    """How the gate weights of best, second, ... choice are spread. weights (..., k), summing to `factor` over k."""
    ordered = -np.sort(-np.asarray(weights).reshape(-1, weights.shape[-1]), 1) / factor  # (N, k) shares
    fig, axes = figure(9, 3.8)
    ax = axes[0, 0]
    for place in range(ordered.shape[1]):
        name = ("best", "second", "third")[place] if place < 3 else f"{place + 1}th"
        ax.hist(
            ordered[:, place],
            bins=np.linspace(0, 1, 61),
            color=PALETTE[place],
            alpha=0.75,
            label=f"{name} choice",
        )
    ax.axvline(1 / ordered.shape[1], color=BLACK, linestyle=":", label="equal shares")
    ax.set(xlabel="share of the token's gate weight", ylabel="tokens", title=title, yticks=[])
    ax.legend()
    return fig
