"""What functions of x and y return: our own, and those that a model wrote, which run in the sandbox alone."""

from __future__ import annotations

import json
from collections.abc import Sequence

from kimi_mini.worlds.repair.code import INPUTS, source
from kimi_mini.worlds.tools import run_python

# the verifiers' inputs: a special case for a test is no solution
HIDDEN = [(x, y) for x in range(10) for y in range(10)]
BEYOND = [
    (11 * x - 40, y) for x, y in HIDDEN
]  # what one function may hand to another: below zero, above nine


def outputs(program: str, calls: Sequence[str]) -> list:
    """The value of each call behind the program, computed in the sandbox; an error text where it fails.

    The program is written by a model, so nothing of it is ever executed outside the sandbox, and what it prints is
    not taken for a result: ours is the last line.
    """
    ran = run_python(f"{program}\nprint([{', '.join(calls)}])", timeout=1.0)
    if not ran.ok:
        return [(ran.error or "failed").strip().splitlines()[-1][:60]] * len(calls)
    try:
        values = json.loads((ran.stdout.splitlines() or [""])[-1])
    except (ValueError, RecursionError):
        return ["not a number"] * len(calls)
    return values if isinstance(values, list) and len(values) == len(calls) else ["not a number"] * len(calls)


def evaluate(lines: list[str], inputs: Sequence[tuple[int, int]] = INPUTS) -> list[int]:
    """Our own generated lines, run directly: the generator makes thousands of functions a second."""
    scope: dict = {}
    exec(source(lines), scope)  # noqa: S102  written by this package, not by a model
    return [scope["f"](x, y) for x, y in inputs]


def too_large(values: Sequence[int]) -> bool:
    """Whether a value has more than three digits: a task is about code, not about large numbers."""
    return max(map(abs, values)) >= 1000
