"""Requests as people type them first: short sentences, common words, quotes or none; and talk that sounds like them."""

import random
from collections import Counter

import pytest

from kimi_mini.agent import loop
from kimi_mini.worlds.desk import world
from kimi_mini.worlds.desk.language import frames, wordings, words
from kimi_mini.worlds.desk.tasks import quoted
from kimi_mini.worlds.registry import FAMILIES

MARKS = "\"'"


@pytest.fixture(scope="module")
def tasks():
    """Tasks of every pattern, three hundred of each."""
    rng = random.Random(0)
    return [world.generate(rng, "plain", level) for level in world.EVERY for _ in range(300)]


def test_half_of_the_words_of_a_name_are_common():
    rng, (common, _) = random.Random(0), words.common()
    drawn = [word.lower() for name in words.names(rng, 2000, plainly=True) for word in name.split()]
    assert 0.5 < sum(word in common for word in drawn) / len(drawn) < 0.9
    often = sum(words.counted()[word] >= 100 for word in drawn) / len(drawn)
    usual = [word.lower() for name in words.names(rng, 2000) for word in name.split()]
    assert often > 5 * sum(words.counted()[word] >= 100 for word in usual) / len(usual)


def test_common_words_are_no_grammar_and_the_commoner_one_comes_more_often():
    common, sums = words.common()
    assert not {"the", "and", "that", "with", "not"} & set(common) and {"red", "lamp", "house"} <= set(common)
    assert not set(common) & set(words.HELD_OUT) and list(sums) == sorted(sums)
    rng = random.Random(0)
    drawn = Counter(words.everyday(rng) for _ in range(40_000))
    assert drawn["hand"] > 2 * drawn["lamp"] > 0  # 214 and 43 times in the book


def test_a_name_has_quotes_or_none_or_an_article():
    rng = random.Random(0)
    made = Counter(quoted(rng, plainly=True)("red lamp") for _ in range(3000))
    assert set(made) == {'"red lamp"', "'red lamp'", "red lamp", "the red lamp"}
    assert 0.29 < (made["red lamp"] + made["the red lamp"]) / 3000 < 0.38
    assert {quoted(rng)("red lamp")[0] for _ in range(500)} == set(MARKS)  # everybody else quotes


def test_sentences_are_of_the_plain_voice_and_half_of_them_stand_alone():
    rng, slots = random.Random(0), {"list": "LIST", "word": "WORD"}
    plain = {frame.format(**slots).rstrip(".?!") for frame in frames.voice("plain")["ask"]}
    said = [wordings.said(rng, "ask", plainly=True, **slots) for _ in range(2000)]
    alone = sum(text.rstrip(".?!") in plain | set(map(wordings.capital, plain)) for text in said)
    assert 0.5 < alone / 2000 < 0.75
    lower = [text.lower() for text in plain]
    assert all(any(text in one.lower() for text in lower) for one in said)


def test_a_name_that_begins_a_sentence_is_written_as_it_is():
    """Nobody could know how it is written otherwise; a word of the language gets its capital."""
    rng, told = random.Random(0), set()
    for name in ("red lamp", "Red Lamp"):
        for _ in range(3000):
            text = wordings.said(rng, "ask", plainly=True, list=name, word="price")
            assert name in text
            told.add(text)
    assert "red lamp: I need the price." in told and "Price of red lamp?" in told


def test_talk_is_told_from_a_request_by_what_it_says_and_not_by_how_it_begins():
    rng = random.Random(0)
    plain = [wordings.talk(rng, "red lamp", plainly=True) for _ in range(1000)]
    known = {text.format(a="red lamp") for text in wordings.TALK}
    assert 0.4 < sum(text in known for text in plain) / 1000 < 0.8
    assert all(wordings.talk(rng, "red lamp") in known for _ in range(100))
    exam = {text.format(a="red lamp") for text in wordings.HELD_OUT_TALK}
    assert {wordings.talk(rng, "red lamp", held_out=True) for _ in range(900)} == exam


def test_every_pattern_is_asked_and_a_fifth_cannot_be_done(tasks):
    assert len({task.data["pattern"] for task in tasks}) == len(world.PATTERNS)
    outcomes = Counter(task.data["outcome"] for task in tasks)
    assert outcomes["done"] / len(tasks) == pytest.approx(0.76, abs=0.04) and len(outcomes) == 4
    unquoted = sum(not set(MARKS) & set(task.prompt) for task in tasks if task.data["pattern"] == "ask")
    assert 0.25 < unquoted / 300 < 0.5
    assert FAMILIES["plain"].trained and not FAMILIES["names"].trained


@pytest.mark.parametrize("count", [40, pytest.param(400, marks=pytest.mark.slow)])
def test_the_experts_work_passes_without_quotes_too(tasks, count):
    for task in random.Random(1).sample(tasks, count):
        assert loop.play(task, random.Random(0), None).verdict().passed, task.prompt
