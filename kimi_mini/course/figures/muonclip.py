"""Figures of an optimizer at work.

singular_values    of a matrix before and after, in order of size
bands              curves over steps, a few runs each: mean, with everything between the smallest and the largest
heads              the largest logit of every head over steps, one panel a layer
histogram          how attention logits are distributed, on an axis that is fine around zero
rows               a weight matrix as a picture, heads marked at its rows
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kimi_mini.course.figures.style import BLACK, FONT, GREY, PALETTE, figure, styled


@styled
def singular_values(values: Mapping[str, Sequence[float]], title: str = "") -> Figure:
    """name -> singular values, largest first, on a logarithmic axis."""
    fig, axes = figure(9, 4.4)
    ax = axes[0, 0]
    for (name, line), colour in zip(values.items(), PALETTE * 2):
        ax.plot(np.arange(1, len(line) + 1), line, color=colour, label=name)
    ax.set(yscale="log", xlabel="singular value, largest first", ylabel="size", title=title)
    ax.legend()
    return fig


def band(
    ax: Axes, x: Sequence[float], runs: Sequence[Sequence[float]], colour: str, label: str, **style
) -> None:
    """One line: the mean of runs (seeds, points), shaded from the smallest to the largest."""
    runs = np.asarray(runs, float)
    ax.fill_between(x, runs.min(0), runs.max(0), color=colour, alpha=0.2, linewidth=0)
    ax.plot(x, runs.mean(0), color=colour, label=label, **style)


@styled
def bands(
    panels: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[Sequence[float]]]]],
    ylabels: Sequence[str],
    logarithmic: Sequence[bool],
    colours: Mapping[str, str],
    marks: Sequence[Sequence[float]] | None = None,
    columns: int = 2,
    styles: Mapping[str, str] | None = None,
) -> Figure:
    """Panels of bands: title -> name -> (x, runs). marks: horizontal lines of each panel (tau); styles: name -> dashes,
    for lines that lie on others."""
    rows = -(-len(panels) // columns)
    fig, axes = figure(6.4 * columns, 4.0 * rows + 0.6, rows, columns)
    shown: dict = {}
    for ax, (title, lines), ylabel, log, lines_at in zip(
        axes.flat, panels.items(), ylabels, logarithmic, marks or [()] * len(panels)
    ):
        for name, (x, runs) in lines.items():
            band(ax, x, runs, colours[name], name, linestyle=(styles or {}).get(name, "-"))
        for level in lines_at:
            ax.axhline(level, color=BLACK, linestyle="--", linewidth=1.2)
            ax.annotate(f"τ = {level:g}", (0.01, level), (0, 3), ax.get_yaxis_transform(), "offset points")
        ax.set(title=title, ylabel=ylabel, xlabel="step", yscale="log" if log else "linear")
        shown |= {label: handle for handle, label in zip(*ax.get_legend_handles_labels())}
    for ax in axes.flat[len(panels) :]:
        ax.axis("off")
    fig.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=4)
    return fig


@styled
def heads(steps: Sequence[int], maxima: np.ndarray, tau: float | None = None, title: str = "") -> Figure:
    """maxima (points, L, H): one panel a layer, one line a head, the same logarithmic axis for all."""
    maxima = np.asarray(maxima, float)
    fig, axes = figure(12, 3.8, 1, maxima.shape[1], sharey=True)
    for layer, ax in enumerate(axes[0]):
        for head in range(maxima.shape[2]):
            ax.plot(
                steps, np.maximum(maxima[:, layer, head], 0.1), color=PALETTE[head % 7], label=f"head {head}"
            )
        if tau is not None:
            ax.axhline(tau, color=BLACK, linestyle="--", linewidth=1.5)
        ax.set(title=f"layer {layer}", xlabel="step", yscale="log")
    axes[0, 0].set_ylabel("largest logit of a head")
    fig.suptitle(title, fontsize=FONT + 2)
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=8)
    return fig


@styled
def histogram(
    edges: Sequence[float],
    counts: Mapping[str, Sequence[float]],
    tau: float | None = None,
    title: str = "",
    limit: float = 1000.0,
) -> Figure:
    """name -> counts between `edges`, as shares of all logits for each unit of logit (so that the width of a bin does
    not matter), both axes stretched so that the tail shows."""
    fig, axes = figure(9.5, 4.6)
    ax = axes[0, 0]
    drawn: list[list[float]] = []
    for (name, found), colour in zip(counts.items(), PALETTE):
        density = np.asarray(found, float) / max(1, np.sum(found)) / np.diff(edges)
        style = "--" if list(found) in drawn else "-"  # on an equal one
        ax.stairs(np.maximum(density, 1e-10), edges, color=colour, label=name, linewidth=2.2, linestyle=style)
        drawn.append(list(found))
    if tau is not None:
        ax.axvline(tau, color=BLACK, linestyle="--", linewidth=1.5, label=f"τ = {tau:g}")
    ax.set_xscale("asinh", linear_width=1.0)
    marks = [mark for mark in (-1000, -100, -10, -1, 0, 1, 10, 100, 1000) if abs(mark) <= limit]
    ax.set_xticks(marks, [f"{mark:g}" for mark in marks])
    ax.set(
        yscale="log",
        ylim=(1e-8, 10),
        xlim=(-limit, limit),
        xlabel="attention logit",
        ylabel="share of all pairs, per unit of logit",
        title=title,
    )
    fig.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return fig


@styled
def rows(
    before: np.ndarray, after: np.ndarray, labels: Mapping[str, tuple[int, int]], names=("before", "after")
) -> Figure:
    """Two weight matrices (out, in) side by side; labels: text -> (first row, one past the last row)."""
    fig, axes = figure(11, 5.6, 1, 3, width_ratios=(4, 4, 1.3))
    limit = np.quantile(np.abs(before), 0.99)
    for ax, matrix, name in zip(axes[0], (before, after), names):
        ax.imshow(matrix, aspect="auto", cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
        ax.set(title=name, xlabel="input")
        ax.grid(visible=False)
        ax.set_yticks([(a + b - 1) / 2 for a, b in labels.values()], list(labels))
        for start, _ in labels.values():
            ax.axhline(start - 0.5, color=BLACK, linewidth=0.8)
    ratio = np.linalg.norm(after, axis=1) / np.linalg.norm(before, axis=1)
    ax = axes[0, 2]
    ax.plot(ratio, np.arange(len(ratio)), color=BLACK)
    ax.axvline(1, color=GREY, linewidth=1)
    ax.set(title="row norm", xlabel="after / before", ylim=(len(ratio) - 0.5, -0.5), xlim=(0, 1.1), yticks=[])
    axes[0, 1].set_yticks([])
    return fig
