"""Confidence against verdicts: known cases, and a model that is asked about its own words."""

import numpy as np
import pytest
import torch

from kimi_mini.agent.folder import load_agent
from kimi_mini.base.paths import CHECKPOINTS
from kimi_mini.evaluation import calibration, solve
from kimi_mini.worlds.registry import held_out_tasks
from kimi_mini.worlds.rows import LIMITS


def test_who_knows_how_sure_to_be_has_no_error():
    rng = np.random.default_rng(0)
    sure = rng.random(20_000)
    right = rng.random(20_000) < sure
    assert calibration.ece(sure, right) < 0.02
    assert calibration.ece(sure**0.3, right) > 0.15, "surer than right"
    assert all(one.low <= one.sure <= one.high for one in calibration.reliability(sure, right, 5))


def test_bins_hold_everybody_once_and_empty_ones_are_left_out():
    found = calibration.reliability([0.0, 0.05, 0.5, 1.0, 1.0], [False, True, False, True, True], 10)
    assert [(one.count, one.right) for one in found] == [(2, 0.5), (1, 0.0), (2, 1.0)]
    assert calibration.ece([0.0, 0.05, 0.5, 1.0, 1.0], [0, 1, 0, 1, 1]) == pytest.approx(
        (2 * 0.475 + 0.5 + 0) / 5
    )


def test_gaps_of_both_signs_do_not_cancel():
    sure, right = [0.85] * 4 + [0.25] * 4, [0, 1, 1, 0, 1, 0, 1, 0]  # 0.5 and 0.5
    assert calibration.ece(sure, right) == pytest.approx((0.35 + 0.25) / 2)


def test_brier_and_auroc_on_known_cases():
    assert calibration.brier([1.0, 0.0, 0.5], [True, False, True]) == pytest.approx(0.25 / 3)
    assert calibration.auroc([0.9, 0.8, 0.1], [True, True, False]) == 1.0
    assert calibration.auroc([0.5, 0.5], [True, False]) == 0.5
    assert calibration.auroc([0.2, 0.8, 0.5], [True, False, False]) == 0.0
    assert np.isnan(calibration.auroc([0.5], [True]))


@pytest.mark.parametrize("sure", [[1.5], [-0.1], [0.5, 0.5], [float("nan")]])
def test_what_is_no_probability_is_refused(sure):
    with pytest.raises(ValueError, match="one probability"):
        calibration.reliability(sure, [True])


def test_confidence_is_the_product_of_what_the_model_chose():
    """Sampled at temperature 1, the writer's own log-probabilities are the same; calls and results in between."""
    model, tokenizer = load_agent(CHECKPOINTS / "tuned")
    tasks = held_out_tasks("follow", (3, 8), 4, 0) + held_out_tasks("repair", (3,), 4, 0)
    done = solve(model, tokenizer, tasks, LIMITS, temperature=1.0, seed=3)
    wanted = [np.exp(sum(p for s in c.segments for p, own in zip(s.logprobs, s.own) if own)) for c in done]
    assert calibration.confidence(model, done) == pytest.approx(wanted, abs=2e-3)
    assert min(wanted) < 0.9, "something was drawn that is not certain"
    with torch.no_grad():
        model.lm_head.weight.mul_(0.5)
    assert np.mean(calibration.confidence(model, done)) < np.mean(wanted) - 0.05, "of the model that is asked"
