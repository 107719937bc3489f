"""Figures of costs show the numbers that they were given, and say when a model does not fit."""

import pytest
from drawn import written

from kimi_mini.course.figures.deployment import costs
from kimi_mini.inference.serving.roofline import CARDS, decode
from kimi_mini.model.config import KimiConfig
from kimi_mini.model.costs import FORMATS

ROWS = [
    {"name": "a folder", "kind": "memory", "ratio": 1.0},
    {"name": "a cluster", "kind": "decode", "ratio": 2.5},
    {"name": "a boast", "kind": "decode", "ratio": 0.9},
]


def test_published_bars_begin_where_nothing_is_lost():
    fig = costs.published(ROWS, "t")
    bars = fig.axes[0].patches[:3]
    assert [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in bars] == [(1, 1), (1, 2.5), (1, 0.9)]
    assert all(words in written(fig) for words in ("a cluster", "2.5", "0.9", "memory", "decode"))
    assert "prefill" not in written(fig)


@pytest.mark.parametrize("card", CARDS)
@pytest.mark.parametrize("layout", ["tensor", "expert"])
def test_serving_draws_any_setting_of_its_sliders(card, layout):
    for cards, batch, context in ((1, 1, 1), (128, 512, 262_144)):
        costs.serving("k2", "fp8", card, cards, batch, context, layout)


def test_serving_says_what_decides_and_whether_it_fits():
    step = decode(KimiConfig.preset("k2"), FORMATS["int4"], CARDS["H200"], 8, 32, 8192)
    fig = costs.serving()
    assert [bar.get_width() for bar in fig.axes[0].patches] == [
        1e3 * getattr(step, name) for name in ("weights", "cache", "compute", "exchange")
    ]
    assert fig.axes[0].lines[0].get_xdata()[0] == 1e3 * step.seconds
    text = written(fig)
    assert f"bound by {step.bound}" in text and ", fits" in text
    assert "DOES NOT FIT" in written(costs.serving(batch=200))
    assert "DOES NOT FIT" in written(costs.serving(card="Mac Studio", cards=1, batch=1, context=1))


def test_routing_draws_a_line_a_router():
    fig = costs.routing({"knows": [(0.1, 0.5), (1.0, 0.9)], "tosses": [(0.5, 0.7)]}, "t")
    assert [list(line.get_ydata()) for line in fig.axes[0].lines] == [[0.5, 0.9], [0.7]]
    assert "knows" in written(fig) and "tosses" in written(fig)
