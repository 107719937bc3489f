"""A kept notebook holds pictures and no widgets, whoever writes it: the command, or JupyterLab when a reader saves."""

import json

import nbformat

from kimi_mini.course import notebook
from kimi_mini.course.sliders import WIDGET_VIEW


def test_a_saved_notebook_keeps_the_picture_and_not_the_widget():
    data = {WIDGET_VIEW: {"model_id": "a"}, "image/png": "b", "text/plain": "c"}
    cell = {"cell_type": "code", "metadata": {"execution": {}, "tags": ["x"]}, "outputs": [{"data": data}]}
    text = {"cell_type": "markdown", "metadata": {}, "source": "no outputs"}
    content = {"metadata": {"widgets": {}, "kernelspec": {}}, "cells": [cell, text]}
    notebook.before_saving({"type": "notebook", "content": content}, path="x.ipynb")
    assert data == {"image/png": "b", "text/plain": "c"}
    assert cell["metadata"] == {"tags": ["x"]} and content["metadata"] == {"kernelspec": {}}
    notebook.before_saving({"type": "file", "content": "text"}, path="x.txt")


def test_the_command_runs_a_notebook_where_it_lies(tmp_path, monkeypatch, root):
    source = "from pathlib import Path\nfrom kimi_mini.course import explore\nexplore(lambda a: Path.cwd().name, a=(1, 2))"
    path = tmp_path / "here" / "page.ipynb"
    path.parent.mkdir()
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)]), path)
    monkeypatch.setenv("PYTHONPATH", str(root))
    monkeypatch.setattr("sys.argv", ["notebook", str(path)])
    notebook.main()
    [output] = json.loads(path.read_text())["cells"][0]["outputs"]
    assert output["data"]["text/plain"][0] == "here\n" and WIDGET_VIEW not in output["data"]
