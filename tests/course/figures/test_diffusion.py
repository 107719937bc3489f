"""Figures of text that is refined show the tokens, times and numbers that they were given."""

import numpy as np
import pytest
from drawn import texts

from kimi_mini.course.figures.model import diffusion

MASK = 9


def faces(ax):
    return [patch.get_facecolor() for patch in ax.patches]


def test_the_kind_of_a_token_comes_from_the_step_before():
    before, now = [1, MASK, MASK, 4, 5], [1, 2, MASK, MASK, 5]
    given = [True, False, False, False, False]
    found = diffusion.kinds(before, now, MASK, given)
    assert found == ["given", "new", "masked", "taken back", "written"]
    assert diffusion.kinds(None, now, MASK, given) == ["given", "written", "masked", "masked", "written"]


def test_a_canvas_shows_no_masked_word():
    of = ["given", "masked", "new", "written", "taken back"]
    fig = diffusion.canvas(["a", "b", "c", "d", "e"], of, "title", columns=3)
    shown = texts(fig)
    assert {"a", "c", "d"} <= set(shown) and not {"b", "e"} & set(shown)
    assert len(set(faces(fig.axes[0]))) == 5
    assert set(of) <= set(shown), "the legend names each kind that is there"


def test_noise_masks_what_lies_below_t():
    fig = diffusion.noise(["a", "b", "c", "d"], [0.1, 0.9, 0.3, 0.6], 0.5)
    assert not {"a", "c"} & set(texts(fig)) and {"b", "d"} <= set(texts(fig))
    assert "2 of 4" in fig.axes[0].get_title(loc="left") and "= 2.0" in fig.axes[0].get_title(loc="left")
    share, average, product, now = fig.axes[1].lines
    assert list(now.get_xdata()) == [0.5, 0.5]
    assert product.get_ydata() == pytest.approx(share.get_ydata() / average.get_xdata())


def test_estimates_are_running_means():
    fig = diffusion.estimates({"a": [1.0, 3.0, 5.0]}, {"exact": 3.5})
    mean, exact = fig.axes[0].lines
    assert list(mean.get_ydata()) == [1, 2, 3] and exact.get_ydata()[0] == 3.5


def test_orders_tell_the_text_from_its_room_and_leave_out_what_was_given():
    fig = diffusion.orders({"left": [-1, 0, 1, 2], "random": [2, 0, 3, 1]}, {"left": 2, "random": 3})
    text, room = fig.axes[0].lines
    assert list(text.get_xdata()) == [1, 2] and list(room.get_xdata()) == [3]
    assert list(fig.axes[1].lines[0].get_ydata()) == [2, 0, 3, 1]


def test_a_landscape_sorts_by_reward_and_adds_up_chances():
    fig = diffusion.landscape([0.1, 0.6, 0.3], [0.0, 1.0, 0.0], ["x", "y", "z"])
    assert [bar.get_height() for bar in fig.axes[0].patches] == pytest.approx([0.6, 0.1, 0.3])
    assert [label.get_text() for label in fig.axes[0].get_xticklabels()] == ["y", "x", "z"]
    assert "reward 1: 0.60" in texts(fig) and "reward 0: 0.40" in texts(fig)


def test_bars_and_curves_hold_every_seed():
    nats = {"add": {"bound": [0.5, 0.7], "loss": [0.4, 0.4]}}
    fig = diffusion.bounds(nats, {"gap": {"refining": [1.0], "writing": [0.0]}})
    assert [bar.get_height() for bar in fig.axes[0].patches] == pytest.approx([0.6, 0.4])
    fig = diffusion.steps({"confidence": [(24, 0.8, 0.7, 0.9), (48, 0.9, 0.9, 0.9)]}, 0.95, 48)
    assert np.allclose(fig.axes[0].lines[0].get_xdata(), [24, 48])
