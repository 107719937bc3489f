"""`make run` in small: killed in every stage it ends with the same numbers and the same weights; and it writes below
data/run alone.

The runs are processes of their own (tests/helpers/rehearsal.py) in a copy of the package, killed with SIGKILL in the
middle of writing a save.
"""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

from kimi_mini.pipeline import Run
from kimi_mini.pipeline.stages import STAGES

pytestmark = pytest.mark.slow
KILLS = (
    "trajectories.npz:1",
    "finetune.pt:4",
    "reinforce.pt:2",
    "rows-final.json:3",
    "run.json:1",
)  # file: which save
CHECKPOINTS = ("drilled", "base", "tuned", "final")


def rehearse(root, folder, *options, kill=None):
    """Run the rehearsal on two processes; returns its exit status (137 if one was killed) and what it wrote."""
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    environment.pop("KILL", None)
    if kill is not None:
        environment["KILL"] = kill
    command = [sys.executable, str(root / "tests" / "helpers" / "rehearsal.py"), "--folder", str(folder)]
    command += ["--processes", "2"]
    done = subprocess.run([*command, *options], cwd=root, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


SHIPPED = (
    "data/checkpoints/final/config.json",
    "data/results/run.json",
    "figures/scoreboard.png",
    "README.md",
)


@pytest.fixture(scope="module")
def copy(root, tmp_path_factory):
    """What a run needs of the repository, and something in the place of everything that a full run would write."""
    there = tmp_path_factory.mktemp("copy")
    for name in ("kimi_mini", "data/text", "data/tokenizer"):
        shutil.copytree(root / name, there / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "pyproject.toml", there)  # by which the package knows a clone
    (there / "tests" / "helpers").mkdir(parents=True)
    shutil.copy(root / "tests" / "helpers" / "rehearsal.py", there / "tests" / "helpers")
    for name in SHIPPED:
        (there / name).parent.mkdir(parents=True, exist_ok=True)
        (there / name).write_text(f'{{"file": "{name}"}}')
    return there


def contents(folder):
    """Every file and what is in it, but for runs and what Python leaves behind."""
    files = [file for file in folder.rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    files = [file for file in files if folder / "data" / "run" not in file.parents]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def runs(copy, tmp_path_factory):
    """A run to the end, where `make run` puts it; and another with the same first stages that is killed in every later
    one."""
    root, before = copy, contents(copy)
    whole, killed = copy / "data" / "run", tmp_path_factory.mktemp("killed") / "run"
    status, out, err = rehearse(root, whole)
    assert status == 0, err[-2000:]
    early = ["plan", "drill", "pretrain"]
    shutil.copytree(
        whole, killed, ignore=lambda folder, names: [name for name in names if not _early(name, early)]
    )
    deaths = [rehearse(root, killed, kill=kill) for kill in KILLS]
    last = rehearse(root, killed)
    return SimpleNamespace(
        root=root,
        whole=whole,
        killed=killed,
        out=out,
        deaths=deaths,
        last=last,
        before=before,
        after=contents(root),
    )


def _early(name, early):
    """Files of the first stages: their notes and states, the text, and their checkpoints with all that is in them."""
    later = name in (
        "tuned",
        "final",
        "run.json",
        "figures",
        "trajectories.npz",
        "training.npz",
    ) or name.startswith("rows-")
    return not later and (name.split(".")[0] in early or name.split(".")[0] not in STAGES)


def test_a_rehearsal_goes_through_all_stages(runs):
    for number, stage in enumerate(STAGES, 1):
        assert f"[{number}/{len(STAGES)}] {stage}" in runs.out
        assert Run(runs.whole).done(stage)
    for name in CHECKPOINTS:
        folder = runs.whole / "checkpoints" / name
        files = {file.name for file in folder.iterdir()}
        assert files >= {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"}


def test_it_was_killed_in_the_middle_and_went_on(runs):
    """SIGKILL left half a file beside the state, which nobody reads; what was done before was not done again."""
    assert [status for status, _, _ in runs.deaths] == [128 + signal.SIGKILL] * len(KILLS)
    assert all(error.count("run the same command to go on") == 1 for _, _, error in runs.deaths)
    halves = [file.name.strip(".") for file in runs.killed.iterdir() if file.name.endswith(".tmp")]
    killed = [kill.partition(":")[0] for kill in KILLS]
    assert sorted(name for name in killed if any(half.startswith(name) for half in halves)) == sorted(killed)
    order = ("synthesise", "finetune", "reinforce", "evaluate", "report")
    for number, (stage, (_, said, _)) in enumerate(zip(order, runs.deaths)):
        assert f"{stage}\n" in said and f"{stage}: done before" not in said
        assert all(
            f"{earlier}: done before" in said for earlier in ("pretrain", *order[: max(0, number - 1)])
        )
    status, last, error = runs.last
    assert status == 0, error[-2000:]
    assert "evaluate: done before" in last and "[8/8] report\n" in last


def without_times(value):
    """The same without what a clock or the machine decides."""
    if isinstance(value, dict):
        clocks = ("seconds", "total_seconds", "command", "versions", "threads", "peak_bytes")
        return {key: without_times(entry) for key, entry in value.items() if key not in clocks}
    return [without_times(entry) for entry in value] if isinstance(value, list) else value


def test_the_numbers_are_those_of_an_uninterrupted_run(runs):
    """Scoreboard, curves, rounds of RL and the counts of the filter."""
    logs = [json.loads((folder / "run.json").read_text()) for folder in (runs.whole, runs.killed)]
    assert logs[0]["scoreboard"].keys() >= {
        "chain/thinking",
        "shop/buy",
        "repair/pass@1",
        "before_rl/repair/pass@1",
    }
    assert [stage["name"] for stage in logs[0]["stages"]] == list(STAGES)
    assert logs[0]["total_seconds"] == pytest.approx(
        sum(stage["seconds"] for stage in logs[0]["stages"]), abs=0.1
    )
    assert 2**28 < logs[0]["peak_bytes"] < 2**32  # under 4 GB
    assert without_times(logs[0]) == without_times(logs[1])


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_the_weights_are_those_of_an_uninterrupted_run(runs, name):
    """Bit for bit; and every stage has changed them."""
    files = [folder / "checkpoints" / name / "model.safetensors" for folder in (runs.whole, runs.killed)]
    assert files[0].read_bytes() == files[1].read_bytes()
    others = [
        runs.whole / "checkpoints" / other / "model.safetensors" for other in CHECKPOINTS if other != name
    ]
    assert all(files[0].read_bytes() != other.read_bytes() for other in others)


def test_what_git_tracks_is_not_touched(runs):
    """Checkpoints, log and figures stay with the run."""
    assert runs.before.keys() == runs.after.keys() and set(SHIPPED) <= set(runs.before)
    assert [name for name, content in runs.before.items() if runs.after[name] != content] == []
    assert (runs.whole / "figures" / "scoreboard.png").is_file() and (runs.whole / "run.json").is_file()


def test_a_second_run_says_so_in_a_second(runs, root):
    """Measured in processor time; torch need not even load."""
    command = [sys.executable, "-m", "kimi_mini", "run", "--folder", str(runs.whole), "--rehearsal"]
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0 and done.stdout.startswith("everything is done") and not done.stderr
    assert str(runs.whole) in done.stdout and done.stdout.count("\n") == 1
    assert now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime < 1.5


def command(root, *words):
    """A command of the package in `root`: exit status and what it said."""
    line = [sys.executable, "-m", "kimi_mini", *map(str, words)]
    done = subprocess.run(line, cwd=root, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("options", "named"),
    [(["--seed", "1"], "seed"), (["--scale", "0.5"], "drill.tokens"), (["--preset", "mini"], "preset")],
)
def test_a_folder_of_another_plan_is_refused_in_one_line(runs, options, named):
    status, out, error = command(runs.root, "run", "--rehearsal", "--folder", runs.whole, *options)
    assert status == 2 and not out
    assert error.count("\n") == 1 and f"another {named}" in error and "--folder" in error


def test_a_rehearsal_is_not_shipped(runs):
    status, out, error = command(runs.root, "publish")
    assert status == 2 and not out and error.count("\n") == 1 and "another step_tokens" in error
    assert contents(runs.root) == runs.before


def test_ones_own_agent_is_the_one_to_talk_to(runs):
    """And a run that has not come to its end is none."""
    code = "from kimi_mini.agent.folder import newest_agent, whose; print(whose(newest_agent()))"
    said = lambda: subprocess.check_output([sys.executable, "-c", code], cwd=runs.root, text=True)
    assert said() == "your own agent, data/run/checkpoints/final\n"
    (runs.whole / "run.json").rename(runs.whole / "away")
    try:
        assert said() == "the shipped agent, data/checkpoints/final\n"
    finally:
        (runs.whole / "away").rename(runs.whole / "run.json")
