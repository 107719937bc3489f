"""Checkers of notebook 01: the router that is changed in place, and answers in numpy."""

import numpy as np
import pytest
import torch
from answers.moe import route

from kimi_mini import KimiConfig
from kimi_mini.course.exercises import moe as ex
from kimi_mini.model.moe import Router


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


def bias(first, others=None):
    """Expert 0 gets this bias, and the others these ones."""

    def change(router):
        router.e_score_correction_bias[0] = first
        if others is not None:
            router.e_score_correction_bias[1:] = others

    return change


def field(name, value):
    return lambda router: setattr(router, name, value)


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        (bias(-0.5), "-0.5 is not enough"),
        (bias(-0.5, 0.1), "-0.5 is not enough"),
        (bias(-9.0, torch.linspace(-0.1, 0.1, 15)), "no longer stand"),
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
