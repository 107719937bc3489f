"""What makes the endpoint fast changes no answer: tokens that are not parsed again, prompts read and borrowed."""

import random

import pytest
import torch
from tiny import tiny_model

from kimi_mini.inference.decoder import Decoder
from kimi_mini.inference.serving.answer import Answer
from kimi_mini.inference.writer import Marks, Row, Writer, common_prefix
from kimi_mini.text import chat
from kimi_mini.text.tokenizer import Tokenizer

TOKENIZER = Tokenizer.load()
SPECIAL = [TOKENIZER.special[name] for name in ("<think>", "</think>")]
END = TOKENIZER.special["<|im_end|>"]
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


@pytest.mark.parametrize("thinks", [True, False])
@pytest.mark.parametrize("held", [True, False])
def test_the_pieces_put_together_are_the_turn_as_it_is_parsed(thinks, held):
    """Whatever was sent stays true: a thought, a text up to its stop string, calls."""
    rng = random.Random(1)
    for number in range(400):
        ids = turn(rng)[0 if thinks else 2 :] or [END]
        stops = rng.sample(["b é", "漢🙂", "🙂", "12\n", "ab ab"], rng.choice((0, 1, 2)))
        if number % 4 == 0:  # tokens without any sense
            ids = [rng.randrange(TOKENIZER.vocab_size) for _ in range(12)]
        answer, sent = (
            Answer(TOKENIZER, thinks, held and number % 4 > 0, stops),
            {"reasoning_content": "", "content": ""},
        )
        calls: dict[int, list[str]] = {}
        row = Row([], 999, frozenset(), marks=Marks.of(TOKENIZER))
        for place, token in enumerate(ids):
            row.add(token, True)
            over = place == len(ids) - 1
            row.finish = "stop" if over else None
            for delta in answer.heard(row, over):
                for name in sent:
                    sent[name] += delta.get(name, "")
                for part in delta.get("tool_calls", ()):
                    one = calls.setdefault(part["index"], [part.get("id"), ""])
                    one[1] += part["function"]["arguments"]
            if answer.stopped and not over:
                row.finish, over = "stop", True
                assert answer.heard(row, True) == []
            if over:
                break
        whole = chat.parse_ids(TOKENIZER, row.ids, None if thinks else False)
        content = whole["content"] or ""
        cut = min((content.find(stop) for stop in stops if stop in content), default=None)
        expected = [] if cut is not None else whole.get("tool_calls", [])
        assert sent == {"reasoning_content": whole["reasoning_content"], "content": content[:cut]}, ids
        assert list(calls.values()) == [[c["id"], c["function"]["arguments"]] for c in expected]
        assert answer.finish == ("tool_calls" if expected else "stop")


@pytest.mark.parametrize("finish", ["stop", "length", "loops"])
@pytest.mark.parametrize("stops, wanted", [(["cd"], "stop"), (["x"], None)])
def test_a_text_that_ends_at_its_stop_string_has_stopped_whatever_ended_the_row(finish, stops, wanted):
    answer = Answer(TOKENIZER, False, True, stops)
    row = Row([], 99, frozenset(), ids=TOKENIZER.encode_plain("ab cd"), finish=finish)
    row.ids = list(row.ids)
    answer.heard(row, True)
    assert answer.finish == (wanted or {"loops": "length"}.get(finish, finish))


def test_blanks_before_a_thought_that_nobody_asked_for_are_no_text():
    """The parser passes over them, so they may not have been sent."""
    ids = [
        *TOKENIZER.encode_plain(" "),
        SPECIAL[0],
        *TOKENIZER.encode_plain("so"),
        SPECIAL[1],
        *TOKENIZER.encode_plain("yes"),
    ]
    row, answer, sent = (
        Row([], 99, frozenset(), marks=Marks.of(TOKENIZER)),
        Answer(TOKENIZER, False, True),
        [],
    )
    for token in ids:
        row.add(token, True)
        sent += answer.heard(row, False)
    assert not answer.heard(row, True) and (answer.thought, answer.text) == ("so", "yes")
    assert "".join(delta.get("content", "") for delta in sent) == "yes"


def test_a_text_is_sent_as_soon_as_nothing_can_change_it():
    words = TOKENIZER.encode_plain("ab cd")
    row, answer = Row([], 99, frozenset(), marks=Marks.of(TOKENIZER)), Answer(TOKENIZER, True, True, ["dx"])
    said = []
    for token in (SPECIAL[0], words[0], SPECIAL[1], *words):
        row.add(token, True)
        said.append(
            "".join(
                delta.get("reasoning_content", "") + delta.get("content", "")
                for delta in answer.heard(row, False)
            )
        )
    assert said[1] == said[3] == TOKENIZER.decode(words[:1])
    assert "".join(said[3:]) == "ab c"  # the d may begin a stop string
    assert answer.heard(row, True) == [{"content": "d"}]


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

    def written(writer: Writer, place: int, context: list[int], borrows: bool) -> tuple[Row, int]:
        row = Row(context, 12, frozenset())
        if borrows:
            writer.borrow(place, row)
        writer.join(place, row)
        held = len(writer.held[place])
        writer.read(place)
        writer.run()
        return row, held

    writer = Writer(model, 2, 100)
    written(writer, 0, [*shared, 50], False)
    found, held = written(writer, 1, [*shared, 60, 61], True)
    assert held == len(shared)
    again, _ = written(writer, 0, [*shared, 50], True)
    for row in (found, again):
        alone, _ = written(Writer(model, 1, 100), 0, row.context, False)
        assert row.ids == alone.ids and row.logprobs == pytest.approx(alone.logprobs, abs=1e-5)


def test_nothing_is_borrowed_from_another_adapters_place():
    writer = Writer(tiny_model().eval(), 2, 50)
    writer.held[0], writer.worn[0] = [1, 2, 3], "other"
    writer.borrow(1, Row([1, 2, 3, 4], 3, frozenset()))
    assert writer.held[1] == []


def test_the_common_beginning_is_as_long_as_a_walk_finds_it():
    rng = random.Random(0)
    for _ in range(300):
        first, second = ([rng.choice((1, 1, 1, 2)) for _ in range(rng.randrange(9))] for _ in range(2))
        pairs = list(zip(first, second))
        walked = next((index for index, (a, b) in enumerate(pairs) if a != b), len(pairs))
        assert common_prefix(first, second) == walked


def test_rows_that_are_rewound_or_copied_see_what_a_new_count_sees():
    decoder = Decoder(tiny_model().eval(), 4, 40)
    for row, length in enumerate((9, 0, 20, 3)):
        if length:
            decoder.cache.read({row: length})
    decoder.cache.truncate([4, 0, 0, 3])
    decoder.cache.copy(0, 1, 2)
    bias, lengths = decoder.cache.bias.clone(), decoder.lengths.tolist()
    assert lengths == decoder.cache.host_lengths == [4, 2, 0, 3]
    decoder.cache.set_lengths(lengths)  # all of it anew
    torch.testing.assert_close(bias, decoder.cache.bias, rtol=0, atol=0)
