"""Figures of agents and verifiers show the numbers that they were given, and refuse what does not fit together."""

import io

import pytest

from kimi_mini.course.figures import agent
from kimi_mini.course.figures.style import GREEN, RED


def texts(fig) -> str:
    """Everything written on a figure, after drawing it once."""
    fig.savefig(io.BytesIO(), format="png", dpi=40)
    found = [text.get_text() for ax in fig.axes for text in ax.texts] + [
        ax.get_title("left") for ax in fig.axes
    ]
    found += [text.get_text() for legend in fig.legends for text in legend.get_texts()]
    found += [label.get_text() for ax in fig.axes for label in [*ax.get_yticklabels(), *ax.get_xticklabels()]]
    return "\n".join(found)


TOKENS = ["<|im_user|>", "user", " hi", "\n", "<think>", "ok"]
AUTHORS = ["template", "template", "user", "user", "model", "model"]


def test_the_strip_shows_every_token_and_counts_who_wrote_it():
    fig = agent.token_strip(TOKENS, AUTHORS, [False] * 4 + [True] * 2, [4], "t")
    shown = texts(fig)
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
    shown = texts(fig)
    assert all(part in shown for part in ("Buy it.", "look", "$fig$", "9 tokens", "state after this turn"))
    assert "turn 1 of 2" in fig.get_suptitle()
    later = agent.turn_figure("Buy it.", pieces[:1], state, {"prompt": 80, "model": 200}, "turn 2 of 2")
    assert tuple(fig.get_size_inches()) == tuple(later.get_size_inches())  # nothing jumps under a slider


@pytest.mark.parametrize(
    "stages", [{"a": 1000, "b": 400, "kept": 3}, {"all": 5, "none": 0}, {"a": 7, "b": 7}]
)
def test_the_funnel_shows_every_count_and_its_share(stages):
    shown = texts(agent.funnel(stages, {"b": "why"}))
    assert all(f"{name}: {count:,}" in shown for name, count in stages.items())
    if "kept" in stages:
        assert "(40%)" in shown and "why" in shown


def test_rates_above_the_limit_stand_out():
    rows = [
        {"name": "good", "value": 0.0, "low": 0.0, "high": 0.02, "n": 500},
        {"name": "bad", "value": 0.2, "low": 0.1, "high": 0.3, "n": 50},
    ]
    fig = agent.error_rates(rows, 0.01, "title")
    colours = [line.get_color() for line in fig.axes[0].lines]
    assert colours[:4] == [GREEN, GREEN, RED, RED]
    assert all(part in texts(fig) for part in ("good", "20.0%  of 50", "0.0%  of 500"))


def test_arms_show_means_and_one_dot_a_seed():
    fig = agent.arms(
        {
            "greedy": {"before": [0.2, 0.4], "passed": [0.9, 0.7]},
            "sampled": {"before": [0.1, 0.1], "passed": [1.0, 1.0]},
        }
    )
    assert all(part in texts(fig) for part in ("0.30", "0.80", "1.00", "before", "passed", "greedy"))
    assert sum(len(line.get_xdata()) for line in fig.axes[0].lines) == 8


def test_levels_side_by_side():
    shown = texts(agent.by_level({"made": {1: 0.5, 2: 0.5}, "passed": {1: 0.9, 2: 0.1}}, "t"))
    assert all(part in shown for part in ("50", "90", "10", "made", "passed"))
