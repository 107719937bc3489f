"""Figures of routing show the numbers that they were given."""

import numpy as np
import pytest
from drawn import texts, written

from kimi_mini.course.figures import routing


def test_routing_heatmap_shows_each_weight_at_its_expert_and_token():
    table = routing.dense_routing([[2, 0], [1, 2]], [[0.7, 0.3], [0.6, 0.4]], 4)
    np.testing.assert_array_equal(table, [[0.3, 0], [0, 0.6], [0.7, 0.4], [0, 0]])
    fig = routing.routing_heatmap(["a b", "\n"], table, "layer 1")
    shown = fig.axes[0].images[0].get_array()
    np.testing.assert_array_equal(shown.filled(0), table)
    assert shown.mask[3].all() and {"a␣b", "⏎", "layer 1"} <= set(texts(fig))
    with pytest.raises(ValueError, match="3 tokens"):
        routing.routing_heatmap(["a", "b", "c"], table)


def test_the_heatmap_marks_the_tokens_of_its_expert():
    table = np.array([[0.0, 1.2, 0.0], [0.7, 0.0, 0.5]])
    fig = routing.routing_heatmap(["def", " x", "\n"], table, "here", expert=1)
    assert {"def", "␣x", "⏎", "here"} <= set(texts(fig))
    bold = [label.get_text() for label in fig.axes[0].get_xticklabels() if label.get_fontweight() == "bold"]
    assert bold == ["def", "⏎"]
    image = fig.axes[0].images[0].get_array()
    assert image.mask.tolist() == (table == 0).tolist()


@pytest.mark.parametrize(("tokens", "expert"), [(["a"], 0), (["a", "b", "c"], 2), (["a", "b", "c"], -1)])
def test_a_table_that_does_not_fit_is_refused(tokens, expert):
    with pytest.raises(ValueError, match="table"):
        routing.routing_heatmap(tokens, np.ones((2, 3)), expert=expert)


def test_dollars_in_a_text_are_not_mathematics():
    fig = routing.routing_heatmap(["$x^", "$"], np.ones((2, 2)))
    assert "$x^" in texts(fig) and not any(label.get_parse_math() for label in fig.axes[0].get_xticklabels())


def test_use_by_domain_is_relative_to_an_equal_share():
    shares = np.array([[[0.5, 0.25, 0.25, 0.0], [0.25] * 4]])
    fig = routing.use_by_domain(shares, ["Python", "prose"])
    assert fig.axes[0].images[0].get_array().tolist() == [[2, 1, 1, 0], [1, 1, 1, 1]]
    assert "Python" in written(fig) and "MoE layer 1" in written(fig)


def test_meetings_leave_the_diagonal_out():
    fig = routing.meetings(np.array([[0.0, 1.5], [1.5, 0.0]]))
    assert fig.axes[0].images[0].get_array().mask.tolist() == [[True, False], [False, True]]


def test_gate_weights_are_sorted_shares():
    fig = routing.gate_weights(np.array([[[0.5, 1.5]], [[1.2, 0.8]]]), 2.0)
    best, second = ([p.get_x() for p in bars if p.get_height()] for bars in fig.axes[0].containers)
    assert min(best) >= 0.5 > max(second)


def test_violation_draws_one_line_a_name():
    fig = routing.violation({"a": [2, 1], "b": [1, 1]}, "t", 0.35)
    assert [line.get_label() for line in fig.axes[0].lines] == ["a", "b", "0.35"]
