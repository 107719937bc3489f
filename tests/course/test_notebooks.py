"""Notebooks as a reader meets them without running anything: links lead somewhere, pictures are there, hints wait."""

import json
import re
from pathlib import Path

import pytest

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
    """Cells whose widget has no picture or text beside it for places that run nothing."""
    outputs = [(i, o.get("data", {})) for i, c in enumerate(notebook["cells"]) for o in c.get("outputs", [])]
    return [
        index
        for index, data in outputs
        if WIDGET_VIEW in data and not ("text/plain" in data and {"image/png", "text/html"} & set(data))
    ]


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


def code(data: dict) -> dict:
    return {
        "cells": [
            {"cell_type": "code", "source": [], "outputs": [{"output_type": "execute_result", "data": data}]}
        ]
    }


def test_the_checks_can_fail(tmp_path):
    assert dead_links(markdown("[a](99_none.ipynb) [b](https://example.org)"), tmp_path) == ["99_none.ipynb"]
    assert dead_links(code({"text/markdown": ["| [a](gone", ".ipynb#x) |"]}), tmp_path) == ["gone.ipynb"]
    assert pictureless(code({WIDGET_VIEW: {}, "text/plain": "a"})) == [0]
    assert pictureless(code({WIDGET_VIEW: {}, "text/plain": "a", "image/png": "b"})) == []
