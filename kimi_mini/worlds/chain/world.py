"""World `chain`: calculations that need steps, answered at once (reflex) or after a thought.

Families
    chain   start with a number, apply labelled operations modulo 100 until `end`
    add     two numbers of `level` digits, carried digit by digit
    times   a number of `level` digits times one digit

There are no tools here: what separates the modes is only whether a thought stands before the answer.
A chain has 100 possible answers: guessing gives one in a hundred. Its numbers are written with two digits, so
that a product below ten looks like one above.
"""

from __future__ import annotations

import random
import re
import string

from kimi_mini.worlds.base import (
    Environment,
    Expert,
    Message,
    Sheet,
    Task,
    Verdict,
    answers_early,
    final_answer,
    labels,
    turn,
)
from kimi_mini.worlds.chain.adversary import KINDS, SHORTCUTS
from kimi_mini.worlds.registry import Demo, Family, World, register
from kimi_mini.worlds.rows import Row

MODULUS = 100
OPERATIONS = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b}


def generate(rng: random.Random, family: str, level: int) -> Task:
    """A task of `family` with `level` steps (chain) or digits (add, times)."""
    if family == "chain":
        return _generate_chain(rng, level)
    left = rng.randrange(10 ** (level - 1), 10**level)
    if family == "add":
        right = rng.randrange(10 ** (level - 1), 10**level)
        prompt, answer = f"Add {left} and {right}, end.", left + right
    else:
        right = rng.randrange(2, 10)
        prompt, answer = f"Multiply {left} by {right}, end.", left * right
    return Task("chain", family, level, prompt, {"left": left, "right": right, "answer": answer})


def _generate_chain(rng: random.Random, level: int) -> Task:
    start = rng.randrange(MODULUS)
    steps, value = [], start
    for label in labels(rng, level):
        operation, operand = _operation(rng)
        value = OPERATIONS[operation](value, operand) % MODULUS
        steps.append([label, operation, operand])
    listed = ", ".join(f"{label} {operation}{operand}" for label, operation, operand in steps)
    prompt = f"Start with {start:02d}, {listed}, end. Two digits, modulo {MODULUS}?"
    return Task("chain", "chain", level, prompt, {"start": start, "steps": steps, "answer": value})


def _operation(rng: random.Random) -> tuple[str, int]:
    operation = rng.choice("+-*")
    return operation, rng.randrange(2, 6) if operation == "*" else rng.randrange(1, 10)


def arithmetic_sheet(rng: random.Random) -> Sheet:
    """Single steps of a chain, one after the other and unconnected."""
    pieces: Sheet = []
    for _ in range(14):
        value, (operation, operand) = rng.randrange(MODULUS), _operation(rng)
        if rng.random() < 0.3:
            operation, operand = "*", rng.randrange(2, 6)  # the hardest facts more often
        result = OPERATIONS[operation](value, operand) % MODULUS
        label = rng.choice(string.ascii_lowercase)
        pieces += [(f" {label} {value:02d}{operation}{operand}=", False), (f"{result:02d}", True)]
    return pieces


def open_environment(task: Task) -> Environment:
    """Nothing to act on: these tasks are worked out in the head."""
    return Environment()


def expert(task: Task, rng: random.Random, mistake: str | None = None) -> Expert:
    """One message with the whole calculation. `mistake="slip"` gets one step wrong and goes on from there."""
    worked = {"chain": _work_chain, "add": _work_add, "times": _work_times}[task.family]
    thought, answer = worked(task, rng, mistake)
    yield turn(thought, content=answer)


def _work_chain(task: Task, rng: random.Random, mistake: str | None) -> tuple[str, str]:
    value, parts = task.data["start"], []
    slip = rng.randrange(task.level) if mistake else None
    for index, (label, operation, operand) in enumerate(task.data["steps"]):
        result = OPERATIONS[operation](value, operand) % MODULUS
        if index == slip:
            result = (result + rng.randrange(1, MODULUS)) % MODULUS
        parts.append(f"{label} {value:02d}{operation}{operand}={result:02d}")
        value = result
    return " ".join([*parts, "end"]), f"{value:02d}"


def _work_digits(task: Task, rng: random.Random, mistake: str | None, step) -> tuple[str, str]:
    """Work from the last digit to the first; `step(i, carry)` returns the text of a step and its value."""
    slip = rng.randrange(task.level) if mistake else None
    carry, digits, parts = 0, "", []
    for index in range(task.level):
        text, value = step(index, carry)
        if index == slip:
            value = max(0, value + rng.choice((-1, 1)) * rng.randrange(1, 10))
        parts.append(f"{text}={value}")
        carry, digits = value // 10, str(value % 10) + digits
    return " ".join([*parts, "end"]), str(int(f"{carry}{digits}"))


def _work_add(task: Task, rng: random.Random, mistake: str | None) -> tuple[str, str]:
    left, right = str(task.data["left"])[::-1], str(task.data["right"])[::-1]
    return _work_digits(
        task,
        rng,
        mistake,
        lambda i, carry: (f"{left[i]}+{right[i]}+{carry}", int(left[i]) + int(right[i]) + carry),
    )


def _work_times(task: Task, rng: random.Random, mistake: str | None) -> tuple[str, str]:
    left, right = str(task.data["left"])[::-1], task.data["right"]
    return _work_digits(
        task, rng, mistake, lambda i, carry: (f"{left[i]}*{right}+{carry}", int(left[i]) * right + carry)
    )


def verify(task: Task, messages: list[Message], environment: Environment) -> Verdict:
    """The answer as a number: leading zeros and spaces do not matter, anything else does. Whoever answers twice has
    said two numbers."""
    answer = final_answer(messages) or ""
    if answers_early(messages):
        return Verdict(False, f"answered {answer[:20]!r}, and something else before it")
    value = answer.lstrip("0") or answer[:1]  # compared as text: int() refuses numbers of thousands of digits
    passed = value == str(task.data["answer"])
    return Verdict(passed, f"answered {answer[:20]!r}, right is {task.data['answer']}")


SUM = re.compile(r"(\d+)([-+*])(\d+)(?:\+(\d+))?=(-?\d+)")  # 12+9=21, and with a carry 4*7+2=30


def false_sums(thought: str, modulus: int | None = None) -> list[str]:
    """The sums in a thought that are not true; with a modulus they are taken modulo it."""
    wrong = []
    for match in SUM.finditer(thought):
        left, sign, right, carry, stated = match.groups()
        value = OPERATIONS[sign](int(left), int(right)) + int(carry or 0)
        if (value % modulus if modulus else value) != int(stated):
            wrong.append(match[0])
    return wrong


FAMILIES = {
    "chain": Family(range(1, 9), dict(think=0.22, reflex=0.02, sheet=0.02), sheet=arithmetic_sheet),
    "add": Family(range(2, 5), dict(think=0.04, reflex=0.003)),
    "times": Family(range(2, 5), dict(think=0.05, reflex=0.003)),
}

THOUGHT = "a thought before the answer solves chains of every trained length"
ROWS = (
    Row("chain/thinking", "chain", by_level=True, floor=0.97, says=THOUGHT),
    Row("chain/reflex", "chain", by_level=True, thinking=False, says="the same chains, answered at once"),
    Row("chain/add", "add", says="add two numbers of two to four digits"),
    Row("chain/times", "times", says="multiply two to four digits by one"),
    *(Row(f"chain/beyond/{n}", "chain", (n,), main=False, says="longer than trained") for n in (9, 10, 12)),
)


def own_task(words: str) -> Task | None:
    """A sum in the user's own numbers, told apart by its first word; the answer is the user's to check."""
    family = {"start": "chain", "add": "add", "multiply": "times"}.get(words.split()[0].lower())
    return family and Task("chain", family, 1, words)


DEMO = Demo(
    own_task,
    examples=(
        "Start with 08, f +4, g +9, h *2, end. Two digits, modulo 100?",
        "Add 34 and 57, end.",
        "Multiply 123 by 4, end.",
    ),
)

register(
    World(
        "chain",
        generate,
        open_environment,
        expert,
        verify,
        FAMILIES,
        ROWS,
        KINDS,
        bare=True,
        colour="#0072B2",
        mistakes=("slip",),
        shortcuts=SHORTCUTS,
        false_statements=lambda task, thought: false_sums(
            thought, MODULUS if task.family == "chain" else None
        ),
        demo=DEMO,
    )
)
