"""What makes the endpoint fast changes no answer: tokens that are not parsed again, prompts read and borrowed."""

import random

import pytest
import torch
from tiny import tiny_model

from kimi_mini.inference.decoder import Decoder
from kimi_mini.inference.serving.answer import Answer
from kimi_mini.inference.writer import Marks, Row, Writer
from kimi_mini.text.tokenizer import Tokenizer

TOKENIZER = Tokenizer.load()
SPECIAL = [TOKENIZER.special[name] for name in ("<think>", "</think>")]
CALLS = [
    TOKENIZER.special[f"<|tool_call{name}|>"]
    for name in ("s_section_begin", "_begin", "_argument_begin", "_end", "s_section_end")
]


def turn(rng: random.Random) -> list[int]:
    """A turn with letters of several bytes, cut anywhere, and now and then a marker where none belongs."""

    def words() -> list[int]:
        ids = TOKENIZER.encode_plain(
            "".join(rng.choices(["ab ", "é", "漢", "🙂", " 12", "\n"], k=rng.randrange(9)))
        )
        return ids[: rng.randrange(len(ids) + 1)] if rng.random() < 0.3 else ids

    section, begin, argument, end, close = CALLS
    call = [section, begin, *TOKENIZER.encode_plain("functions.f:0"), argument]
    call += [*TOKENIZER.encode_plain('{"a": "é"}'), end, close]
    ids = [SPECIAL[0], *words(), SPECIAL[1], *words(), *(call if rng.random() < 0.5 else [])]
    for _ in range(rng.choice((0, 0, 2))):
        ids.insert(rng.randrange(len(ids) + 1), rng.choice([*SPECIAL, *CALLS]))
    return ids


@pytest.mark.parametrize("thinks", [True, False])
@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize("stops", [[], ["b é"]])
def test_a_token_that_is_not_parsed_gives_the_pieces_that_parsing_gives(thinks, held, stops, monkeypatch):
    rng, skipped = random.Random(0), 0
    for _ in range(150):
        ids = turn(rng)[0 if thinks else 2 :]
        both = [Answer(TOKENIZER, thinks, held, list(stops)) for _ in range(2)]
        monkeypatch.setattr(both[1], "_more", lambda row: None)  # parsed at every token
        row = Row([], 999, frozenset(), marks=Marks.of(TOKENIZER))
        for number, token in enumerate(ids):
            row.add(token, True)
            row.finish = "stop" if (over := number == len(ids) - 1) else None
            before = both[0]._part is not None and token < TOKENIZER.first_special
            first, second = (answer.heard(row, over) for answer in both)
            assert first == second, TOKENIZER.decode(row.ids)
            skipped += before
        assert both[0].message() == both[1].message()
    assert bool(skipped) != bool(stops)


def test_a_prompt_that_is_read_leaves_what_a_chunk_leaves():
    model, ids = tiny_model().eval(), list(range(3, 153))  # more than two pieces
    chunk, read = Decoder(model, 3, 200), Decoder(model, 3, 200)
    assert read.folded is not None
    for decoder in (chunk, read):
        decoder.extend([[5, 6], [7], []])
    chunk.extend([[], ids, []])
    read.read(1, ids)
    assert read.cache.host_lengths == chunk.cache.host_lengths == read.lengths.tolist()
    held = (slice(None), 1, slice(len(ids) + 1))
    torch.testing.assert_close(read.cache.store[held], chunk.cache.store[held], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(read.cache.bias, chunk.cache.bias, rtol=0, atol=0)
    torch.testing.assert_close(read.extend([[9]] * 3), chunk.extend([[9]] * 3), rtol=1e-4, atol=1e-4)


def test_a_row_borrows_what_another_place_holds_and_writes_the_same():
    model, shared = tiny_model().eval(), list(range(3, 40))

    def written(writer: Writer, place: int, context: list[int], borrows: bool) -> tuple[list[int], int]:
        row = Row(context, 12, frozenset())
        if borrows:
            writer.borrow(place, row)
        writer.join(place, row)
        held = len(writer.held[place])
        writer.read(place)
        writer.run()
        return row.ids, held

    writer = Writer(model, 2, 100)
    written(writer, 0, [*shared, 50], False)
    ids, held = written(writer, 1, [*shared, 60, 61], True)
    assert held == len(shared)
    assert ids == written(Writer(model, 1, 100), 0, [*shared, 60, 61], False)[0]
    assert (
        written(writer, 0, [*shared, 50], True)[0]
        == written(Writer(model, 1, 100), 0, [*shared, 50], False)[0]
    )


def test_nothing_is_borrowed_from_another_adapters_place():
    writer = Writer(tiny_model().eval(), 2, 50)
    writer.held[0], writer.worn[0] = [1, 2, 3], "other"
    writer.borrow(1, Row([1, 2, 3, 4], 3, frozenset()))
    assert writer.held[1] == []
