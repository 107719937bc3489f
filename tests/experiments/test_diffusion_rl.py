"""What the log of RL over refined texts claims, and what its figure shows."""

import json

import pytest

from kimi_mini.base.evidence import Log
from kimi_mini.base.files import read_json
from kimi_mini.base.paths import RESULTS
from kimi_mini.experiments.diffusion import drawings, policy_gradient


def toys(*biases):
    return [{"bias": bias, "error": {"1": 5.0, "10": 2.0}} for bias in biases]


def reported(folder, glance=(0.5, 0.3, 5.0), before=(0.5, 8.0), after=(1.0, 16.0)):
    """A log of three seeds. before, after: share of right texts, distinct right ones of 16."""
    log = Log("diffusion_rl", seeds=[0, 1, 2], folder=folder)
    exact, bound = toys(1e-6, 2e-6, 1e-6), toys(0.2, 0.4, 3.0)
    log.more["toy"] = dict(zip(policy_gradient.ESTIMATORS, (exact, toys(*glance), bound)))
    measures = [dict(right=right, distinct=distinct, kl=1.0) for right, distinct in (before, after)]
    rounds = [dict(right=0.5 + step / 20, looks=13) for step in range(10)]
    for seed in range(3):
        for name in policy_gradient.ESTIMATORS:
            row = dict(name=name, seed=seed, rollouts=8, before=measures[0], after=measures[1])
            log.row(**row, rounds=rounds)
    policy_gradient.report(log)
    return log, {claim["name"].removeprefix("diffusion/"): claim for claim in log.claims}


def test_each_toy_is_off_though_their_mean_is_open(tmp_path):
    """The distances scatter too widely for their mean; that none is small is told by the smallest."""
    _, claims = reported(tmp_path)
    assert claims["bias/at_a_glance"]["verdict"] == "open"
    each = claims["bias/at_a_glance/each"]
    assert each["value"] == 0.3 and each["low"] is None and each["verdict"] == "holds"
    assert claims["bias/by_steps"]["verdict"] == "holds"
    _, claims = reported(tmp_path, glance=(0.5, 0.04, 5.0))
    assert claims["bias/at_a_glance/each"]["verdict"] == "does not hold"


def test_a_row_that_came_later_says_so():
    names = {claim["name"]: claim for claim in read_json(RESULTS / "diffusion_rl.json")["claims"]}
    later = {name for name, claim in names.items() if policy_gradient.LATER in claim["claim"]}
    assert later == {
        "diffusion/bias/at_a_glance/each",
        "diffusion/bias/by_the_bound/each",
        "diffusion/rl/by_steps/distinct",
        "diffusion/rl/by_steps/distinct_share",
    }


def test_the_published_claims_follow_from_the_published_rows(tmp_path):
    published = read_json(RESULTS / "diffusion_rl.json")
    log = Log("diffusion_rl", seeds=published["seeds"], folder=tmp_path)
    log.more["toy"], log.rows = published["toy"], published["rows"]
    policy_gradient.report(log)
    for mine, theirs in zip(json.loads(json.dumps(log.claims)), published["claims"], strict=True):
        assert mine["name"] == theirs["name"] and mine["verdict"] == theirs["verdict"]
        assert mine["value"] == pytest.approx(theirs["value"])


def test_more_right_texts_that_are_all_the_same_are_no_variety(tmp_path):
    _, claims = reported(tmp_path, after=(1.0, 9.0))
    assert claims["rl/by_steps/distinct"]["value"] == pytest.approx(1)
    assert claims["rl/by_steps/distinct_share"]["value"] == pytest.approx(9 / 16 - 1)
    assert claims["rl/by_steps/distinct_share"]["verdict"] == "does not hold"


def test_an_exact_gradient_is_told_and_leaves_the_axis_to_the_others(tmp_path):
    log, _ = reported(tmp_path)
    error = drawings.policy_gradients(log.as_dict()).axes[0]
    assert error.get_ylim()[0] == drawings.LEAST
    dotted = [line for line in error.lines if line.get_linestyle() == ":"]
    assert len(dotted) == 2 and all(line.get_ydata()[0] > drawings.LEAST for line in dotted)
    assert [text.get_text() for text in error.texts if "below" in text.get_text()] == [
        "bias by steps: 1e-06, below this axis"
    ]
