"""Figures of agents and their verifiers, as pure functions of plain numbers like those of `viz`.

token_strip       a conversation token by token: who wrote it, and is it trained on?
turn_figure       one turn of a trajectory: thought, call, result, the state after it, what it cost
funnel            how many trajectories each stage lets through
error_rates       how often a verifier errs, kind by kind, with 95% intervals
arms              success of several trainings, one dot a seed
by_level          a share for each level, some pools side by side
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
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
    styled,
)

# -- tokens --------------------------------------------------------------------------------------------

AUTHORS = {"template": "#E2E2E2", "user": "#CFE3F3", "environment": "#FBE0A8", "model": "#BCE8D6"}
CHAR, ROW = 0.104, 0.40  # inches of a character and of a row of tokens
ROW_CHARS = 92


@styled
def token_strip(
    tokens: Sequence[str],
    authors: Sequence[str],
    trained: Sequence[bool],
    breaks: Sequence[int] = (),
    title: str = "",
) -> Figure:
    """A box a token: its colour says who wrote it, a bar under it that its loss is trained on.

    tokens, authors (keys of AUTHORS) and trained are of one length; a new row begins before each index in `breaks`.
    Raises ValueError when the lengths differ.
    """
    if not len(tokens) == len(authors) == len(trained):
        raise ValueError(f"{len(tokens)} tokens, {len(authors)} authors, {len(trained)} marks")
    places, rows = _rows_of([_visible(token) for token in tokens], set(breaks))
    fig, axes = figure(ROW_CHARS * CHAR + 0.3, rows * ROW + 1.1)
    ax = axes[0, 0]
    ax.set(xlim=(0, ROW_CHARS), ylim=(rows, -0.1))
    ax.axis("off")
    for token, author, learned, (row, x) in zip(tokens, authors, trained, places):
        text = _visible(token)
        width = len(text) + 0.3
        ax.broken_barh(
            [(x, width)], (row + 0.1, 0.62), facecolor=AUTHORS[author], edgecolor="white", linewidth=1
        )
        if learned:
            ax.broken_barh([(x, width)], (row + 0.72, 0.12), facecolor=GREEN)
        ax.text(
            x + width / 2,
            row + 0.42,
            text,
            family="monospace",
            fontsize=11.5,
            ha="center",
            va="center",
            color=BLACK,
            weight="bold" if text.startswith("<|") or "think>" in text else "normal",
            parse_math=False,
        )
    ax.set_title(title)
    for author, colour in AUTHORS.items():
        ax.bar(0, 0, color=colour, label=f"{author} ({list(authors).count(author)})")
    ax.bar(0, 0, color=GREEN, label=f"trained on ({sum(map(bool, trained))})")
    fig.legend(loc="outside lower left", ncols=5, fontsize=FONT - 1, columnspacing=1.2, handlelength=1.2)
    return fig


def _visible(token: str) -> str:
    return token.replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥") or "∅"


def _rows_of(texts: Sequence[str], breaks: set[int]) -> tuple[list[tuple[int, float]], int]:
    """(row, x) of every token, and how many rows there are."""
    places, row, x = [], 0, 0.0
    for index, text in enumerate(texts):
        width = len(text) + 0.3
        if x and (index in breaks or x + width > ROW_CHARS):
            row, x = row + 1, 0.0
        places.append((row, x))
        x += width
    return places, row + 1


# -- one turn ------------------------------------------------------------------------------------------

PIECES = {  # kind -> (colour of its label, background)
    "task": ("#707070", "#F4F4F4"),
    "thought": ("#CC79A7", "#FAF0F6"),
    "call": (BLUE, "#EAF3F9"),
    "result": (ORANGE, "#FDF5E6"),
    "answer": (GREEN, "#E8F6F2"),
}
COLUMNS = 58  # characters a line


@styled
def turn_figure(
    task: str,
    pieces: Sequence[tuple[str, str, int]],
    state: Sequence[Sequence[str]],
    spent: Mapping[str, int],
    title: str = "",
    changed: Sequence[int] = (),
) -> Figure:
    """One turn: the task, its pieces (kind, text, tokens), the state after it as a table, and the tokens spent so far.

    state: rows of text, the first is the head; `changed` rows (counted from the head) stand out. The figure's size
    does not depend on the turn, so that nothing jumps while a slider moves.
    """
    fig, axes = figure(12, 5.2, 2, 2, height_ratios=[4.6, 1], width_ratios=[1.75, 1])
    _draw_pieces(axes[0, 0], [("task", task, 0), *pieces])
    _draw_state(axes[0, 1], state, set(changed))
    for ax in axes[1]:
        ax.remove()
    ax = fig.add_subplot(axes[0, 0].get_gridspec()[1, :])
    left = 0
    for (name, count), colour in zip(spent.items(), (GREY, GREEN, ORANGE)):
        ax.barh(0, count, left=left, color=colour, label=f"{name} {count}")
        left += count
    ax.set(xlim=(0, max(400, left)), yticks=[], xlabel="tokens in the context so far")
    ax.tick_params(labelsize=FONT)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, 1.7), ncols=3)
    fig.suptitle(title, x=0.01, ha="left", fontsize=FONT + 2)
    return fig


def _draw_pieces(ax: Axes, pieces: Sequence[tuple[str, str, int]]) -> None:
    blocks = [_wrapped(text) for _, text, _ in pieces]
    ax.set(xlim=(0, 1), ylim=(12, 0))
    ax.axis("off")
    y = 0.0
    for (kind, _, tokens), lines in zip(pieces, blocks):
        colour, background = PIECES[kind]
        height = len(lines) + 0.35
        ax.broken_barh([(0, 0.13)], (y, height), facecolor=colour)
        ax.broken_barh([(0.135, 0.865)], (y, height), facecolor=background)
        ax.text(0.065, y + 0.68, kind, color="white", weight="bold", ha="center", va="center")
        for row, line in enumerate(lines):
            ax.text(
                0.15,
                y + 0.68 + row,
                line,
                family="monospace",
                fontsize=FONT - 1,
                va="center",
                color=BLACK,
                parse_math=False,
            )
        if tokens:
            ax.text(0.99, y + height - 0.55, f"{tokens} tokens", ha="right", va="center", color="#666666")
        y += height + 0.3


def _wrapped(text: str) -> list[str]:
    return [part for line in text.split("\n") for part in textwrap.wrap(line, COLUMNS) or [""]]


def _draw_state(ax: Axes, rows: Sequence[Sequence[str]], changed: set[int]) -> None:
    ax.axis("off")
    table = ax.table([list(row) for row in rows], loc="upper center", cellLoc="left", bbox=None)
    table.auto_set_font_size(False)
    table.auto_set_column_width(list(range(len(rows[0]))))
    table.scale(1, 1.55)
    for (row, _), cell in table.get_celld().items():
        cell.set(
            edgecolor="#DDDDDD", facecolor="#FBE0A8" if row in changed else "#F4F4F4" if row == 0 else "white"
        )
        cell.set_text_props(
            fontsize=FONT - 1, weight="bold" if row == 0 else "normal", color=BLACK, parse_math=False
        )
    ax.set_title("state after this turn")


# -- verifiers -----------------------------------------------------------------------------------------


@styled
def funnel(
    stages: Mapping[str, int],
    notes: Mapping[str, str] | None = None,
    title: str = "",
    kept: str | None = None,
) -> Figure:
    """What is left after each stage: name -> count, from the top, and its share of the stage before; `notes` stand
    under a stage. Green is the stage that is `kept` (the last, unless it is named); what stands below only looks on."""
    fig, axes = figure(10, 0.9 * len(stages) + 0.8)
    ax = axes[0, 0]
    ax.axis("off")
    top, previous, end = max(stages.values()), None, 0.52
    last = list(stages).index(kept) if kept else len(stages) - 1
    for row, (name, count) in enumerate(stages.items()):
        width = max(count / top, 0.004)
        colour = PALETTE[0] if row < last else GREEN if row == last else GREY
        ax.barh(row, width, left=-width / 2, height=0.78, color=colour)
        text = f"{name}: {count:,}" + (f"  ({count / previous:.0%})" if previous else "")
        inside = width > 0.0125 * len(text)  # a wide bar holds its text, a narrow one has it beside
        ax.text(
            0 if inside else width / 2 + 0.015,
            row,
            text,
            va="center",
            ha="center" if inside else "left",
            color="white" if inside else BLACK,
            weight="bold",
        )
        if not inside:
            end = max(end, width / 2 + 0.0135 * len(text))
        if notes and name in notes:
            ax.text(0.0, row + 0.5, notes[name], ha="center", va="center", color="#555555", fontsize=FONT - 1)
        previous = count
    ax.set(xlim=(-0.52, end), ylim=(len(stages) - 0.4, -0.6), title=title)
    return fig


@styled
def error_rates(
    rows: Sequence[Mapping],
    limit: float = 0.01,
    title: str = "",
    most: float | None = None,
    label: str = "errors",
) -> Figure:
    """One line a kind: {name, value, low, high, n}, with its 95% interval, and the limit to stay under.

    `most`: right end of the axis (by default what the intervals need).
    """
    fig, axes = figure(11, 0.38 * len(rows) + 1.6)
    ax = axes[0, 0]
    for y, row in enumerate(rows):
        colour = RED if row["value"] > limit else GREEN
        ax.plot([100 * row["low"], 100 * row["high"]], [y, y], color=colour, linewidth=3, alpha=0.45)
        ax.plot(100 * row["value"], y, "o", color=colour, markersize=9)
        text = f"{100 * row['value']:.1f}%  of {row['n']}"
        ax.annotate(
            text, (100 * row["high"], y), (8, 0), textcoords="offset points", va="center", fontsize=FONT - 1
        )
    ax.axvline(100 * limit, color=BLACK, linestyle="--", linewidth=1.5)
    ax.set_yticks(range(len(rows)), [row["name"] for row in rows])
    end = 100 * (most or max(max(row["high"] for row in rows), 2 * limit))
    ax.set(
        xlim=(-0.02 * end, 1.22 * end),
        ylim=(len(rows) - 0.4, -0.6),
        xlabel=f"{label} (%), dashed: {limit:.0%}",
        title=title,
    )
    ax.grid(axis="y", visible=False)
    return fig


ARM_COLOURS = {"before": SKY, "everything": GREY, "broken": ORANGE, "passed": GREEN}


@styled
def arms(
    scores: Mapping[str, Mapping[str, Sequence[float]]], title: str = "", ylabel: str = "success"
) -> Figure:
    """Several trainings under several conditions: condition -> arm -> one value a seed. Bars are means."""
    names = list(next(iter(scores.values())))
    fig, axes = figure(10, 4.6)
    ax = axes[0, 0]
    width = 0.8 / len(names)
    for index, name in enumerate(names):
        colour = ARM_COLOURS.get(name, PALETTE[index % len(PALETTE)])
        for x, values in enumerate(scores[condition][name] for condition in scores):
            place = x + (index - (len(names) - 1) / 2) * width
            ax.bar(
                place, np.mean(values), width * 0.92, color=colour, alpha=0.75, label=name if x == 0 else None
            )
            ax.plot([place] * len(values), values, "o", color=BLACK, markersize=6, alpha=0.8)
            ax.text(place, max(values) + 0.03, f"{np.mean(values):.2f}", ha="center")
    ax.set_xticks(range(len(scores)), list(scores))
    ax.set(ylim=(0, 1.12), ylabel=ylabel, title=title)
    ax.grid(axis="x", visible=False)
    fig.legend(loc="outside lower center", ncols=len(names))
    return fig


@styled
def by_level(
    pools: Mapping[str, Mapping[int, float]], title: str = "", xlabel: str = "level", ylabel: str = ""
) -> Figure:
    """A share for each level, the pools side by side: pool -> level -> share (0 to 1)."""
    levels = list(next(iter(pools.values())))
    fig, axes = figure(10, 4.2)
    ax = axes[0, 0]
    width = 0.8 / len(pools)
    for index, ((name, shares), colour) in enumerate(zip(pools.items(), (GREY, BLUE, GREEN, ORANGE))):
        places = np.arange(len(levels)) + (index - (len(pools) - 1) / 2) * width
        values = [100 * shares[level] for level in levels]
        ax.bar(places, values, width * 0.92, color=colour, label=name)
        for place, value in zip(places, values):
            ax.annotate(f"{value:.0f}", (place, value), (0, 3), textcoords="offset points", ha="center")
    ax.set_xticks(range(len(levels)), [str(level) for level in levels])
    ax.set(xlabel=xlabel, ylabel=ylabel, title=title)
    ax.margins(y=0.15)
    ax.grid(axis="x", visible=False)
    fig.legend(loc="outside lower center", ncols=len(pools))
    return fig
