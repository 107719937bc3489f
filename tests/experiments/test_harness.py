"""The command line of the experiments: what it refuses, and that nothing less replaces what is published."""

import importlib
import inspect
import multiprocessing
import pkgutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from kimi_mini import experiments
from kimi_mini.base.errors import KimiError
from kimi_mini.base.evidence import Log
from kimi_mini.base.files import read_json, write_json
from kimi_mini.base.paths import RESULTS
from kimi_mini.experiments import harness
from kimi_mini.experiments.muonclip import token_efficiency
from kimi_mini.experiments.thinking import horizon
from kimi_mini.experiments.verifiers import error_rates, quota, rejection
from kimi_mini.experiments.verifiers.shared import board

NAMES = [module.name for module in pkgutil.walk_packages(experiments.__path__, "kimi_mini.experiments.")]
MAINS = {name: getattr(importlib.import_module(name), "main", None) for name in NAMES}
COMMANDS = [name for name, main in MAINS.items() if callable(main) and not inspect.signature(main).parameters]


@pytest.fixture
def said(monkeypatch):
    """What `arguments` makes of words; the number of threads stays as it is."""
    monkeypatch.setattr(harness.torch, "set_num_threads", lambda count: None)

    def read(*words, **more):
        monkeypatch.setattr(sys, "argv", ["experiment", *map(str, words)])
        return harness.arguments("An experiment.", **more)

    return read


def test_only_a_whole_run_is_published(said, tmp_path, monkeypatch):
    assert said().folder == said("--seeds", 0, 1, 2).folder == said("--threads", 2).folder == RESULTS
    for words in (["--seeds", 0], ["--seeds", 2, 1, 0], ["--scale", 0.5]):
        assert said(*words).folder == harness.REHEARSAL
    assert said("--base", tmp_path, base=RESULTS).folder == harness.REHEARSAL
    assert said(base=RESULTS).folder == RESULTS and said(seeds=(0, 1)).seeds == [0, 1]
    assert said("--folder", tmp_path).folder == tmp_path == harness.figures(tmp_path)
    assert harness.figures(RESULTS).name == "figures"
    monkeypatch.chdir(RESULTS.parent)  # by any path: its figures go where the others are
    assert said("--folder", RESULTS.name).folder == RESULTS


def test_a_run_on_another_number_of_processes_is_as_whole(monkeypatch):
    """The command that a shipped log names sends it to the same place on every machine."""
    options = harness.common_parser("An experiment.")
    options.add_argument("--processes", type=int, default=8)
    monkeypatch.setattr(harness.torch, "set_num_threads", lambda count: None)
    monkeypatch.setattr(sys, "argv", ["experiment", "--processes", "2"])
    assert harness.read(options).folder == RESULTS


@pytest.mark.parametrize(
    "words",
    [
        ("--scale", -1),
        ("--scale", 0),
        ("--scale", "nan"),
        ("--scale", "inf"),
        ("--threads", 0),
        ("--seeds", -1),
        ("--seeds", 0, 0),
        ("--seeds",),
        ("--base", "x"),
    ],
)
def test_numbers_that_make_no_sense_are_explained_by_usage(said, capsys, words):
    with pytest.raises(SystemExit) as stop:
        said(*words)
    assert stop.value.code == 2 and words[0] in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_experiment_reads_its_words_here(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, "--seeds", "0", "0"])
    with pytest.raises(SystemExit):
        MAINS[name]()
    assert "still one seed" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_refused_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(KimiError, match="file"):
        Log("anything", folder=tmp_path / "file" / "results")


@dataclass(frozen=True)
class Sleeper:
    """A job that sleeps and leaves a file when it is done, or that fails as soon as the row of another is kept."""

    seconds: float
    folder: Path
    fails: bool = False

    def said(self):
        return {"seconds": self.seconds}


def until_there(*files):
    """Wait for the files, a minute at most: a process may take seconds to begin."""
    end = time.monotonic() + 60
    while not all(file.exists() for file in files) and time.monotonic() < end:
        time.sleep(0.1)


def sleep(job):
    time.sleep(job.seconds)
    if job.fails:
        until_there(job.folder / "rows.json")
        raise KimiError("the disk is full")
    (job.folder / f"{job.seconds} is done").touch()
    return {"slept": job.seconds}


@pytest.mark.slow
def test_a_job_that_fails_ends_the_others_at_once(tmp_path):
    jobs = [Sleeper(0, tmp_path), Sleeper(0.1, tmp_path, fails=True), Sleeper(300, tmp_path)]
    began = time.monotonic()
    with pytest.raises(KimiError, match="the disk is full"):
        harness.side_by_side(jobs, tmp_path / "rows.json", 2, sleep)
    assert time.monotonic() - began < 100 and not multiprocessing.active_children()
    assert [entry["row"] for entry in read_json(tmp_path / "rows.json", list)] == [{"slept": 0}]


@pytest.mark.slow
def test_a_stop_ends_all_at_once_and_the_rows_that_are_there_are_kept(tmp_path, monkeypatch):
    """It comes while the first row is written, and the second one waits for that."""
    jobs, stops = [Sleeper(seconds, tmp_path) for seconds in (0, 0.1, 300)], [KeyboardInterrupt]

    def stopped(file, rows):
        until_there(tmp_path / "0 is done", tmp_path / "0.1 is done")
        if stops:
            time.sleep(1)  # until both rows are here
            raise stops.pop()
        write_json(file, rows)

    monkeypatch.setattr(harness, "write_json", stopped)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        harness.side_by_side(jobs, tmp_path / "rows.json", 2, sleep)
    assert time.monotonic() - began < 100 and not multiprocessing.active_children()
    found = read_json(tmp_path / "rows.json", list)
    assert sorted(entry["row"]["slept"] for entry in found) == [0, 0.1]


@pytest.mark.parametrize(
    ("name", "draw"),
    [
        ("verifiers", error_rates.draw),
        ("rejection", rejection.draw),
        ("quota", quota.draw),
        ("token_efficiency", token_efficiency.draw),
        ("filter_gap", board("by arm")),
    ],
)
def test_the_figure_is_drawn_from_the_saved_log(name, draw, tmp_path):
    """What is drawn is what was written, keys as JSON has them; beside the log, unless it is the published one."""
    published = read_json(RESULTS / f"{name}.json")
    log = Log(name, folder=tmp_path, scoreboard=published.get("scoreboard"), laws=published.get("laws"))
    log.rows = published["rows"]
    harness.finish(log, **{name: draw})
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.json", f"{name}.png"}
    assert plt.imread(tmp_path / f"{name}.png").std() > 0.05


def test_a_task_that_is_tried_five_times_counts_once_in_the_interval():
    """Its five tries are no five trials: mutant, the interval of 500."""
    often, once = harness.rate(450, 500, tasks=100), harness.rate(90, 100)
    assert often == pytest.approx(once) and harness.rate(450, 500)["low"] > often["low"]
    exact = harness.rate(5, 7, tasks=2)  # 1.4 of 2 tasks
    assert exact["low"] <= exact["value"] == 5 / 7 <= exact["high"]


def test_the_bars_of_long_dialogues_can_be_reached():
    """If all of them are right, the interval lies above the bar: with fewer dialogues no agent could reach it."""
    for calls, seeds, bar in ((horizon.CALLS[100], 3, 0.97), (horizon.CALLS[300], 3, 0.97)):
        assert harness.rate(calls * seeds, calls * seeds)["low"] >= bar


def test_a_ratio_and_its_inverse_say_the_same():
    """An arithmetic mean makes of twice and half as large a quarter more, and its interval reaches below 0."""
    found, turned = harness.ratio_across([0.2, 1.0, 3.0]), harness.ratio_across([5.0, 1.0, 1 / 3])
    assert harness.ratio_across([0.5, 2.0])["value"] == pytest.approx(1.0)
    assert found["low"] > 0 and found["value"] == pytest.approx(1 / turned["value"])
    assert (found["low"], found["high"]) == pytest.approx((1 / turned["high"], 1 / turned["low"]))
    assert harness.ratio_across([0.5]) == {"value": pytest.approx(0.5), "low": None, "high": None}


def test_the_wider_interval_counts_and_the_first_value():
    narrow, wide = {"value": 0.5, "low": 0.4, "high": 0.6}, {"value": 0.52, "low": 0.1, "high": 0.7}
    assert harness.wider(narrow, wide) == wide | {"value": 0.5}
    assert harness.wider(wide, narrow) == wide
    alone = harness.across([0.5])
    assert harness.wider(alone, wide) == wide | {"value": 0.5} and harness.wider(alone, alone) == alone


def test_arms_of_one_model_differ_by_tasks_and_by_sets_of_tasks():
    """Three sets that happen to agree do not make few tasks many; sets far apart are not made one."""
    agree = harness.on_same_tasks([0.5, 0.5, 0.5], (30, 30), (15, 30))
    assert agree["value"] == 0.5 and agree["low"] < 0.35 and agree["high"] > 0.6
    apart = harness.on_same_tasks([0.2, 0.5, 0.8], (30, 30), (15, 30))
    assert apart["value"] == pytest.approx(0.5) and apart["low"] < -0.2 and apart["high"] > 1.2


def test_one_seed_has_a_row_without_an_interval():
    """All of the training lies behind the report: it may not end in a traceback there."""
    for make, value in ((harness.row, 0.5), (harness.gap, -0.1)):
        found = make([value], [7], 20, "made up")
        assert (found["value"], found["low"], found["high"], found["seeds"]) == (value, None, None, [7])
    whole = harness.row([0.9, 1.0], [0, 1], 20, "made up")
    assert whole["high"] == 1.0 and whole["low"] < 0.9
