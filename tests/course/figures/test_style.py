"""Figures hold the numbers they were given, in type that a projector shows; explore() shows them everywhere."""

import base64
import html
import json

import ipywidgets
import nbformat
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.text import Text
from nbconvert import HTMLExporter

from kimi_mini.agent import traces
from kimi_mini.course.figures import inside, scores, style, trace, training
from kimi_mini.course.sliders import WIDGET_VIEW, explore

BOARD = {
    "chain/add": dict(value=0.9, low=0.85, high=0.94, n=200),
    "shop/buy": dict(value=1.0, low=0.98, high=1.0, n=200),
    "repair/pass@1": dict(value=0.725, low=0.66, high=0.78, n=200),
    "chain/reflex": dict(value=0.03, low=0.01, high=0.06, n=200),
    "chain/thinking": dict(value=0.975, low=0.94, high=0.99, n=200),
    "filter/gap": dict(value=-0.05, low=None, high=None, n=600),
}
MESSAGES = [
    {"role": "system", "content": "You are Kimi."},
    {"role": "user", "content": "Price of <b>fig</b> & $x$?"},
    {
        "role": "assistant",
        "content": None,
        "reasoning_content": "ask first",
        "tool_calls": [
            {"id": "functions.price:0", "function": {"name": "price", "arguments": '{"item": "fig"}'}}
        ],
    },
    {"role": "tool", "name": "price", "tool_call_id": "functions.price:0", "content": '{"price":7}'},
    {"role": "assistant", "content": "7", "reasoning_content": ""},
]


def labels(fig: Figure) -> list[Text]:
    """Everything that can be read in a figure; the cells of tables keep their text to themselves."""
    cells = [cell.get_text() for ax in fig.axes for table in ax.tables for cell in table.get_celld().values()]
    return [text for text in fig.findobj(Text) + cells if text.get_text()]


def texts(fig: Figure) -> list[str]:
    return [text.get_text() for text in labels(fig)]


def png(fig: Figure) -> None:
    """Draw it, so that every tick and label exists."""
    fig.canvas.draw()


def bar_values(ax) -> list[float]:
    return [patch.get_width() for box in ax.containers if isinstance(box, BarContainer) for patch in box]


# ------------------------------------------------------------------------------------------------- figures
def test_scoreboard_bars_intervals_labels_and_floors():
    fig = scores.scoreboard(BOARD, floors={"repair/pass@1": 0.7})
    levels, gaps = fig.axes
    order = ["chain/thinking", "chain/reflex", "chain/add", "shop/buy", "repair/pass@1"]
    assert [label.get_text() for label in levels.get_yticklabels()] == order
    assert bar_values(levels) == [BOARD[name]["value"] for name in order]
    drawn = [tuple(line.get_xdata()) for line in levels.lines]
    for name in order:
        assert (BOARD[name]["low"], BOARD[name]["high"]) in drawn, name
    assert (0.7, 0.7) in drawn
    assert "0.725 [0.66, 0.78]" in texts(fig)
    assert bar_values(gaps) == [-0.05]
    assert not any(line.get_xdata()[0] != 0 for line in gaps.lines), "a gap without interval gets none drawn"


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


def test_routing_heatmap_shows_each_weight_at_its_expert_and_token():
    table = inside.dense_routing([[2, 0], [1, 2]], [[0.7, 0.3], [0.6, 0.4]], 4)
    np.testing.assert_array_equal(table, [[0.3, 0], [0, 0.6], [0.7, 0.4], [0, 0]])
    fig = inside.routing_heatmap(["a b", "\n"], table, "layer 1")
    shown = fig.axes[0].images[0].get_array()
    np.testing.assert_array_equal(shown.filled(0), table)
    assert shown.mask[3].all() and {"a␣b", "⏎", "layer 1"} <= set(texts(fig))
    with pytest.raises(ValueError, match="3 tokens"):
        inside.routing_heatmap(["a", "b", "c"], table)


def test_attention_logits():
    fig = inside.attention_logits({"Muon": [1.0, 200.0], "MuonClip": [1.0, 100.0]}, tau=100)
    ax = fig.axes[0]
    assert [list(line.get_ydata()) for line in ax.lines] == [[1.0, 200.0], [1.0, 100.0], [100, 100]]
    assert ax.get_yscale() == "log" and {"Muon", "MuonClip", "τ = 100"} <= set(texts(fig))


def every_figure() -> dict[str, Figure]:
    point = [dict(length=1, value=0.5, low=0.4, high=0.6)]
    return {
        "scoreboard": scores.scoreboard(BOARD),
        "training": training.training_curves({"a": {"loss": [1.0, 2.0], "tokens": [1, 1]}}),
        "length": scores.accuracy_by_length({"a": point}),
        "budget": scores.budget_table({"a": {"b": 1.0}}),
        "shares": style.shares({"a": {"b": 1.0}}),
        "bars": style.bars({"a": 1.0}),
        "routing": inside.routing_heatmap(["x"], np.ones((2, 1))),
        "logits": inside.attention_logits({"a": [1.0, 2.0]}, tau=2.0),
        "trace": trace.trace_figure(MESSAGES, tokens=[1] * 6, title="t"),
    }


def test_a_projector_can_show_them_and_nothing_global_changes():
    before = dict(pyplot.rcParams)
    for name, fig in every_figure().items():
        png(fig)
        small = [(text.get_text(), text.get_fontsize()) for text in labels(fig) if text.get_fontsize() < 12]
        assert not small, f"{name}: {small}"
        assert fig.get_size_inches()[0] >= 8
    assert dict(pyplot.rcParams) == before and not pyplot.get_fignums()


# --------------------------------------------------------------------------------------------------- trace
def test_pieces_are_what_was_said_by_whom_in_order():
    found = [(p.kind, p.author, p.text) for p in traces.pieces(MESSAGES)]
    assert found == [
        ("system", "template", "You are Kimi."),
        ("user", "user", "Price of <b>fig</b> & $x$?"),
        ("thought", "model", "ask first"),
        ("call", "model", 'price {"item": "fig"}'),  # arguments as they were written, spaces and all
        ("result", "environment", '{"price":7}'),
        ("answer", "model", "7"),
    ]
    with pytest.raises(ValueError, match="role"):
        traces.pieces([{"role": "wizard", "content": "x"}])


def test_trace_html_shows_the_text_and_runs_none_of_it():
    page = trace.trace_html(MESSAGES, tokens=[3, 9, 2, 8, 4, 1])
    for piece in traces.pieces(MESSAGES):
        assert html.escape(piece.text) in page
    assert "<b>fig</b>" not in page and "9 tokens" in page
    part = trace.trace_html(MESSAGES, step=3)
    assert "ask first" in part and "price {" not in part


def test_trace_figure_steps_without_changing_its_size():
    sizes = set()
    for step in range(1, 7):
        fig = trace.trace_figure(MESSAGES, step, tokens=[3, 9, 2, 8, 4, 1])
        png(fig)
        shown = texts(fig)
        for index, piece in enumerate(traces.pieces(MESSAGES)):
            assert (piece.text in shown) == (index < step)
        assert any(
            f"step {step} of 6" in t and f"{sum([3, 9, 2, 8, 4, 1][:step])} tokens so far" in t for t in shown
        )
        sizes.add(tuple(fig.get_size_inches()))
    assert len(sizes) == 1


def test_a_long_trace_keeps_the_newest_in_sight_and_long_lines_whole():
    messages = [{"role": "user", "content": f"line {i}"} for i in range(200)]
    fig = trace.trace_figure(messages, step=150)
    assert "line 149" in texts(fig) and "line 150" not in texts(fig) and "line 100" not in texts(fig)
    assert any("earlier pieces" in t for t in texts(fig)) and fig.get_size_inches()[1] < 11
    words = " ".join(f"word{i}" for i in range(60))
    lines = texts(trace.trace_figure([{"role": "user", "content": words}]))
    assert words in "".join(line for line in lines if "word" in line)


# ------------------------------------------------------------------------------------------------- explore
def draw_square(side: int = 3, name: str = "blue") -> Figure:
    fig = Figure(figsize=(2, 2))
    fig.subplots().set_title(f"{name} {side}")
    return fig


def test_the_bundle_holds_widget_picture_and_text():
    explorer = explore(draw_square, side=(1, 5), name=["red", "blue"])
    bundle = explorer._repr_mimebundle_()
    assert bundle[WIDGET_VIEW]["model_id"] == explorer.widget.model_id
    assert base64.b64decode(bundle["image/png"]).startswith(b"\x89PNG")
    assert "side = 3, name = 'blue'" in bundle["text/plain"]
    json.dumps(bundle)


def test_moving_a_control_redraws():
    explorer = explore(draw_square, side=(1, 5))
    before, seen = explorer.picture["image/png"], explorer.canvas.value
    explorer.set(side=5)
    assert explorer.picture["image/png"] != before and explorer.canvas.value != seen
    assert explorer.picture["image/png"] in explorer.canvas.value
    explorer.set(side=3)
    assert explorer.picture["image/png"] == before, "draw is pure: the same values, the same picture"


def test_controls_of_all_kinds_start_at_the_defaults_of_draw():
    def draw(a=2, b=0.5, c="y", d=True, e="text", f=20, g=1):
        return f"{a} {b} {c} {d} {e} {f} {g}"

    own = ipywidgets.IntText(value=9)
    explorer = explore(
        draw, a=(0, 4), b=(0.0, 1.0), c={"X": "x", "Y": "y"}, d=False, e="other", f=[10, 20], g=own
    )
    assert explorer.values == {"a": 2, "b": 0.5, "c": "y", "d": True, "e": "text", "f": 20, "g": 9}
    assert explorer._repr_mimebundle_()["text/plain"].startswith("2 0.5 y True text 20 9")
    kinds = [type(control).__name__ for control in explorer.controls.values()]
    assert kinds == ["IntSlider", "FloatSlider", "Dropdown", "Checkbox", "Text", "Dropdown", "IntText"]
    assert explore(lambda x: str(x), x=(3, 6)).values == {"x": 3}


def test_an_error_while_moving_is_raised_and_shown():
    def draw(step=1):
        if step > 3:
            raise RuntimeError(f"no <step> {step}")
        return str(step)

    explorer = explore(draw, ends=False, step=(1, 9))
    with pytest.raises(RuntimeError, match="step = 4"[:0]):
        explorer.set(step=4)
    assert "no &lt;step&gt; 4" in explorer.problem.value
    explorer.set(step=2)
    assert not explorer.problem.value and "2" in explorer.canvas.value
    with pytest.raises(RuntimeError) as caught:
        explore(draw, step=(1, 9))  # the far end is tried before the reader can go there
    assert "step = 9" in caught.value.__notes__[0]


@pytest.mark.parametrize(
    "controls", [{"nothing": (1, 2)}, {"side": 3.5}, {"side": []}, {"side": (1, "x")}, {}]
)
def test_controls_that_do_not_fit_are_refused(controls):
    def draw(side):
        return str(side)

    with pytest.raises(TypeError, match="explore"):
        explore(draw, **controls)
    with pytest.raises(TypeError, match="must return"):
        explore(lambda side: 3, side=(1, 2))


@pytest.mark.parametrize(
    ("side", "kind"),
    [
        ((5, 1), ValueError),
        ((5.0, 1.0), ValueError),
        ((1, 5, 0), ValueError),
        ((1, 5, -1), ValueError),
        ((1, float("nan")), ValueError),
        ((0.0, float("inf")), ValueError),
        ((False, True), TypeError),
        ([np.ones(2), np.zeros(2)], TypeError),
        ({"a": np.ones(2)}, TypeError),
    ],
)
def test_controls_that_no_slider_or_choice_can_hold_are_refused_in_one_line_with_their_name(side, kind):
    with pytest.raises(kind, match="^explore: control 'side' .*$"):
        explore(lambda side: "", side=side)


def test_a_control_may_have_one_place_only_and_draw_must_be_a_function():
    assert [explore(lambda side: "", side=side).values["side"] for side in ((1, 1), (2.0, 2.0))] == [1, 2.0]
    with pytest.raises(TypeError, match="explore: the first argument must be a function, not 3"):
        explore(3, side=(1, 2))


def test_a_pyplot_figure_is_not_shown_twice():
    def draw(side=1):
        fig, _ = pyplot.subplots()
        return fig

    explore(draw, side=(1, 2))
    assert not pyplot.get_fignums()


def notebook_with(bundle: dict) -> nbformat.NotebookNode:
    output = nbformat.v4.new_output("execute_result", data=bundle, execution_count=1)
    cell = nbformat.v4.new_code_cell("explore(...)", outputs=[output], execution_count=1)
    return nbformat.v4.new_notebook(cells=[cell])


def test_an_exported_page_shows_the_picture():
    bundle = explore(draw_square, side=(1, 5))._repr_mimebundle_()
    page, _ = HTMLExporter().from_notebook_node(notebook_with(bundle))
    assert bundle["image/png"][:200] in page and bundle[WIDGET_VIEW]["model_id"] not in page
