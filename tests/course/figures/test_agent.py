"""Figures of agents show the numbers that they were given, and refuse what does not fit together."""

import pytest
from drawn import written

from kimi_mini.course.figures import agent
from kimi_mini.course.figures.style import GREEN

TOKENS = ["<|im_user|>", "user", " hi", "\n", "<think>", "ok"]


AUTHORS = ["template", "template", "user", "user", "model", "model"]


def test_the_strip_shows_every_token_and_counts_who_wrote_it():
    fig = agent.token_strip(TOKENS, AUTHORS, [False] * 4 + [True] * 2, [4], "t")
    shown = written(fig)
    assert all(
        part in shown
        for part in ("<|im_user|>", "␣hi", "⏎", "<think>", "model (2)", "user (2)", "trained on (2)")
    )
    bars = [
        c for c in fig.axes[0].collections if tuple(c.get_facecolor()[0][:3]) == pytest.approx(rgb(GREEN))
    ]
    assert len(bars) == 2  # one mark under each trained token, none elsewhere


def rgb(colour: str) -> tuple[float, ...]:
    return tuple(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))


def test_a_row_breaks_where_it_is_asked_to_and_where_it_is_full():
    places, rows = agent._rows_of(["ab", "cd", "ef"], {2})
    assert [row for row, _ in places] == [0, 0, 1] and rows == 2
    places, rows = agent._rows_of(["x" * 60] * 3, set())
    assert [row for row, _ in places] == [0, 1, 2] and rows == 3


def test_lists_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match="6 tokens, 5 authors"):
        agent.token_strip(TOKENS, AUTHORS[:5], [True] * 6)


def test_a_turn_shows_its_pieces_the_state_and_what_was_spent():
    pieces = [("thought", "look", 5), ("call", 'price {"item":"$fig$"}', 9), ("result", '{"price":1}', 4)]
    state = [["item", "price"], ["$fig$", "1"]]
    fig = agent.turn_figure("Buy it.", pieces, state, {"prompt": 80, "model": 14}, "turn 1 of 2", [1])
    shown = written(fig)
    assert all(part in shown for part in ("Buy it.", "look", "$fig$", "9 tokens", "state after this turn"))
    assert "turn 1 of 2" in fig.get_suptitle()
    later = agent.turn_figure("Buy it.", pieces[:1], state, {"prompt": 80, "model": 200}, "turn 2 of 2")
    assert tuple(fig.get_size_inches()) == tuple(later.get_size_inches())  # nothing jumps under a slider
