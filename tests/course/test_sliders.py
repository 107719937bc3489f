"""explore() shows its picture everywhere, and a control that breaks is a failed cell."""

import base64
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import ipywidgets
import nbformat
import numpy as np
import pytest
from IPython.display import HTML
from matplotlib import pyplot
from matplotlib.figure import Figure
from matplotlib.image import imread
from nbconvert import HTMLExporter

from kimi_mini.course.sliders import WIDGET_VIEW, explore


def draw_square(side: int = 3, name: str = "blue") -> Figure:
    fig = Figure(figsize=(2, 2))
    fig.subplots().set_title(f"{name} {side}")
    return fig


def test_the_bundle_holds_widget_picture_and_text():
    explorer = explore(draw_square, side=(1, 5), name=["red", "blue"])
    bundle = explorer._repr_mimebundle_()
    assert bundle[WIDGET_VIEW]["model_id"] == explorer.widget.model_id
    assert "[frozen at side = 3, name = 'blue'; run" in bundle["text/plain"]
    json.dumps(bundle)


def pixels(png: str) -> np.ndarray:
    return imread(io.BytesIO(base64.b64decode(png)))


def test_the_picture_that_is_kept_is_the_live_one_and_says_that_it_is_frozen():
    explorer = explore(draw_square, side=(1, 5))
    live, kept = pixels(explorer.picture["image/png"]), pixels(explorer._repr_mimebundle_()["image/png"])
    height = len(live)
    np.testing.assert_array_equal(kept[:height], live)
    assert len(kept) > height and kept[height:].min() < 0.6  # a line of text
    page = explore(lambda side: HTML("<b>x</b>"), side=(1, 5))._repr_mimebundle_()["text/html"]
    assert page.startswith("<b>x</b>") and "frozen at side = 1" in page


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
    with pytest.raises(RuntimeError, match="no <step> 4") as caught:
        explorer.set(step=4)
    assert "step = 4" in caught.value.__notes__[0]
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


SOURCE = """from kimi_mini.course.sliders import explore
def draw(layer=1):
    return str([10, 20][layer - 1])
"""


@pytest.mark.slow
def test_an_explorer_whose_callback_raises_is_a_failed_cell(tmp_path):
    """Under nbval, as `make test` runs the course: at the far end of a slider, and when a control is moved later."""
    cells = [
        SOURCE + "explore(draw, layer=(1, 2))",
        SOURCE + "explore(draw, layer=(1, 3))",
        SOURCE + "e = explore(draw, layer=(1, 3), ends=False)",
        "e.controls['layer'].value = 3",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    for number, cell in enumerate(notebook.cells):
        cell.execution_count = number + 1
    nbformat.write(notebook, tmp_path / "broken.ipynb")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--nbval-lax",
        "--nbval-current-env",
        "-p",
        "no:cacheprovider",
        "-rA",
        str(tmp_path / "broken.ipynb"),
    ]
    found = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    told = subprocess.run(
        command, cwd=tmp_path, env=found, capture_output=True, text=True, timeout=120, check=False
    )
    assert told.returncode == 1 and "2 failed, 2 passed" in told.stdout, told.stdout[-2000:]
    assert told.stdout.count("IndexError") >= 2
