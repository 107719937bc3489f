"""A step's examples shared out to ranks: each of them once, little padding, and nobody waits longer than need be."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_mini.base import ranks
from kimi_mini.training import batch
from kimi_mini.training.batch import Example, micro_batches, shared_batches

LENGTHS = st.lists(st.integers(1, 60) | st.integers(300, 2000), max_size=14)


def examples(lengths):
    """Each with a number of its own as its first token."""
    return [Example(np.full(size, index), np.ones(size, bool)) for index, size in enumerate(lengths)]


def shares(lengths, tokens, count):
    """The micro-batches of every rank."""
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranks, "world_size", lambda: count)
        for rank in range(count):
            patch.setattr(ranks, "rank", lambda rank=rank: rank)
            found.append(shared_batches(examples(lengths), tokens))
    return found


def padded(batches):
    return sum(part.ids.numel() for part in batches)


def worked(batches):
    return sum(len(part.ids) * batch.work(part.ids.shape[1]) for part in batches)


@given(LENGTHS, st.integers(1, 200), st.integers(1, 4))
def test_every_example_is_learned_by_one_rank(lengths, tokens, count):
    seen = [row[0].item() for share in shares(lengths, tokens, count) for part in share for row in part.ids]
    assert sorted(seen) == list(range(len(lengths)))


@given(LENGTHS.filter(len), st.integers(1, 200))
def test_two_ranks_wait_for_each_other_as_little_as_can_be(lengths, tokens):
    """Against every other place to cut the sorted list."""
    ordered = sorted(examples(lengths), key=batch.length)
    cuts = [[ordered[:at], ordered[at:]] for at in range(len(ordered) + 1)]
    best = min(max(worked(micro_batches(part, tokens)) for part in halves) for halves in cuts)
    assert max(worked(share) for share in shares(lengths, tokens, 2)) == best


def test_a_long_row_is_more_work_than_its_tokens():
    """Cut by tokens, the rank with the longest row would have another one beside it, and the other would wait."""
    assert batch.work(2 * batch.ATTENTION) == 3 * 2 * batch.ATTENTION
    lengths = [500, 500, 500, 500, 1400]
    own = [
        [int(part.valid[row].sum()) for part in share for row in range(len(part.ids))]
        for share in shares(lengths, 2048, 2)
    ]
    assert own == [[500, 500, 500, 500], [1400]]


def test_alone_a_step_is_what_it_was():
    one, other = micro_batches(examples([5, 9, 2, 7]), 16), shared_batches(examples([5, 9, 2, 7]), 16)
    assert [part.ids.tolist() for part in one] == [part.ids.tolist() for part in other]


def test_like_lengths_stay_together():
    """Dealt like cards, each rank would pad the short ones to the long one."""
    assert [padded(share) for share in shares([10, 10, 10, 10, 40, 10], 80, 2)] == [50, 40]
