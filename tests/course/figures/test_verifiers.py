"""Figures of verifiers show the numbers that they were given."""

import pytest
from drawn import written

from kimi_mini.course.figures import verifiers
from kimi_mini.course.figures.style import GREEN, RED


@pytest.mark.parametrize(
    "stages", [{"a": 1000, "b": 400, "kept": 3}, {"all": 5, "none": 0}, {"a": 7, "b": 7}]
)
def test_the_funnel_shows_every_count_and_its_share(stages):
    shown = written(verifiers.funnel(stages, {"b": "why"}))
    assert all(f"{name}: {count:,}" in shown for name, count in stages.items())
    if "kept" in stages:
        assert "(40%)" in shown and "why" in shown


def test_rates_above_the_limit_stand_out():
    rows = [
        {"name": "good", "value": 0.0, "low": 0.0, "high": 0.02, "n": 500},
        {"name": "bad", "value": 0.2, "low": 0.1, "high": 0.3, "n": 50},
    ]
    fig = verifiers.error_rates(rows, 0.01, "title")
    colours = [line.get_color() for line in fig.axes[0].lines]
    assert colours[:4] == [GREEN, GREEN, RED, RED]
    assert all(part in written(fig) for part in ("good", "20.0%  of 50", "0.0%  of 500"))


def test_arms_show_means_and_one_dot_a_seed():
    fig = verifiers.arms(
        {
            "greedy": {"before": [0.2, 0.4], "passed": [0.9, 0.7]},
            "sampled": {"before": [0.1, 0.1], "passed": [1.0, 1.0]},
        }
    )
    assert all(part in written(fig) for part in ("0.30", "0.80", "1.00", "before", "passed", "greedy"))
    assert sum(len(line.get_xdata()) for line in fig.axes[0].lines) == 8


def test_levels_side_by_side():
    shown = written(verifiers.by_level({"made": {1: 0.5, 2: 0.5}, "passed": {1: 0.9, 2: 0.1}}, "t"))
    assert all(part in shown for part in ("50", "90", "10", "made", "passed"))
