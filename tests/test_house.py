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

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted((ROOT / "kimi_mini").rglob("*.py"))
NOTEBOOKS = sorted(path for path in (ROOT / "notebooks").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)
SHOWS_FIGURES = {"viz", "viz_model", "viz_optimizer", "viz_training", "viz_attention", "viz_agent", "viz_routing", "viz_thinking", "widgets", "trace_view"}
MAY_SHOW_FIGURES = SHOWS_FIGURES | {"pipeline", "stages", "publishing", "chat_cli", "experiments", "exercises"}


def tracked_files() -> list[Path]:
    """Files that git knows; without git, all that is not hidden."""
    if shutil.which("git") and (ROOT / ".git").exists():
        names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        return [ROOT / name for name in names.split("\0") if name and (ROOT / name).is_file()]
    return [path for path in ROOT.rglob("*") if path.is_file() and not any(p.startswith(".") for p in path.parts)]


# --------------------------------------------------------------------------------------------------- imports
def lint_imports(folder: Path) -> subprocess.CompletedProcess:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-logo", "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_imports_go_one_way():
    result = lint_imports(ROOT)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("module", "line"),
    [("config", "from kimi_mini.agent.loop import x"), ("results", "import kimi_mini.model.kimi"), ("stray", "")],
)
def test_an_import_upwards_and_a_module_without_a_place_are_caught(tmp_path, module, line):
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    package = tmp_path / "kimi_mini"
    package.mkdir()
    for name in ("__init__", "__main__", "agent", "config", "errors", "model", "results"):
        (package / f"{name}.py").write_text("x = 1\n")
    assert lint_imports(tmp_path).returncode == 0
    (package / f"{module}.py").write_text(line + "\n")
    assert lint_imports(tmp_path).returncode != 0


def imported_names(source: str) -> set[str]:
    """Modules of kimi_mini that a source text imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("kimi_mini.")}
        elif isinstance(node, ast.ImportFrom):
            home = ("kimi_mini." * bool(node.level) + (node.module or "")).strip(".").split(".")
            if home[0] == "kimi_mini":
                names |= set(home[1:2]) or {alias.name for alias in node.names}
    return names


def test_only_notebooks_and_command_lines_draw():
    assert imported_names("from kimi_mini import viz") == imported_names("from .viz import a") == {"viz"}
    assert imported_names("def f():\n    import kimi_mini.course.figures.style as v") == {"viz"}
    for path in MODULES:
        room = path.relative_to(ROOT / "kimi_mini").parts[0].removesuffix(".py")
        if room not in MAY_SHOW_FIGURES:
            assert not imported_names(path.read_text(encoding="utf-8")) & SHOWS_FIGURES, path.name


# --------------------------------------------------------------------------------------------------- modules
@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_module_is_short_and_says_what_it_is(path):
    source = path.read_text(encoding="utf-8")
    assert source.count("\n") <= 300, f"{path.name} has {source.count(chr(10))} lines: split it at its seam"
    assert ast.get_docstring(ast.parse(source)), f"{path.name} has no docstring"


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
