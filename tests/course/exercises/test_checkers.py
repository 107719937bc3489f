"""Checkers accept right answers, and say what is wrong with others. They never raise: whatever a reader hands in, or
lets a function return, gets a sentence."""

import inspect
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from answers import RIGHT, WRONG

from kimi_mini.course import exercises

CHECKERS = [
    pytest.param(check, id=name)
    for page in map(vars(exercises).get, exercises.__all__)
    for name, check in vars(page).items()
    if name.startswith("check_")
]


def named(part):
    return getattr(part, "__name__", None)


@pytest.mark.parametrize(("check", "right"), RIGHT, ids=named)
def test_right_answers_pass(check, right):
    found = check(right)
    assert found and repr(found).startswith("right: ") and "right" in found._repr_html_(), found
    assert check(right), "a second time: what an answer did to its arguments must not stay"


@pytest.mark.parametrize(("check", "wrong", "hint"), WRONG, ids=named)
def test_plausible_wrong_answers_get_the_hint_that_helps(check, wrong, hint):
    found = check(wrong)
    assert not found and any(words in found.text for words in hint.split("|")), found


def unsolved(*arguments): ...


def failing(*arguments):
    raise KeyError("x")


@pytest.mark.parametrize("check", dict.fromkeys(check for check, _ in RIGHT), ids=named)
def test_unsolved_and_broken_answers_are_named(check):
    for answer, words in ((unsolved, "three dots"), (failing, "KeyError"), (None, "itself"), (..., "itself")):
        found = check(answer)
        assert not found and repr(found).startswith("not yet: ") and words in found.text, answer


ODD = [
    "text",
    "",
    b"x",
    7,
    0.5,
    True,
    float("nan"),
    [],
    [1, 2],
    (1,),
    ("a", "b"),
    {},
    {"a": 1},
    {1},
    range(3),
    object(),
    SimpleNamespace(),
    np.array([1, 2]),
    np.zeros((2, 2)),
    np.float64(1),
    torch.tensor([1.0, 2.0]),
    torch.tensor(3),
    torch.full((4, 4), float("nan")),
    [[1], [2, 3]],
    [None],
    (None, None),
    [np.array([1, 2]), np.array([1, 2])],
    ...,
]


def no_arguments():
    return 1


def leaves(*_):
    raise RuntimeError("no")


@pytest.mark.parametrize("check", CHECKERS)
def test_odd_answers_get_a_hint(check):
    others = [
        parameter
        for parameter in list(inspect.signature(check).parameters.values())[1:]
        if parameter.default is parameter.empty
    ]
    rest = [lambda *_: "7"] * len(others)
    returning = [lambda *_, value=value: value for value in ODD]
    counted = iter(range(10**9))
    fickle = [
        lambda *_, first=first, then=then: first if next(counted) % 2 else then
        for first, then in ((1, "x"), ("x", 1), ((1, 2), 3), (torch.ones(2), None))
    ]
    for answer in [*ODD, *returning, *fickle, no_arguments, leaves, None]:
        found = check(answer, *rest)
        assert not found and found.text, (answer, found)
