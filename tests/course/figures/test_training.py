"""Figures of training runs draw what they are given."""

import numpy as np
import pytest

from kimi_mini.course.figures.training import lines, running_mean, to_the_same_loss


def test_lines_shows_every_panel_and_label():
    steps = list(range(30))
    fig = lines(
        {"loss": {"a": (steps, steps), "b": (steps, steps[::-1])}, "norm": {"a": (steps, steps)}},
        "step",
        ("nats", ""),
        smooth=5,
        levels={"norm": 1.0},
    )
    first, second = fig.axes
    assert first.get_title(loc="left") == "loss" and second.get_title(loc="left") == "norm"
    assert [text.get_text() for text in first.get_legend().get_texts()] == ["a", "b"]
    assert second.get_legend() is None
    assert any(list(line.get_ydata()) == [1.0, 1.0] for line in second.lines)


def test_a_running_mean_keeps_its_ends_honest():
    assert running_mean([1, 1, 1, 1], 3) == pytest.approx([1, 1, 1, 1])
    assert running_mean([0, 3, 0], 3) == pytest.approx([1.5, 1, 1.5])
    assert np.array_equal(running_mean([4, 5], 1), [4, 5])


def test_the_same_loss_is_marked_where_it_is_reached():
    fig = to_the_same_loss(
        {"x": ([1, 2, 4], [3, 2, 1]), "y": ([2, 4, 8], [3, 2, 1])}, 2.0, {"x": 2, "y": 4}, "tokens"
    )
    marks = [tuple(line.get_xydata()[0]) for line in fig.axes[0].lines if line.get_marker() == "D"]
    assert marks == [(2, 2.0), (4, 2.0)]


def test_a_loss_beyond_the_runs_of_a_way_is_not_marked():
    fig = to_the_same_loss(
        {"x": ([1, 2, 4], [3, 2, 1]), "y": ([2, 4, 8], [5, 4, 3])}, 2.0, {"x": 2, "y": None}, "tokens"
    )
    marks = [tuple(line.get_xydata()[0]) for line in fig.axes[0].lines if line.get_marker() == "D"]
    assert marks == [(2, 2.0)]
    assert [text.get_text() for text in fig.axes[0].get_legend().get_texts()] == ["x: 2", "y: not measured"]
