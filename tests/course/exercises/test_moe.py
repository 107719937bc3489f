"""Checkers of notebook 01: the unsolved cell and plausible wrong answers get a hint, the solution passes."""

import numpy as np
import pytest
import torch
from answers import assert_hints

from kimi_mini import KimiConfig
from kimi_mini.course.exercises import moe as ex
from kimi_mini.model.moe import Router


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
]


@pytest.mark.parametrize(("check", "wrong", "hint"), WRONG)
def test_plausible_wrong_answers_get_their_hint(check, wrong, hint):
    checked = check(wrong)
    assert not checked and hint in checked.text, checked


def fresh():
    torch.manual_seed(0)
    router = Router(KimiConfig.preset("nano"))
    torch.nn.init.normal_(router.weight, 0.0, 0.2)
    return router


def on_holiday():
    router = fresh()
    router.e_score_correction_bias[0] = -1.0
    return router


def test_the_router_is_changed_by_its_bias_alone():
    assert "still gets" in ex.check_router_in_place(fresh(), fresh()).text
    assert "itself" in ex.check_router_in_place(..., fresh()).text
    assert ex.check_router_in_place(on_holiday(), fresh())
    others_up = fresh()
    others_up.e_score_correction_bias[1:] = 1.0
    assert ex.check_router_in_place(others_up, fresh())


def drawn_again(router):
    torch.nn.init.normal_(router.weight, 0.0, 0.2)


def row_0(times):
    def change(router):
        router.weight.data[0] *= times

    return change


def field(name, value):
    return lambda router: setattr(router, name, value)


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        (drawn_again, "trained part"),
        (row_0(0.0), "trained part"),
        (row_0(-1.0), "trained part"),
        (field("factor", float("nan")), "factor"),
        (field("factor", 1.0), "factor"),
        (field("top_k", 1), "top_k"),
        (field("normalise", False), "normalise"),
    ],
)
def test_a_router_changed_elsewhere_is_not_right(change, hint):
    router = on_holiday()
    change(router)
    checked = ex.check_router_in_place(router, fresh())
    assert not checked and hint in checked.text, checked


def numpy_route(scores, bias, k, factor):
    """The right answer in numpy alone."""
    scores, bias = scores.numpy(), bias.numpy()
    indices = np.argsort(scores + bias, 1)[:, ::-1][:, :k]
    weights = np.take_along_axis(scores, indices, 1)
    return indices, factor * weights / weights.sum(1, keepdims=True)


def test_numpy_answers_are_answers():
    assert ex.check_route(numpy_route), ex.check_route(numpy_route)
    assert ex.check_route(
        lambda s, b, k, f: (numpy_route(s, b, k, f)[0].astype(np.int32), route(s, b, k, f)[1])
    )
    assert "leaks" in ex.check_route(lambda s, b, k, f: numpy_route(s + b, 0 * b, k, f)).text
