"""Checkers for the exercises of notebook 04 (pre-training)."""

from __future__ import annotations

import copy
import itertools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

from kimi_mini.course.exercises.base import Checked, Hint, checker, known_mistake, value_of
from kimi_mini.model.config import KimiConfig
from kimi_mini.training.machine.placement import training_flops
from kimi_mini.training.optim.schedule import wsd


def _plain(value: Any) -> Any:
    """numpy's and torch's numbers and arrays as Python's; everything else as it is."""
    try:
        return value.tolist()
    except Exception:  # noqa: BLE001  no array
        return value


def _number(value: Any) -> float | None:
    """The value as a float; None when it is no number."""
    value = _plain(value)
    try:
        return None if isinstance(value, (str, bytes, bytearray)) else float(value)
    except Exception:  # noqa: BLE001  whatever the reader returned
        return None


def _close(value: Any, right: float, tolerance: float = 1e-6) -> bool:
    number = _number(value)
    return number is not None and math.isclose(number, right, rel_tol=tolerance, abs_tol=tolerance)


def _equal(values: Any, right: Sequence[float]) -> bool:
    """Whether values is a list, tuple or array of these numbers."""
    values = _plain(values)
    same = isinstance(values, (list, tuple)) and len(values) == len(right)
    return same and all(_close(value, other) for value, other in zip(values, right))


SCHEDULES = (  # (step, total, warmup, decay)
    (0, 100, 10, 40),
    (9, 100, 10, 40),
    (10, 100, 10, 40),
    (59, 100, 10, 40),
    (70, 100, 10, 40),
    (80, 100, 10, 40),
    (90, 100, 10, 40),
    (99, 100, 10, 40),
    (0, 50, 0, 10),
    (5, 50, 0, 10),
)


@checker
def check_schedule(function: Callable[[int, int, int, int], float]) -> Checked:
    """function(step, total, warmup, decay) is WSD's factor: up to 1 over `warmup` updates, 1, and in a straight line to
    0 over the last `decay`."""
    for step, total, warmup, decay in SCHEDULES:
        given = f"for step {step} of {total}, warmup {warmup}, decay {decay}"
        try:
            value = value_of(function, step, total, warmup, decay)
        except Hint as hint:
            raise Hint(f"{given}: {hint}") from hint
        right = wsd(step, total, warmup, decay_start=total - decay)
        if _close(value, right):
            continue
        started, left, number = step / max(warmup, 1), (total - step - 1) / decay, _number(value)
        hints = {
            "the first update would have factor 0 and teach nothing: count from 1": step < warmup
            and _close(value, started),
            "the stable phase is at 1, from step `warmup` on": right == 1.0,
            "the factor reaches 0 at `total`, one after the last update": step >= total - decay
            and _close(value, left),
            "a factor, not a learning rate: between 0 and 1": number is None or not 0 <= number <= 1,
            "the decay takes the last `decay` updates of `total`": step >= total - decay,
        }
        hint = next((text for text, found in hints.items() if found), None)
        return Checked(False, hint or f"{given} you get {value!r:.60}")
    return Checked(True, "and the stable phase can be left at any step: that is what WSD is for")


MICRO = (([120.0, 30.0], [60, 10]), ([8.0], [4]), ([5.0, 0.0, 7.0], [2, 0, 4]))


@checker
def check_step_loss(function: Callable[[Sequence[float], Sequence[int]], float]) -> Checked:
    """function(sums, counts) is the loss of a step from its micro-batches: summed loss and learned tokens of each."""
    for sums, counts in MICRO:
        value = value_of(function, list(sums), list(counts))
        if _close(value, sum(sums) / sum(counts)):
            continue
        means = [loss / count for loss, count in zip(sums, counts) if count]
        hints = {
            "a mean of means: ten tokens would weigh as much as sixty": sum(means) / len(means),
            "a mean over micro-batches, not over tokens": sum(sums) / len(sums),
            "that is the sum; divide by the learned tokens": sum(sums),
        }
        hint = known_mistake(value, hints, _close)
        return Checked(False, hint or f"for sums {sums} and counts {counts} you get {value!r:.60}")
    return Checked(True, "however the step is cut, and over however many processes, the loss stays the same")


SPELLED = "one two three four five six seven eight nine ten".split()
NAMES = [f"stdlib/part{number % 7}/module_{number}.py" for number in range(2000)]
NAMES += [f"moby-dick/chapter-{'-'.join(words)}" for words in itertools.product(SPELLED, repeat=3)]
FOLDERS = {name.rpartition("/")[0] for name in NAMES}


def _sides(function: Callable, share: float, names: Sequence[str]) -> list[bool]:
    """On which side each document is. Raises Hint when an answer is neither yes nor no."""
    sides = []
    for name in names:
        value = value_of(function, name, share, case=f"for {name!r} ")
        if _number(value) is None:
            raise Hint(f"return True or False, not {value!r:.60}")
        sides.append(_number(value) != 0)
    return sides


def _hash_of_another_process(value: Any) -> int:
    """What Python's `hash` gives in another process: another number for text, the same one for numbers."""
    if isinstance(value, tuple):
        return tuple.__hash__(tuple(map(_hash_of_another_process, value)))
    return value.__hash__() if not isinstance(value, (str, bytes)) else ("another process", value).__hash__()


@checker
def check_held_out(function: Callable[[str, float], bool]) -> Checked:
    """function(name, share) is whether the document of that name belongs to validation."""
    sides = {}
    for share in (0.05, 0.2):
        sides[share] = _sides(function, share, NAMES)
        if _sides(function, share, NAMES[::-1])[::-1] != sides[share]:
            return Checked(False, "asked twice, a document changes sides: the name alone must decide")
        held = sum(sides[share]) / len(NAMES)
        if abs(held - share) > 0.03:
            return Checked(
                False, f"of {len(NAMES)} documents {held:.1%} are held out in place of {share:.0%}"
            )
        if {name.rpartition("/")[0] for name, out in zip(NAMES, sides[share]) if out} != FOLDERS:
            return Checked(
                False, "whole folders are held out or kept: validation would be another kind of text"
            )
        with mock.patch("builtins.hash", _hash_of_another_process):
            elsewhere = _sides(function, share, NAMES)
        if elsewhere != sides[share]:
            return Checked(
                False,
                "Python's `hash` of a string is another number in the next run, and documents would "
                "change sides: take hashlib",
            )
    if any(small and not large for small, large in zip(sides[0.05], sides[0.2])):
        hint = "what is held out at 5% should still be held out at 20%: compare one number of the name with share"
        return Checked(False, hint)
    return Checked(True, "no list to keep, and new documents move nobody")


@checker
def check_utilisation(function: Callable[[KimiConfig, int, float, float], float]) -> Checked:
    """function(config, window, tokens_per_second, matmul_rate) is the model FLOP utilisation, between 0 and 1."""
    for name, window, speed, rate in (("nano", 256, 20_000.0, 1e11), ("mini", 1024, 300_000.0, 4e14)):
        config = KimiConfig.preset(name)
        value = value_of(function, config, window, speed, rate)
        right = training_flops(config, window) * speed / rate
        forward, whole = config.flops_per_token((window + 1) / 2), 3 * config.flops_per_token(window)
        if _close(value, right, 1e-3) or _close(
            value, 3 * config.flops_per_token(window / 2) * speed / rate, 1e-3
        ):
            continue
        hints = {
            "training costs three times the forward pass": forward * speed / rate,
            "the backward pass costs twice the forward pass, not once": 2 * forward * speed / rate,
            "on average a token sees half of the window: causal attention": whole * speed / rate,
            "activated parameters only: a token does not go through every expert": 6
            * config.count_parameters().total
            * speed
            / rate,
            "a share, not per cent": 100 * right,
            "upside down": 1 / right,
        }
        hint = known_mistake(value, hints, lambda value, wrong: _close(value, wrong, 1e-2))
        return Checked(False, hint or f"for {name} you get {value!r:.60}, about {right:.3f} is right")
    return Checked(
        True, "the share of the machine that the mathematics needs; the rest waits, moves or routes"
    )


RANKS = [
    {"loss": 90.0, "learned": 60, "gradient": [30.0, -6.0], "load": [40, 20], "max_logit": 31.0},
    {"loss": 40.0, "learned": 20, "gradient": [10.0, 14.0], "load": [5, 15], "max_logit": 84.0},
]
MORE_RANKS = [  # every token goes to two experts
    {"loss": 12.0, "learned": 10, "gradient": [1.0, 4.0], "load": [12, 8], "max_logit": 20.0},
    {"loss": 60.0, "learned": 30, "gradient": [9.0, 2.0], "load": [25, 35], "max_logit": 95.0},
    {"loss": 28.0, "learned": 10, "gradient": [5.0, -1.0], "load": [3, 17], "max_logit": 40.0},
]


JOINED = ("loss", "gradient", "load", "max_logit")


def _check_joined(value: Any, ranks: Sequence[dict]) -> None:
    """Raises Hint unless value is the step of these ranks."""
    every = {name: [rank[name] for rank in ranks] for name in ranks[0]}
    logits, learned, lost = every["max_logit"], sum(every["learned"]), sum(every["loss"])
    load, summed = (list(map(sum, zip(*every[name]))) for name in ("load", "gradient"))
    right = {"max_logit": max(logits), "loss": lost / learned}
    hints = {
        "max_logit": {
            "the sum of all maxima is nobody's logit: QK-Clip would shrink the head too far": sum(logits),
            "the mean of all maxima lets the largest one live: tau would not hold": sum(logits) / len(ranks),
            "the largest of all ranks, not the first one's": logits[0],
            "the largest of all ranks, not the last one's": logits[-1],
        },
        "loss": {
            "a mean of means: a rank with few tokens would count as much as one with many": sum(
                map(operator.truediv, every["loss"], every["learned"])
            )
            / len(ranks),
            "divide by `learned`: in `load` a token counts once for each of its experts": lost / sum(load),
        },
    }
    for name, known in hints.items():
        if not _close(value[name], right[name]):
            raise Hint(known_mistake(value[name], known, _close) or f"{name} is {value[name]!r:.60}")
    if not _equal(value["load"], load):
        raise Hint("every token counts once: add the loads, or the ranks move their biases apart")
    if _equal(value["gradient"], summed):
        raise Hint("the gradients are summed; divide by the learned tokens of all ranks")
    if not _equal(value["gradient"], [part / learned for part in summed]):
        raise Hint("add the gradients first, then divide by all learned tokens")


@checker
def check_join(function: Callable[[list[dict]], dict]) -> Checked:
    """function(ranks) is the step of all ranks: loss, gradient, load, max_logit. A rank gives the sum of its tokens'
    losses, how many they were, the gradient of that sum, tokens per expert, and a head's largest logit."""
    for ranks in (RANKS, MORE_RANKS):
        value = value_of(function, copy.deepcopy(ranks), case=f"with {len(ranks)} ranks ")
        if not isinstance(value, dict) or not value.keys() >= set(JOINED):
            return Checked(False, f"return a dict with {', '.join(JOINED)}")
        _check_joined(value, ranks)
    return Checked(True, "the step of one process: and QK-Clip sees the largest logit that anybody saw")
