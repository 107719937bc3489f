"""Right and plausible wrong answers to the exercises of notebook 06 that take a function."""

import math

import numpy as np

from kimi_mini.course.exercises import verifiers as ex


def enough(limit):
    return math.ceil(1.959964**2 * (1 / limit - 1))


def cheat(lines, tests):
    return "ABCD"[len(lines) - 1], f"x = { {y: wanted for (_, y), wanted in tests.items()} }.get(y, 0)"


RIGHT = [
    (ex.check_enough, enough),
    (ex.check_enough, lambda limit: np.ceil(enough(limit))),
    (ex.check_cheat, cheat),
]


WRONG = [
    (ex.check_enough, lambda limit: round(3 / limit), "rule of three"),
    (ex.check_enough, lambda limit: round(1 / limit), "too few"),
    (ex.check_enough, lambda limit: 10_000, "fewer are enough"),
    (ex.check_enough, lambda limit: 3.8 / limit + 0.5, "whole number"),
    (ex.check_cheat, lambda lines, tests: ("A", lines[0]), "the tool says"),
    (ex.check_cheat, lambda lines, tests: "A", "mark of a line"),
    (ex.check_cheat, lambda lines, tests: ("Z", "x = 1"), "no line Z"),
]
