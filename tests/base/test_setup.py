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

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed"),
]


TESTS = "-m pytest --numprocesses auto --dist loadfile"  # on every core, a file each


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
    for goal in ("run", "check", "test", "lab", "publish"):
        shutil.rmtree(machine.folder / ".venv", ignore_errors=True)
        assert machine.make(goal).returncode == 0
        assert machine.diary()[0] == "-m venv .venv"


def test_make_test_runs_every_check_in_order(machine):
    (machine.folder / "notebooks").mkdir()
    (machine.folder / "notebooks/00.ipynb").write_text("{}")
    machine.make("test")
    checks = machine.diary()[3:]
    assert checks[:4] == ["check .", "format --check --quiet .", "--no-logo", f"{TESTS} tests"]
    assert checks[4].startswith(f"{TESTS} --nbval-lax --nbval-current-env --nbval-cell-timeout=300")
    assert checks[4].endswith("notebooks/")


def test_make_check_leaves_out_what_is_slow(machine):
    machine.make("check")
    assert machine.diary()[3:] == [
        "check .",
        "format --check --quiet .",
        "--no-logo",
        f"{TESTS} tests -m not slow",
    ]


@pytest.mark.parametrize("goal", ["check", "test"])
@pytest.mark.parametrize("check", ["check .", "format --check --quiet .", "--no-logo", f"{TESTS} tests"])
def test_a_check_that_fails_fails_make(machine, goal, check):
    machine.make("run")
    assert machine.make(goal, FAIL_ON=check).returncode != 0


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
    text = script.read_text()
    order = ["make run ARGS", '!= "$(state)"', "make test"]
    assert sorted(order, key=text.index) == order and "--durations" in text


@pytest.mark.parametrize("writes", ["", "README.md", "new"])
def test_continuous_integration_refuses_a_run_that_leaves_something(tmp_path, writes):
    """In a clone with a make of its own: what the run changes or leaves behind ends it before the tests."""
    (tmp_path / "bin").mkdir()
    make = tmp_path / "bin" / "make"
    make.write_text(
        f'#!/bin/sh\necho "$@" >> "$LOG"\n[ "$1" = run ] && [ -n "{writes}" ] && echo x >> "{writes}"\nexit 0\n'
    )
    make.chmod(0o755)
    clone = tmp_path / "clone"
    (clone / ".ci").mkdir(parents=True)
    shutil.copy(ROOT / ".ci" / "run", clone / ".ci")
    (clone / "README.md").write_text("as it was")
    environment = {
        **os.environ,
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "LOG": str(tmp_path / "log"),
    }
    for name in ("chromium", "chromedriver", "bwrap"):  # nothing to install
        (tmp_path / "bin" / name).symlink_to("/bin/true")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "all"]):
        subprocess.run([*git, *words], cwd=clone, check=True)
    done = subprocess.run(
        [clone / ".ci" / "run"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    goals = [line.split()[0] for line in (tmp_path / "log").read_text().splitlines()]
    assert (done.returncode == 0) == (writes == "") and goals == (["run"] if writes else ["run", "test"])
    assert writes in done.stdout
