"""Drills: every learned token follows from its sequence by the induction rule, and from nothing less."""

import numpy as np
import pytest

from kimi_mini.text.drills import copying, drills, recall

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
