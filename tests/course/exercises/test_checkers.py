"""A checker never raises: whatever a reader hands in, or lets a function return, gets a sentence."""

import importlib
import inspect
from types import SimpleNamespace

import numpy as np
import pytest
import torch

MODULES = ("base", "agent", "attention", "moe", "muonclip", "thinking", "pretraining")
CHECKERS = [
    pytest.param(check, id=name)
    for module in (importlib.import_module(f"kimi_mini.course.exercises.{page}") for page in MODULES)
    for name, check in vars(module).items()
    if name.startswith("check_") and check.__module__ == module.__name__
]
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
