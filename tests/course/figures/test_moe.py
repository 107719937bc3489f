"""Figures of what was measured of mixtures of experts show the numbers that they were given."""

import io

import pytest
from drawn import written

from kimi_mini.course.figures import moe

BAR = {"value": 0.4, "low": 0.3, "high": 0.5}


def test_specialisation_shows_bits_their_control_and_every_rise():
    fig = moe.specialisation(
        {"domain": [BAR, BAR]},
        {"domain": [0.1, 0.02]},
        {"a": [0.2, 0.001], "random": [0.0, -0.01]},
        ["a", "b"],
    )
    shown = written(fig)
    assert all(
        part in shown
        for part in ("+0.30", "+0.38", "+0.200", "-0.010", "top expert of\na", "random", "labels shuffled")
    )


def test_balance_and_sparsity_show_every_way_and_every_model():
    curves = {name: [1.0, 0.3] for name in moe.WORDS}
    shown = written(
        moe.balance(curves, curves, {"sign": BAR, "loss": BAR | {"low": None, "high": None}}, 1_000_000)
    )
    assert all(name in shown for name in moe.WORDS.values())
    loss, seconds = {"8": BAR, "16": BAR, "dense": BAR}, {"8": 10.0, "16": 12.0, "dense": 9.0}
    shown = written(
        moe.sparsity(
            {"text": (loss, seconds, {2.0: BAR, 4.0: BAR}, CURVES), "facts": (loss, seconds, None, CURVES)},
            {8: 1.0, 48: 1.69},
        )
    )
    wanted = (
        "8",
        "16",
        "dense",
        "K2 report",
        "95% t interval",
        "text: over the tokens",
        "facts: over activated FLOPs",
    )
    assert all(name in shown for name in wanted)


CURVES = {"8": ([0, 1000], [0, 2e12], [3.0, 1.0]), "dense": ([0, 1000], [0, 4e12], [3.0, 2.0])}


def test_an_interval_below_zero_leaves_a_logarithmic_axis_at_half_the_least_mean():
    loss = {"8": {"value": 1.0, "low": 0.5, "high": 2.0}, "16": {"value": 0.1, "low": -0.3, "high": 0.4}}
    fig = moe.sparsity({part: (loss, {"8": 1.0, "16": 2.0}, None, CURVES) for part in ("a", "b")}, {})
    fig.savefig(io.BytesIO(), format="png", dpi=40)
    left, over, flops = (fig.axes[place] for place in (0, 2, 3))
    assert (
        left.get_yscale() == "log" and left.get_ylim()[0] == pytest.approx(0.05) and left.get_ylim()[1] > 2.0
    )
    assert [line.get_xdata()[-1] for line in over.lines] == [1, 1]
    assert [line.get_xdata()[-1] for line in flops.lines] == [2, 4]
