"""The one decoding loop: rows join and leave as they like, a hook says what may come next, a full row ends."""

import random

import pytest
import torch
from tiny import tiny_model

from kimi_mini.inference.generation import generate
from kimi_mini.inference.writer import Marks, Row, Writer, dice, matrix
from kimi_mini.text.tokenizer import Tokenizer

TOKENIZER = Tokenizer.load()
MODEL = tiny_model().eval()
PROMPTS = [[5, 6, 7], [8, 9, 10, 11, 12, 13], [14], [15, 16], [17, 18, 19, 20]]


def row(number: int, most: int = 12, allowed=None) -> Row:
    return Row(list(PROMPTS[number]), most, frozenset(), dice(3, number), allowed=allowed)


def alone(number: int, most: int, temperature: float) -> Row:
    writer, written = Writer(MODEL, 1, 64, temperature), row(number, most)
    writer.join(0, written)
    writer.run()
    return written


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_rows_join_and_leave_while_others_are_written(temperature):
    """Continuous batching: two places for five turns of different lengths; each place takes the next one when it is
    free. Every turn is what it is alone, its log-probabilities too."""
    lengths = [3, 9, 5, 1, 7]
    rows = [row(number, most) for number, most in enumerate(lengths)]
    writer, waiting, steps = Writer(MODEL, 2, 64, temperature), list(rows), 0
    for place in (0, 1):
        writer.join(place, waiting.pop(0))
    while writer.rows:
        for place in writer.step():
            if waiting:
                writer.join(place, waiting.pop(0))
        steps += 1
    assert steps < sum(lengths)  # they were written side by side
    for number, (found, most) in enumerate(zip(rows, lengths)):
        expected = alone(number, most, temperature)
        assert found.ids == expected.ids and len(found.ids) == most and found.finish == "length"
        assert found.logprobs == pytest.approx(expected.logprobs, abs=1e-4)


def only(*ids: int) -> bytes:
    """The mask of these tokens."""
    return bytes(token in ids for token in range(MODEL.config.vocab_size))


def side_by_side(temperature: float, allowed) -> list[Row]:
    """Three rows; the hook is that of the one in the middle."""
    writer, rows = Writer(MODEL, 3, 64, temperature), [row(0), row(1, 12, allowed), row(2)]
    for place, written in enumerate(rows):
        writer.join(place, written)
    writer.run()
    return rows


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_row_that_may_only_write_digits_writes_digits(temperature):
    """Its neighbours do not notice, to the last bit."""
    digits = [TOKENIZER.token_id(digit) for digit in "0123456789"]
    free, held = side_by_side(temperature, None), side_by_side(temperature, lambda _: only(*digits))
    assert TOKENIZER.decode(held[1].ids).isdigit() and not TOKENIZER.decode(free[1].ids).isdigit()
    for before, after in ((free[0], held[0]), (free[2], held[2])):
        assert (before.ids, before.logprobs) == (after.ids, after.logprobs)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_hook_sees_what_has_been_written(temperature):
    """Counts up while it is held, then writes what it likes. Of one allowed token the probability is 1."""
    held = side_by_side(temperature, lambda row: only(40 + len(row.ids)) if len(row.ids) < 6 else None)[1]
    assert held.ids[:6] == [40, 41, 42, 43, 44, 45] and held.logprobs[:6] == pytest.approx([0.0] * 6)
    assert held.ids[6:] != [46, 47, 48, 49, 50, 51] and all(logprob < 0 for logprob in held.logprobs[6:])


def test_a_hook_that_allows_nothing_is_an_error():
    with pytest.raises(ValueError, match="no token is allowed behind the 2 tokens"):
        side_by_side(0.0, lambda row: only(*[40] * (len(row.ids) < 2)))


def test_the_masks_of_a_step_are_what_each_is_by_itself():
    """In one matrix, row by row, whatever a byte that is not 0 says; a row without a mask is free."""
    drawn, size = random.Random(0), 50
    masks = [bytes(drawn.choices([0, 1, 200], k=size)) for _ in range(4)]
    masks[1:1], masks[5:5] = [None], [bytearray(masks[0])]
    expected = [torch.ones(size).bool() if mask is None else torch.tensor([*mask]) != 0 for mask in masks]
    assert len(masks) == 6 and matrix(masks, size).equal(torch.stack(expected))


def test_a_row_that_fills_its_place_ends():
    """The last token need not be fed, so a place of 8 holds a prompt of 3 and a turn of 6."""
    writer, full, short = Writer(MODEL, 2, 8), row(0, 50), row(2, 5)
    writer.join(0, full)
    writer.join(1, short)
    writer.run()
    assert (full.finish, len(full.ids)) == ("length", 6) and len(short.ids) == 5
    assert full.ids == generate(MODEL, torch.tensor([PROMPTS[0]]), 6)[0, 3:].tolist()


def test_dice_of_other_names_are_other_dice():
    """Minus one is not one; the names of a row are told apart, and named again they are the same."""
    names = [(0,), (1,), (-1,), (2**31,), (-(2**31),), (1, 2), (-1, 2), (1, -2), (-(2**63),)]
    drawn = [dice(*name).random(4).tolist() for name in names]
    assert len({tuple(one) for one in drawn}) == len(names)
    assert [dice(*name).random(4).tolist() for name in names] == drawn


def test_a_budget_is_not_counted_anew_at_every_token():
    """`thought_tokens` is kept, so that a long thought costs no more a token than a short one."""

    class Uncountable(list):
        def __iter__(self):
            raise AssertionError("the whole thought was read again")

    marks = Marks.of(TOKENIZER)
    long = Row([], 99, frozenset(), budget=3, marks=marks, thought=Uncountable())
    for token in (marks.think, 40, 41, 42, 43):
        long.take(token, -0.5)
    assert long.ids == [marks.think, 40, 41, 42, marks.close] and long.thought_tokens == 3


def test_a_turn_that_goes_on_where_a_place_stopped_feeds_only_what_is_new(monkeypatch):
    writer, first = Writer(MODEL, 1, 64), row(1, 4)
    writer.join(0, first)
    writer.run()
    fed, extend = [], writer.decoder.extend
    monkeypatch.setattr(writer.decoder, "extend", lambda tokens: (fed.append(tokens), extend(tokens))[1])
    context = [*first.context, *first.ids, 30, 31]
    second = Row(context, 3, frozenset(), dice(3, 1))
    writer.join(0, second)
    writer.run()
    assert fed[0] == [[first.ids[-1], 30, 31]]  # the last token of a turn was never fed
    assert second.ids == generate(MODEL, torch.tensor([context]), 3)[0, len(context) :].tolist()
