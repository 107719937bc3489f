"""How a tiny model is shown worlds that no run trains: actions of experts, with thoughts from which each step follows.

The experts of worlds `algebra`, `search` and `telecom` think as briefly as a reader needs. These think so that every
token can be copied or worked out from what stands near: values beside their letters, sums of one width with one digit
on the right, what is still to be found behind what is looked for now, and the step before the next one. What they do,
and so the verdict, is the same.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from itertools import pairwise

from kimi_mini.worlds import WORLDS
from kimi_mini.worlds.base import Expert, Task, turn
from kimi_mini.worlds.registry import world_of
from kimi_mini.worlds.telecom.service import STEPS


def sums(left: int, sign: str, right: int) -> tuple[str, int]:
    """A calculation of two numbers in steps with one digit, or full tens, on the right: `67-30=37 37-8=29`."""
    if sign == "*":
        left, right = max(left, right), min(left, right)
        return f"{left:02d}*{right}={left * right:02d}", left * right
    parts, value = [], left
    for part in (right // 10 * 10, right % 10):
        if part or not (parts or right):
            result = value + part if sign == "+" else value - part
            parts.append(f"{value:02d}{sign}{part}={result:02d}")
            value = result
    return " ".join(parts), value


def define(task: Task, rng: random.Random) -> Expert:
    """Each definition as it stands, the values of its letters, the sums, and the value of the new letter."""
    lines = [line.split(" = ") for line in task.data["lines"]]
    values = {lines[0][0]: int(lines[0][1])}
    parts = [f"{lines[0][0]} {values[lines[0][0]]:02d}"]
    for name, right in lines[1:]:
        before, sign, operand = right.split(" ")
        known = dict.fromkeys(letter for letter in (before, operand) if letter in values)
        looked_up = ", ".join(f"{letter} {values[letter]:02d}" for letter in known)
        number = values[operand] if operand in values else int(operand)
        text, values[name] = sums(values[before], sign, number)
        parts.append(f"{name} = {right}, {looked_up}, {text} {name} {values[name]:02d}")
    yield turn(" ".join([*parts, "end"]), content=f"{task.data['answer']:02d}")


def solve(task: Task, rng: random.Random) -> Expert:
    """The unknown to one side, the numbers to the other, then divided."""
    data, both = task.data, task.data["left"] - task.data["right"]
    parts = [f"{data['left']}-{data['right']}={both}"] if data["right"] else []
    text, rest = sums(data["total"], "-", data["add"])
    parts.append(f"{data['total']}-{data['add']} {text}")
    if data["left"] > 1:
        parts.append(f"{rest:02d}/{both}={rest // both:02d}")
    yield turn(
        " ".join([*parts, data["name"], f"{data['answer']:02d}", "end"]), content=f"{data['answer']:02d}"
    )


def hops(task: Task, rng: random.Random) -> Expert:
    """What is looked for now, and then; the number of the document about it; what it says."""
    path, name, said = task.data["path"], task.data["chain"][0], ""
    for step, relation in enumerate(path):
        later = "".join(f", then {after}" for after in path[step + 1 :])
        found = yield turn(f"{said}{relation} of {name}{later}", call=("search", {"query": name}))
        number = found.split(" ")[0]
        read = yield turn(f"{number} {name}", call=("open", {"number": number}))
        name = dict(re.findall(rf"The (\w+) of {name} is (\w+)\.", read))[relation]
        said = f"{relation} is {name}, "
    yield turn(f"{said}end", content=name)


def line(task: Task, rng: random.Random) -> Expert:
    """The expert's calls and words; a thought about the next step names the last one before it, as the policy does."""
    steps = [STEPS[step] for step in task.data["steps"]]
    before = {after: step for step, after in pairwise(steps)}
    expert, heard = WORLDS["telecom"].expert(task, rng), None
    while True:
        try:
            message = expert.send(heard)
        except StopIteration:
            return
        thought = message["reasoning_content"]
        for after, step in before.items():
            thought = thought.replace(f"still broken, step {after}", f"still broken, {step}, {after}")
        heard = yield {**message, "reasoning_content": thought}


TEACHERS: dict[str, Callable[[Task, random.Random], Expert]] = {
    "define": define,
    "solve": solve,
    "hops": hops,
    "line": line,
}


def teach(task: Task, rng: random.Random) -> Expert:
    """The teacher of the task's family; the world's own expert where it has none."""
    return TEACHERS.get(task.family, WORLDS[world_of(task.family).name].expert)(task, rng)
