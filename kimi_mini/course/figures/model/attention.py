"""Figures of attention and position.

attention_map      what every token of a text looks at, in one head
frequency_steps    wavelengths of the rotation, before and after YaRN
needle_maps        needles found by depth and length, a heat map an arm
loss_by_position   loss of text against position, one panel a stage
heads_study        loss with h and 2h heads; FLOPs against context
decode_times       milliseconds a decode step against context length
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
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
    figure,
    styled,
    visible,
)


@styled
def attention_map(tokens: Sequence[str], weights: np.ndarray, title: str = "") -> Figure:
    """Rows look at columns: weights (T, T) of one head; the square root is drawn, so that small weights show.

    Raises ValueError when tokens and weights do not fit.
    """
    weights = np.asarray(weights, float)
    if weights.shape != (len(tokens), len(tokens)):
        raise ValueError(
            f"{len(tokens)} tokens need weights ({len(tokens)}, {len(tokens)}), not {weights.shape}"
        )
    side = max(6.0, 0.215 * len(tokens) + 1.8)
    fig, axes = figure(side + 1.2, side)
    ax, names = axes[0, 0], [_short(token) for token in tokens]
    shown = np.ma.masked_where(np.triu(np.ones_like(weights), 1) > 0, np.sqrt(weights))
    image = ax.imshow(shown, cmap="viridis", vmin=0, vmax=1, interpolation="nearest")
    plain = {"family": "monospace", "fontsize": FONT - 2, "parse_math": False}
    ax.set_xticks(range(len(names)), names, rotation=90, **plain)
    ax.set_yticks(range(len(names)), names, **plain)
    ax.grid(visible=False)
    ax.set(title=title, xlabel="looked at", ylabel="looking")
    bar = fig.colorbar(image, shrink=0.6, pad=0.01, ticks=np.sqrt([0, 0.05, 0.25, 0.5, 1]))
    bar.ax.set_yticklabels(["0", "0.05", "0.25", "0.5", "1"])
    bar.ax.tick_params(labelsize=FONT)
    return fig


def _short(token: str) -> str:
    token = visible(token)
    return token if len(token) <= 9 else token[:8] + "…"


@styled
def frequency_steps(
    series: Mapping[str, Sequence[float]], trained: int, target: int, step: int | None = None, title: str = ""
) -> Figure:
    """Wavelength in tokens of every pair of the rotation, one line a treatment: name -> angles per position (d/2,).

    Lines at the trained length and at the length to reach: a pair above such a line does not turn once in it.
    """
    fig, axes = figure(10, 5.0)
    ax = axes[0, 0]
    for (name, freqs), colour, marker in zip(series.items(), (GREY, BLUE, ORANGE, GREEN), "osD^"):
        wavelengths = 2 * np.pi / np.asarray(freqs, float)
        ax.plot(range(len(wavelengths)), wavelengths, color=colour, marker=marker, markersize=6, label=name)
    for length, text, colour in ((trained, "trained length", BLACK), (target, "length to reach", RED)):
        ax.axhline(length, color=colour, linestyle="--", linewidth=1.5, label=f"{text} ({length:,})")
    if step is not None:
        ax.axvline(step + 0.5, color=BLACK, linewidth=1, linestyle=":")
        ax.annotate(
            f"step at {step}/{step + 1}",
            (step + 0.5, 0.04),
            (6, 0),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
        )
    ax.set(yscale="log", xlabel="pair of the rotation", ylabel="tokens for one full turn", title=title)
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return fig


@styled
def needle_maps(
    maps: Mapping[str, Sequence[Sequence[float]]],
    lengths: Sequence[int],
    depths: Sequence[float],
    trained: int,
) -> Figure:
    """Share of needles found, a heat map an arm: name -> rows of depths, columns of lengths."""
    fig, axes = figure(3.1 * len(maps) + 1.6, 4.3, 1, len(maps), sharey=True)
    for ax, (name, table) in zip(axes[0], maps.items()):
        table = np.asarray(table, float)  # (depths, lengths)
        image = ax.imshow(table, cmap="cividis", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        for (row, column), value in np.ndenumerate(table):
            ax.text(
                column,
                row,
                f"{value:.2f}",
                ha="center",
                va="center",
                color="white" if value < 0.55 else BLACK,
            )
        ax.set_xticks(range(len(lengths)), lengths)
        ax.set_yticks(range(len(depths)), [f"{depth:.0%}" for depth in depths])
        ax.grid(visible=False)
        ax.set(title=name, xlabel="tokens")
    axes[0, 0].set_ylabel("depth (0% = at the start)")
    fig.colorbar(image, ax=axes[0], label="needles found", pad=0.01).ax.tick_params(labelsize=FONT)
    fig.suptitle(f"Trained on {trained} tokens, asked at up to {max(lengths)}", fontsize=FONT + 3)
    return fig


@styled
def loss_by_position(
    panels: Mapping[str, Mapping[str, Sequence[float]]], bucket: int, trained: int
) -> Figure:
    """Loss of text against position: panel -> arm -> mean loss of every `bucket` positions."""
    fig, axes = figure(5.2 * len(panels), 4.4, 1, len(panels), sharey=True)
    for ax, (title, arms) in zip(axes[0], panels.items()):
        for (name, losses), colour, marker in zip(arms.items(), (GREY, ORANGE, BLUE, GREEN), "oDs^"):
            x = (np.arange(len(losses)) + 0.5) * bucket
            ax.plot(x, losses, color=colour, marker=marker, markersize=5, label=name)
        ax.axvline(trained, color=BLACK, linewidth=1.5, linestyle=":", label=f"trained length ({trained})")
        ax.set(title=title, xlabel="position in the window")
    axes[0, 0].set_ylabel("loss (nats a token)")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return fig


@styled
def heads_study(
    losses: Mapping[int, Sequence[float]], heads: Sequence[int], flops: Sequence[Mapping[str, float]]
) -> Figure:
    """Left: validation loss with few and many heads, one line a seed. Right: K2's FLOPs a token against context.

    flops: rows {context, "64", "128", more}, as experiments.heads counts them.
    """
    fig, axes = figure(11, 4.4, 1, 2, width_ratios=(2, 3))
    left, right = axes[0]
    for (seed, values), colour in zip(losses.items(), PALETTE):
        left.plot(range(len(heads)), values, color=colour, marker="o", markersize=9, label=f"seed {seed}")
    left.set_xticks(range(len(heads)), [f"{count} heads" for count in heads])
    left.set(
        ylabel="validation loss (nats a token)",
        title="The nano at equal tokens",
        xlim=(-0.3, len(heads) - 0.7),
    )
    left.legend()
    contexts = [row["context"] for row in flops]
    for key, colour, marker in (("64", BLUE, "o"), ("128", RED, "s")):
        right.plot(
            contexts, [row[key] / 1e9 for row in flops], color=colour, marker=marker, label=f"{key} heads"
        )
    last = flops[-1]
    right.annotate(
        f"+{100 * last['more']:.0f}%",
        (last["context"], last["128"] / 1e9),
        (-12, 0),
        ha="right",
        textcoords="offset points",
        color=RED,
        fontsize=FONT + 2,
    )
    right.set_xscale("log", base=2)
    right.set_xticks(contexts, [f"{context // 1024}k" for context in contexts])
    right.set(xlabel="context", ylabel="GFLOPs a token", title="K2, counted from its config", ylim=(0, None))
    right.legend()
    return fig


@styled
def decode_times(series: Mapping[str, Mapping[int, float]], title: str = "") -> Figure:
    """Milliseconds of a decode step against context length: form -> {context: milliseconds}."""
    fig, axes = figure(9, 4.6)
    ax = axes[0, 0]
    for (name, times), colour, marker in zip(series.items(), (RED, BLUE, GREEN), "so^"):
        ax.plot(times.keys(), times.values(), color=colour, marker=marker, markersize=8, label=name)
    contexts = list(next(iter(series.values())))
    ax.set(xscale="log", yscale="log", xlabel="tokens in the cache", ylabel="ms a step", title=title)
    ax.set_xticks(contexts, [str(context) for context in contexts])
    ax.minorticks_off()
    ax.legend()
    return fig


@styled
def rivals(
    losses: Mapping[str, Sequence[float]], found: Mapping[str, Sequence[float]], cached: int
) -> Figure:
    """Ways of attention with equally many cached numbers: loss of text and needles found, a dot a seed, a bar the mean.

    losses, found: arm -> one number a seed; cached: numbers a token and layer, for the title.
    """
    fig, axes = figure(11.0, 4.6, 1, 2)
    panels = (
        (axes[0, 0], losses, "held-out loss (nats a token)"),
        (axes[0, 1], found, "needles found (share)"),
    )
    for ax, values, label in panels:
        for place, (arm, points) in enumerate(values.items()):
            colour = BLUE if arm == "MLA" else GREY
            ax.plot([place - 0.25, place + 0.25], [np.mean(points)] * 2, color=colour, linewidth=4)
            ax.plot([place] * len(points), points, "o", color=BLACK, markersize=6, alpha=0.7)
        ax.set_xticks(range(len(values)), list(values))
        ax.set(ylabel=label)
    axes[0, 1].set_ylim(-0.03, 1.03)
    fig.suptitle(f"Equal cache: {cached} numbers a token and layer", fontsize=FONT + 2)
    return fig
