"""The writer that an exercise trains: it gets better where it is paid for that, and else it does what it is paid for."""

import pytest
import torch

from kimi_mini.course import writer


def nothing(question, words):
    return 0.0


@pytest.mark.parametrize("seed", range(3))
def test_paid_for_right_answers_alone_it_learns_to_be_right(seed):
    game = writer.play(nothing, seed=seed)
    assert 0.5 < game.truth[0] < 0.75 and game.end[1] > 0.95 and game.spread == 0


@pytest.mark.parametrize("seed", range(3))
def test_a_bonus_is_gamed_and_a_cap_that_binds_closes_the_hole(seed):
    bonus = lambda question, words: 0.5 * words.count("because")
    free, high, closed = (writer.play(bonus, cap, seed) for cap in (float("inf"), 100.0, 1.0))
    assert free.lead > 0 and free.end[0] > 5 * free.start[0] and free.gained < -0.3
    assert high == free and free.highest > 1  # a cap above every reward
    assert closed.gained > 0.3 and closed.start == free.start


def test_rewards_that_are_all_at_the_cap_say_nothing():
    assert not writer.play(lambda question, words: len(words) + 1, cap=1.0).differ


def test_attempts_end_once_and_are_judged_by_their_last_word():
    heard = []
    states, choices = writer._attempts(writer.HABITS, torch.Generator().manual_seed(0))
    for row in choices.tolist():
        end = row.index(writer.END) if writer.END in row else len(row)
        assert all(choice == -1 for choice in row[end + 1 :]) and -1 not in row[:end]
    assert (states[:, 1:][choices[:, 1:] >= 0] == choices[:, :-1][choices[:, 1:] >= 0] + 1).all()

    class Dice:
        randrange = staticmethod(lambda low, high: 20)
        choice = staticmethod(lambda options: 1)

    rows = torch.full((writer.ATTEMPTS, writer.MOST), -1)
    because, right, wrong = map(writer.CHOICES.index, ("because", "right", "wrong"))
    for place, said in enumerate(
        [[because, right, 4], [right, wrong, 4], [right], [4], [wrong, right, 4], [right] * 8]
    ):
        rows[place, : len(said)] = torch.tensor(said)
    bonus, truth = writer._judged(
        lambda question, words: heard.append((question, words)) or len(words), rows, Dice()
    )
    assert heard[:3] == [("20 + 20", ["because", "40"]), ("20 + 20", ["40", "41"]), ("20 + 20", ["40"])]
    assert truth[:6].tolist() == [1, 0, 0, 0, 1, 0] and bonus[:6].tolist() == [2, 2, 1, 0, 2, 8]
