"""Notebooks read logs in one call, and the door of the course asks for widgets only where sliders are wanted."""

import json
import subprocess
import sys

import pytest

from kimi_mini.base.errors import KimiError
from kimi_mini.base.evidence import Log
from kimi_mini.course import logs


@pytest.fixture
def measured(tmp_path, monkeypatch):
    with Log("gap", seeds=[0, 1], folder=tmp_path, command="python -m a.b") as log:
        about = {"source": "s", "notebook": None, "figure": None}
        log.claim("a/more", claim="more | better", value=0.5, low=0.25, high=0.75, floor=0.2, **about)
        log.claim("a/less", claim="less", value=0.125, floor=0.1, at_most=True, **about)
        log.later("a/later", claim="later", floor=0.1, **about)
    monkeypatch.setattr(logs, "RESULTS", tmp_path)
    return logs.read("gap")


def test_claims_come_by_name_with_interval_bar_and_verdict(measured):
    assert list(logs.claims(measured)) == ["a/more", "a/less", "a/later"]
    assert logs.interval(logs.claims(measured)["a/more"]) == "0.50 [0.25, 0.75]"
    assert logs.interval(logs.claims(measured)["a/more"], 1, scale=100) == "50.0 [25.0, 75.0]"
    assert logs.interval(logs.claims(measured)["a/less"], 3) == "0.125"
    rows = logs.table(measured, digits=2).data.split("\n")[2:]
    assert rows == [
        "| more \\| better | 0.50 [0.25, 0.75] | at least 0.2 | holds |",
        "| less | 0.12 | at most 0.1 | does not hold |",
        "| later | - | at least 0.1 | not measured |",
    ]
    assert [logs.line(claim, 2).strip() for claim in measured["claims"]] == [
        "0.50 [0.25, 0.75]  holds (at least 0.2): more | better",
        "0.12  does not hold (at most 0.1): less",
        "-  not measured (at least 0.1): later",
    ]
    assert logs.table(measured, "a/less").data.count("\n") == 2


def test_the_origin_of_numbers_is_one_line(measured):
    line = logs.origin(measured)
    assert line.startswith("python -m a.b: seeds [0, 1], ") and "thread" in line and line.endswith(" s")
    with pytest.raises(KimiError, match="none"):
        logs.read("none")


@pytest.mark.slow
def test_figures_draw_without_widgets():
    code = """
import sys
sys.modules["ipywidgets"] = None
from kimi_mini.course import exercises, figures
figures.style.bars({"a": 1.0})
try:
    from kimi_mini.course import explore
except ImportError as error:
    assert "ipywidgets" in str(error)
else:
    raise AssertionError("no slider without ipywidgets")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_a_gpu_has_measured_comes_by_part_and_nothing_where_none_has(measured, tmp_path):
    assert logs.on_gpu() == {}
    (tmp_path / "gpu").mkdir()
    (tmp_path / "gpu" / "floors.json").write_text("[]")
    made = json.loads((tmp_path / "gap.json").read_text()) | {"claims": [], "device": "cuda"}
    made["versions"]["gpu"] = "H100"
    (tmp_path / "gpu" / "speed.json").write_text(json.dumps(made))
    assert logs.on_gpu() == {"speed": made}
