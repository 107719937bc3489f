"""The rules of the house: one direction of imports, short modules, honest notebooks, nothing of one machine."""

import ast
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted((ROOT / "kimi_mini").rglob("*.py"))
NOTEBOOKS = sorted(
    path for path in (ROOT / "notebooks").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts
)


def tracked_files() -> list[Path]:
    """Files that git knows; without git, all that is not hidden."""
    if shutil.which("git") and (ROOT / ".git").exists():
        names = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
        return [ROOT / name for name in names.split("\0") if name and (ROOT / name).is_file()]
    return [
        path for path in ROOT.rglob("*") if path.is_file() and not any(p.startswith(".") for p in path.parts)
    ]


# --------------------------------------------------------------------------------------------------- imports
def lint_imports(folder: Path) -> subprocess.CompletedProcess:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-logo", "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_imports_go_one_way():
    result = lint_imports(ROOT)
    assert result.returncode == 0, result.stdout


ROOMS = (
    "base",
    "model",
    "text",
    "worlds",
    "inference",
    "agent",
    "evaluation",
    "training",
    "course",
    "pipeline",
    "experiments",
)


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("model/one.py", "from kimi_mini.agent.one import x"),  # upwards
        ("text/one.py", "import kimi_mini.worlds.one"),  # sideways: these two do not know each other
        ("agent/one.py", "def f():\n    from kimi_mini.agent import two"),  # a circle through a function
        ("training/one.py", "import matplotlib"),  # only the upper rooms draw
        ("stray.py", ""),  # a module without a room
    ],
)
def test_a_module_in_the_wrong_room_and_a_circle_are_caught(tmp_path, file, line):
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    package = tmp_path / "kimi_mini"
    for folder in (package, *(package / room for room in ROOMS)):
        folder.mkdir()
        for name in ("__init__", "__main__", "one", "two")[: 2 if folder == package else 4]:
            (folder / f"{name}.py").write_text("x = 1\n")
    (package / "agent" / "two.py").write_text("from kimi_mini.agent import one\n")
    assert lint_imports(tmp_path).returncode == 0
    (package / file).write_text(line + "\n")
    assert lint_imports(tmp_path).returncode != 0


# --------------------------------------------------------------------------------------------------- modules
def test_modules_and_functions_are_short_and_say_what_they_are():
    for path in MODULES:
        source, where = path.read_text(encoding="utf-8"), path.relative_to(ROOT)
        assert source.count("\n") <= 300, f"{where} has {source.count(chr(10))} lines: split it at its seam"
        assert ast.get_docstring(ast.parse(source)), f"{where} has no docstring"
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 50, f"{where}: {node.name} is longer than 50 lines"


def test_a_folder_fits_on_one_look():
    for folder in {path.parent for path in MODULES}:
        entries = [path for path in folder.iterdir() if path.name != "__pycache__"]
        assert len(entries) <= 13, f"{folder.relative_to(ROOT)} has {len(entries)} entries"


PLACES = re.compile(r"(?<![\w.~-])/(?:" + "|".join(("work", "root", "home")) + r")/[\w.]")


def test_nothing_names_the_machine_it_was_made_on():
    text_kinds = {".py", ".md", ".toml", ".txt", ".json", ".ipynb", ".jinja", ".yml", ""}
    for path in tracked_files():
        if path.suffix in text_kinds and "text" not in path.parts and path.stat().st_size < 5_000_000:
            found = PLACES.search(path.read_text(encoding="utf-8", errors="replace"))
            assert not found, f"{path.relative_to(ROOT)} names {found.group()}"


def test_the_check_for_machine_places_can_fail():
    assert PLACES.search("saved to /" + "home/ada/run")
    assert PLACES.search('"/' + 'root/.venv"')
    assert not PLACES.search("python.org/work/x and ./work/x")


# ---------------------------------------------------------------------------------------------- requirements
def requirement_lines() -> list[str]:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_every_requirement_is_pinned_and_has_its_reason():
    for line in requirement_lines():
        assert re.fullmatch(r"[\w-]+==[\w.]+ +# \S.{6,}", line), line
    assert requirement_lines()[0].startswith("torch==2.13.0 ")


def test_every_import_of_the_package_is_required():
    required = {line.split("==")[0].replace("-", "_") for line in requirement_lines()}
    own = set(sys.stdlib_module_names) | {"kimi_mini", "__future__"}
    optional = {"huggingface_hub", "openai", "fastapi", "uvicorn"}  # come with datasets; asked for by serve
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            for name in {name.split(".")[0] for name in names} - own - optional:
                assert name in required, f"{path.name} imports {name}"


def test_pyproject_agrees_with_the_readme_about_python():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["requires-python"] == ">=3.11"
    assert "Python 3.11" in (ROOT / "README.md").read_text(encoding="utf-8")


# ------------------------------------------------------------------------------------------------- notebooks
def notebook_problems(notebook: dict) -> list[str]:
    """What would make a committed notebook claim more than it ran.

    nbval compares no cell without an execution_count, so an un-run cell checks nothing; a stored error is an
    output like any other to it; and metadata.widgets is a dump of state that no run can reproduce.
    """
    problems = ["metadata.widgets is stored"] if "widgets" in notebook["metadata"] else []
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] != "code" or not "".join(cell["source"]).strip():
            continue
        if cell.get("execution_count") is None:
            problems.append(f"cell {number} was not run")
        if any(output["output_type"] == "error" for output in cell["outputs"]):
            problems.append(f"cell {number} stores an error")
    return problems


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_committed_notebook_was_run_to_its_end(path):
    assert notebook_problems(json.loads(path.read_text(encoding="utf-8"))) == []


def cell(**changes) -> dict:
    return {"cell_type": "code", "source": ["1 + 1"], "execution_count": 1, "outputs": []} | changes


ERROR = {"output_type": "error", "ename": "ValueError", "evalue": "", "traceback": []}


@pytest.mark.parametrize(
    ("cells", "metadata", "problem"),
    [
        ([cell()], {}, None),
        ([cell(execution_count=None, source=["  "]), {"cell_type": "markdown", "source": ["a"]}], {}, None),
        ([cell(), cell(execution_count=None)], {}, "cell 1 was not run"),
        ([cell(outputs=[ERROR])], {}, "cell 0 stores an error"),
        ([cell()], {"widgets": {}}, "metadata.widgets is stored"),
    ],
)
def test_the_notebook_check_can_fail(cells, metadata, problem):
    found = notebook_problems({"cells": cells, "metadata": metadata})
    assert found == ([problem] if problem else [])


def test_a_notebook_cell_gets_a_minute_for_late_output():
    """nbval gives 5 seconds by itself; a cell that trains needs more."""
    import inspect
    import runpy

    from nbval.plugin import IPyNbCell

    assert "self.output_timeout = 5" in inspect.getsource(IPyNbCell.__init__)
    conftest = runpy.run_path(str(ROOT / "notebooks" / "conftest.py"))

    class Item:
        output_timeout = 5

    items = [Item(), object()]
    conftest["pytest_collection_modifyitems"](items)
    assert items[0].output_timeout == 60
