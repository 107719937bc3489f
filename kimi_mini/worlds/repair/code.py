"""The code of world `repair`: lines of a small function, in Python and in words, right and broken.

Bugs: another operator, another constant, a wrong comparison, a wrong variable, a loop that is off by one, a missing
case (the line does nothing).
"""

from __future__ import annotations

import random
from dataclasses import dataclass

VERBS = {"+": ("add", "to"), "-": ("subtract", "from"), "*": ("multiply", "by")}
COMPARED = {">": "over", "<": "under", "==": "equal"}
INPUTS = [(1, 2), (2, 7), (5, 4), (9, 8), (3, 1), (7, 3), (4, 9), (8, 5)]
PUBLIC = 4  # the first tests are run by `edit`; the others are hidden and count at the end
EXAMPLES = [(2, 7), (9, 8)]  # what `write` shows: a small x and a large one
LINE_MARKS = "ABCDEFGH"
RULE_MARKS = "abcdefgh"


@dataclass(frozen=True)
class Line:
    """One line of a function: `x = x {operator} {value}`, perhaps under an `if` or in a `for`."""

    operator: str
    value: str  # a digit, x or y
    kind: str = "plain"  # plain | if | for
    comparison: str = ">"
    bound: int = 0  # what x is compared with, or how often the loop runs

    @property
    def code(self) -> str:
        """The line as Python."""
        assignment = f"x = x {self.operator} {self.value}"
        if self.kind == "if":
            return f"if x {self.comparison} {self.bound}: {assignment}"
        if self.kind == "for":
            return f"for i in range({self.bound}): {assignment}"
        return assignment

    @property
    def rule(self) -> str:
        """The line in words."""
        verb, joint = VERBS[self.operator]
        words = f"{verb} x {joint} {self.value}" if self.operator == "*" else f"{verb} {self.value} {joint} x"
        if self.kind == "if":
            return f"if x {COMPARED[self.comparison]} {self.bound} {words}"
        if self.kind == "for":
            return f"{self.bound} times {words}"
        return words


def random_line(rng: random.Random) -> Line:
    """A right line."""
    kind = rng.choices(("plain", "if", "for"), (5, 3, 2))[0]
    operator = rng.choice("+-" if kind == "for" else "+-*")
    value = rng.choice("23456789" if rng.random() < 0.6 else "yx" if operator != "-" else "y")
    bound = rng.randrange(2, 5) if kind == "for" else rng.randrange(1, 10)
    return Line(operator, value, kind, rng.choice("><") if kind == "if" else ">", bound)


def break_line(rng: random.Random, line: Line) -> tuple[str, str]:
    """A wrong version of `line` and the name of the bug."""
    bugs = ["operator", "constant" if line.value.isdigit() else "variable", "missing case"]
    bugs += {"if": ["comparison", "constant"], "for": ["off by one"], "plain": []}[line.kind]
    bug = rng.choice(bugs)
    new = dict(vars(line))
    if bug == "operator":
        new["operator"] = rng.choice([o for o in VERBS if o != line.operator])
    elif bug == "variable":
        new["value"] = rng.choice([v for v in "xy23" if v != line.value])
    elif bug == "comparison":
        new["comparison"] = rng.choice([c for c in COMPARED if c != line.comparison])
    elif bug == "off by one":
        new["bound"] = line.bound + rng.choice((-1, 1))
    elif bug == "missing case":
        return "pass", bug
    elif line.kind == "if" and (rng.random() < 0.5 or not line.value.isdigit()):
        new["bound"] = rng.choice([b for b in range(1, 10) if b != line.bound])
    else:
        new["value"] = rng.choice([d for d in "23456789" if d != line.value])
    return Line(**new).code, bug


def shorthand(code: str) -> str:
    """What distinguishes a line, for notes: `- 7`, `< 9 + y` (if) or `3 * 2` (loop of three)."""
    head, _, assignment = code.rpartition(": ")
    if assignment == "pass":
        return assignment
    operation = assignment.removeprefix("x = x ")
    if head.startswith("if x "):
        return f"{head.removeprefix('if x ')} {operation}"
    if head:
        return f"{head.removeprefix('for i in range(').removesuffix(')')} {operation}"
    return operation


def source(lines: list[str], name: str = "f") -> str:
    """The function as Python source, from its body lines."""
    return f"def {name}(x, y):\n" + "".join(f"    {line}\n" for line in lines) + "    return x\n"


def note(at: int, right: str, found: str, decision: str) -> str:
    """A line of the thought: what the rule asks for, what stands there, and what to do about it."""
    return f"{RULE_MARKS[at]} {shorthand(right)} {LINE_MARKS[at]} {shorthand(found)} {decision}"
