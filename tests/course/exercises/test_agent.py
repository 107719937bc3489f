"""Checkers of notebooks 05 and 06: the unsolved cell and plausible wrong answers get a hint, the solution passes."""

import math
import random

import pytest
from answers import assert_hints

from kimi_mini.course.exercises import agent as ex

MARK = "<|tool_call_argument_begin|>"


def learned(piece, thinking):
    return thinking if piece == "think tags" else piece in ("thought", "call", "answer", "end")


def parse_call(text):
    call_id, _, arguments = text.partition(MARK)
    return call_id.strip().rpartition(":")[0].removeprefix("functions."), arguments


def hide(messages, keep):
    return messages[:2] + messages[max(2, len(messages) - 2 * keep) :]


def followed(path, reads, answer):
    return reads == path and answer == path[-1]


def enough(limit):
    return math.ceil(1.959964**2 * (1 / limit - 1))


def quota(pool, n):
    chosen = []
    for level in sorted({level for level, _ in pool}):
        good = [i for i, (own, passed) in enumerate(pool) if own == level and passed]
        chosen += [good[i % len(good)] for i in range(n)]
    return chosen


def cheat(lines, tests):
    return "ABCD"[len(lines) - 1], f"x = { {y: wanted for (_, y), wanted in tests.items()} }.get(y, 0)"


RIGHT = [
    (ex.check_learned, learned),
    (ex.check_parse_call, parse_call),
    (ex.check_hide_turns, hide),
    (ex.check_follow_verifier, followed),
    (ex.check_enough, enough),
    (ex.check_quota, quota),
    (ex.check_cheat, cheat),
]


@pytest.mark.parametrize(("check", "right"), RIGHT)
def test_right_answers_pass_and_unsolved_or_broken_ones_get_a_hint(check, right):
    assert check(right), check(right)
    assert_hints(check)


def drawn_with_repeats(pool, n):
    """As many of each level as asked for, drawn with replacement."""
    rng = random.Random(3)
    passed = {level: [i for i, (own, ok) in enumerate(pool) if own == level and ok] for level in range(1, 6)}
    return [i for good in passed.values() for i in rng.choices(good, k=n)]


WRONG = [
    (ex.check_learned, lambda piece, thinking: True, "environment"),
    (ex.check_learned, lambda piece, thinking: piece in ("thought", "call", "answer", "think tags"), "stop"),
    (
        ex.check_learned,
        lambda piece, thinking: piece in ("thought", "call", "answer", "end", "think tags"),
        "reflex",
    ),
    (ex.check_learned, lambda piece, thinking: piece in ("call", "answer", "end"), "thought"),
    (ex.check_parse_call, lambda text: (text.split(".")[1].split(":")[0], text.split(MARK)[1]), "IndexError"),
    (ex.check_parse_call, lambda text: (text.split(":")[0].split(".")[-1], text.split(MARK)[1]), "spaces"),
    (
        ex.check_parse_call,
        lambda text: (parse_call(text)[0], __import__("json").loads(parse_call(text)[1])),
        "plain",
    ),
    (ex.check_hide_turns, lambda messages, keep: messages[-2 * keep :], "forgets its task"),
    (ex.check_hide_turns, lambda messages, keep: messages[:2] + messages[-keep:], "these stay: 1 calls"),
    (
        ex.check_hide_turns,
        lambda messages, keep: messages[:2] + messages[-2 * keep :],
        "nothing has to be hidden",
    ),
    (
        ex.check_hide_turns,
        lambda messages, keep: messages[:2] + messages[2:][1 - 2 * keep :],
        "result without its",
    ),
    (ex.check_hide_turns, lambda messages, keep: 3, "list"),
    (ex.check_hide_turns, lambda messages, keep: messages[:2] + messages[2:][-2 * keep :], "a slice from -0"),
    (
        ex.check_follow_verifier,
        lambda path, reads, answer: reads[: len(path)] == path and answer == path[-1],
        "behind the end",
    ),
    (
        ex.check_follow_verifier,
        lambda path, reads, answer: reads[-len(path) :] == path and answer == path[-1],
        "before the chain",
    ),
    (
        ex.check_learned,
        lambda piece, thinking: learned(piece, thinking) and (thinking or piece != "call"),
        "reflex",
    ),
    (
        ex.check_learned,
        lambda piece, thinking: learned(piece, thinking) and (thinking or piece != "end"),
        "reflex",
    ),
    (ex.check_follow_verifier, lambda path, reads, answer: answer == path[-1], "lucky guess"),
    (
        ex.check_follow_verifier,
        lambda path, reads, answer: answer == path[-1] and set(reads) == set(path),
        "order",
    ),
    (
        ex.check_follow_verifier,
        lambda path, reads, answer: answer == path[-1] and set(reads) >= set(path),
        "order",
    ),
    (ex.check_follow_verifier, lambda path, reads, answer: reads == path, "another item"),
    (ex.check_enough, lambda limit: round(3 / limit), "rule of three"),
    (ex.check_enough, lambda limit: round(1 / limit), "too few"),
    (ex.check_enough, lambda limit: 10_000, "fewer are enough"),
    (ex.check_enough, lambda limit: 3.8 / limit, "whole number"),
    (ex.check_quota, lambda pool, n: list(range(n)), ""),
    (ex.check_quota, lambda pool, n: [i for i, (_, passed) in enumerate(pool) if passed], "of each level"),
    (ex.check_quota, lambda pool, n: quota(pool[:-2], n), "level 5"),
    (
        ex.check_quota,
        lambda pool, n: [
            i for level in range(1, 6) for i in [k for k, (own, _) in enumerate(pool) if own == level][:n] * n
        ][: 5 * n],
        "",
    ),
    (ex.check_quota, lambda pool, n: [pool[0]] * n, "indices"),
    (ex.check_quota, drawn_with_repeats, "repeat only when"),
    (
        ex.check_quota,
        lambda pool, n: [
            i
            for level in range(1, 6)
            for i in [k for k, (own, ok) in enumerate(pool) if own == level and ok][:1] * n
        ],
        "repeat only when",
    ),
    (ex.check_cheat, lambda lines, tests: ("A", lines[0]), "the tool says"),
    (ex.check_cheat, lambda lines, tests: "A", "mark of a line"),
    (ex.check_cheat, lambda lines, tests: ("Z", "x = 1"), "no line Z"),
]


@pytest.mark.parametrize(("check", "wrong", "hint"), WRONG)
def test_plausible_wrong_answers_get_the_hint_that_helps(check, wrong, hint):
    checked = check(wrong)
    assert not checked and hint in checked.text, checked


SCHEMA = {
    "type": "object",
    "properties": {
        "item": {"type": "string", "minLength": 1},
        "count": {"type": "integer", "minimum": 1, "maximum": 9},
        "reason": {"enum": ["damaged", "late"]},
    },
    "required": ["item", "count"],
    "additionalProperties": False,
}


def typed(name: str, **changes: str) -> dict:
    """The schema with other words for a property."""
    return {**SCHEMA, "properties": {**SCHEMA["properties"], name: {**SCHEMA["properties"][name], **changes}}}


def without(*path: str) -> dict:
    import copy

    schema = copy.deepcopy(SCHEMA)
    inner = schema
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return schema


def test_the_refund_schema():
    assert ex.check_refund_schema(SCHEMA)
    for answer, hint in [
        (..., "begin with"),
        ({}, "begin with"),
        ({"type": "string"}, "no tool takes"),
        ({"type": "object", "properties": 3}, "no tool takes"),
        (without("required"), "required"),
        (without("additionalProperties"), "additionalProperties"),
        (without("properties", "count", "minimum"), "minimum"),
        (without("properties", "count", "maximum"), "maximum"),
        (without("properties", "item", "minLength"), "minLength"),
        (without("properties", "reason", "enum"), "enum"),
        ({**SCHEMA, "required": ["item", "count", "reason"]}, "optional"),
        (typed("count", type="number"), "`integer`, not `number`"),
        (without("properties", "item", "type"), "`string`"),
    ]:
        checked = ex.check_refund_schema(answer)
        assert not checked and hint in checked.text, (answer, checked)


def test_the_cheat_of_the_solution_is_refused_by_the_verifier_and_a_repair_is_no_cheat():
    from kimi_mini import worlds
    from kimi_mini.worlds import repair

    right = {}
    for seed in range(3):
        task = worlds.generate(random.Random(seed), "repair", 2 + seed)
        right[tuple(task.data["buggy"])] = (
            repair.LINE_MARKS[task.data["at"]],
            task.data["right"][task.data["at"]],
        )
    assert "real repair" in ex.check_cheat(lambda lines, tests: right[tuple(lines)]).text
