"""Checkers of notebook 10: INT4 by hand, a router between reflex, thinking and a remote model under a budget, and
requests that an endpoint has to refuse."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from kimi_mini.course.exercises.base import Checked, Hint, checker, close, numbers, tensor, value_of
from kimi_mini.model.compact import int4

# -- INT4 by hand --------------------------------------------------------------------------------------

GROUP, ROWS, COLUMNS = int4.GROUP, 6, 96


def _matrix() -> Tensor:
    """(6, 96): groups of very different size, one of zeros, and in each other the largest number once with a plus and
    once with a minus."""
    w = torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(10))
    w *= torch.logspace(-2, 1, ROWS * COLUMNS // GROUP).view(ROWS, -1).repeat_interleave(GROUP, 1)
    groups = w.view(ROWS, -1, GROUP)
    for place, group in enumerate(groups.view(-1, GROUP)):
        group[group.abs().argmax()] = (-1) ** place * 1.1 * group.abs().max()
    groups[2, 1] = 0
    return w


MATRIX = _matrix()


def _by_hand(
    w: Tensor = MATRIX,
    most: Callable[[Tensor], Tensor] = lambda g: g.abs().amax(-1),
    steps: float = 7.5,
    whole: Callable[[Tensor], Tensor] = torch.round,
    low: int = -8,
    high: int = 7,
) -> tuple[Tensor, Tensor]:
    groups = w.unflatten(-1, (-1, GROUP))
    scale = most(groups) / steps
    codes = whole(groups / torch.where(scale > 0, scale, 1)[..., None]).clamp(low, high)
    return codes.flatten(-2), scale


WRONG_SCALES = (
    (dict(most=lambda g: g.amax(-1)), "the largest number by its size: a minus counts, too"),
    (dict(most=lambda g: (g.amax(-1) - g.amin(-1)) / 2), "symmetric: the largest size alone decides, not the span"),
    (dict(steps=7), "15 steps from -8 to 7: half of them, 7.5, for the largest number. With 7 no code is ever -8"),
    (dict(steps=8), "with 8 the largest number would be code 8, which does not exist: half of the 15 steps is 7.5"),
    (dict(steps=15), "half of the 15 steps go to each sign"),
    (dict(most=lambda g: g.abs().amax((-1, -2), keepdim=True)[..., 0].expand(g.shape[:-1])), "one scale for each 32 "
     "columns of a row, not for the row: a single large number would round a whole row to nothing"),
    (dict(most=lambda g: g.abs().amax().expand(g.shape[:-1])), "one scale for each 32 columns of a row, not for the "
     "matrix"),
)  # fmt: skip

WRONG_CODES = (
    (dict(low=-7), "eight codes below zero: -8 is one of them"),
    (dict(low=-99, high=99), "four bits end at 7: a number just at the top rounds to 8. Clamp"),
    (dict(whole=torch.trunc), "round to the nearest whole number: cutting off loses half a step on average"),
    (dict(whole=torch.floor), "round to the nearest whole number, not downwards"),
    (dict(low=0, high=15), "symmetric codes lie around zero, from -8 to 7: there is no zero point"),
)  # fmt: skip


@checker
def check_quantise(function: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Checked:
    """function(weight), (out, in): codes (out, in) from -8 to 7; scales (out, in/32), one for 32 columns of a row."""
    value = value_of(function, MATRIX.clone())
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise Hint("return two things: the codes, and the scales")
    codes, scale = value
    groups = COLUMNS // GROUP
    if tuple(tensor(scale).shape) == (ROWS // 2, COLUMNS) or tuple(tensor(scale).shape) == (groups, ROWS):
        raise Hint("groups run along a row: each output has its own scales, (out, in/32)")
    scale = numbers(scale, (ROWS, groups), "return a scale for each 32 columns of a row")
    codes = numbers(codes, (ROWS, COLUMNS), "return a code for each weight")
    if not codes.isfinite().all() or not scale.isfinite().all():
        raise Hint("one group is all zeros, and its scale is 0: do not divide by it")
    stored = int4.quantise(MATRIX)
    right = [_by_hand(), stored]
    if not any(torch.allclose(scale, other.double(), rtol=1e-2, atol=1e-9) for _, other in right):
        empty = scale.clone()
        empty[2, 1] = 0
        if torch.allclose(empty, right[0][1].double(), rtol=1e-2, atol=1e-9):
            raise Hint("the scale of a group of zeros is 0")
        hints = {hint: _by_hand(**rule)[1] for rule, hint in WRONG_SCALES}
        return _known(scale, hints, "these are not the scales: max |w| of a group over 7.5")
    if (codes != codes.round()).any():
        raise Hint("codes are whole numbers: round w / scale")
    if any(torch.equal(codes, other.double()) for other, _ in right):
        kept = int4.dequantise(*stored)
        error = ((kept - MATRIX).norm() / MATRIX.norm()).item()
        return Checked(True, f"4.5 bits a weight, and off by {error:.1%} of the matrix's norm")
    return _known(codes, {hint: _by_hand(**rule)[0] for rule, hint in WRONG_CODES}, "these are not the codes")


def _known(given: Tensor, wrong: dict[str, Tensor], otherwise: str) -> Checked:
    return Checked(False, next((hint for hint, other in wrong.items() if close(given, other)), otherwise))


# -- a router under a budget ---------------------------------------------------------------------------

MODES = ("reflex", "thinking", "remote")
SUCCESS = (  # of eight kinds of tasks, in each mode
    (1.00, 1.00, 1.00), (0.05, 0.98, 0.99), (0.30, 0.90, 0.95), (0.60, 0.55, 0.97),
    (0.02, 0.20, 0.90), (0.90, 0.97, 0.99), (0.25, 0.98, 0.99), (0.00, 0.05, 0.60),
)  # fmt: skip
COST = (  # cents; the seventh kind is dearer without a thought: it errs for many turns
    (2, 6, 40), (1, 6, 40), (3, 9, 50), (3, 8, 45), (1, 12, 60), (4, 9, 40), (10, 6, 45), (2, 30, 80)
)  # fmt: skip
BUDGETS = (22, 33, 49, 88, 92, 139, 187, 217, 500)  # at 88 and 187 the best gain a cent first misses


def best(budget: int) -> float:
    """The largest sum of successes for the money: exact, by what each spent cent has brought so far."""
    reached = {0: 0.0}
    for success, cost in zip(SUCCESS, COST):
        following: dict[int, float] = {}
        for spent, sum_ in reached.items():
            for gain, price in zip(success, cost):
                if spent + price <= budget:
                    following[spent + price] = max(following.get(spent + price, 0.0), sum_ + gain)
        reached = following
    return max(reached.values())


def _hint(choices: dict[int, list[int]], budget: int) -> str:
    """What is wrong with what was chosen under a budget that was kept."""
    chosen = choices[budget]
    if len({tuple(choice) for choice in choices.values()}) == 1:
        return "the same modes whatever the budget"
    if chosen[6] == 0:
        return "one kind is dearer and worse without a thought (tokens spent on erring): look at costs, not at names"
    if chosen[3] == 1:
        return "thinking is no help to every kind: in the fourth it is worse than reflex, and dearer"
    if budget == max(BUDGETS):
        return "there is money left, and a mode that succeeds more often"
    if 2 in chosen and any(
        mode == 0 and SUCCESS[kind][1] > SUCCESS[kind][0] + 0.5 for kind, mode in enumerate(chosen)
    ):
        return "the remote model is bought while a thought that would help more, for less, is not"
    return "more can be had for the money: a step up with less gain a cent may leave fewer cents over"


@checker
def check_router(function: Callable[[Sequence, Sequence, int], Sequence[int]]) -> Checked:
    """function(success, cost, budget), (kinds, 3) both: the mode of each kind (0 reflex, 1 thinking, 2 remote)."""
    choices: dict[int, list[int]] = {}
    for budget in BUDGETS:
        value = value_of(function, [list(row) for row in SUCCESS], [list(row) for row in COST], budget)
        modes = numbers(value, (len(SUCCESS),), "return one mode for each kind of task")
        if not all(mode in (0, 1, 2) for mode in modes.tolist()):
            raise Hint("a mode is 0 (reflex), 1 (thinking) or 2 (remote)")
        choices[budget] = [int(mode) for mode in modes]
    earned = {}
    for budget, chosen in choices.items():
        spent = sum(COST[kind][mode] for kind, mode in enumerate(chosen))
        if spent > budget:
            raise Hint(f"with a budget of {budget} you spend {spent}")
        earned[budget] = sum(SUCCESS[kind][mode] for kind, mode in enumerate(chosen))
    for budget, found in earned.items():
        if found < best(budget) - 1e-6:
            said = _hint(choices, budget)
            raise Hint(
                f"{said}. With {budget} cents {found:.2f} tasks are solved; {best(budget):.2f} could be"
            )
    low, high = min(BUDGETS), max(BUDGETS)
    half = next(b for b in BUDGETS if best(b) >= (best(low) + best(high)) / 2)
    return Checked(
        True,
        f"{best(low):.2f} of 8 for {low} cents, {best(half):.2f} for {half}, {best(high):.2f} for {high}",
    )


# -- break the endpoint --------------------------------------------------------------------------------

RULES = 5
GOOD = {"model": "final", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}


@checker
def check_refusals(
    attack: Callable[[], Sequence[Any]], send: Callable[[Any], tuple[int, Any]] | None = None
) -> Checked:
    """attack(): bodies of requests that break rules of the endpoint, at least five different ones. send(body): the
    endpoint's status and its answer as JSON; a body that is text or bytes is sent as it is."""
    bodies = value_of(attack)
    if isinstance(bodies, (str, bytes, dict)) or not isinstance(bodies, Sequence):
        raise Hint("return a list of bodies")
    if len(bodies) < RULES:
        raise Hint(f"{len(bodies)} requests; break at least {RULES} different rules")
    if not callable(send):
        raise Hint("and give the checker a function that sends a body: check_refusals(attack, send)")
    reasons = {}
    for number, body in enumerate(bodies, 1):
        status, answer = send(body)
        said = f"request {number}, {body!r:.80},"
        if status >= 500:
            raise Hint(
                f"{said} broke the endpoint (status {status}): that is a fault of the endpoint. Report it!"
            )
        if not 400 <= status:
            raise Hint(f"{said} was answered with {status}: it breaks no rule, or the endpoint does not look")
        error = answer.get("error") if isinstance(answer, dict) else None
        if not (
            isinstance(error, dict) and isinstance(error.get("message"), str) and error["message"].strip()
        ):
            raise Hint(f"{said} was refused without a reason: a client needs error.message")
        reasons.setdefault(re.sub(r"\d+|'[^']*'", "#", error["message"]), number)
    if len(reasons) < RULES:
        raise Hint(f"{len(bodies)} requests, but {len(reasons)} reasons: some break the same rule")
    status, _ = send(GOOD)
    if status != 200:
        raise Hint(f"refused, all of them; and now a good request is answered with {status}: it did break")
    return Checked(
        True, f"{len(reasons)} rules, each with its reason, and a good request is answered behind them"
    )
