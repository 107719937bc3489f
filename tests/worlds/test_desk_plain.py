"""Requests as people type them first: short sentences, common words, quotes or none; and talk that sounds like them."""

import random
import re
from collections import Counter

import pytest

from kimi_mini.agent import loop
from kimi_mini.worlds.desk import world
from kimi_mini.worlds.desk.language import complaints, frames, wordings, words
from kimi_mini.worlds.desk.play import clerk, sheets
from kimi_mini.worlds.desk.surface import HELD_OUT_TRANSIENT
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
    voices = frames.voice("plain")["ask"] + frames.voice("everyday")["ask"]
    plain = {frame.format(**slots).rstrip(".?!") for frame in voices}
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


def played(tasks, outcome):
    """The work on those tasks: what went wrong on the way, and the answer."""
    for task in tasks:
        if task.data["outcome"] == outcome:
            messages = loop.play(task, random.Random(0), None).messages
            results = [message["content"] for message in messages if message["role"] == "tool"]
            yield task, [text for text in results if text.startswith("error: ")], messages[-1]["content"]


def test_what_is_not_there_is_told_in_many_words_and_asked_for_once(tasks):
    told = set()
    for task, errors, answer in played(tasks, "missing"):
        (absent,) = [text for text in errors if task.data["gone"] in text]
        assert errors[-1] == absent and answer == clerk.missing(task.data["gone"])
        told.add(absent.replace(task.data["gone"], "_"))
    assert len(told) > 60
    plain = Counter(task.data["absent"].startswith("{tool} failed: ") for task in tasks)
    assert plain[True] > len(tasks) / 6  # as a Python function says it


def test_whatever_else_a_tool_says_is_worth_one_more_try_and_no_third_one(tasks):
    twice = [errors for _, errors, _ in played(tasks, "broken")]
    assert len(twice) > 20 and all(len(errors) == 2 and len(set(errors)) == 1 for errors in twice)
    once = [errors for _, errors, _ in played(tasks, "done") if errors]
    assert len(once) > 100 and all(len(errors) == 1 for errors in once)


def test_the_words_of_the_exams_are_in_no_complaint():
    texts = complaints.ABSENT + complaints.PASSING + complaints.LASTING
    assert not any("is not there" in text or "overloaded" in text or "hiccup" in text for text in texts)
    assert not set(texts) & set(HELD_OUT_TRANSIENT) and all("{name}" in text for text in complaints.ABSENT)
    assert not any("{name}" in text for text in complaints.PASSING + complaints.LASTING)


def test_an_article_that_only_a_result_tells_is_part_of_the_name(tasks):
    chains = [task for task in tasks if task.data["pattern"] == "trace"]
    names = [name for task in chains for name in task.data["records"] if name not in task.prompt]
    articles = sum(name.startswith("the ") for name in names)
    assert 0.15 < articles / len(names) < 0.25
    assert not any(task.data["steps"]["start"].startswith("the ") for task in chains)


def test_a_sheet_of_first_thoughts_says_which_tool_there_is_and_when_there_is_none():
    refused, talked, total = 0, 0, 0
    for seed in range(40):
        (declared, learned), *pieces = sheets.begun(random.Random(seed))
        assert not learned and len(pieces) == 2 * sheets.BEGUN
        for (asked, _), (thought, _) in zip(pieces[::2], pieces[1::2]):
            assert asked.startswith("\n") and asked.endswith("\n")
            none = thought.endswith(f"no tool {clerk.NO_TOOL}")
            signature = re.search(r" \.([\w-]+)\([\w ,-]*\)$", thought)
            assert none or f'"name":"{signature[1]}"' in declared
            refused, talked, total = refused + none, talked + thought.startswith("no tool"), total + 1
    assert 0.28 < refused / total < 0.42 and 0.06 < talked / total < 0.15


def test_a_sheet_of_spelling_takes_the_name_as_it_is_and_the_verb_without_its_capital():
    pieces, heads = sheets.spelling(random.Random(0)), 0
    assert len(pieces) == 2 * sheets.SPELT
    for (said, told), (thought, learned) in zip(pieces[::2], pieces[1::2]):
        assert learned and not told and re.search('"(.*)"', thought)[1] in said
        verb = re.search(r" (?:do|read) (\w+)$", thought)
        assert not verb or (verb[1] == verb[1].lower() and verb[1] in said.lower())
        heads += bool(verb) and verb[1] not in said
    assert heads > 8


def test_plain_sentences_have_sheets_and_one_in_three_is_of_spelling():
    made = [sheets.plain_sheet(random.Random(seed)) for seed in range(300)]
    assert 0.2 < sum(not pieces[0][0].startswith("[") for pieces in made) / 300 < 0.4
    assert FAMILIES["plain"].sheet is sheets.plain_sheet and FAMILIES["plain"].shares["sheet"] > 0


def test_what_is_asked_for_twice_may_be_said_twice_and_a_choice_has_an_or(tasks):
    asked = [task.prompt for task in tasks if task.data["pattern"] == "ask"]
    assert any(" and the " in text for text in asked) and any(" or " in text for text in asked)
    choices = [task for task in tasks if task.data["pattern"] == "least"]
    assert sum(" or " in task.prompt for task in choices) / len(choices) > 0.1
    assert not any(f" and the {task.data['steps']['word']} of " in task.prompt for task in choices)
