"""Teaching: what a teacher shows is right, its sums are true and small, and none of it is held out."""

import random
import re
from collections import Counter

import pytest

from kimi_mini import worlds
from kimi_mini.agent import loop
from kimi_mini.agent.conversation import opening
from kimi_mini.agent.policy import Script
from kimi_mini.base.evidence import Log
from kimi_mini.experiments.evaluation import taught, teachers
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training import sft
from kimi_mini.worlds.base import is_held_out
from kimi_mini.worlds.registry import FAMILIES, held_out_tasks


def shown(family, count=40):
    """What the teacher does at tasks of every level in turn."""
    levels = list(FAMILIES[family].levels)
    for seed in range(count):
        played = opening(worlds.generate(random.Random(seed), family, levels[seed % len(levels)]))
        loop.converse(Script(lambda c, seed=seed: teachers.teach(c.task, random.Random(seed))), [played])
        yield played


@pytest.mark.parametrize("family", taught.SHARES)
def test_what_is_shown_is_right(family):
    assert all(played.verdict().passed for played in shown(family))


@pytest.mark.parametrize(
    ("left", "sign", "right", "text", "value"),
    [
        (67, "-", 38, "67-30=37 37-8=29", 29),
        (35, "+", 30, "35+30=65", 65),
        (38, "-", 3, "38-3=35", 35),
        (7, "*", 12, "12*7=84", 84),
        (20, "-", 20, "20-20=00", 0),
        (9, "+", 0, "09+0=09", 9),
        (20, "*", 0, "20*0=00", 0),
    ],
)
def test_sums_have_a_digit_or_full_tens_on_the_right(left, sign, right, text, value):
    assert teachers.sums(left, sign, right) == (text, value)


@pytest.mark.parametrize("family", ["define", "solve"])
def test_every_sum_of_a_teacher_is_true(family):
    seen = 0
    for played in shown(family, 120):
        for left, sign, right, value in re.findall(
            r"(\d+)([-+*/])(\d+)=(\d+)", played.messages[-1]["reasoning_content"]
        ):
            assert eval(f"{int(left)}{sign}{int(right)}") == int(value)  # our own teacher's digits
            seen += 1
    assert seen >= 120


def test_a_letter_is_always_followed_by_its_value_when_it_is_looked_up():
    for played in shown("define"):
        values = played.task.data["values"]
        looked_up = re.findall(r"\b([a-z]) (\d\d)\b", played.messages[-1]["reasoning_content"])
        assert {letter for letter, _ in looked_up} == set(values)
        assert all(values[letter] == int(number) for letter, number in looked_up)


def test_the_next_step_of_a_policy_stands_behind_the_last_one():
    """As in the system message, so that it can be read off; and what is done is what the expert does."""
    named = 0
    for played in shown("line"):
        policy = played.messages[0]["content"]
        for message in played.messages:
            found = re.match(r"still broken, (.*?)(?:, look it up)?$", message.get("reasoning_content") or "")
            if found:
                assert f"{found[1]}," in policy or f"{found[1]}." in policy, found[1]
                named += 1
    assert named >= 20


def test_no_lesson_is_held_out_and_every_level_has_some(monkeypatch):
    tokenizer, keys, real = Tokenizer.load(), [], worlds.generate

    def noted(*args, **options):
        keys.append(real(*args, **options))
        return keys[-1]

    monkeypatch.setattr(worlds, "generate", noted)
    for source in taught.sources():
        made = taught.lessons(tokenizer, source, 3 * len(source.levels), 0)
        assert {level for _, level in made} == set(FAMILIES[source.family].levels)
        assert sft.make_plan(made, 2000, 1000, 0)
    assert not any(is_held_out(task.key) for task in keys)
    exams = {
        task.key for name, (levels, *_) in taught.EXAMS.items() for task in held_out_tasks(name, levels, 8, 0)
    }
    assert not exams & {task.key for task in keys}


def test_a_dialogue_with_several_answers_is_several_examples():
    tokenizer = Tokenizer.load()
    [line] = [source for source in taught.sources() if source.family == "line"]
    made = taught.lessons(tokenizer, line, 6, 0)
    assert sum(map(len, made.values())) > 12


def test_shares_are_whole_and_lengths_about_right():
    assert sum(taught.SHARES.values()) + taught.REPLAY == pytest.approx(1)
    assert taught.LENGTHS.keys() == taught.SHARES.keys() == taught.EXAMS.keys()


def test_a_seed_below_the_floor_is_not_hidden_by_the_others(tmp_path):
    log = Log("taught", seeds=[0, 1, 2], folder=tmp_path)
    for seed in log.seeds:
        success = dict.fromkeys([*taught.EXAMS, *taught.KEPT], 0.9)
        log.row(arm="taught", seed=seed, success=success | {"hops": (0.9, 0.9, 0.1)[seed]})
    taught.report(log)
    verdicts = {claim["name"]: claim["verdict"] for claim in log.claims}
    assert verdicts == {
        "taught/write": "holds",
        "taught/define": "holds",
        "taught/hops": "open",
        "taught/line": "holds",
    }
    assert Counter(name.split("/")[0] for name in log.more["scoreboard"]) == {"taught": 9}
    assert taught.draw({"scoreboard": log.more["scoreboard"]}).axes
