"""Figures of thinking mode say what their numbers say."""

import pytest

from kimi_mini.course.figures import thinking


def heights(ax):
    return [round(bar.get_height(), 6) for bar in ax.patches]


def test_every_name_has_its_bar_and_the_rest_is_shown_too():
    ax = thinking.name_weights([0.1, 0.2, 0.4], most=9, title="call 4").axes[0]
    assert heights(ax) == [0.1, 0.2, 0.4, 0.3]  # older names, the newest, everything else
    assert ax.get_xlim() == thinking.name_weights([1.0], most=9).axes[0].get_xlim()  # nothing jumps
    for wrong in ([], [0.1] * 10, [0.9, 0.9]):
        with pytest.raises(ValueError, match="do not fit"):
            thinking.name_weights(wrong, most=9)


def test_reliability_multiplies():
    ax = thinking.reliability({"0.5": 0.5, "1": 1.0}, most=10).axes[0]
    half, sure = (line.get_ydata() for line in ax.lines)
    assert half[0] == 0.5 and half[2] == 0.125 and set(sure) == {1.0}
