"""Budgets of tokens: from right attempts alone, once, for tasks that are solved; in phases where one wants it."""

from dataclasses import replace

import pytest
import torch

from kimi_mini.training.rl.budget import ENOUGH, Budgets
from kimi_mini.training.rl.config import RLConfig

CONFIG = RLConfig(budget=50.0, budget_from=0.5)
FAMILIES = ["buy", "follow", "buy", "buy"]
PASSED = torch.tensor([[1.0, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]])
WRITTEN = torch.tensor([[10.0, 20, 30, 900], [40, 5, 5, 5], [40, 50, 60, 70], [80, 900, 900, 900]])


def budgets(**changes):
    found = Budgets()
    found.learn(replace(CONFIG, **changes), FAMILIES, PASSED, WRITTEN)
    return found


def test_a_budget_is_the_percentile_of_what_right_attempts_took():
    """Eight right attempts of `buy`, 10 to 80 tokens; of `follow` there is one, which is not enough."""
    assert ENOUGH == 8
    assert budgets().tokens == {"buy": 45.0} and budgets(budget=100.0).tokens == {"buy": 80.0}
    assert budgets(budget=None).tokens == {}


def test_it_is_found_once():
    """Or shorter answers would shorten the budget, and that the answers."""
    found = budgets()
    found.learn(CONFIG, FAMILIES, PASSED, WRITTEN / 2)
    assert found.tokens == {"buy": 45.0}


def over(found, index=0, **changes):
    return found.over(replace(CONFIG, **changes), index, FAMILIES, PASSED, WRITTEN).long().tolist()


def test_attempts_over_it_are_worth_nothing_where_the_task_is_solved():
    assert over(budgets()) == [[0, 0, 0, 1], [0, 0, 0, 0], [0, 1, 1, 1], [0, 0, 0, 0]]
    assert over(budgets(), budget_from=0.9) == [[0] * 4, [0] * 4, [0, 1, 1, 1], [0] * 4]
    assert not any(map(any, over(Budgets())))


@pytest.mark.parametrize(("toggle", "held"), [(0, [1] * 8), (1, [1, 0] * 4), (3, [1, 1, 1, 0, 0, 0, 1, 1])])
def test_phases_take_turns(toggle, held):
    assert [int(any(map(any, over(budgets(), index, toggle=toggle)))) for index in range(8)] == held
