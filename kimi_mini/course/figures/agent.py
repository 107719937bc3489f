"""Figures of an agent at work. `trace` shows whole conversations.

token_strip       a conversation token by token: who wrote it, and is it trained on?
turn_figure       one turn of a trajectory: thought, call, result, the state after it, what it cost
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kimi_mini.course.figures.style import BLACK, FONT, GREEN, GREY, ORANGE, figure, styled, visible
from kimi_mini.course.figures.trace import draw_piece, wrapped

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
    places, rows = _rows_of([visible(token) for token in tokens], set(breaks))
    fig, axes = figure(ROW_CHARS * CHAR + 0.3, rows * ROW + 1.1)
    ax = axes[0, 0]
    ax.set(xlim=(0, ROW_CHARS), ylim=(rows, -0.1))
    ax.axis("off")
    for token, author, learned, (row, x) in zip(tokens, authors, trained, places):
        text = visible(token)
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

COLUMNS = 58  # characters a line of a piece


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
    axes[0, 0].set(xlim=(0, 1), ylim=(12, 0))
    axes[0, 0].axis("off")
    y = 0.0
    for kind, text, cost in [("task", task, 0), *pieces]:
        note = f"{cost} tokens" if cost else ""
        y = draw_piece(axes[0, 0], kind, wrapped(text, COLUMNS), y, note, label=0.13)
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
