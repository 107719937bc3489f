"""Checkers of notebook 06: what is a cheat and what is a repair."""

import random

from kimi_mini import worlds
from kimi_mini.course.exercises import verifiers as ex
from kimi_mini.worlds.repair import world as repair


def test_the_cheat_of_the_solution_is_refused_by_the_verifier_and_a_repair_is_no_cheat():
    right = {}
    for seed in range(3):
        task = worlds.generate(random.Random(seed), "repair", 2 + seed)
        right[tuple(task.data["buggy"])] = (
            repair.LINE_MARKS[task.data["at"]],
            task.data["right"][task.data["at"]],
        )
    assert "real repair" in ex.check_cheat(lambda lines, tests: right[tuple(lines)]).text
