"""Notebooks as a reader meets them without running anything: links lead somewhere, pictures are there, hints wait."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from kimi_mini.base import ledger
from kimi_mini.base.paths import RESULTS
from kimi_mini.course import logs
from kimi_mini.course.sliders import WIDGET_VIEW

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted(p for p in (ROOT / "notebooks").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)
COURSE = [path for path in NOTEBOOKS if path.parent.name == "notebooks"]
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")


def joined(text: str | list[str]) -> str:
    return text if isinstance(text, str) else "".join(text)


def texts(notebook: dict) -> list[str]:
    """Every piece of Markdown a reader sees: cells, and outputs that a cell made."""
    found = [joined(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown"]
    outputs = (output for cell in notebook["cells"] for output in cell.get("outputs", []))
    return found + [
        joined(output["data"]["text/markdown"])
        for output in outputs
        if "text/markdown" in output.get("data", {})
    ]


def dead_links(notebook: dict, folder: Path) -> list[str]:
    links = [link for text in texts(notebook) for link in LINK.findall(text)]
    return [link for link in links if "://" not in link and not (folder / link).exists()]


def pictureless(notebook: dict) -> list[int]:
    """Cells with a slider that show no picture where nothing runs, or one that does not say that it is frozen."""
    found = []
    for index, cell in enumerate(notebook["cells"]):
        outputs = [output.get("data", {}) for output in cell.get("outputs", [])]
        shown = [data for data in outputs if {"image/png", "text/html"} & set(data)]
        still = [data for data in shown if "[frozen at " in joined(data.get("text/plain", ""))]
        moves = cell["cell_type"] == "code" and re.search(r"^explore\(", joined(cell["source"]), re.M)
        if any(WIDGET_VIEW in data for data in outputs) or (moves and not still):
            found.append(index)
    return found


def stale(notebook: dict, measured: dict[str, dict]) -> list[str]:
    """Stored rows of claims that are not what the logs say now. measured: log by name."""
    rows: dict[str, set[str]] = {}
    for log in measured.values():
        for claim in log.get("claims", []):
            for digits in range(5):
                table = logs.table({"claims": [claim]}, digits=digits).data
                rows.setdefault(table.splitlines()[-1].split(" | ")[0], set()).add(table.splitlines()[-1])
    stored = [line for text in texts(notebook) for line in text.splitlines() if line.count(" | ") >= 3]
    return [line for line in stored if line not in rows.get(line.split(" | ")[0], {line})]


@pytest.mark.parametrize("path", COURSE, ids=lambda path: path.stem[:2])
def test_stored_claims_are_those_of_the_logs(path):
    """A log that was measured again, or told otherwise, leaves old numbers in the notebooks that replayed it."""
    assert stale(json.loads(path.read_text(encoding="utf-8")), ledger.read_logs(RESULTS)) == []


MINUS = "\N{MINUS SIGN}"
INTERVAL = re.compile(r"([\u2212-]?[\d.]+) \[([\u2212-]?[\d.]+), ([\u2212-]?[\d.]+)\]")


def intervals(log: object) -> Iterator[tuple[float, float, float]]:
    """Every value with its interval that a log holds, and the same turned round: what one gains, the other loses."""
    if isinstance(log, dict):
        found = tuple(log.get(name) for name in ("value", "low", "high"))
        if all(isinstance(number, int | float) for number in found):
            value, low, high = found
            yield from (found, (-value, -high, -low))
    for inner in log.values() if isinstance(log, dict) else log if isinstance(log, list) else ():
        yield from intervals(inner)


def unfounded(notebook: dict, measured: dict[str, dict]) -> list[str]:
    """Values with their intervals in what was written by hand that no log holds, at the digits that are told."""
    known, found = set(intervals(list(measured.values()))), []
    for cell in notebook["cells"]:
        for match in INTERVAL.finditer(joined(cell["source"]) if cell["cell_type"] == "markdown" else ""):
            told = [part.replace(MINUS, "-").rstrip(".") for part in match.groups()]
            half = 0.5001 * 10.0 ** -max(len(part.partition(".")[2]) for part in told)
            near = lambda numbers: all(abs(n - float(t)) <= half for n, t in zip(numbers, told))  # noqa: B023
            if not any(map(near, known)):
                found.append(match[0])
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: f"{path.parent.name}-{path.stem[:2]}")
def test_intervals_in_prose_are_those_of_the_logs(path):
    """Prose does not change by itself when a log is measured again."""
    assert unfounded(json.loads(path.read_text(encoding="utf-8")), ledger.read_logs(RESULTS)) == []


def test_an_interval_that_no_log_holds_is_found():
    log = {"x.json": {"claims": [{"value": -0.0034, "low": -0.0411, "high": 0.0341}]}}
    right, wrong = "-0.003 [-0.041, 0.034]".replace("-", MINUS), "-0.03 [-0.09, 0.02]".replace("-", MINUS)
    assert unfounded(markdown(f"by {right}, a loss of 0.00 [-0.03, 0.04]"), log) == []
    assert unfounded(markdown(f"by {wrong}"), log) == [wrong]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: f"{path.parent.name}-{path.stem[:2]}")
def test_a_notebook_reads_well_without_a_kernel(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert dead_links(notebook, path.parent) == []
    assert pictureless(notebook) == []
    assert len(notebook["cells"]) <= 60


@pytest.mark.parametrize("path", COURSE, ids=lambda path: path.stem[:2])
def test_exercises_wait_unsolved_and_their_solutions_are_right(path):
    said = json.dumps([cell.get("outputs") for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]])
    solutions = path.parent / "solutions" / path.name
    assert solutions.exists()
    solved = json.dumps(
        [cell.get("outputs") for cell in json.loads(solutions.read_text(encoding="utf-8"))["cells"]]
    )
    waiting = said.count(">not yet</b>")
    assert 3 <= waiting <= 5 and ">right</b>" not in said
    assert solved.count(">right</b>") >= waiting and ">not yet</b>" not in solved


def markdown(text: str) -> dict:
    return {"cells": [{"cell_type": "markdown", "source": [text]}]}


def code(data: dict, source: str = "") -> dict:
    outputs = [{"output_type": "execute_result", "data": data}]
    return {"cells": [{"cell_type": "code", "source": [source], "outputs": outputs}]}


def test_the_checks_can_fail(tmp_path):
    assert dead_links(markdown("[a](99_none.ipynb) [b](https://example.org)"), tmp_path) == ["99_none.ipynb"]
    assert dead_links(code({"text/markdown": ["| [a](gone", ".ipynb#x) |"]}), tmp_path) == ["gone.ipynb"]
    slider = {"image/png": "b", "text/plain": "[frozen at layer = 1; run the notebook to move it]"}
    assert pictureless(code(slider, "explore(draw)")) == []
    assert pictureless(code({WIDGET_VIEW: {}, **slider}, "explore(draw)")) == [
        0
    ]  # "model not found" in JupyterLab
    assert pictureless(code({"text/plain": "a"}, "draw = 1\nexplore(draw)")) == [0]
    assert pictureless(code({"image/png": "b", "text/plain": "a"}, "explore(draw)")) == [0]


def test_an_old_row_of_a_claim_is_found():
    claim = dict(claim="a | b", value=0.5, low=0.4, high=0.6, floor=0.0, at_most=False, verdict="holds")
    now = logs.table({"claims": [claim]}).data
    log = {"x.json": {"claims": [claim]}}
    assert stale(code({"text/markdown": now}), log) == []
    old = now.replace("0.500", "0.300")
    assert stale(code({"text/markdown": old}), log) == [old.splitlines()[-1]]
