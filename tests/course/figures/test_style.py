"""Figures hold the numbers they were given, in type that a projector shows."""

import numpy as np
import pytest
from drawn import labels, texts
from matplotlib import pyplot
from matplotlib.colors import to_hex
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.figure import Figure

from kimi_mini.course.figures import routing, scores, style, trace, training
from kimi_mini.worlds import WORLDS

BOARD = {
    "chain/add": dict(value=0.9, low=0.85, high=0.94, n=200),
    "shop/buy": dict(value=1.0, low=0.98, high=1.0, n=200),
    "repair/pass@1": dict(value=0.725, low=0.66, high=0.78, n=200, floor=0.7),
    "chain/reflex": dict(value=0.03, low=0.01, high=0.06, n=200, thinking=False),
    "chain/thinking": dict(value=0.975, low=0.94, high=0.99, n=200),
    "filter/gap_greedy": dict(value=-0.05, low=None, high=None, n=600, gap=True),
}


def bar_values(ax) -> list[float]:
    return [patch.get_width() for box in ax.containers if isinstance(box, BarContainer) for patch in box]


def test_scoreboard_bars_intervals_labels_and_floors():
    fig = scores.scoreboard(BOARD)
    levels, gaps = fig.axes
    order = ["chain/add", "chain/reflex", "chain/thinking", "shop/buy", "repair/pass@1"]
    assert [label.get_text() for label in levels.get_yticklabels()] == order
    assert bar_values(levels) == [BOARD[name]["value"] for name in order]
    drawn = [tuple(line.get_xdata()) for line in levels.lines]
    for name in order:
        assert (BOARD[name]["low"], BOARD[name]["high"]) in drawn, name
    assert (0.7, 0.7) in drawn
    colours = [to_hex(patch.get_facecolor()) for patch in levels.patches]
    worlds = [WORLDS[name].colour.lower() for name in ("chain", "shop", "repair")]
    assert colours == [worlds[0], style.ORANGE.lower(), worlds[0], *worlds[1:]]
    assert "0.725 [0.66, 0.78]" in texts(fig)
    assert bar_values(gaps) == [-0.05]
    assert not any(line.get_xdata()[0] != 0 for line in gaps.lines), "a gap without interval gets none drawn"


def test_a_floor_does_not_strike_through_the_numbers():
    fig = scores.scoreboard({"shop/buy": dict(value=0.4, low=0.3, high=0.5, n=200, floor=0.55)})
    [label] = [text for text in fig.axes[0].texts if "0.4 [" in text.get_text()]
    assert label.xy[0] == 0.55 and label.get_position()[0] > 0  # points right of it


def test_scoreboard_without_rows_is_refused():
    with pytest.raises(ValueError, match="no rows"):
        scores.scoreboard({})


def test_training_curves_join_stages_by_tokens():
    curves = {
        "pretrain": {"loss": [4.0, 3.0], "max_logit": [5.0, 9.0], "tokens": [1_000_000, 1_000_000]},
        "publish": {"loss": []},
        "finetune": {"loss": [2.0, 1.0], "max_logit": [8.0, 7.0], "tokens": [500_000, 500_000]},
    }
    fig = training.training_curves(curves)
    assert len(fig.axes) == 2, "no panel for MaxVio, which nobody logged"
    loss = [line for line in fig.axes[0].lines if len(line.get_xdata()) == 2 and line.get_alpha()]
    assert [list(line.get_ydata()) for line in loss] == [[4.0, 3.0], [2.0, 1.0]]
    assert [list(line.get_xdata()) for line in loss] == [[1.0, 2.0], [2.5, 3.0]]
    assert {"pretrain", "finetune"} <= set(texts(fig)) and "publish" not in texts(fig)
    with pytest.raises(ValueError, match="no stage"):
        training.training_curves({"publish": {"loss": []}})


def test_the_thick_line_is_a_centred_mean():
    values = list(np.arange(100.0))
    fig = training.training_curves({"one": {"loss": values}}, smooth=11)
    thick = fig.axes[0].lines[1]
    assert thick.get_linewidth() > fig.axes[0].lines[0].get_linewidth()
    np.testing.assert_allclose(thick.get_ydata()[5:-5], values[5:-5])  # a straight line stays where it is
    assert thick.get_ydata()[0] == np.mean(values[:6])


def test_accuracy_by_length():
    points = [dict(length=n, value=1 / n, low=1 / n - 0.05, high=min(1, 1 / n + 0.04)) for n in (1, 2, 9)]
    fig = scores.accuracy_by_length({"thinking": points}, chance=0.01, trained_to=8)
    ax = fig.axes[0]
    bars = next(box for box in ax.containers if isinstance(box, ErrorbarContainer))
    line, _, (spread,) = bars
    assert list(line.get_xdata()) == [1, 2, 9] and list(line.get_ydata()) == [1.0, 0.5, 1 / 9]
    ends = [tuple(segment[:, 1]) for segment in spread.get_segments()]
    np.testing.assert_allclose(ends, [(p["low"], p["high"]) for p in points])
    assert {"thinking", "guessing (0.01)", "longer than trained"} <= set(texts(fig))
    assert "longer than trained" not in texts(scores.accuracy_by_length({"x": points[:2]}, trained_to=8))


def test_budget_table_shares_and_bars():
    fig = scores.budget_table({"K2": {"parameters": 1.026e12, "layers": 61}, "ours": {"parameters": 951_600}})
    assert {"K2", "ours", "1.026T", "61", "951.6k", "-"} <= set(texts(fig))
    fig = style.shares({"K2": {"experts": 9, "rest": 1}, "ours": {"experts": 1, "rest": 1}})
    assert bar_values(fig.axes[0]) == [90, 50, 10, 50]
    assert {"90%", "50%", "10%"} <= set(texts(fig))
    fig = style.bars({"MHA": 160.0, "MLA": 2.5}, "GB", limits=(0.1, 1000))
    assert bar_values(fig.axes[0]) == [160.0, 2.5] and fig.axes[0].get_xlim() == (0.1, 1000)
    assert {"160 GB", "2.5 GB"} <= set(texts(fig))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.02641e12, "1.026T"),
        (32.86e9, "32.86B"),
        (951_600, "951.6k"),
        (9999, "9,999"),
        (0.4213, "0.421"),
        (0, "0"),
        (-2e6, "-2M"),
        ("70,272 B", "70,272 B"),
    ],
)
def test_human_numbers(value, text):
    assert style.human(value) == text


def every_figure() -> dict[str, Figure]:
    point = [dict(length=1, value=0.5, low=0.4, high=0.6)]
    return {
        "scoreboard": scores.scoreboard(BOARD),
        "training": training.training_curves({"a": {"loss": [1.0, 2.0], "tokens": [1, 1]}}),
        "length": scores.accuracy_by_length({"a": point}),
        "budget": scores.budget_table({"a": {"b": 1.0}}),
        "shares": style.shares({"a": {"b": 1.0}}),
        "bars": style.bars({"a": 1.0}),
        "routing": routing.routing_heatmap(["x"], np.ones((2, 1))),
        "trace": trace.trace_figure([{"role": "user", "content": "x"}], tokens=[1], title="t"),
    }


def test_a_projector_can_show_them_and_nothing_global_changes():
    before = dict(pyplot.rcParams)
    for name, fig in every_figure().items():
        small = [(text.get_text(), text.get_fontsize()) for text in labels(fig) if text.get_fontsize() < 12]
        assert not small, f"{name}: {small}"
        assert fig.get_size_inches()[0] >= 8
    assert dict(pyplot.rcParams) == before and not pyplot.get_fignums()
