"""Figures of RL show the numbers that they were given; an attempt is cut where there is no room, and says so."""

import pytest
from drawn import labels, written
from matplotlib.colors import to_hex

from kimi_mini.course.figures import rl
from kimi_mini.course.figures.style import BLUE, GREEN, GREY, ORANGE, RED

PATH = [("sweet ring", True), ("long pan", True), ("old box", False), ("new pot", True)]


def attempt(gain, steps=PATH):
    return {"advantage": gain, "reward": gain + 0.5, "tokens": 120, "steps": steps}


def test_a_bandit_is_drawn_with_what_its_pull_allows():
    ax = rl.bandit({"a": [0.5, 0.6], "b": [0.5, 0.9, 0.99]}, {"b": 0.8}).axes[0]
    assert [list(line.get_ydata()) for line in ax.lines] == [[0.5, 0.6], [0.5, 0.9, 0.99], [0.8, 0.8]]
    assert [line.get_color() for line in ax.lines] == [BLUE, ORANGE, ORANGE]


def test_rounds_have_a_panel_a_measure_and_do_not_jump():
    found = [
        {"success": 0.5, "tokens": 200.0, "moderate": 0.4},
        {"success": 0.7, "tokens": 150.0, "moderate": 0.1},
    ]
    one, both = rl.rounds({"live": found[:1]}, 12), rl.rounds({"live": found, "other": found[:1]}, 12, "t")
    assert [list(ax.lines[0].get_ydata()) for ax in both.axes] == [[0.5, 0.7], [200, 150], [0.4, 0.1]]
    assert [ax.get_xlim() for ax in one.axes] == [ax.get_xlim() for ax in both.axes]
    assert one.axes[0].get_ylim() == both.axes[0].get_ylim()
    assert all(words in written(both) for words in ("success", "tasks that teach", "live", "other"))
    assert "live" not in written(one)


def test_attempts_show_gains_and_where_they_went_wrong():
    fig = rl.attempts([attempt(0.5), attempt(-0.5, PATH[:2])], "round 3: $5")
    bars, text = fig.axes
    assert [bar.get_width() for bar in bars.patches] == [0.5, -0.5]
    assert [to_hex(bar.get_facecolor()) for bar in bars.patches] == [GREEN.lower(), RED.lower()]
    colours = [to_hex(field.get_bbox_patch().get_facecolor()) for field in text.texts]
    assert colours == [one.lower() for one in (GREEN, GREEN, RED, GREY, GREEN, GREEN)]
    assert all(words in written(fig) for words in ("+1.0, 120 tokens", "+0.0, 120", "old box", "round 3: $5"))


@pytest.mark.parametrize("length", [3, 10, 40, 77, 200])
def test_no_step_leaves_its_place(length):
    fields = rl.laid_out([("x" * length, True)] * 60)
    assert fields[-1][2] == "..." and {line for line, *_ in fields} <= set(range(rl.LINES))
    for (line, x, words, _), (next_line, next_x, *_) in zip(fields, [*fields[1:], (rl.LINES, 0)]):
        assert x + len(words) <= rl.COLUMNS
        assert next_line > line or next_x >= x + len(words) + 2
    assert rl.laid_out(PATH)[-1][2] == "new pot" and rl.laid_out([]) == []


def test_a_projector_can_show_them():
    drawn = (
        rl.bandit({"a": [0.5, 0.6]}),
        rl.rounds({"a": [{"success": 1, "tokens": 1, "moderate": 1}]}),
        rl.attempts([attempt(0.5)]),
    )
    for fig in drawn:
        assert min(text.get_fontsize() for text in labels(fig)) >= 12


def test_mismatch_has_a_panel_a_reference_and_a_dot_a_seed():
    rows = [
        {"seed": seed, "mismatch": name, "repair": repair, "error": 0.2, "dice_error": 0.8 + seed}
        | ({"tokens_error": 0.1} if repair == "replay" else {})
        | ({"effective": 0.1 if name == "int4" else 0.9} if repair == "none" else {})
        for seed in (0, 1)
        for name in ("int8", "int4")
        for repair in rl.REPAIRS
    ]
    fig = rl.mismatch(
        {"rows": [*rows, {"seed": 0, "mismatch": "other dice", "repair": "none", "dice_error": 1.5}]}
    )
    exact, tokens, dice = fig.axes
    dots = lambda ax: [len(line.get_xdata()) for line in ax.lines if line.get_marker() == "o"]
    assert dots(exact) == dots(dice) == [4] * 6 and dots(tokens) == [0, 0, 0, 4, 0, 0]
    assert [*dice.lines[-1].get_ydata()] == [1.5, 1.5] and dice.lines[-1].get_linestyle() == ":"
    assert [patch.get_x() for patch in exact.patches] == [0.5], "INT4 alone is grey"
    assert {"int8", "int4", "replay + mask", "other dice"} <= set(labels(fig)) | set(written(fig).split("\n"))
