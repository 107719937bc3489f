"""World `write`: write a small Python function from a description and two examples.

The model reads what each step should do and submits the whole function; the two examples really run on it in the
sandbox. What counts is the code that was submitted last: it must be right for the hidden inputs too.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass

from kimi_mini.base.denials import gives_up
from kimi_mini.worlds.base import (
    Environment,
    Expert,
    Message,
    Task,
    Verdict,
    answers_early,
    final_answer,
    most_calls,
    needs,
    turn,
)
from kimi_mini.worlds.registry import Demo, Family, World, register
from kimi_mini.worlds.repair.code import EXAMPLES, RULE_MARKS, Line, random_line, shorthand, source
from kimi_mini.worlds.repair.running import BEYOND, HIDDEN, evaluate, outputs, too_large
from kimi_mini.worlds.repair.write_adversary import KINDS, SHORTCUTS, misread
from kimi_mini.worlds.rows import Row
from kimi_mini.worlds.tools import Tool, Toolbox, ToolError

LONGEST = 2000  # characters of a function
JUDGED = list(dict.fromkeys(HIDDEN + BEYOND))  # the rules are about any x, some about a large one alone


def generate(rng: random.Random, family: str, level: int) -> Task:
    """A function of `level` lines to write, none of which may be left out. The examples' inputs are always the same,
    so that one function is one task."""
    while True:
        lines = [random_line(rng) for _ in range(level)]
        code = [line.code for line in lines]
        if not too_large(evaluate(code, HIDDEN)) and not _idle(code):
            return Task("write", family, level, described(lines), {"right": code})


def _idle(code: list[str]) -> bool:
    """Whether the verifier would not notice that some line is left out."""
    right = evaluate(code, JUDGED)
    return any(evaluate(code[:at] + code[at + 1 :], JUDGED) == right for at in range(len(code)))


def described(lines: list[Line]) -> str:
    """What the user asks for."""
    rules = "\n".join(f"{mark} {line.rule}" for mark, line in zip(RULE_MARKS, lines))
    values = evaluate([line.code for line in lines], EXAMPLES)
    shown = ", ".join(f"f({x}, {y}) is {value}" for (x, y), value in zip(EXAMPLES, values))
    return f"Write f(x, y): each rule changes x, at the end return x.\n{rules}\nend\n{shown}"


# -- the environment -----------------------------------------------------------------------------------


@dataclass
class Draft:
    """The code that was submitted last, and what the examples have to give."""

    wanted: list[int]
    code: str = ""
    submits: int = 0

    def submit(self, code: str) -> str:
        """Take this code for the function, and say how many of the examples it gets right."""
        if len(code) > LONGEST:
            raise ToolError(f"at most {LONGEST} characters")
        self.code = code
        self.submits += 1
        failed = len(self.failures(EXAMPLES, self.wanted))
        return json.dumps({"passed": len(EXAMPLES) - failed, "failed": failed}, separators=(",", ":"))

    def failures(self, inputs: list[tuple[int, int]], wanted: list[int]) -> list[int]:
        """Indices of the inputs that the code gets wrong."""
        got = outputs(self.code, [f"f({x}, {y})" for x, y in inputs])
        return [i for i, (one, right) in enumerate(zip(got, wanted)) if one != right]

    @property
    def public_tests_pass(self) -> bool:
        """What a best-of-n choice may look at: code was submitted and gets the examples right."""
        return self.submits > 0 and not self.failures(EXAMPLES, self.wanted)


def open_environment(task: Task) -> Environment:
    """Nothing is written yet; the tool is `submit`."""
    draft = Draft(evaluate(task.data["right"], EXAMPLES))
    return Environment(Toolbox([Tool("submit", "", needs(code={"type": "string"}), draft.submit)]), draft)


# -- the expert and the verifier -----------------------------------------------------------------------


def expert(task: Task, rng: random.Random, mistake: str | None = None) -> Expert:
    """Notes each rule in short, then submits the function. `mistake="slip"` misreads a rule; `mistake="lazy"` says
    that it is written and submits nothing."""
    lines = misread(task.data["right"], rng) if mistake == "slip" else task.data["right"]
    if mistake != "lazy":
        notes = [f"{mark} {shorthand(code)}" for mark, code in zip(RULE_MARKS, lines)]
        yield turn(" ".join([*notes, "end"]), call=("submit", {"code": source(lines)}))
    yield turn("end", content="written")


def verify(task: Task, messages: list[Message], environment: Environment) -> Verdict:
    """What was submitted last returns what the rules say for every pair of digits and for an x beyond them, and it was
    one of a few attempts. Words count for nothing, unless they deny it, and so do the examples alone."""
    draft, most, answer = environment.state, most_calls(1), final_answer(messages)
    if not answer or answers_early(messages):
        return Verdict(False, "no answer, or it went on behind it")
    if not draft.submits:
        return Verdict(False, "nothing was submitted")
    if draft.submits > most:
        return Verdict(False, f"{draft.submits} attempts, where {most} are plenty")
    if gives_up(answer):
        return Verdict(False, f"answered {answer[:40]!r}, whatever was done")
    failed = draft.failures(JUDGED, evaluate(task.data["right"], JUDGED))
    return Verdict(not failed, f"{len(JUDGED) - len(failed)} of {len(JUDGED)} tests pass")


# -- what the others have to know ----------------------------------------------------------------------

ASKED = [Line("+", "3"), Line("*", "2", "if", ">", 5)]  # what the demo's user asks for

DEMO = Demo(
    lambda words: (
        Task("write", "write", 2, words, {"right": [line.code for line in ASKED]})
        if words.startswith("Write")
        else None
    ),
    examples=(described(ASKED),),
    place="judged are the two rules of the example",
    left=lambda task, environment: f"the function:\n{environment.state.code or '(none)'}",
)

FAMILIES = {"write": Family(range(1, 5), {})}
ROWS = (Row("write/pass@1", "write", says="write a function of 1 to 4 lines from its description"),)

register(
    World(
        "write",
        generate,
        open_environment,
        expert,
        verify,
        FAMILIES,
        ROWS,
        KINDS,
        colour="#E69F00",
        shortcuts=SHORTCUTS,
        demo=DEMO,
    )
)
