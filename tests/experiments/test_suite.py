"""The experiments of the benchmarks: how attempts are chosen, which arm is claimed, and when a model is looked at."""

import random
from types import SimpleNamespace

import pytest

from kimi_mini.agent import loop
from kimi_mini.base.evidence import FAILS, HOLDS, Log
from kimi_mini.base.intervals import wilson
from kimi_mini.evaluation.adversary import perform
from kimi_mini.evaluation.benchmarks import BENCHMARKS, items
from kimi_mini.experiments.evaluation import along_training, suite
from kimi_mini.pipeline import finetune
from kimi_mini.pipeline.plan import Finetune, Plan, Run
from kimi_mini.worlds.repair import world as repair


def ended(answer):
    return SimpleNamespace(finish="stop", messages=[{"role": "assistant", "content": answer}])


def test_a_vote_takes_the_most_frequent_answer_and_the_first_of_equals():
    group = [ended(answer) for answer in ("7", "9", None, "9")]
    assert suite.by_vote(group) is group[1]
    assert suite.by_vote(group[:2]) is group[0]


def test_an_attempt_without_an_answer_has_no_vote():
    group = [ended(answer) for answer in (None, None, "9")]
    assert suite.by_vote(group) is group[2] and suite.by_vote(group[:2]) is group[0]


def test_an_attempt_that_was_cut_off_in_its_answer_has_no_vote():
    group = [ended("7"), ended("7"), ended("9")]
    group[0].finish = group[1].finish = "length"
    assert suite.by_vote(group) is group[2]


def test_a_choice_by_tests_looks_at_the_public_ones_alone():
    task = items(BENCHMARKS["mini_swe"], 1)[0].task
    lazy, right = (loop.play(task, random.Random(0), mistake) for mistake in ("lazy", None))
    kind = next(kind for kind in repair.KINDS if kind.name == "output hard-coded for the public tests")
    by_heart = perform(kind, task, random.Random(0))
    assert suite.by_tests([lazy, right]) is right and suite.by_tests([lazy, lazy]) is lazy
    assert suite.by_tests([by_heart, right]) is by_heart and not by_heart.verdict().passed


def board(names, share):
    """Every part with that share of its tasks solved."""
    found = {}
    for name in names:
        for part in BENCHMARKS[name].parts:
            n, passed = part.count, round(share(name) * part.count)
            low, high = wilson(passed, n)
            entry = dict(value=passed / n, low=low, high=high, n=n, tokens=1.0, seconds=1.0)
            tasks = [["key", i < passed, 1, None] for i in range(n)]
            found[f"{name}/{part.name}"] = entry | {"tasks": tasks}
        if len(BENCHMARKS[name].parts) > 1:
            found[name] = {key: value for key, value in entry.items() if key != "tasks"}
    return found


def test_a_benchmark_is_claimed_for_its_own_agent(tmp_path):
    """The reader solves the tools, the final agent all else; neither is credited with the other's work, nor are those
    that were taught, with theirs or for them."""
    search = ("mini_search", "mini_telecom")
    share = {
        "final": lambda name: 0.0 if name == "mini_tools" else 1.0,
        "reader": lambda name: 1.0 if name == "mini_tools" else 0.0,
        "final_taught": lambda name: 0.0 if name in search else 1.0,
        "reader_taught": lambda name: 1.0 if name in search else 0.0,
    }
    boards = {arm.name: board(arm.benchmarks, share.get(arm.name, lambda name: 0.5)) for arm in suite.ARMS}
    log = Log("suite", seeds=[9], folder=tmp_path)
    suite.report(log, boards)
    floored = [claim for claim in log.claims if claim["floor"]]
    floors = [part for b in BENCHMARKS.values() for part in b.parts if part.floor is not None]
    taught = [part for part in floors if part.taught]
    # mini-Math as a whole, of two agents, and the minutes of four
    assert len(floored) == len(floors) + len(taught) + 2 + 4
    assert sum(claim["name"].startswith("suite/taught/") for claim in floored) == len(taught) + 1
    assert {claim["verdict"] for claim in floored} == {HOLDS}
    gains = {claim["name"]: claim for claim in log.claims if not claim["floor"]}
    assert {claim["verdict"] for claim in gains.values()} == {FAILS}  # half is less than all
    assert gains["suite/mini_swe/one file/best of 4"]["value"] == -0.5


def test_every_arm_works_on_benchmarks_that_there_are_and_reflex_on_what_is_trained_so():
    assert all(set(arm.benchmarks) <= BENCHMARKS.keys() for arm in suite.ARMS)
    reflex = next(arm for arm in suite.ARMS if arm.name == "reflex")
    assert set(reflex.benchmarks) == {"mini_swe", "mini_math", "long_horizon"} and not reflex.way.thinking


@pytest.mark.parametrize("steps", [20, 977])
def test_a_checkpoint_is_kept_at_every_point(monkeypatch, tmp_path, steps):
    kept = []

    def tune(model, pools, plan, text, state_file, on_step):
        for step in range(steps):
            on_step(step + 1, steps)
        return SimpleNamespace(tokens=[10] * steps, seconds=1.0)

    monkeypatch.setattr(finetune, "tune", tune)
    monkeypatch.setattr(along_training, "save_agent", lambda model, folder: kept.append(folder.name))
    monkeypatch.setattr(along_training, "load_agent", lambda folder: (None, None))
    monkeypatch.setattr(along_training, "trajectories", lambda *_: {})
    windows = SimpleNamespace(reshape=lambda *_: None)
    monkeypatch.setattr(along_training.shared, "windows_of", lambda run: (windows, None))
    along_training.checkpoints(Run(tmp_path, Plan(finetune=Finetune(tokens=1))), tmp_path)
    assert kept == [f"{share:g}" for share in along_training.POINTS]
