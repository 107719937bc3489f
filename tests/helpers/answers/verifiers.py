"""Right and plausible wrong answers to the exercises of notebook 06."""

import math
import random

from kimi_mini.course.exercises import verifiers as ex


def followed(path, reads, answer):
    return reads == path and answer == path[-1]


def enough(limit):
    return math.ceil(1.959964**2 * (1 / limit - 1))


def quota(pool, n):
    chosen = []
    for level in sorted({level for level, _ in pool}):
        good = [i for i, (own, passed) in enumerate(pool) if own == level and passed]
        chosen += [good[i % len(good)] for i in range(n)]
    return chosen


def cheat(lines, tests):
    return "ABCD"[len(lines) - 1], f"x = { {y: wanted for (_, y), wanted in tests.items()} }.get(y, 0)"


RIGHT = [
    (ex.check_follow_verifier, followed),
    (ex.check_enough, enough),
    (ex.check_quota, quota),
    (ex.check_cheat, cheat),
]


def drawn_with_repeats(pool, n):
    """As many of each level as asked for, drawn with replacement."""
    rng = random.Random(3)
    passed = {level: [i for i, (own, ok) in enumerate(pool) if own == level and ok] for level in range(1, 6)}
    return [i for good in passed.values() for i in rng.choices(good, k=n)]


WRONG = [
    (
        ex.check_follow_verifier,
        lambda path, reads, answer: reads[: len(path)] == path and answer == path[-1],
        "behind the end",
    ),
    (
        ex.check_follow_verifier,
        lambda path, reads, answer: reads[-len(path) :] == path and answer == path[-1],
        "before the chain",
    ),
    (ex.check_follow_verifier, lambda path, reads, answer: answer == path[-1], "lucky guess"),
    (
        ex.check_follow_verifier,
        lambda path, reads, answer: answer == path[-1] and set(reads) == set(path),
        "order",
    ),
    (
        ex.check_follow_verifier,
        lambda path, reads, answer: answer == path[-1] and set(reads) >= set(path),
        "order",
    ),
    (ex.check_follow_verifier, lambda path, reads, answer: reads == path, "another item"),
    (ex.check_enough, lambda limit: round(3 / limit), "rule of three"),
    (ex.check_enough, lambda limit: round(1 / limit), "too few"),
    (ex.check_enough, lambda limit: 10_000, "fewer are enough"),
    (ex.check_enough, lambda limit: 3.8 / limit, "whole number"),
    (ex.check_quota, lambda pool, n: list(range(n)), ""),
    (ex.check_quota, lambda pool, n: [i for i, (_, passed) in enumerate(pool) if passed], "of each level"),
    (ex.check_quota, lambda pool, n: quota(pool[:-2], n), "level 5"),
    (
        ex.check_quota,
        lambda pool, n: [
            i for level in range(1, 6) for i in [k for k, (own, _) in enumerate(pool) if own == level][:n] * n
        ][: 5 * n],
        "",
    ),
    (ex.check_quota, lambda pool, n: [pool[0]] * n, "indices"),
    (ex.check_quota, drawn_with_repeats, "repeat only when"),
    (
        ex.check_quota,
        lambda pool, n: [
            i
            for level in range(1, 6)
            for i in [k for k, (own, ok) in enumerate(pool) if own == level and ok][:1] * n
        ],
        "repeat only when",
    ),
    (ex.check_cheat, lambda lines, tests: ("A", lines[0]), "the tool says"),
    (ex.check_cheat, lambda lines, tests: "A", "mark of a line"),
    (ex.check_cheat, lambda lines, tests: ("Z", "x = 1"), "no line Z"),
]
