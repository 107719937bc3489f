"""The rules of the house: one direction of imports, short modules, honest notebooks, nothing of one machine."""

import ast
import itertools
import json
import os
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


def test_every_notebook_that_the_package_names_is_there():
    """A claim that stands in a notebook nobody has would be in no table of the course."""
    there = {path.name for path in NOTEBOOKS}
    for path in (ROOT / "kimi_mini").rglob("*.py"):
        named = set(re.findall(r"\b\d\d_\w+\.ipynb", path.read_text(encoding="utf-8")))
        assert named <= there, f"{path.relative_to(ROOT)} names {named - there}"


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
def requirements() -> dict[str, list[str]]:
    """The sections of requirements.txt by the first word of their heading: package, serve, ..."""
    sections = (ROOT / "requirements.txt").read_text(encoding="utf-8").strip().split("\n\n")[1:]
    found = {}
    for heading, *lines in map(str.splitlines, sections):
        found[re.findall(r"\w+", heading.lower().replace("the ", ""))[0]] = lines
    return found


def test_every_requirement_is_pinned_and_has_its_reason():
    assert list(requirements()) == ["package", "serve", "inspect", "lab", "test"]
    for line in itertools.chain(*requirements().values()):
        assert re.fullmatch(r"[\w-]+==[\w.]+( ; [^#]+)? +# \S.{6,}", line), line
    assert requirements()["package"][0].startswith("torch==2.13.0 ")


def unlisted(section: str, imports: dict[str, set[str]]) -> set[str]:
    """Imports of the package that pip would not bring with that section alone: file and name."""
    listed = {line.split("==")[0].replace("-", "_") for line in requirements()[section]}
    known = set(sys.stdlib_module_names) | {"kimi_mini", "__future__"} | listed
    return {f"{file} {name}" for file, names in imports.items() for name in names - known}


def imports() -> dict[str, set[str]]:
    """The packages that each module imports, anywhere in it."""
    found = {}
    for path in MODULES:
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
        found[path.relative_to(ROOT / "kimi_mini").as_posix()] = {name.split(".")[0] for name in names}
    return found


def test_pip_brings_what_the_package_imports_and_the_rest_is_an_extra():
    """What is needed for one command only, and says so when it is missing, may stay out."""
    assert unlisted("package", imports()) == {
        "agent/endpoint.py openai",  # [serve]
        "agent/endpoint.py httpx2",  # comes with openai
        "course/logs.py IPython",  # [lab]: shown in notebooks
        "course/notebook.py nbclient",  # come with jupyterlab
        "course/notebook.py nbformat",
        "course/sliders.py ipywidgets",
        "evaluation/benchmarks/inspect_tasks.py inspect_ai",  # [inspect]
        "evaluation/load.py httpx2",  # comes with openai
        "evaluation/load.py openai",  # [serve]: clients of an endpoint
        "experiments/deployment/compared.py transformers",  # [test]: bench compares with it
        "inference/serving/constrained.py llguidance",  # [serve]: named in a type
        "agent/serve.py fastapi",  # [serve]
        "agent/serve.py uvicorn",
        "inference/serving/app.py fastapi",
        "inference/serving/app.py starlette",  # comes with fastapi
        "inference/serving/grammars.py llguidance",
        "inference/serving/metrics.py prometheus_client",
        "inference/serving/requests.py pydantic",  # comes with fastapi
        "inference/serving/requests.py pydantic_core",
        "inference/serving/work.py fastapi",
        "text/corpus.py huggingface_hub",  # comes with datasets
    }
    assert "__main__.py torch" in unlisted("lab", imports())  # the wrong section


@pytest.mark.slow
def test_an_installed_package_works_in_any_folder_and_writes_nowhere_else(tmp_path):
    """As pip leaves it: no clone around it, so no texts, tokenizer or agents either."""
    source, site, folder = tmp_path / "source", tmp_path / "site", tmp_path / "work"
    shutil.copytree(ROOT / "kimi_mini", source / "kimi_mini", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "requirements.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = [*pip, "install", "-q", "--no-deps", "--no-build-isolation", "--target", site, source]
    subprocess.run(build, check=True, capture_output=True)
    said = (next(site.glob("*.dist-info")) / "METADATA").read_text(encoding="utf-8")
    assert "Requires-Dist: scipy==" in said and "Provides-Extra: lab" in said
    for only in ("fastapi", "jupyterlab", "pytest", "selenium", "ruff"):
        assert re.search(rf"Requires-Dist: {only}==.*; extra == ", said) and f"{only}==" in said
    folder.mkdir()
    before = sorted(site.rglob("*.*"))
    for words, status, line in (
        ("kimi_mini --help", 0, ""),
        ("kimi_mini run --scale 0.01", 2, "work in a clone of the project"),
        ("kimi_mini chat", 2, "work in a clone of the project"),
        ("kimi_mini.experiments.pretraining.vocabulary", 2, "work in a clone of the project"),
        ("kimi_mini.experiments.thinking.modes --scale 0.01", 2, "work in a clone of the project"),
    ):
        command = [sys.executable, "-B", "-m", *words.split()]
        environment = {**os.environ, "PYTHONPATH": str(site)}
        result = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert result.returncode == status, result.stderr
        if status:
            assert (
                result.stderr.startswith("kimi_mini: ")
                and line in result.stderr
                and result.stderr.count("\n") == 1
            )
    assert sorted(site.rglob("*.*")) == before and not list(folder.iterdir())


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
