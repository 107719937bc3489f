"""Lists of steps, put so that the place in a list has to be read and cannot be counted.

relabelled   the letters before the steps in any order: which comes next stands nowhere but in the list
padded       other words before the list and behind it: how far it is from a step to its place in the list varies
restated     a thought that repeats, before each step, what is left of the list
stepwise     no list at all: a tool hands one step at a time, and old turns are hidden

Training sees 1 to TRAINED steps; the answers are those of the world's tasks.
"""

from __future__ import annotations

import random
import string
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from kimi_mini.agent.conversation import Conversation, first_messages
from kimi_mini.experiments.thinking.length.typed import played
from kimi_mini.text import chat
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training.batch import Example
from kimi_mini.worlds import Environment, Task
from kimi_mini.worlds.base import Expert, turn
from kimi_mini.worlds.chain.world import MODULUS, OPERATIONS
from kimi_mini.worlds.registry import generate
from kimi_mini.worlds.rows import Limits
from kimi_mini.worlds.tools import Tool, Toolbox

TRAINED = 8
ASIDES = (
    "Add 34 and 57.",
    "Buy 3 of them.",
    "The whale was old.",
    "It is not said which.",
    "So they went on.",
)
MOST_ASIDES = 6
STEPWISE = Limits(turn_tokens=48, turns=40, context=320, manage=True)


def relabelled(task: Task, rng: random.Random) -> Task:
    """The same steps behind letters in any order."""
    names = rng.sample(string.ascii_lowercase, task.level)
    steps = [[name, *rest] for name, (_, *rest) in zip(names, task.data["steps"])]
    return put(task, steps)


def padded(task: Task, rng: random.Random) -> Task:
    """The same list with up to MOST_ASIDES sentences before it, and as many behind it."""
    before, after = (" ".join(rng.choices(ASIDES, k=rng.randrange(MOST_ASIDES + 1))) for _ in range(2))
    return put(task, task.data["steps"], before + " " * bool(before), " " * bool(after) + after)


def put(task: Task, steps: Sequence[Sequence], before: str = "", after: str = "") -> Task:
    """A chain with these steps (label, sign, number), in the words of the world."""
    start, listed = task.data["start"], ", ".join(f"{label} {sign}{number}" for label, sign, number in steps)
    prompt = f"{before}Start with {start:02d}, {listed}, end.{after} Two digits, modulo {MODULUS}?"
    return replace(task, prompt=prompt, data={**task.data, "steps": [list(step) for step in steps]})


def after(value: int, sign: str, number: int) -> int:
    """What a step makes of a value."""
    return OPERATIONS[sign](value, number) % MODULUS


def restated(task: Task) -> str:
    """The thought of a chain that says before each step what is left of the list."""
    value, parts, steps = task.data["start"], [], task.data["steps"]
    for index, (label, sign, number) in enumerate(steps):
        left = ", ".join(f"{name} {each}{by}" for name, each, by in steps[index:])
        was, value = value, after(value, sign, number)
        parts.append(f"{left}, end. {label} {was:02d}{sign}{number}={value:02d}")
    return " ".join([*parts, "end"])


def plain(task: Task) -> str:
    """The thought of the world's expert."""
    value, parts = task.data["start"], []
    for label, sign, number in task.data["steps"]:
        was, value = value, after(value, sign, number)
        parts.append(f"{label} {was:02d}{sign}{number}={value:02d}")
    return " ".join([*parts, "end"])


def step_starts(tokenizer: Tokenizer) -> list[int]:
    """Ids of the tokens that a step begins with, in a list and in a thought, and of what stands behind the last."""
    return [tokenizer.encode_plain(f" {word}")[0] for word in (*string.ascii_lowercase, "end")]


def answered(tokenizer: Tokenizer, task: Task, thought: str) -> Example:
    """A question, a thought about it and the right answer, as tokens."""
    answer = turn(thought, content=f"{task.data['answer']:02d}")
    ids, mask = chat.encode(tokenizer, [*first_messages(task), answer])
    return Example(np.asarray(ids, np.int32), np.asarray(mask, bool))


def stepwise(task: Task) -> Conversation:
    """The chain as a dialogue in which the tool `next` hands the next step, and says `end` behind the last."""
    steps = iter([*(f"{sign}{number}" for _, sign, number in task.data["steps"]), "end"])
    box = Toolbox([Tool("next", "", {"type": "object", "properties": {}}, lambda: next(steps, "end"))])
    prompt = f"Start with {task.data['start']:02d}, steps from next, end. Two digits, modulo {MODULUS}?"
    asked = replace(task, prompt=prompt)
    return Conversation(asked, first_messages(asked), Environment(box))


def one_by_one(task: Task) -> Expert:
    """Who works on `stepwise`: a call, the step that it brought in the next thought, and so on."""
    value, thought = task.data["start"], "on"
    while (step := (yield turn(thought, call=("next", {})))) != "end":
        was, value = value, after(value, step[0], int(step[1:]))
        thought = f"{was:02d}{step}={value:02d}"
    yield turn("end", content=f"{value:02d}")


def drawn(rng: random.Random, level: int, changes: Sequence = ()) -> Task:
    """A chain for training, changed by some of the functions above, and not held out before or after."""
    while True:
        task = generate(rng, "chain", level)
        for change in changes:
            task = change(task, rng)
        if not task.held_out:
            return task


def dialogue(tokenizer: Tokenizer, task: Task) -> list[Example]:
    """What an expert does stepwise, in the contexts that hiding leaves."""
    return played(stepwise(task), one_by_one(task), tokenizer, STEPWISE)
