"""`make` on a fresh machine, with a stand-in for Python that only writes down what it is asked to do."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

STAND_IN = """#!/bin/sh
case "$1" in
  -c) exit ${OLD:-0} ;;
  -V) echo "Python 3.9.1"; exit 0 ;;
esac
echo "$@" >> "$LOG"
case "$*" in
  *"-m venv"*) [ -n "$NO_VENV" ] && exit 1; mkdir -p .venv/bin
     for tool in python ruff lint-imports jupyter; do cp "$0" .venv/bin/$tool; done ;;
  *"$FAIL_ON"*) [ -n "$FAIL_ON" ] && exit 1 ;;
esac
exit 0
"""

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


class Machine:
    """A folder with our Makefile and requirements, and a Python that only keeps a diary."""

    def __init__(self, folder: Path):
        self.folder, self.log = folder, folder / "log"
        for name in ("Makefile", "requirements.txt"):
            shutil.copy(ROOT / name, folder)
        self.python = folder / "python"
        self.python.write_text(STAND_IN)
        self.python.chmod(0o755)

    def make(self, goal: str, python: str | None = None, **environment: str) -> subprocess.CompletedProcess:
        self.log.write_text("")
        return subprocess.run(
            ["make", goal, f"PYTHON={python or self.python}"],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            env={"PATH": os.environ["PATH"], "LOG": str(self.log), "FAIL_ON": ""} | environment,
        )

    def diary(self) -> list[str]:
        return self.log.read_text().splitlines()


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def test_the_first_run_installs_torch_exactly_and_first(machine):
    result = machine.make("run")
    assert result.returncode == 0, result.stderr
    diary = machine.diary()
    assert diary[0] == "-m venv .venv"
    assert diary[1].endswith("install --quiet --disable-pip-version-check torch==2.13.0")
    assert diary[2].endswith("-r requirements.txt")
    assert diary[3] == "-m kimi_mini run"


def test_the_second_run_installs_nothing_until_requirements_change(machine):
    machine.make("run")
    machine.make("run")
    assert machine.diary() == ["-m kimi_mini run"]
    later = (machine.folder / ".venv/.installed").stat().st_mtime + 5
    os.utime(machine.folder / "requirements.txt", (later, later))
    machine.make("run")
    assert "-r requirements.txt" in machine.diary()[1]
    assert not any("venv .venv" in line for line in machine.diary())


def test_an_installation_that_failed_is_tried_again(machine):
    assert machine.make("run", FAIL_ON="-r requirements.txt").returncode != 0
    assert not (machine.folder / ".venv/.installed").exists()
    assert machine.make("run").returncode == 0
    assert any("-r requirements.txt" in line for line in machine.diary())


def test_all_goals_set_up_first(machine):
    for goal in ("run", "test", "lab"):
        shutil.rmtree(machine.folder / ".venv", ignore_errors=True)
        assert machine.make(goal).returncode == 0
        assert machine.diary()[0] == "-m venv .venv"


def test_make_test_runs_every_check_in_order(machine):
    (machine.folder / "notebooks").mkdir()
    (machine.folder / "notebooks/00.ipynb").write_text("{}")
    machine.make("test")
    checks = machine.diary()[3:]
    assert checks[:3] == ["check .", "--no-logo", "-m pytest tests"]
    assert checks[3].startswith("-m pytest --nbval-lax --nbval-current-env --nbval-cell-timeout=300")
    assert checks[3].endswith("notebooks/")


@pytest.mark.parametrize("check", ["check .", "--no-logo", "-m pytest tests"])
def test_a_check_that_fails_fails_make(machine, check):
    machine.make("run")
    assert machine.make("test", FAIL_ON=check).returncode != 0


def test_without_notebooks_make_test_says_so(machine):
    assert "no notebook yet" in machine.make("test").stdout


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"OLD": "1"}, "kimi_mini needs Python 3.11 or newer; "),
        ({"NO_VENV": "1"}, "apt install python3-venv"),
        ({"python": "no-such-python"}, "there is no no-such-python here"),
    ],
)
def test_a_machine_that_cannot_is_told_in_one_line(machine, options, says):
    result = machine.make("run", **options)
    assert result.returncode != 0
    assert says in result.stdout
    assert machine.diary() in ([], ["-m venv .venv"])


def test_continuous_integration_does_what_a_person_does():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "make test" in script.read_text()
