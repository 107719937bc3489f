"""Needles: every answer follows from its haystack by looking at the right place, and from nothing less."""

import numpy as np
import pytest

from kimi_mini.text import needles
from kimi_mini.text.needles import Question, haystack, question

TEXT = np.random.default_rng(9).integers(0, 100, 5000)
SYMBOLS = np.arange(100, 228)


def looked_up(ids, window=None):
    """What stands behind the last earlier place of the final token, seen through a window; None if it is not there."""
    seen = ids[-window:] if window else ids
    earlier = np.flatnonzero(seen[:-1] == seen[-1:])
    return int(seen[earlier[-1] + 1]) if len(earlier) else None


def check_questions(make, length=512, window=64):
    """A reader of everything answers all; one with a window finds exactly what lies inside it."""
    rng = np.random.default_rng(0)
    for depth in (0.0, 0.25, 0.5, 0.75, 1.0) * 4:
        asked = make(rng, TEXT, length, SYMBOLS, depth)
        assert len(asked.ids) == length and asked.ids[asked.place] == asked.answer
        assert abs(asked.place / length - depth) < 0.15
        assert looked_up(asked.ids) == asked.answer
        inside = asked.place > length - window
        assert (looked_up(asked.ids, window) == asked.answer) == inside
        assert (asked.answer in asked.ids[-window:]) == inside  # and there is nothing to guess from
        assert np.isin(asked.ids, SYMBOLS).sum() == 2 * (length // needles.EVERY) + 1


def test_a_needle_outside_the_window_is_not_found():
    check_questions(question)


def leaking(rng, text, length, symbols, depth):
    """Mutant: the pair stands a second time, shortly before it is asked for."""
    asked = question(rng, text, length, symbols, depth)
    ids = asked.ids.copy()
    ids[-12:-10] = asked.ids[-1], asked.answer
    return Question(ids, asked.answer, asked.place)


def depth_ignored(rng, text, length, symbols, depth):
    """Mutant: the needle always stands near the end."""
    return question(rng, text, length, symbols, 0.95)


def last_value(rng, text, length, symbols, depth):
    """Mutant: the answer is a needle's value, but not that of the asked key."""
    asked = question(rng, text, length, symbols, depth)
    values = asked.ids[1:][np.isin(asked.ids[1:], symbols)]
    return Question(asked.ids, int(values[-2]), int(np.flatnonzero(asked.ids == values[-2])[0]))


def short(rng, text, length, symbols, depth):
    """Mutant: a haystack of the trained length, whatever was asked for."""
    return question(rng, text, 64, symbols, depth)


@pytest.mark.parametrize("mutant", [leaking, depth_ignored, last_value, short])
def test_wrong_questions_are_caught(mutant):
    with pytest.raises(AssertionError):
        check_questions(mutant)


def check_haystacks(make):
    rng, dense, sparse = np.random.default_rng(1), 0, 0
    for _ in range(200):
        ids, mask = make(rng, TEXT, 64, SYMBOLS)
        assert len(ids) == len(mask) == 64 and mask.any()
        for position in np.flatnonzero(mask):
            assert looked_up(ids[:position]) == ids[position]
        pairs = mask.sum() // 2
        assert np.isin(ids, SYMBOLS).sum() == 6 * pairs  # in the hay once, asked twice
        dense, sparse = dense + (pairs >= 9), sparse + (pairs <= 3)
    assert dense > 10 and sparse > 10


def test_all_that_is_learned_follows_from_the_haystack():
    check_haystacks(haystack)


def test_few_questions_leave_the_window_to_the_hay_and_ask_for_an_end():
    rng, starts, ends = np.random.default_rng(2), 0, 0
    for _ in range(100):
        ids, mask = haystack(rng, TEXT, 512, SYMBOLS, few=1.0)
        asked = np.flatnonzero(mask)
        assert len(ids) == 512 and 1 <= len(asked) <= 3 and asked[-1] == 511
        assert all(looked_up(ids[:position]) == ids[position] for position in asked)
        places = [np.flatnonzero(ids == ids[position])[0] for position in asked]
        starts, ends = starts + (min(places) < 16), ends + (max(places) > 490)
        assert min(places) < 16 or max(places) > 490
    assert starts > 30 and ends > 30


def mask_on_keys(rng, text, length, symbols):
    ids, mask = haystack(rng, text, length, symbols)
    return ids, np.roll(mask, -1)


def values_of_others(rng, text, length, symbols):
    ids, mask = haystack(rng, text, length, symbols)
    ids[mask] = rng.permutation(ids[mask])
    return ids, mask


def hay_values_learned(rng, text, length, symbols):
    ids, mask = haystack(rng, text, length, symbols)
    return ids, mask | (np.isin(ids, symbols) & ~np.roll(mask, -1))


@pytest.mark.parametrize("mutant", [mask_on_keys, values_of_others, hay_values_learned])
def test_wrong_haystacks_are_caught(mutant):
    with pytest.raises(AssertionError):
        check_haystacks(mutant)


def test_a_text_that_is_too_short_is_refused():
    with pytest.raises(ValueError, match="no span of 511"):
        needles.span(np.random.default_rng(0), TEXT[:100], 511)


def test_the_same_seed_makes_the_same_haystack():
    first, again = (haystack(np.random.default_rng(3), TEXT, 64, SYMBOLS)[0] for _ in range(2))
    assert np.array_equal(first, again)
