"""Exercise sheets: the one decision of a family that a dialogue asks for seldom, many times and close together.

A sheet is made of tasks that are not held out. It is a list of pieces of text, each with whether it is learned.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise

from kimi_mini import worlds
from kimi_mini.experiments.evaluation.teachers import compared, first_step, next_step, numbered
from kimi_mini.worlds.base import labels
from kimi_mini.worlds.search.library import text
from kimi_mini.worlds.telecom.service import STEPS, STILL
from kimi_mini.worlds.telecom.world import ASKS

Sheet = list[tuple[str, bool]]


def define(rng: random.Random) -> Sheet:
    """Values that stand behind letters, as the teacher of `define` writes them, and which letter has which."""
    pieces: Sheet = []
    for _ in range(4):
        names = labels(rng, rng.randrange(3, 9))
        values = {name: f"{rng.randrange(100):02d}" for name in names}
        told = " ".join(f"{name} = {before} {values[before]}" for before, name in pairwise(names))
        pieces.append((f"{names[0]} {values[names[0]]} {told}\n", False))
        for name in rng.choices(names[:-1], k=2 * len(names)):
            pieces += [(f"{rng.choice('+-*')} {name}", False), (f" {values[name]}", True), (" ", False)]
        pieces.append(("\n", False))
    return pieces


def hops(rng: random.Random) -> Sheet:
    """Ten questions with their lists, or the documents of a task and what each says of every relation."""
    pieces: Sheet = []
    if rng.random() < 0.5:
        for _ in range(10):
            task = worlds.generate(rng, "hops", rng.randrange(2, 5))
            listed = numbered(task.data["path"][::-1], task.data["chain"][0])
            pieces += [(f"{task.prompt}\n", False), (f"{listed},", True), ("\n", False)]
        return pieces
    for subject, facts in worlds.generate(rng, "hops", 2).data["documents"].values():
        pieces.append((f"{text(subject, facts)}\n", False))
        for relation, value in rng.sample(facts, len(facts)):
            pieces += [(f"{rng.randrange(1, 5)} {relation} is", False), (f" {value},", True), (" ", False)]
        pieces.append(("\n", False))
    return pieces


def line(rng: random.Random) -> Sheet:
    """Four policies, the first step, the one that comes behind another, and whether an amount may be refunded."""
    pieces: Sheet = []
    for _ in range(4):
        data = worlds.generate(rng, "line", 3).data
        steps, limit = [STEPS[step] for step in data["steps"]], data["limit"]
        pieces.append((f"it works: {', '.join(steps)}. Refund at most {limit}.\n", False))
        pieces += [("ok\n", False), (first_step(steps[0]), True), ("\n", False)]
        said = ASKS | {"apn": f'Please set the APN to "{data["apn"]}".'}
        for asked, step, after in zip(data["steps"], steps, steps[1:]):
            pieces.append((f"{said[asked]} {STILL[data['voice']]}\n", False))
            pieces += [(next_step(step, after), True), ("\n", False)]
        amount = rng.randrange(limit - 9, limit + 10)
        allowed = "yes" if amount <= limit else "no"
        pieces.append((f"Please refund {amount}.\n", False))
        pieces += [(f"{amount} at most {limit} {compared(amount, limit)} {allowed}", True), ("\n", False)]
    return pieces


SHEETS: dict[str, Callable[[random.Random], Sheet]] = {"define": define, "hops": hops, "line": line}
