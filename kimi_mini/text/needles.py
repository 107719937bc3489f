"""Needles in a haystack: pairs of symbols scattered over a text, and asked for behind it.

Symbols never occur in the text. To answer, a model has to find the one place where the asked key stands, however far
back, and say what stood behind it; the other needles are there so that "some symbol that I have seen" is wrong.
Training packs many needles and asks for each of them twice; a test asks once, for a needle at a known depth.

Source: the needle-in-a-haystack test (Kamradt 2023), made dense enough to be learned; see also `drills`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

EVERY = 16  # a test haystack has one needle for so many tokens


class Question(NamedTuple):
    """ids (length,) int64, the last of them the asked key; its value; where that value stands in ids."""

    ids: np.ndarray
    answer: int
    place: int


def scatter(
    rng: np.random.Generator, text: np.ndarray, needles: np.ndarray, first: int | None = None
) -> np.ndarray:
    """Put needles (P, 2) between the tokens of text (T,), at random or, for needle 0, at `first`: (T + 2 P,) int64."""
    gaps = rng.integers(0, len(text) + 1, len(needles))
    if first is not None:
        gaps[0] = first
    return np.insert(text.astype(np.int64), np.repeat(gaps, 2), needles.ravel())


def span(rng: np.random.Generator, text: np.ndarray, length: int) -> np.ndarray:
    """`length` tokens in a row from somewhere in text. Raises ValueError when text is shorter."""
    if len(text) < length:
        raise ValueError(f"a text of {len(text)} tokens has no span of {length}")
    start = int(rng.integers(0, len(text) - length + 1))
    return text[start : start + length]


def haystack(
    rng: np.random.Generator, text: np.ndarray, length: int, symbols: np.ndarray, few: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """A training example: ids (length,) int64 and mask (length,) bool, True on the values to be learned.

    Two needles at least, at most as many as fit: then there is no text left, and it is a pure recall drill. Behind the
    hay every key is asked twice, in random order. text (N,): where the hay is cut from. With probability `few` only one
    to three keys are asked, among them one from the first or the last place of the hay, which then fills the window.
    """
    pairs = int(rng.integers(2, min(length // 6, len(symbols) // 2) + 1))
    needles = rng.permutation(symbols)[: 2 * pairs].reshape(pairs, 2)
    order = np.concatenate([rng.permutation(pairs), rng.permutation(pairs)])
    at_an_end = rng.random() < few
    if at_an_end:
        order = rng.permutation(np.append(0, rng.integers(1, pairs, rng.integers(0, 3))))
    hay = span(rng, text, length - 2 * pairs - 2 * len(order))
    ids = scatter(rng, hay, needles, first=rng.choice([0, len(hay)]) if at_an_end else None)
    mask = np.zeros(length, bool)
    mask[len(ids) + 1 :: 2] = True
    return np.concatenate([ids, needles[order].ravel()]), mask


def question(
    rng: np.random.Generator, text: np.ndarray, length: int, symbols: np.ndarray, depth: float
) -> Question:
    """A haystack of `length` tokens that asks for one needle; depth 0 puts it at the very start, 1 before the key."""
    pairs = max(2, length // EVERY)
    needles = rng.permutation(symbols)[: 2 * pairs].reshape(pairs, 2)
    hay = span(rng, text, length - 1 - 2 * pairs)
    ids = scatter(rng, hay, needles, first=round(depth * len(hay)))
    place = int(np.flatnonzero(ids == needles[0, 1])[0])
    return Question(np.append(ids, needles[0, 0]), int(needles[0, 1]), place)
