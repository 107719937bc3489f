"""Checkers of notebook 01: the unsolved cell and plausible wrong answers get a hint, the solution passes."""

import numpy as np
import pytest
import torch
from answers import assert_hints

from kimi_mini import KimiConfig
from kimi_mini import exercises_moe as ex
from kimi_mini.moe import Router


def route(scores, bias, k, factor):
    indices = (scores + bias).topk(k).indices
    weights = scores.gather(1, indices)
    return indices, factor * weights / weights.sum(1, keepdim=True)


def update(bias, load, rate):
    step = torch.sign(load.mean() - load)
    return bias + rate * (step - step.mean())


def information(counts):
    joint = counts / counts.sum()
    apart = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    seen = joint > 0
    return (joint[seen] * np.log2(joint[seen] / apart[seen])).sum()


RIGHT = [(ex.check_route, route), (ex.check_centred_update, update), (ex.check_information, information)]


@pytest.mark.parametrize(("check", "right"), RIGHT)
def test_right_answers_pass_and_unsolved_or_broken_ones_get_a_hint(check, right):
    assert check(right), check(right)
    assert_hints(check)


def routed(choose, weigh, normalise=True, factor=True):
    def wrong(scores, bias, k, f):
        sums = {"score": scores, "biased": scores + bias}
        indices = sums[choose].topk(k).indices
        weights = sums[weigh].gather(1, indices)
        if normalise:
            weights = weights / weights.sum(1, keepdim=True)
        return indices, weights * (f if factor else 1.0)
    return wrong


def over_all(scores, bias, k, factor):
    indices = (scores + bias).topk(k).indices
    return indices, factor * scores.gather(1, indices) / scores.sum(1, keepdim=True)


WRONG = [
    (ex.check_route, routed("biased", "biased"), "leaks"),
    (ex.check_route, routed("score", "score"), "no say"),
    (ex.check_route, routed("biased", "score", normalise=False), "sum to the factor"),
    (ex.check_route, routed("biased", "score", factor=False), "factor is missing"),
    (ex.check_route, over_all, "not by that of all"),
    (ex.check_route, lambda s, b, k, f: route(s.softmax(-1), b, k, f), "three lines"),
    (ex.check_route, lambda s, b, k, f: route(s, b, k + 1, f), "k experts"),
    (ex.check_route, lambda s, b, k, f: route(s, b, k, f)[0], "two tensors"),
    (ex.check_route, lambda s, b, k, f: (1, 2), "two tensors"),
    (ex.check_centred_update, lambda b, load, r: b + r * torch.sign(load.mean() - load), "DeepSeek's"),
    (ex.check_centred_update, lambda b, load, r: 2 * b - update(b, load, r), "wrong way"),
    (ex.check_centred_update, lambda b, load, r: update(b, load, r) - b, "not the step"),
    (ex.check_centred_update, lambda b, load, r: b + r * (load.mean() - load), "not by its size"),
    (ex.check_centred_update, lambda b, load, r: update(b, load, r) - b.mean(), "centre the step"),
    (ex.check_centred_update, lambda b, load, r: 0.0, "numbers for"),
    (ex.check_information, lambda c: information(c) * np.log(2), "nats"),
    (ex.check_information, lambda c: -information(c), "sign"),
    (ex.check_information, lambda c: information(c) * c.sum(), "not by its count"),
    (ex.check_information, lambda c: float("nan"), "0 log 0"),
    (ex.check_information, lambda c: -(c[c > 0] / c.sum() * np.log2(c[c > 0] / c.sum())).sum(), ""),
    (ex.check_information, lambda c: c, "one number"),
]  # fmt: skip


@pytest.mark.parametrize(("check", "wrong", "hint"), WRONG)
def test_plausible_wrong_answers_get_their_hint(check, wrong, hint):
    checked = check(wrong)
    assert not checked and hint in checked.text, checked


def fresh():
    torch.manual_seed(0)
    router = Router(KimiConfig.preset("nano"))
    torch.nn.init.normal_(router.weight, 0.0, 0.2)
    return router


def test_the_router_is_changed_by_its_bias_alone():
    assert "still gets" in ex.check_router_in_place(fresh()).text
    assert "itself" in ex.check_router_in_place(...).text
    right = fresh()
    right.e_score_correction_bias[0] = -1.0
    assert ex.check_router_in_place(right)
    starved = fresh()
    starved.weight.data[0] = 0.0
    starved.e_score_correction_bias[0] = -1.0
    assert "trained part" in ex.check_router_in_place(starved).text
    broken = fresh()
    broken.e_score_correction_bias[0] = -1.0
    broken.factor = float("nan")
    assert "proper weights" in ex.check_router_in_place(broken).text
