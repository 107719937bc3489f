"""Drills: every learned token follows from its sequence by the induction rule, and from nothing less."""

import numpy as np
import pytest

from kimi_mini.text.drills import FIRST, KINDS, cards, copying, drills, recall

ALPHABET = np.arange(100, 226)


def induced(ids: np.ndarray, position: int) -> int | None:
    """What came after the last earlier place of the token before `position`."""
    before = ids[position - 1]
    earlier = np.flatnonzero(ids[: position - 1] == before)
    return int(ids[earlier[-1] + 1]) if len(earlier) else None


def check_solvable(made) -> None:
    for ids, mask in made:
        assert ids.dtype == np.int32 and mask.dtype == bool and len(ids) == len(mask)
        assert mask.any()
        for position in np.flatnonzero(mask):
            assert induced(ids, position) == ids[position]


def test_the_induction_rule_answers_everything():
    check_solvable(drills(np.random.default_rng(0), 20_000, ALPHABET))


def test_ids_of_a_large_vocabulary_stay_what_they_are():
    made = list(drills(np.random.default_rng(0), 2_000, ALPHABET + 100_000))
    check_solvable(made)
    assert min(ids.min() for ids, _ in made) >= 100_000


def with_repeats(rng, symbols):
    return copying(rng, rng.choice(symbols[:4], 12))


def mask_too_early(rng, symbols):
    ids, mask = copying(rng, symbols)
    return ids, np.roll(mask, -1)


def keys_learned_too(rng, symbols):
    ids, mask = recall(rng, symbols)
    return ids, mask | np.roll(mask, 1)


@pytest.mark.parametrize("mutant", [with_repeats, mask_too_early, keys_learned_too])
def test_unsolvable_drills_are_caught(mutant):
    rng = np.random.default_rng(1)
    with pytest.raises(AssertionError):
        check_solvable(
            [mutant(rng, rng.choice(ALPHABET, 16, replace=False).astype(np.int32)) for _ in range(20)]
        )


def test_all_keys_are_asked_twice_and_values_are_not_guessable_without_them():
    ids, mask = recall(np.random.default_rng(2), np.arange(16, dtype=np.uint16))
    count = len(ids) // 6
    asked = ids[2 * count :: 2]
    assert sorted(asked) == sorted(np.repeat(ids[: 2 * count : 2], 2))
    assert mask.sum() == 2 * count
    answers = [ids[mask][0] for ids, mask in drills(np.random.default_rng(3), 60_000, ALPHABET)]
    assert np.bincount(answers).max() < 0.05 * len(answers)


def test_size_and_seed():
    made = drills(np.random.default_rng(4), 5_000, ALPHABET)
    assert 5_000 <= sum(len(ids) for ids, _ in made) < 5_000 + 64
    again, other = (
        drills(np.random.default_rng(4), 5_000, ALPHABET),
        drills(np.random.default_rng(5), 5_000, ALPHABET),
    )
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(made, again))
    assert not all(np.array_equal(a[0], b[0]) for a, b in zip(made, other))
    assert {len(ids) % 6 == 0 for ids, _ in made} == {True, False}  # both kinds occur


def by_one_mark(ids: np.ndarray, position: int, sign: int, mark: int) -> set[int]:
    """What came right behind the sign on the cards shown that bear this mark."""
    found, card = set(), []
    for place, token in enumerate(ids[:position]):
        card.append(token)
        if token == sign:
            if mark in card:
                found.add(int(ids[place + 1]))
            card = []
    return found


def test_a_card_is_told_by_both_of_its_marks_and_by_neither_alone():
    rng, told, alone = np.random.default_rng(6), 0, [0, 0]
    for _ in range(50):
        symbols = rng.permutation(np.arange(100, 132)).astype(np.int32)
        ids, mask = cards(rng, symbols)
        assert ids.dtype == np.int32 and mask.dtype == bool and set(ids) <= set(symbols)
        shown = int(mask.argmax()) - 3  # where the first question begins
        sign = int(symbols[6])
        for place in np.flatnonzero(mask):
            if ids[place - 1] != sign:
                continue
            first, second = (by_one_mark(ids[:shown], shown, sign, ids[place - k]) for k in (3, 2))
            assert first & second == {int(ids[place])}
            told += 1
            alone = [alone[0] + (len(first) == 1), alone[1] + (len(second) == 1)]
    assert told > 400 and max(alone) < 0.5 * told


def test_a_name_on_a_card_is_learned_to_its_end():
    symbols = np.arange(32, dtype=np.int32)
    ids, mask = cards(np.random.default_rng(7), symbols)
    ends = np.flatnonzero(ids[1:] == 7) + 1
    asked = [place for place in ends if mask[place]]
    assert (
        len(asked) == 2 * (len(ends) - len(asked)) and not mask[: ends[len(ends) - len(asked) - 1] + 1].any()
    )


def test_the_first_kinds_stay_as_they_were_where_cards_join():
    assert FIRST == (recall, copying) and set(KINDS) == {recall, copying, cards}
    lengths = {len(ids) for ids, _ in drills(np.random.default_rng(8), 5_000, ALPHABET, KINDS)}
    assert max(lengths) > 64  # only cards are that long
