"""Checkers for the exercises of notebook 01 (mixture of experts)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from kimi_mini.course.exercises.base import (
    Checked,
    Hint,
    checker,
    close,
    known_mistake,
    numbers,
    one_number,
    tensor,
    value_of,
)
from kimi_mini.evaluation.routing import mutual_information
from kimi_mini.model.moe import Router


def _routes(scores: Tensor, bias: Tensor, k: int, factor: float) -> dict[str, Tensor]:
    """Gate weights (N, E), 0 where not chosen: the right ones under "", wrong ones under their hint."""

    def spread(choose_by: Tensor, weigh_by: Tensor, times: float = factor) -> Tensor:
        chosen = torch.zeros_like(scores).scatter(1, choose_by.topk(k).indices, 1.0) * weigh_by
        return chosen / chosen.sum(1, keepdim=True) * times

    plain = scores + bias
    right = spread(plain, scores)
    bare = torch.where(right > 0, scores, 0.0) * factor  # not divided by anything
    return {
        "": right,
        "the bias leaks: it may choose, but the weight of a chosen expert is its score without the bias": spread(
            plain, plain
        ),
        "the bias has no say: choose by score plus bias, then weigh by score": spread(scores, scores),
        "the weights of the chosen experts must sum to the factor: divide by their sum first": bare,
        "divide by the sum of the chosen scores, not by that of all": bare / scores.sum(1, keepdim=True),
        "the weights sum to 1: the gate factor is missing": spread(plain, scores, times=1.0),
    }


@checker
def check_route(function: Callable[[Tensor, Tensor, int, float], tuple[Tensor, Tensor]]) -> Checked:
    """function(scores (N, E), bias (E,), k, factor) is (indices (N, k), weights (N, k)) as K2's router gives them."""
    generator = torch.Generator().manual_seed(0)
    for experts, k, factor in ((6, 2, 1.5), (16, 3, 1.7)):
        scores = torch.rand(20, experts, generator=generator)
        bias = torch.randn(experts, generator=generator) / 3
        value = value_of(function, scores.clone(), bias.clone(), k, factor)
        try:
            indices, weights = (tensor(part) for part in value)
            given = torch.zeros_like(scores).scatter(1, indices, weights.float())
            right_shape = indices.shape == weights.shape == (20, k)
        except (TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
            return Checked(
                False, f"return two tensors, indices and weights, both ({len(scores)}, {k}): {error}"
            )
        if not right_shape:
            return Checked(False, f"both must be ({len(scores)}, {k}): k experts for every token")
        known = _routes(scores, bias, k, factor)
        if not close(given, known.pop("")):
            hint = known_mistake(given, known, close)
            return Checked(False, hint or "some weights differ from the rule: go by its three lines")
    return Checked(True, "the bias chooses, the score weighs, the factor keeps the size")


@checker
def check_centred_update(function: Callable[[Tensor, Tensor, float], Tensor]) -> Checked:
    """function(bias (E,), load (E,), rate) is the new bias by Moonshot's rule."""
    for load in ([4.0, 9.0, 1.0, 1.0, 1.0], [1.0, 2.0, 3.0], [3.0, 3.0, 3.0, 3.0], [0.0, 0.0, 90.0]):
        load = torch.tensor(load)
        bias, rate = torch.linspace(-0.1, 0.2, len(load)), 0.01
        value = value_of(function, bias.clone(), load.clone(), rate)
        given = numbers(value, load.shape, "return the new bias, a number for each expert")
        step = torch.sign(load.mean() - load)
        right = bias + rate * (step - step.mean())
        wrong = {
            "that is DeepSeek's rule: Moonshot's takes the mean of the step away, so that the biases' sum stays": bias
            + rate * step,
            "the wrong way round: the bias of a busy expert goes down": bias - rate * (step - step.mean()),
            "return the new bias, not the step": rate * (step - step.mean()),
            "by the sign of the gap, not by its size: one flooded expert would throw all biases far off": bias
            + rate * (load.mean() - load),
            "centre the step, not the bias that it ends in": bias + rate * step - (bias + rate * step).mean(),
        }
        if not close(given, right):
            hint = known_mistake(given, wrong, close)
            return Checked(
                False, hint or f"load {load.tolist()}: expected a step of {(right - bias).tolist()}"
            )
    return Checked(True, "busy experts down, idle ones up, and the sum of all biases stays where it is")


@checker
def check_router_in_place(router: Router, original: Router) -> Checked:
    """A copy of `original` set so that expert 0 is never chosen: its bias may differ, all other fields stay."""
    if not isinstance(router, Router):
        return Checked(False, "hand in the router itself")
    x = torch.randn(200, router.weight.shape[1], generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        indices, _ = router(x)
    if (indices == 0).any():
        share = (indices == 0).any(1).float().mean().item()
        return Checked(
            False, f"expert 0 still gets {share:.0%} of the tokens: which field is for choosing only?"
        )
    if not torch.equal(router.weight, original.weight):
        return Checked(
            False, "its weight was changed: a score near 0 would do it, but that is the trained part"
        )
    changed = [
        name for name in ("top_k", "factor", "normalise") if getattr(router, name) != getattr(original, name)
    ]
    if changed:
        return Checked(
            False, f"{changed[0]} was changed: the remaining experts get other weights than before"
        )
    bias = router.e_score_correction_bias
    moved = (bias - original.e_score_correction_bias)[1:]
    if not close(moved, moved[:1].expand_as(moved)):
        raise Hint("the other biases no longer stand as they did: the remaining experts' shares change too")
    last = bias[1:].topk(router.top_k).values[-1]  # of the experts that are chosen when all scores are alike
    if bias[0] > last - 1 + 1e-6:
        raise Hint(
            f"a bias of {bias[0]:g} is not enough for all tokens: scores lie between 0 and 1, so go 1 below the "
            f"others' {last:.3g}"
        )
    return Checked(True, "a bias of -1 is enough, for scores lie between 0 and 1")


@checker
def check_information(function: Callable[[np.ndarray], float]) -> Checked:
    """function(counts (labels, experts)) is the mutual information of label and expert in bits."""
    cases = (np.eye(4) * 25, np.full((3, 5), 8.0), np.array([[30.0, 10.0, 0.0], [10.0, 30.0, 20.0]]))
    for counts in cases:
        given = one_number(value_of(function, counts.copy()))
        places = np.indices(counts.shape).reshape(2, -1)
        rows, columns = (np.repeat(index, counts.ravel().astype(int)) for index in places)
        right, joint = mutual_information(rows[:, None], columns[:, None, None]), counts / counts.sum()
        entropy = [
            -float((p[p > 0] * np.log2(p[p > 0])).sum()) for p in (joint.ravel(), joint.sum(1), joint.sum(0))
        ]
        wrong = {
            "that is in nats: divide by log(2), or use log2": right * np.log(2),
            "that is the joint entropy: compare with what independence would give": entropy[0],
            "that is the entropy of the label alone": entropy[1],
            "the sign is wrong": -right,
            "weigh each term by its probability, not by its count": right * counts.sum(),
        }
        if not np.isfinite(given):
            return Checked(False, "0 log 0 counts as 0: leave empty cells out")
        if not np.isclose(given, right):
            hint = known_mistake(given, wrong, np.isclose)
            return Checked(False, hint or f"{counts.tolist()} should give {right:.4f} bits, not {given:.4f}")
    return Checked(
        True, "2 bits when each of four domains has an expert of its own, 0 when experts do not care"
    )
