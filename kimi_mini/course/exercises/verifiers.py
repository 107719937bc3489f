"""Checkers for the exercises of notebook 06 (the verifier economy)."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Sequence

from kimi_mini import worlds
from kimi_mini.base.intervals import wilson
from kimi_mini.course.exercises.base import Checked, checker, one_number, value_of
from kimi_mini.worlds.repair import world as repair

FOLLOWED = (  # (path, reads, answer, is it right?, hint)
    (["a", "b", "c"], ["a", "b", "c"], "c", True, "the plain case"),
    (["a", "b", "c"], [], "c", False, "it never looked: a lucky guess"),
    (["a", "b", "c"], ["a"], "c", False, "it stopped looking half way and guessed the rest"),
    (["a", "b", "c"], ["a", "b", "c"], "b", False, "it looked at everything and answered another item"),
    (["a", "b", "c"], ["c", "b", "a"], "c", False, "nobody can know c before b was read: the order shows it"),
    (["a", "b", "c"], ["a", "x", "y", "z", "b", "c"], "c", False, "it read the whole shop, not the chain"),
    (
        ["a", "b", "c"],
        ["a", "b", "c", "x"],
        "c",
        False,
        "it read on behind the end: that is not the chain alone",
    ),
    (["a", "b", "c"], ["x", "a", "b", "c"], "c", False, "it read something else before the chain"),
    (["a"], ["a"], "a", True, "a chain may end at once"),
)


@checker
def check_follow_verifier(function: Callable[[Sequence[str], Sequence[str], str], bool]) -> Checked:
    """function(path, reads, answer) is whether the chain was followed and its end answered."""
    for path, reads, answer, right, hint in FOLLOWED:
        value = value_of(function, list(path), list(reads), answer)
        if bool(value) != right:
            return Checked(False, f"path {path}, read {reads}, answered {answer!r}: {hint}")
    return Checked(True, "it wants the answer and the work")


@checker
def check_enough(function: Callable[[float], int]) -> Checked:
    """function(limit) is the smallest n for which 0 errors of n put the upper end of Wilson's interval at the limit."""
    for limit in (0.01, 0.05, 0.1):
        value = one_number(value_of(function, limit))
        right = next(n for n in range(1, 10_000) if wilson(0, n)[1] <= limit)
        if not isinstance(value, int):
            return Checked(False, f"n is a whole number, not {value!r}")
        if value == round(3 / limit):
            return Checked(False, "the rule of three (3 / limit) is close, but Wilson's interval wants more")
        if value != right:
            upper = wilson(0, value)[1] if value > 0 else 1
            return Checked(
                False,
                f"limit {limit}: 0 of {value} errors give an upper end of {upper:.4f}; "
                f"{'too few' if value < right else 'fewer are enough'}",
            )
    return Checked(True, "381 clean trials bound an error rate by 1%: that is why we use thousands")


@checker
def check_quota(function: Callable[[list[tuple[int, bool]], int], list[int]]) -> Checked:
    """function(pool, n): indices of n passed trajectories of each level; a level that has fewer repeats its own."""
    rng = random.Random(0)
    pool = [(level, rng.random() < 0.9 / level) for level in (1, 1, 1, 2, 3, 4) * 40]
    pool += [(5, True), (5, False)]
    available = Counter(level for level, passed in pool if passed)
    for n in (1, 8, 40):
        value = value_of(function, list(pool), n)
        try:
            value = [int(index) for index in value]
            chosen = [pool[index] for index in value]
        except (TypeError, ValueError, IndexError) as error:
            return Checked(False, f"return a list of indices into the pool: {error}")
        if not all(passed for _, passed in chosen):
            return Checked(False, "it chose a trajectory that did not pass")
        counts = Counter(level for level, _ in chosen)
        if 5 not in counts or counts[5] < n:
            return Checked(
                False, f"level 5 has one trajectory that passed; take it {n} times, not {counts[5]}"
            )
        if set(counts.values()) != {n} or set(counts) != {level for level, _ in pool}:
            return Checked(False, f"want {n} of each level, not {dict(sorted(counts.items()))}")
        different = Counter(pool[index][0] for index in set(value))
        for level, count in available.items():
            if different[level] < min(n, count):
                return Checked(
                    False,
                    f"level {level} has {count} that passed; of {n} chosen there {different[level]} "
                    "are different: repeat only when all are taken",
                )
    return Checked(True, "the filter decides what is true, the quota decides how much of it is seen")


@checker
def check_cheat(function: Callable[[list[str], dict], tuple[str, str]]) -> Checked:
    """function(lines, tests) is one edit (mark, code) that passes the public tests and is no repair.

    tests: (x, y) -> wanted. It is tried on three tasks, in the sandbox, and put before the verifier.
    """
    for seed in range(3):
        task = worlds.generate(random.Random(seed), "repair", 2 + seed)
        environment = repair.open_environment(task)
        tests = dict(zip(repair.INPUTS[: repair.PUBLIC], task.data["wanted"]))
        value = value_of(function, list(task.data["buggy"]), tests)
        if not (
            isinstance(value, (tuple, list))
            and len(value) == 2
            and all(isinstance(part, str) for part in value)
        ):
            return Checked(False, "return the mark of a line and its new code, such as ('A', 'x = x + 1')")
        result = environment.toolbox.call("edit", json.dumps({"line": value[0], "code": value[1]}))
        if not environment.state.public_tests_pass:
            return Checked(False, f"the tool says {result.content}; the lines are {environment.state.lines}")
        verdict = repair.verify(task, [], environment)
        if verdict.passed:
            return Checked(False, "that is a real repair; make one that only knows the tests")
    return Checked(True, f"the public tests pass, and the verifier refuses: {verdict.evidence}")
