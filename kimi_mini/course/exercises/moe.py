"""Checkers for the exercises of notebook 01 (mixture of experts).

Like those of `exercises`: they never raise on what the reader wrote, and what they return is true when it is right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kimi_mini.course.exercises.base import Checked, _try, checker
from kimi_mini.evaluation.routing import mutual_information
from kimi_mini.model.moe import Router


def _numbers(value: Any, shape: tuple[int, ...] = ()) -> np.ndarray | None:
    """The reader's value as an array of this shape, or None."""
    try:
        found = np.asarray(value, float)
    except (TypeError, ValueError, RuntimeError):
        return None
    return found if found.shape == shape else None


def _tensor(value: Any) -> Tensor:
    """The reader's numbers as a tensor, also from numpy."""
    return value.detach() if isinstance(value, Tensor) else torch.as_tensor(np.array(value, order="C"))


def _hint(value: np.ndarray, wrong: Mapping[str, np.ndarray]) -> str | None:
    """The hint of the first known wrong answer that the value is close to."""
    return next((hint for hint, known in wrong.items() if np.allclose(value, known, atol=1e-6)), None)


def _routes(scores: Tensor, bias: Tensor, k: int, factor: float) -> dict[str, np.ndarray]:
    """Gate weights (N, E), 0 where not chosen: the right ones under "", wrong ones under their hint."""

    def spread(
        choose_by: Tensor, weigh_by: Tensor, normalise: bool = True, times: float = factor
    ) -> np.ndarray:
        chosen = torch.zeros_like(scores).scatter(1, choose_by.topk(k).indices, 1.0) * weigh_by
        return (chosen / (chosen.sum(1, keepdim=True) if normalise else 1.0) * times).numpy()

    plain = scores + bias
    return {
        "": spread(plain, scores),
        "the bias leaks: it may choose, but the weight of a chosen expert is its score without the bias": spread(
            plain, plain
        ),
        "the bias has no say: choose by score plus bias, then weigh by score": spread(scores, scores),
        "the weights of the chosen experts must sum to the factor: divide by their sum first": spread(
            plain, scores, normalise=False
        ),
        "divide by the sum of the chosen scores, not by that of all": (
            spread(plain, scores, False).T / scores.sum(1).numpy()
        ).T,
        "the weights sum to 1: the gate factor is missing": spread(plain, scores, times=1.0),
    }


@checker
def check_route(function: Callable[[Tensor, Tensor, int, float], tuple[Tensor, Tensor]]) -> Checked:
    """function(scores (N, E), bias (E,), k, factor) is (indices (N, k), weights (N, k)) as K2's router gives them."""
    generator = torch.Generator().manual_seed(0)
    for experts, k, factor in ((6, 2, 1.5), (16, 3, 1.7)):
        scores = torch.rand(20, experts, generator=generator)
        bias = torch.randn(experts, generator=generator) / 3
        value, problem = _try(function, scores.clone(), bias.clone(), k, factor)
        if problem is not None:
            return problem
        try:
            indices, weights = (_tensor(part) for part in value)
            given = torch.zeros_like(scores).scatter(1, indices, weights.float()).numpy()
            right_shape = indices.shape == weights.shape == (20, k)
        except (TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
            return Checked(
                False, f"return two tensors, indices and weights, both ({len(scores)}, {k}): {error}"
            )
        if not right_shape:
            return Checked(False, f"both must be ({len(scores)}, {k}): k experts for every token")
        known = _routes(scores, bias, k, factor)
        if not np.allclose(given, known.pop(""), atol=1e-5):
            return Checked(
                False, _hint(given, known) or "some weights differ from the rule: go by its three lines"
            )
    return Checked(True, "the bias chooses, the score weighs, the factor keeps the size")


@checker
def check_centred_update(function: Callable[[Tensor, Tensor, float], Tensor]) -> Checked:
    """function(bias (E,), load (E,), rate) is the new bias by Moonshot's rule."""
    for load in ([4.0, 9.0, 1.0, 1.0, 1.0], [1.0, 2.0, 3.0], [3.0, 3.0, 3.0, 3.0], [0.0, 0.0, 90.0]):
        load = torch.tensor(load)
        bias, rate = torch.linspace(-0.1, 0.2, len(load)), 0.01
        value, problem = _try(function, bias.clone(), load.clone(), rate)
        if problem is not None:
            return problem
        given = _numbers(value, (len(load),))
        if given is None:
            return Checked(False, f"return the new bias, {len(load)} numbers for {len(load)} experts")
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
        if not np.allclose(given, right, atol=1e-6):
            hint = _hint(given, {text: known.numpy() for text, known in wrong.items()})
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
    return Checked(True, "a bias of -1 is enough, for scores lie between 0 and 1")


@checker
def check_information(function: Callable[[np.ndarray], float]) -> Checked:
    """function(counts (labels, experts)) is the mutual information of label and expert in bits."""
    cases = (np.eye(4) * 25, np.full((3, 5), 8.0), np.array([[30.0, 10.0, 0.0], [10.0, 30.0, 20.0]]))
    for counts in cases:
        value, problem = _try(function, counts.copy())
        if problem is not None:
            return problem
        given = _numbers(value)
        if given is None:
            return Checked(False, "return one number")
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
        if not np.allclose(given, right, atol=1e-6):
            hint = _hint(given, {text: np.asarray(known) for text, known in wrong.items()})
            return Checked(
                False, hint or f"{counts.tolist()} should give {right:.4f} bits, not {float(given):.4f}"
            )
    return Checked(
        True, "2 bits when each of four domains has an expert of its own, 0 when experts do not care"
    )
