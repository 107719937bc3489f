"""How a tiny model is shown worlds that no run trains: actions of experts, with thoughts from which each step follows.

The experts of worlds `algebra`, `search` and `telecom` think as briefly as a reader needs. These think so that every
token can be copied or worked out from what stands near: values behind their letters, sums by way of full tens, what is
still to be found in a numbered list, the step before the next one, words in the same marks wherever they stand, since a
word behind a quote and one behind a space are different tokens. What they do, and so the verdict, is the same.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from itertools import pairwise

from kimi_mini.worlds import WORLDS
from kimi_mini.worlds.base import Expert, Task, turn
from kimi_mini.worlds.registry import world_of
from kimi_mini.worlds.telecom.service import STEPS


def sums(left: int, sign: str, right: int) -> tuple[str, int]:
    """What stands behind a calculation and its value, by way of full tens: of 67-38 `=37-8=29`, since 67-38 is 37-8."""
    if sign == "*":
        return f"={left * right:02d}", left * right
    step = 1 if sign == "+" else -1
    value, tens, ones = left + step * right, right // 10 * 10, right % 10
    between = f"={left + step * tens:02d}{sign}{ones}" if tens and ones else ""
    return f"{between}={value:02d}", value


def define(task: Task, rng: random.Random) -> Expert:
    """Each definition as it stands, with the value of each letter put behind it, then worked out."""
    (first, number), *lines = (line.split(" = ") for line in task.data["lines"])
    values, parts = {first: int(number)}, [f"{first} {int(number):02d}"]
    for name, right in lines:
        before, sign, operand = right.split(" ")
        text, values[name] = sums(
            values[before], sign, values[operand] if operand in values else int(operand)
        )
        put_in = f"{operand} {values[operand]:02d}" if operand in values else operand
        parts.append(f"{name} = {before} {values[before]:02d} {sign} {put_in}{text}")
    last = lines[-1][0]
    yield turn(" ".join([*parts, last, f"{values[last]:02d}", "end"]), content=f"{task.data['answer']:02d}")


def solve(task: Task, rng: random.Random) -> Expert:
    """The unknown to one side, the numbers to the other, then divided."""
    data, both = task.data, task.data["left"] - task.data["right"]
    parts = [f"{data['left']}-{data['right']}={both}"] if data["right"] else []
    text, rest = sums(data["total"], "-", data["add"])
    parts.append(f"{data['total']}-{data['add']}{text}")
    if data["left"] > 1:
        parts.append(f"{rest:02d}/{both}={rest // both:02d}")
    answer = f"{data['answer']:02d}"
    yield turn(" ".join([*parts, data["name"], answer, "end"]), content=answer)


def hops(task: Task, rng: random.Random) -> Expert:
    """The relations that are left, numbered in the order of the question; the last one is looked up, read and dropped.

    With numbers a relation that is asked for twice is no riddle, nothing has to be told backwards, and what a thought
    says stands in the one before it.
    """
    left, name, said = list(reversed(task.data["path"])), task.data["chain"][0], ""
    while left:
        listed = numbered(left, name if not said else "")
        found = yield turn(f"{said}{listed}", call=("search", {"query": name}))
        number, now = found.split(" ")[0], f"{len(left)} {left[-1]}"
        read = yield turn(f"{now} {number}", call=("open", {"number": number}))
        name = dict(re.findall(rf"The (\w+) of {name} is (\w+)\.", read))[left.pop()]
        said = f"{now} is {name}, "
    yield turn(f"{said}end", content=name)


def numbered(relations: Sequence[str], name: str = "") -> str:
    """What is asked for, in the order of the question, and of whom: `1 land 2 owner of tavo`."""
    listed = " ".join(f"{number} {relation}" for number, relation in enumerate(relations, 1))
    return f"{listed} of {name}" if name else listed


def compared(left: int, right: int) -> str:
    """Two numbers of two digits, digit by digit until they differ: `6 under 7` or `7 as 7 5 over 3`."""
    found = []
    for one, other in zip(f"{left:02d}", f"{right:02d}"):
        found.append(f"{one} {'as' if one == other else 'over' if one > other else 'under'} {other}")
        if one != other:
            break
    return " ".join(found)


def first_step(step: str) -> str:
    """The thought that goes to the first step of a policy: the words that stand before it there, then the step."""
    return f"ok, until it works: {step}"


def next_step(step: str, after: str) -> str:
    """The thought that goes from one step of a policy to the one behind it, before either is done."""
    return f"still broken, {step}, {after}"


def line(task: Task, rng: random.Random) -> Expert:
    """The expert's calls and words. A thought about a step names what stands before it in the policy; the APN stands in
    quotes, as in the account; amounts are compared by digits."""
    steps = [STEPS[step] for step in task.data["steps"]]
    apn, limit, asked = task.data["apn"], task.data["limit"], task.data["refund"]
    new = {f"still broken, step {after}": next_step(step, after) for step, after in pairwise(steps)}
    new[f"ok, step {steps[0]}"] = first_step(steps[0])
    new |= {f"APN {apn}": f'APN "{apn}"', f"APN to {apn}.": f'APN to "{apn}".'}
    if asked:
        new[f"{asked} at most {limit}"] = f"{asked} at most {limit} {compared(asked, limit)}"
    expert, heard = WORLDS["telecom"].expert(task, rng), None
    while True:
        try:
            message = dict(expert.send(heard))
        except StopIteration:
            return
        for part in ("reasoning_content", "content"):
            for old, better in new.items():
                message[part] = message[part] and message[part].replace(old, better)
        heard = yield message


TEACHERS: dict[str, Callable[[Task, random.Random], Expert]] = {
    "define": define,
    "solve": solve,
    "hops": hops,
    "line": line,
}


def teach(task: Task, rng: random.Random) -> Expert:
    """The teacher of the task's family; the world's own expert where it has none."""
    return TEACHERS.get(task.family, WORLDS[world_of(task.family).name].expert)(task, rng)
