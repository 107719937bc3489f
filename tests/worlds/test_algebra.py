"""World `algebra`: any way to write the right number counts, and nothing is ever run."""

import random
from collections import Counter
from fractions import Fraction
from itertools import pairwise

import pytest

from kimi_mini import worlds
from kimi_mini.worlds.base import turn
from kimi_mini.worlds.chain import algebra
from kimi_mini.worlds.chain.expression import operations, value_of


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("24", 24),
        (" 48/2 ", 24),
        ("2*12", 24),
        ("-(-24)", 24),
        ("+24.0", 24),
        ("1/3", Fraction(1, 3)),
        ("0.1+0.2", Fraction(3, 10)),
        ("(2+4)*(5-1)", 24),
    ],
)
def test_values_are_exact(text, value):
    assert value_of(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "24 or 7",
        "7, 24",
        "1/0",
        "2**3",
        "9" * 30,
        "1e99",
        "10**9**9",
        "True",
        "'24'",
        "[24]",
        "int(24)",
        "__import__('os')",
        "24 if 1 else 0",
        "24;",
        "2\n4",
        "\uff12\uff14",
        "(" * 30,
        "999999999*999999999",
        "24j",
        "nan",
    ],
)
def test_what_is_no_arithmetic_has_no_value(text):
    assert value_of(text) is None


def test_operations_are_counted_without_signs():
    assert [operations(text) for text in ("24", "-24", "48/2", "1+2*3")] == [0, 0, 1, 2]


def verdict(task, *answers):
    messages = [turn("", content=answer) for answer in answers]
    return algebra.verify(task, messages, None).passed


def test_an_expression_that_is_equal_is_right_and_the_question_itself_is_not():
    task = worlds.generate(random.Random(0), "solve", 3)
    right, name = task.data["answer"], task.data["name"]
    for answer in (f"{right}", f"{name} = {right}", f"{2 * right}/2.", f"00{right}", f"{right}.00"):
        assert verdict(task, answer), answer
    assert not verdict(task, f"{right}.05") and not verdict(task, f"{right}00")
    d = task.data
    assert not verdict(task, f"({d['total']}-{d['add']})/({d['left']}-{d['right']})")
    assert not verdict(task, name) and not verdict(task, f"{right + 1}") and not verdict(task, "")


def test_the_last_step_is_no_answer_and_neither_is_another_letter_or_a_second_try():
    data = {"name": "x", "left": 1, "right": 0, "add": 4, "total": 19, "answer": 15}
    task = worlds.Task("algebra", "solve", 1, "x + 4 = 19. What is x?", data)
    for answer in ("15", "x = 15", "30/2", "20 - 5", "-(-15)", "3*5"):
        assert verdict(task, answer), answer
    for answer in ("19 - 4", "(19-4)", "-4 + 19", "x = 19 - 4", "y = 15"):
        assert not verdict(task, answer), answer
    assert not verdict(task, "16", "15") and not verdict(task, "15", "15")


@pytest.mark.parametrize("family", ["define", "solve"])
def test_tasks_have_one_whole_answer_and_as_many_steps_as_their_level(family):
    rng = random.Random(0)
    for level in algebra.FAMILIES[family].levels:
        for _ in range(30):
            task = worlds.generate(rng, family, level)
            message = next(worlds.registry.expert(task, rng))
            assert message["content"] == str(task.data["answer"])
            assert message["reasoning_content"].count("=") == level
            assert 0 < task.data["answer"] < 100
            wrong = next(worlds.registry.expert(task, rng, "slip"))
            assert wrong["content"] != message["content"]


def worked_out(lines, **other):
    """The last letter's value, where some letters have another value than they are given."""
    values = {}
    for line in lines:
        name, right = line.split(" = ")
        values[name] = other.get(name, eval(right, {}, values))
    return values[name]


@pytest.mark.parametrize("level", algebra.FAMILIES["define"].levels)
def test_the_answer_rests_on_every_letter(level):
    """Another value of any letter is another answer, and no answer is worth a guess."""
    rng, answers = random.Random(level), Counter()
    for number in range(100):
        task = worlds.generate(rng, "define", level, held_out=number % 2 == 1)
        lines, answer = task.data["lines"], task.data["answer"]
        assert len(lines) == level + 1 and worked_out(lines) == answer
        assert all(0 < value < 100 for value in task.data["values"].values())
        for before, line in pairwise(lines):
            assert line.split(" = ")[1].startswith(f"{before[0]} "), "each needs the one before it"
        for name, value in task.data["values"].items():
            assert worked_out(lines, **{name: value + 1}) != answer, (task.prompt, name)
        answers[answer] += 1
    assert answers.most_common(1)[0][1] <= 10


def test_a_slip_that_grows_without_bounds_is_worked_out():
    lines = ["a = 2", "b = a * a", "c = b * b", "d = c - b", "e = d - b", "f = e * e", "g = f - e"]
    data = {"lines": lines, "values": {}, "answer": 56}
    assert algebra._work_definitions(data, lambda step: 0)[-1] == ("g 64-8=56", 56)
    assert algebra._work_definitions(data, lambda step: 10**4 * (step == 0))[-1][1] > 10**15
