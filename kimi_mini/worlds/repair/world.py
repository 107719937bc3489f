"""World `repair`: a small Python function with one bug, its unit tests, and a tool that edits a line.

The model reads what each line should do (rules), the code, and one failing test; it replaces a line with
`edit`, and the public unit tests really run on the result in the sandbox. What counts is the final source: it
must be right for the hidden inputs too, whatever was said about it, unless it was denied.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass

from kimi_mini.base.denials import gives_up
from kimi_mini.worlds.base import (
    Environment,
    Expert,
    Message,
    Sheet,
    Task,
    Verdict,
    answers_early,
    final_answer,
    most_calls,
    turn,
)
from kimi_mini.worlds.registry import Family, World, register
from kimi_mini.worlds.repair.adversary import KINDS, SHORTCUTS
from kimi_mini.worlds.repair.code import (
    INPUTS,
    LINE_MARKS,
    PUBLIC,
    RULE_MARKS,
    break_line,
    note,
    random_line,
    source,
)
from kimi_mini.worlds.repair.running import HIDDEN, evaluate, outputs
from kimi_mini.worlds.rows import Row
from kimi_mini.worlds.tools import Tool, Toolbox, ToolError


def results(lines: list[str], inputs: Sequence[tuple[int, int]] = INPUTS) -> list:
    """What the function returns on every input, computed in the sandbox; an error text where it fails."""
    return outputs(source(lines), [f"f({x}, {y})" for x, y in inputs])


def generate(rng: random.Random, family: str, level: int) -> Task:
    """A function of `level` lines with one bug that at least one public test notices."""
    while True:
        lines = [random_line(rng) for _ in range(level)]
        at = rng.randrange(level)
        wrong, bug = break_line(rng, lines[at])
        right_code = [line.code for line in lines]
        buggy_code = right_code[:at] + [wrong] + right_code[at + 1 :]
        wanted, got = evaluate(right_code), evaluate(buggy_code)
        failing = [i for i in range(PUBLIC) if wanted[i] != got[i]]
        if failing and max(abs(v) for v in wanted + got) < 1000:
            break
    shown = failing[0]
    rules = "\n".join(f"{mark} {line.rule}" for mark, line in zip(RULE_MARKS, lines))
    listing = "\n".join(f"{mark} {code}" for mark, code in zip(LINE_MARKS, buggy_code))
    (x, y) = INPUTS[shown]
    prompt = (
        f"Fix f(x, y).\n{rules}\nend\n{listing}\nend\nf({x}, {y}) gave {got[shown]}, wanted {wanted[shown]}"
    )
    data = {"right": right_code, "buggy": buggy_code, "at": at, "bug": bug, "wanted": wanted}
    return Task("repair", family, level, prompt, data)


@dataclass
class Workbench:
    """The source file under repair, and the tests it has to pass."""

    lines: list[str]
    wanted: list[int]
    edits: int = 0

    def edit(self, line: str, code: str) -> str:
        """Replace the line with that mark, run the public tests, and say what came out."""
        at = LINE_MARKS.find(line)
        if len(line) != 1 or not 0 <= at < len(self.lines):
            raise ToolError(f"no line {line[:8]}; lines are {LINE_MARKS[: len(self.lines)]}")
        if "\n" in code or "\r" in code:
            raise ToolError("one line of code at a time")
        self.lines[at] = code.strip()
        self.edits += 1
        return self.run_tests()

    def failures(self, tests: int = len(INPUTS)) -> list[int]:
        """Indices of those of the first `tests` tests that fail now."""
        outcome = zip(results(self.lines, INPUTS[:tests]), self.wanted)
        return [i for i, (got, want) in enumerate(outcome) if got != want]

    def run_tests(self) -> str:
        """One JSON line: how many public tests pass and fail."""
        failed = len(self.failures(PUBLIC))
        return json.dumps({"passed": PUBLIC - failed, "failed": failed}, separators=(",", ":"))

    @property
    def public_tests_pass(self) -> bool:
        """What a best-of-n choice may look at: an edit was made and the public tests pass."""
        return self.edits > 0 and not self.failures(PUBLIC)


EDIT_SCHEMA = {
    "type": "object",
    "properties": {"line": {"type": "string"}, "code": {"type": "string"}},
    "required": ["line", "code"],
}


def open_environment(task: Task) -> Environment:
    """The buggy source on a workbench, and the `edit` tool over it."""
    bench = Workbench(list(task.data["buggy"]), task.data["wanted"])
    return Environment(Toolbox([Tool("edit", "", EDIT_SCHEMA, bench.edit)]), bench)


def comparison_sheet(rng: random.Random) -> Sheet:
    """Notes about unconnected lines, half of them broken; the decision is to be learned."""
    pieces: Sheet = []
    for _ in range(10):
        line, at = random_line(rng), rng.randrange(4)
        found = line.code if rng.random() < 0.5 else break_line(rng, line)[0]
        text, _, decision = note(at, line.code, found, "ok" if found == line.code else "fix").rpartition(" ")
        pieces += [(f" {text}", False), (f" {decision}", True)]
    return pieces


def expert(task: Task, rng: random.Random, mistake: str | None = None) -> Expert:
    """Compare line by line what the rule asks for with what stands there; replace the first that differs.
    `mistake="slip"` edits a wrong line or writes a wrong fix, `mistake="lazy"` claims it without an edit."""
    right, buggy, at = task.data["right"], task.data["buggy"], task.data["at"]
    if mistake == "lazy":
        yield turn("end", content="fixed")
        return
    code = right[at]
    if mistake == "slip":
        if rng.random() < 0.5:
            at = rng.choice([i for i in range(task.level) if i != at])
        code = rng.choice([random_line(rng).code, "pass", buggy[at]])
    notes = [note(i, right[i], buggy[i], "ok") for i in range(at)] + [note(at, code, buggy[at], "fix")]
    yield turn(" ".join(notes), call=("edit", {"line": LINE_MARKS[at], "code": code}))
    yield turn("end", content="fixed")


def verify(task: Task, messages: list[Message], environment: Environment) -> Verdict:
    """The final source does what the rules say for every pair of digits, and it was reached by a few edits: not
    by a word, and not by trying everything until the tests passed. It was claimed when it was done, and not denied."""
    bench, most, answer = environment.state, most_calls(task.level), final_answer(messages)
    if not answer or answers_early(messages):
        return Verdict(False, "no answer, or it went on behind it")
    if not bench.edits:
        return Verdict(False, "nothing was edited")
    if bench.edits > most:
        return Verdict(False, f"{bench.edits} edits, where {most} are plenty")
    if gives_up(answer):
        return Verdict(False, f"answered {answer[:40]!r}, whatever was done")
    wanted = evaluate(task.data["right"], HIDDEN)
    right = sum(got == want for got, want in zip(results(bench.lines, HIDDEN), wanted))
    return Verdict(right == len(HIDDEN), f"{right} of {len(HIDDEN)} tests pass")


FAMILIES = {"repair": Family(range(2, 5), dict(think=0.20, reflex=0.01, sheet=0.05), sheet=comparison_sheet)}

ONCE = "repair a function of 2 to 4 lines at the first attempt"
BEST = "repair, best of 4 chosen by running the public tests"
ROWS = (
    Row("repair/pass@1", "repair", floor=0.80, says=ONCE, before_rl=True),
    Row("repair/best_of_4", "repair", attempts=4, floor=0.92, says=BEST, before_rl=True),
)

register(
    World(
        "repair",
        generate,
        open_environment,
        expert,
        verify,
        FAMILIES,
        ROWS,
        KINDS,
        colour="#CC79A7",
        shortcuts=SHORTCUTS,
    )
)
