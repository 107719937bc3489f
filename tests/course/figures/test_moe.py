"""Figures of routing show the numbers that they were given; an explorer that breaks is a failed cell."""

import io
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest

from kimi_mini.course.figures import moe


def texts(fig) -> str:
    """Everything written on a figure, after drawing it once."""
    fig.savefig(io.BytesIO(), format="png", dpi=40)
    found = [text.get_text() for ax in fig.axes for text in ax.texts]
    found += [title for ax in fig.axes for title in (ax.get_title("left"), ax.get_xlabel(), ax.get_ylabel())]
    legends = [*fig.legends, *(ax.get_legend() for ax in fig.axes if ax.get_legend())]
    found += [text.get_text() for legend in legends for text in legend.get_texts()]
    found += [label.get_text() for ax in fig.axes for label in [*ax.get_yticklabels(), *ax.get_xticklabels()]]
    return "\n".join(found)


def test_the_explorer_marks_the_tokens_of_its_expert():
    table = np.array([[0.0, 1.2, 0.0], [0.7, 0.0, 0.5]])
    fig = moe.explorer(["def", " x", "\n"], table, 1, "here")
    assert {"def", "␣x", "⏎", "here"} <= set(texts(fig).split("\n"))
    bold = [label.get_text() for label in fig.axes[0].get_xticklabels() if label.get_fontweight() == "bold"]
    assert bold == ["def", "⏎"]
    image = fig.axes[0].images[0].get_array()
    assert image.mask.tolist() == (table == 0).tolist()


@pytest.mark.parametrize(("tokens", "expert"), [(["a"], 0), (["a", "b", "c"], 2), (["a", "b", "c"], -1)])
def test_an_explorer_that_does_not_fit_is_refused(tokens, expert):
    with pytest.raises(ValueError, match="do not fit"):
        moe.explorer(tokens, np.ones((2, 3)), expert)


def test_dollars_in_a_text_are_not_mathematics():
    assert r"\$x^" in texts(moe.explorer(["$x^", "$"], np.ones((2, 2)), 0))


def test_use_by_domain_is_relative_to_an_equal_share():
    shares = np.array([[[0.5, 0.25, 0.25, 0.0], [0.25] * 4]])
    fig = moe.use_by_domain(shares, ["Python", "prose"])
    assert fig.axes[0].images[0].get_array().tolist() == [[2, 1, 1, 0], [1, 1, 1, 1]]
    assert "Python" in texts(fig) and "MoE layer 1" in texts(fig)


def test_meetings_leave_the_diagonal_out():
    fig = moe.meetings(np.array([[0.0, 1.5], [1.5, 0.0]]))
    assert fig.axes[0].images[0].get_array().mask.tolist() == [[True, False], [False, True]]


def test_gate_weights_are_sorted_shares():
    fig = moe.gate_weights(np.array([[[0.5, 1.5]], [[1.2, 0.8]]]), 2.0)
    best, second = ([p.get_x() for p in bars if p.get_height()] for bars in fig.axes[0].containers)
    assert min(best) >= 0.5 > max(second)


BAR = {"value": 0.4, "low": 0.3, "high": 0.5}


def test_specialisation_shows_bits_their_control_and_every_rise():
    fig = moe.specialisation(
        {"domain": [BAR, BAR]},
        {"domain": [0.1, 0.02]},
        {"a": [0.2, 0.001], "random": [0.0, -0.01]},
        ["a", "b"],
    )
    shown = texts(fig)
    assert all(
        part in shown
        for part in ("+0.30", "+0.38", "+0.200", "-0.010", "top expert of\na", "random", "labels shuffled")
    )


def test_balance_and_sparsity_show_every_way_and_every_model():
    curves = {name: [1.0, 0.3] for name in moe.WORDS}
    shown = texts(
        moe.balance(curves, curves, {"sign": BAR, "loss": BAR | {"low": None, "high": None}}, 1_000_000)
    )
    assert all(name in shown for name in moe.WORDS.values())
    loss, seconds = {"8": BAR, "16": BAR, "dense": BAR}, {"8": 10.0, "16": 12.0, "dense": 9.0}
    shown = texts(
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


def test_violation_draws_one_line_a_name():
    fig = moe.violation({"a": [2, 1], "b": [1, 1]}, "t", 0.35)
    assert [line.get_label() for line in fig.axes[0].lines] == ["a", "b", "0.35"]


SOURCE = """from kimi_mini.course.sliders import explore
def draw(layer=1):
    return str([10, 20][layer - 1])
"""


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
    found = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    told = subprocess.run(
        command, cwd=tmp_path, env=found, capture_output=True, text=True, timeout=120, check=False
    )
    assert told.returncode == 1 and "2 failed, 2 passed" in told.stdout, told.stdout[-2000:]
    assert told.stdout.count("IndexError") >= 2
