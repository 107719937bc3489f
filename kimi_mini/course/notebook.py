"""Run notebooks and keep them: `python -m kimi_mini.course.notebook notebooks/01_*.ipynb`.

A kept notebook holds pictures, no widgets: JupyterLab cannot show a widget whose kernel is gone ("model not found"),
and shows the picture beside it where there is no widget. `make lab` keeps what a reader saves the same way.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from kimi_mini.base.command import in_one_line
from kimi_mini.course.sliders import WIDGET_VIEW

TIMEOUT = 900  # seconds a cell may take


def still(notebook: dict[str, Any]) -> None:
    """Take out, in place, what lives only as long as a kernel: widgets, their state, times of execution."""
    notebook["metadata"].pop("widgets", None)
    for cell in notebook["cells"]:
        cell["metadata"].pop("execution", None)
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(WIDGET_VIEW, None)


def before_saving(model: dict[str, Any], **_: Any) -> None:
    """What Jupyter's server calls before it writes a file (FileContentsManager.pre_save_hook)."""
    if model["type"] == "notebook":
        still(model["content"])


def main() -> None:
    """Run the notebooks that are named, each in its own folder, and write them back."""
    import nbformat
    from nbclient import NotebookClient

    words = argparse.ArgumentParser(description="Run notebooks and keep their outputs.")
    words.add_argument("paths", nargs="+", type=Path, metavar="NOTEBOOK")
    for path in words.parse_args().paths:
        notebook = nbformat.read(path, 4)
        where = {"metadata": {"path": str(path.parent)}}
        NotebookClient(notebook, timeout=TIMEOUT, resources=where).execute()
        still(notebook)
        nbformat.write(notebook, path)
        print(path)


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
