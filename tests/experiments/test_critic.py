"""The experiment of the critic: what its claims stand on, and a round in which every attempt was right."""

import math

import pytest
from drawn import written

from kimi_mini.base.evidence import FAILS, HOLDS, Log
from kimi_mini.experiments.rl import critic as experiment
from kimi_mini.experiments.rl.critic import ARMS, FIRST, FROZEN, LAST, NONE, RIGHT, RUBRICS, SHORT

SUCCESS = {FIRST: 0.9, LAST: 0.7, FROZEN: 0.8, NONE: 0.95}


def log_of(tmp_path, accuracy=0.95, late=0.9):
    log = Log("rl_critic", seeds=[0, 1], folder=tmp_path)
    log.row(seed=None, arm="before", success=0.5, style=0.4)
    for seed in (0, 1):
        for arm in (FIRST, LAST):
            less = 0.0 if arm == FIRST else 0.2
            log.row(seed=seed, arm=arm, critic=dict.fromkeys(RUBRICS, accuracy - less + 0.01 * seed))
            style = (0.6 if arm == FIRST else 0.9) + 0.01 * seed
            log.row(seed=seed, arm=arm + SHORT, critic=dict.fromkeys(RUBRICS, style) | {RIGHT: 0.0})
        for arm in ARMS:
            known = [0.1, late if arm == FIRST else 0.6, None]
            rounds = {"success": [0.5, 0.6, 1.0], "style": [0.4, 0.5, 0.6], "critic": known}
            more, style = 0.01 * seed, 0.7 if arm == LAST else 0.6
            log.row(seed=seed, arm=arm, rounds=rounds, success=SUCCESS[arm] + more, style=style + more)
    return log


def test_claims_stand_on_their_own_arms(tmp_path):
    log = log_of(tmp_path)
    experiment.report(log)
    found = {claim["name"].removeprefix("critic/"): claim for claim in log.claims}
    expected = {
        "short lessons": 0.3,
        "refreshed": (0.1 + 0.9) / 2 - (0.1 + 0.6) / 2,
        "success": 0.405,
        "style": 0.205,
        "against the verdict": -0.05,
        "frozen": 0.1,
        "order": 0.2,
        "order/style": -0.1,
    }
    expected |= {f"accuracy/{rubric}": 0.955 for rubric in RUBRICS}
    expected |= {f"accuracy of the other/{rubric}": 0.755 for rubric in RUBRICS}
    assert {name: claim["value"] for name, claim in found.items()} == pytest.approx(expected)
    assert found["against the verdict"]["verdict"] == FAILS and found["order"]["verdict"] == HOLDS
    assert found["accuracy/right"]["floor"] == 0.9 and found["accuracy/polite"]["floor"] == 0.8


def test_a_round_without_a_wrong_attempt_leaves_a_gap(tmp_path):
    fig = experiment.draw(log_of(tmp_path).as_dict())
    assert all(words in written(fig) for words in (*ARMS, "true success", "true style"))
    line = fig.axes[2].lines[0].get_ydata()
    assert line[1] == 0.9 and math.isnan(line[2])
