"""Which tasks a round has: all kinds in turn, or what teaches; a round that was interrupted goes on the same."""

from collections import Counter
from dataclasses import replace

import pytest

from kimi_mini.training.rl.config import RLConfig
from kimi_mini.training.rl.curriculum import MOST, Curriculum

EASY, MODERATE, HARD = ("follow", 1), ("buy", 2), ("repair", 4)
CONFIG = RLConfig(tasks=(EASY, MODERATE, HARD), prompts=12, prioritised=True)
TRUTH = {EASY: 1.0, MODERATE: 0.5, HARD: 0.0}


def rounds(count, config=CONFIG, truth=TRUTH):
    """That many rounds of an agent that solves each kind so often."""
    curriculum, drawn = Curriculum(), []
    for index in range(count):
        drawn.append(curriculum.draw(config, 0, index))
        curriculum.learn(drawn[-1], [truth[one.family, one.level] for one in drawn[-1]])
    return curriculum, drawn


def kinds(drawn):
    return Counter((one.family, one.level) for one in drawn)


def test_all_kinds_come_in_turn():
    _, drawn = rounds(4, replace(CONFIG, prioritised=False))
    assert all(kinds(one) == {EASY: 4, MODERATE: 4, HARD: 4} for one in drawn)


def test_every_round_has_tasks_of_its_own():
    _, drawn = rounds(4, replace(CONFIG, prioritised=False))
    tasks = [one.task() for each in drawn for one in each]
    assert len({task.key for task in tasks if task.family != "follow"}) == 4 * 8
    assert not any(task.held_out for task in tasks)
    assert (
        drawn[0][0].task() == drawn[0][0].task() and len({one.seed for each in drawn for one in each}) == 48
    )
    assert Curriculum().draw(CONFIG, 1, 0) != Curriculum().draw(CONFIG, 0, 0)


def test_what_teaches_is_drawn_more_often_and_the_rest_not_never():
    _, drawn = rounds(30)
    late = sum((kinds(one) for one in drawn[10:]), Counter())
    assert late[MODERATE] > 0.6 * 240 and late[EASY] >= 5 and late[HARD] >= 5


def test_what_was_out_of_reach_comes_into_it():
    """After ten rounds the hard kind is half solved: within some rounds it has its share."""
    curriculum, _ = rounds(10)
    for index in range(10, 30):
        drawn = curriculum.draw(CONFIG, 0, index)
        curriculum.learn(drawn, [0.0 if one.family == "follow" else 0.5 for one in drawn])
    assert curriculum.weight(HARD) == pytest.approx(0.27, abs=0.03)


def test_tasks_that_some_attempts_passed_come_again():
    curriculum, drawn = rounds(3)
    before = {one for each in drawn[:2] for one in each}
    again = [one for one in drawn[2] if one in before]
    assert len(again) == 3 and kinds(again) == {MODERATE: 3}
    solved = curriculum.draw(CONFIG, 0, 3)
    curriculum.learn(solved, [1.0] * 12)
    assert not set(solved) & set(curriculum.again)


def test_no_more_are_kept_than_there_is_room_for():
    curriculum = Curriculum()
    for index in range(20):
        drawn = curriculum.draw(CONFIG, 0, index)
        curriculum.learn(drawn, [0.5 if number % 2 else 0.9 for number in range(12)])
    assert len(curriculum.again) == MOST and set(curriculum.again.values()) == {0.5}


def test_it_is_known_again_from_the_successes_alone():
    curriculum, drawn = rounds(5)
    successes = [[TRUTH[one.family, one.level] for one in each] for each in drawn]
    assert Curriculum.after(CONFIG, 0, successes) == curriculum
