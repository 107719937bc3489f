"""One conversation with an agent, drawn: who wrote what, in the order in which it happened.

A piece holds text of the messages, verbatim and whole: nothing appears here that nobody wrote. The author decides
the colour: what the model wrote (thought, call, answer) is what it is trained on; all else was given to it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kimi_mini.agent.traces import pieces
from kimi_mini.course.figures.style import BLACK, BLUE, FONT, GREEN, ORANGE, PURPLE, figure, styled

KINDS = {  # kind -> (colour, background)
    "system": ("#707070", "#F4F4F4"),
    "task": ("#707070", "#F4F4F4"),
    "user": (BLACK, "#EFEFEF"),
    "thought": (PURPLE, "#FAF0F6"),
    "call": (BLUE, "#EAF3F9"),
    "result": (ORANGE, "#FDF5E6"),
    "answer": (GREEN, "#E8F6F2"),
}
WIDTH, LINE = 10.0, 0.255  # inches: of the figure, and of a line of text
COLUMNS = 66  # characters a line
# readable on its colour
LABEL = {kind: BLACK if kind in ("thought", "result") else "white" for kind in KINDS}
MOST_LINES = 34  # a longer trace scrolls: the newest pieces stay in sight


@styled
def trace_figure(
    messages: Sequence[dict], step: int | None = None, tokens: Sequence[int] | None = None, title: str = ""
) -> Figure:
    """The first `step` pieces (default all) as a picture. Its size depends on the whole trace, so that nothing
    jumps while a slider moves. tokens: cost of each piece; what has been spent so far stands in the title."""
    found = pieces(messages)
    count = len(found) if step is None else max(0, min(step, len(found)))
    blocks = [wrapped(piece.text, COLUMNS) for piece in found]
    total = min(sum(len(block) + 0.7 for block in blocks), MOST_LINES)
    first = _first_in_sight(blocks, count)
    fig, axes = figure(WIDTH, LINE * (total + 2.4))
    ax = axes[0, 0]
    ax.set(xlim=(0, 1), ylim=(total + 0.3, 0))
    ax.axis("off")
    ax.set_title(_title(title, count, len(found), first, tokens))
    y = 0.3
    for index in range(first, count):
        cost = f", {tokens[index]} tokens" if tokens else ""
        newest = step is not None and index == count - 1
        y = draw_piece(ax, found[index].kind, blocks[index], y, found[index].author + cost, newest)
    return fig


def wrapped(text: str, columns: int) -> list[str]:
    """The lines of a text, none longer than `columns` characters; white space stays."""
    lines = []
    for line in text.split("\n"):
        lines += textwrap.wrap(line, columns, drop_whitespace=False, replace_whitespace=False) or [""]
    return lines


def _first_in_sight(blocks: Sequence[Sequence[str]], count: int) -> int:
    """Index of the first piece that fits above the newest one."""
    room, first = MOST_LINES, count
    while first > 0 and (room := room - len(blocks[first - 1]) - 0.7) >= 0:
        first -= 1
    return min(first, max(count - 1, 0))


def _title(title: str, count: int, total: int, first: int, tokens: Sequence[int] | None) -> str:
    parts = [title] if title else []
    parts.append(f"step {count} of {total}")
    if tokens:
        parts.append(f"{sum(tokens[:count])} tokens so far")
    if first:
        parts.append(f"{first} earlier pieces scrolled away")
    return "  ·  ".join(parts)


def draw_piece(
    ax: Axes, kind: str, lines: Sequence[str], y: float, note: str, newest: bool = False, label: float = 0.105
) -> float:
    """Draw one block of text from y downwards, its kind at the left, a note at the right; `newest` gives it a frame.

    label: width of the field for its kind. A line is 1 high, the axes are 1 wide. Returns where the next one begins.
    """
    colour, background = KINDS[kind]
    height = len(lines) + 0.4
    edge = {"edgecolor": colour, "linewidth": 2.5 if newest else 0}
    ax.axhspan(y, y + height, label + 0.005, 1.0, facecolor=background, **edge)
    ax.axhspan(y, y + height, 0.0, label, facecolor=colour)
    middle = y + 0.7
    ax.text(label / 2, middle, kind, color=LABEL[kind], weight="bold", ha="center", va="center")
    ax.text(0.99, middle, note, color="#666666", ha="right", va="center", fontsize=FONT - 1)
    plain = {"family": "monospace", "fontsize": FONT - 1, "va": "center", "color": BLACK, "parse_math": False}
    for row, line in enumerate(lines):
        ax.text(label + 0.015, middle + row, line, **plain)
    return y + height + 0.3
