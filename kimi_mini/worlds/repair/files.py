"""The files of a project as source and as they are read, and the tools that open, edit and test them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from kimi_mini.worlds.base import needs
from kimi_mini.worlds.repair.code import INPUTS, LINE_MARKS, PUBLIC, RULE_MARKS, source
from kimi_mini.worlds.repair.running import outputs
from kimi_mini.worlds.tools import Tool, ToolError


def program(files: dict[str, list[str]]) -> str:
    """All files one after the other, as one program."""
    return "".join(source(lines, name) for name, lines in files.items())


Call = tuple[str, int, int]  # a file, whose function it is, x and y


def values(files: dict[str, list[str]], calls: list[Call]) -> list[int]:
    """What the functions of files that were generated return, run directly."""
    scope: dict = {}
    exec(program(files), scope)  # noqa: S102  written by this package, not by a model
    return [scope[name](x, y) for name, x, y in calls]


def evaluate(files: dict[str, list[str]], inputs: list[tuple[int, int]] = INPUTS) -> list[int]:
    """What the first file's function returns; files that were generated."""
    first = next(iter(files))
    return values(files, [(first, x, y) for x, y in inputs])


def listing(rules: list[str], lines: list[str]) -> str:
    """A file as it is read: what each line should do, then the lines."""
    said = [f"{mark} {rule}" for mark, rule in zip(RULE_MARKS, rules)]
    return "\n".join([*said, "end", *(f"{mark} {line}" for mark, line in zip(LINE_MARKS, lines)), "end"])


@dataclass
class Project:
    """The files under repair, the tests they have to pass, and what was done: (open | edit | test, file)."""

    rules: dict[str, list[str]]
    files: dict[str, list[str]]
    wanted: list[int]
    done: list[tuple[str, str]] = field(default_factory=list)

    def _lines(self, file: str) -> list[str]:
        if file not in self.files:
            raise ToolError(f"no file {file[:8]}; files are {', '.join(self.files)}")
        return self.files[file]

    def open(self, file: str) -> str:
        """The file as it is now."""
        lines = self._lines(file)
        self.done.append(("open", file))
        return listing(self.rules[file], lines)

    def edit(self, file: str, line: str, code: str) -> str:
        """Replace the line with that mark."""
        lines, at = self._lines(file), LINE_MARKS.find(line)
        if len(line) != 1 or not 0 <= at < len(lines):
            raise ToolError(f"no line {line[:8]}; lines are {LINE_MARKS[: len(lines)]}")
        if "\n" in code or "\r" in code:
            raise ToolError("one line of code at a time")
        lines[at] = code.strip()
        self.done.append(("edit", file))
        return "ok"

    def test(self) -> str:
        """One JSON line: how many public tests pass and fail."""
        self.done.append(("test", ""))
        failed = len(self.failures())
        return json.dumps({"passed": PUBLIC - failed, "failed": failed}, separators=(",", ":"))

    def failures(self) -> list[int]:
        """Indices of the public tests that fail now."""
        outcome = zip(self.results(INPUTS[:PUBLIC]), self.wanted)
        return [i for i, (got, want) in enumerate(outcome) if got != want]

    def values(self, calls: list[Call]) -> list:
        """What the files' functions return, by the sandbox."""
        return outputs(program(self.files), [f"{name}({x}, {y})" for name, x, y in calls])

    def results(self, inputs: list[tuple[int, int]]) -> list:
        """What the first file's function returns, by the sandbox."""
        first = next(iter(self.files))
        return self.values([(first, x, y) for x, y in inputs])

    @property
    def edits(self) -> int:
        """How many lines were replaced."""
        return sum(what == "edit" for what, _ in self.done)

    @property
    def public_tests_pass(self) -> bool:
        """What a best-of-n choice may look at: an edit was made and the public tests pass."""
        return self.edits > 0 and not self.failures()

    def tools(self) -> list[Tool]:
        """The three tools over this project."""
        text = {"type": "string"}
        return [
            Tool("open", "", needs(file=text), self.open),
            Tool("edit", "", needs(file=text, line=text, code=text), self.edit),
            Tool("test", "", {"type": "object", "properties": {}}, self.test),
        ]
