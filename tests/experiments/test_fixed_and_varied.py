"""Varied against fixed synthesis: both arms read as much, differ in their surface alone, and the gap is one a seed."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from kimi_mini.base.evidence import FAILS, HOLDS, Log
from kimi_mini.experiments.verifiers import fixed_and_varied as experiment
from kimi_mini.worlds import FAMILIES, WORLDS


@pytest.mark.parametrize("arm", experiment.ARMS)
def test_each_arm_reads_one_world_alone_and_its_shares_are_all_it_reads(arm):
    world = experiment.ARMS[arm]
    found = experiment.sources(world)
    assert sum(one.share for one in found) == pytest.approx(1)
    assert {FAMILIES[one.family].world for one in found} == {world} and WORLDS[world].varied is (
        arm == "varied"
    )


def test_both_arms_are_tuned_on_the_same_plan_and_only_what_passed(monkeypatch):
    begun = []
    monkeypatch.setattr(experiment, "load_agent", lambda start: ("model", "tokenizer"))

    def made(plan, sources, tokens, seed):
        trajectories = [SimpleNamespace(passed=passed, level=1) for passed in (True, False)]
        return dict.fromkeys(sources, trajectories)

    monkeypatch.setattr(experiment, "trajectories", made)
    monkeypatch.setattr(
        experiment.sft, "pools_of", lambda kept: [one for items in kept.values() for one in items]
    )

    def tune(model, examples, plan, title):
        begun.append((plan, examples))
        return SimpleNamespace(tokens=[3, 4])

    monkeypatch.setattr(experiment.finetune, "tune", tune)
    for arm in experiment.ARMS:
        assert experiment.tuned(experiment.Job(arm, 1, 1000, 4, Path("base")))[2] == 7
    (first, some), (second, others) = begun
    assert first == second and first.finetune.tokens == 1000 and first.seed == 1 and first.drill.kept
    assert all(one.passed for one in (*some, *others))


def told(general):
    rows = dict.fromkeys((*experiment.GENERAL, "errands"), general)
    return rows | {"general": general}


@pytest.mark.parametrize(("varied", "verdict"), [((0.7, 0.71, 0.72), HOLDS), ((0.3, 0.31, 0.32), FAILS)])
def test_the_gap_is_that_of_each_seed(tmp_path, varied, verdict):
    log = Log("fixed_and_varied", seeds=[0, 1, 2], folder=tmp_path)
    found = {"fixed": [told(0.1)] * 3, "varied": [told(one) for one in varied]}
    experiment.report(log, found, [0, 1, 2], 48)
    (claim,) = log.claims
    assert claim["value"] == pytest.approx(varied[1] - 0.1) and claim["verdict"] == verdict
