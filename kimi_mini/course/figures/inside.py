"""Figures of what happens inside a model, as pure functions of plain numbers like those of `viz`.

attention_logits    largest attention logit over steps, one line an optimizer, with QK-Clip's tau
routing_heatmap     which expert got which token, with what gate weight
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from kimi_mini.course.figures.style import BLACK, FONT, PALETTE, figure, styled


@styled
def attention_logits(curves: Mapping[str, Sequence[float]], tau: float | None = None) -> Figure:
    """The largest attention logit at each step, one line an optimizer, on a logarithmic axis; `tau` is QK-Clip's."""
    fig, axes = figure(9, 4.6)
    ax = axes[0, 0]
    for (name, values), colour in zip(curves.items(), PALETTE * 2):
        ax.plot(np.arange(1, len(values) + 1), values, color=colour, label=name)
    if tau is not None:
        ax.axhline(tau, color=BLACK, linestyle="--", linewidth=1.5, label=f"τ = {tau:g}")
    ax.set(yscale="log", xlabel="step", ylabel="largest attention logit")
    ax.legend()
    return fig


def dense_routing(
    experts: Sequence[Sequence[int]], weights: Sequence[Sequence[float]], count: int
) -> np.ndarray:
    """Chosen experts (T, k) and their gate weights (T, k) -> (count, T), zero where an expert was not chosen."""
    table = np.zeros((count, len(experts)))
    for token, (chosen, weight) in enumerate(zip(experts, weights)):
        table[np.asarray(chosen), token] = weight
    return table


@styled
def routing_heatmap(tokens: Sequence[str], table: np.ndarray, title: str = "") -> Figure:
    """Gate weight by expert (rows) and token (columns); white is an expert that this token did not visit.

    tokens (T,) as text; table (E, T) as dense_routing gives it. Raises ValueError when they do not fit.
    """
    table = np.asarray(table, float)
    if table.ndim != 2 or table.shape[1] != len(tokens):
        raise ValueError(f"{len(tokens)} tokens need a table (experts, {len(tokens)}), not {table.shape}")
    fig, axes = figure(max(8, 0.27 * len(tokens) + 2), 0.3 * len(table) + 1.9)
    ax = axes[0, 0]
    shown = np.ma.masked_equal(table, 0)
    image = ax.imshow(shown, aspect="auto", cmap="viridis_r", vmin=0, interpolation="nearest")
    ax.set_xticks(range(len(tokens)), [_visible(token) for token in tokens], rotation=90, family="monospace")
    ax.set_yticks(range(0, len(table), max(1, len(table) // 16)))
    ax.grid(visible=False)
    ax.set(ylabel="expert", title=title)
    fig.colorbar(image, label="gate weight", pad=0.01).ax.tick_params(labelsize=FONT)
    return fig


def _visible(token: str) -> str:
    """White space and control characters as signs, so that a tick label shows every token."""
    return token.replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥") or "∅"
