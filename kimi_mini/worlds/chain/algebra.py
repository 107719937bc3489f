"""World `algebra`: letters that stand for numbers, worked out step by step; the answer is checked as an expression.

Families
    define    letters defined one by another; what is the last one? (level: definitions that need a calculation)
    solve     a linear equation with the letter on one side or on both (level: steps to the answer)

Any expression that is equal to the answer counts, of one operation at most: the question written out again is none, and
neither is the last step that stands before it.
"""

from __future__ import annotations

import operator
import random
import re
from collections.abc import Callable
from itertools import pairwise

from kimi_mini.worlds.base import (
    Environment,
    Expert,
    Message,
    Task,
    Verdict,
    answers_early,
    final_answer,
    labels,
    plain,
    turn,
)
from kimi_mini.worlds.chain.algebra_adversary import KINDS, SHORTCUTS
from kimi_mini.worlds.chain.expression import operations, value_of
from kimi_mini.worlds.registry import Demo, Family, World, register
from kimi_mini.worlds.rows import Row

_SIGNS = {"+": operator.add, "-": operator.sub, "*": operator.mul}

# -- tasks ---------------------------------------------------------------------------------------------


def generate(rng: random.Random, family: str, level: int) -> Task:
    """Definitions with whole numbers below 100 everywhere, or an equation with sums below 150."""
    return (_define if family == "define" else _solve)(rng, family, level)


def _define(rng: random.Random, family: str, level: int) -> Task:
    """Drawn again until the answer rests on every letter: `b = a + 3, c = b - a` is 3, whatever a is."""
    while True:
        names, values = labels(rng, level + 1), {}
        values[names[0]] = rng.randrange(2, 60)
        lines = [f"{names[0]} = {values[names[0]]}"]
        for before, name in pairwise(names):
            right, values[name] = _definition(rng, before, values)
            lines.append(f"{name} = {right}")
        data = {"lines": lines, "values": values, "answer": values[names[-1]]}
        if all(_one_more(data, name) != data["answer"] for name in names):
            return Task("algebra", family, level, f"{', '.join(lines)}. What is {names[-1]}?", data)


def _definition(rng: random.Random, before: str, values: dict[str, int]) -> tuple[str, int]:
    """The right side of a definition by the letter before it, and its value from 1 to 99: a zero would swallow
    whatever it is multiplied by."""
    while True:
        operand = rng.choice([str(rng.randrange(2, 10)), rng.choice(sorted(values))])
        sign = rng.choice("+-*")
        value = _SIGNS[sign](values[before], values[operand] if operand in values else int(operand))
        if 0 < value < 100:
            return f"{before} {sign} {operand}", value


def _one_more(data: dict, name: str) -> int:
    """The answer, if the letter `name` were one more than it is."""
    place = list(data["values"]).index(name) - 1
    return _work_definitions(data, lambda step: int(step == place))[-1][1]


def _solve(rng: random.Random, family: str, level: int) -> Task:
    """level 1: x + 4 = 19; level 2: 3*x + 4 = 19; level 3: 5*x + 4 = 2*x + 19."""
    x, name = rng.randrange(2, 20), rng.choice("xyz")
    right = rng.randrange(2, 5) if level == 3 else 0
    left = right + rng.randrange(2, 6) if level > 1 else 1
    add = rng.randrange(1, 50)
    total = (left - right) * x + add
    factor = f"{left}*{name}" if left > 1 else name
    prompt = f"{factor} + {add} = {f'{right}*{name} + ' if right else ''}{total}. What is {name}?"
    data = {"name": name, "left": left, "right": right, "add": add, "total": total, "answer": x}
    return Task("algebra", family, level, prompt, data)


def open_environment(task: Task) -> Environment:
    """Nothing to act on."""
    return Environment()


# -- the expert ----------------------------------------------------------------------------------------


def expert(task: Task, rng: random.Random, mistake: str | None = None) -> Expert:
    """Repeats each definition with the numbers in place of the letters; `mistake="slip"` gets one step wrong and goes
    on from there."""
    steps = _worked(task, rng, None)
    while mistake and steps[-1][1] == task.data["answer"]:  # a slip that changes nothing is none
        steps = _worked(task, rng, rng.randrange(task.level))
    yield turn(" ".join([*(text for text, _ in steps), "end"]), content=str(steps[-1][1]))


def _worked(task: Task, rng: random.Random, slip: int | None) -> list[tuple[str, int]]:
    """The steps in words, and the value after each; the step with the number `slip` is wrong."""
    work = _work_definitions if task.family == "define" else _work_equation
    return work(task.data, lambda step: rng.choice((1, 2, 3, 10)) if step == slip else 0)


def _work_equation(data: dict, error: Callable[[int], int]) -> list[tuple[str, int]]:
    found, both = [], data["left"] - data["right"]
    if data["right"]:
        both += error(0)
        found.append((f"{data['left']}-{data['right']}={both}", both))
    rest = data["total"] - data["add"] + error(len(found))
    found.append((f"{data['total']}-{data['add']}={rest}", rest))
    if data["left"] > 1:
        value = rest // both + error(len(found))
        found.append((f"{rest}/{both}={value}", value))
    return found


def _work_definitions(data: dict, error: Callable[[int], int]) -> list[tuple[str, int]]:
    values, found = {}, []
    for number, line in enumerate(data["lines"]):
        name, right = line.split(" = ")
        put_in = re.sub("[a-z]", lambda letter: str(values[letter[0]]), right)
        values[name] = _worth(put_in) + error(number - 1)
        if number:
            found.append((f"{name} {put_in.replace(' ', '')}={values[name]}", values[name]))
    return found


def _worth(text: str) -> int:
    """The value of a number, or of two with a sign between them, however large a slip makes them."""
    left, *more = text.split(" ")
    return _SIGNS[more[0]](int(left), int(more[1])) if more else int(left)


# -- the verifier --------------------------------------------------------------------------------------


def answered(text: str) -> str:
    """The expression of an answer, without "x =" before it, a full stop behind, and zeros in front of numbers."""
    return re.sub(r"(?<![\d.])0+(?=\d)", "", plain(re.sub(r"^\s*[a-z]\s*=", "", text).strip()))


def last_step(task: Task) -> str:
    """What the expert works out last, as an expression."""
    return _worked(task, random.Random(0), None)[-1][0].partition("=")[0].split(" ")[-1]


def _alike(text: str, step: str) -> bool:
    """Whether two expressions are made of the same numbers, in any order."""
    return sorted(re.findall(r"\d+", text)) == sorted(re.findall(r"\d+", step))


def verify(task: Task, messages: list[Message], environment: Environment) -> Verdict:
    """The answer is an expression of one operation at most, equal to the right number and not the last step as it
    stands, said once and of the letter that was asked for."""
    said, letter = final_answer(messages) or "", task.prompt.rstrip("?")[-1]
    text = answered(said)
    value = value_of(text)
    if answers_early(messages):
        return Verdict(False, f"answered {text[:20]!r}, and something else before it")
    if value is None or operations(text) > 1:
        return Verdict(False, f"{text[:20]!r} is no number")
    if (named := re.match(r"\s*([a-z])\s*=", said)) and named[1] != letter:
        return Verdict(False, f"answered what {named[1]} is, asked for {letter}")
    if operations(text) and _alike(text, last_step(task)):
        return Verdict(False, f"{text[:20]!r} is the last step, not worked out")
    return Verdict(value == task.data["answer"], f"answered {text[:20]!r}, right is {task.data['answer']}")


# -- what the others have to know ----------------------------------------------------------------------

FAMILIES = {"define": Family(range(2, 9), {}, length=110), "solve": Family(range(1, 4), {}, length=60)}
ROWS = (
    Row("algebra/define", "define", says="letters defined one by another, two to eight steps"),
    Row("algebra/solve", "solve", says="solve a linear equation"),
)

register(
    World(
        "algebra",
        generate,
        open_environment,
        expert,
        verify,
        FAMILIES,
        ROWS,
        KINDS,
        bare=True,
        colour="#332288",
        mistakes=("slip",),
        shortcuts=SHORTCUTS,
        demo=Demo(examples=("b = 7, c = b * 3, d = c - b. What is d?", "3*x + 4 = 19. What is x?")),
    )
)
