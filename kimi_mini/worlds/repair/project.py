"""World `project`: a small Python project with one bug, spread over two or three files.

Family
    project    functions that call each other across files; a failing test names the first one (level: files)

What a line should do stands in the file itself, beside the code, so that a file has to be opened to know what is wrong
with it; the test does not say which file it is. Tools open a file, edit a line and run the tests, in the sandbox. What
counts is the source in the end: every file must be right for hidden inputs too, and not only what the first one makes
of the others.
"""

from __future__ import annotations

import random
from itertools import pairwise

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
    turn,
)
from kimi_mini.worlds.registry import Demo, Family, World, register
from kimi_mini.worlds.repair.code import (
    INPUTS,
    LINE_MARKS,
    PUBLIC,
    RULE_MARKS,
    break_line,
    random_line,
    shorthand,
)
from kimi_mini.worlds.repair.files import Project, evaluate, program, values
from kimi_mini.worlds.repair.project_adversary import KINDS, SHORTCUTS
from kimi_mini.worlds.repair.running import BEYOND, HIDDEN, too_large
from kimi_mini.worlds.rows import Row
from kimi_mini.worlds.tools import Toolbox

NAMES = "pqrstuvw"  # of files and of the function in each: no letter that marks a line
OWN_LINES = 2  # of a file, beside the call of the next one

# -- tasks ---------------------------------------------------------------------------------------------


def generate(rng: random.Random, family: str, level: int) -> Task:
    """`level` files, each of which calls the next, with one bug that at least one public test notices."""
    while True:
        first = rng.randrange(len(NAMES) - level + 1)
        names = NAMES[first : first + level]
        lines = {name: [random_line(rng) for _ in range(OWN_LINES)] for name in names}
        rules = {name: [line.rule for line in own] for name, own in lines.items()}
        right = {name: [line.code for line in own] for name, own in lines.items()}
        for name, after in pairwise(names):
            rules[name].append(f"call {after}")
            right[name].append(f"x = {after}(x, y)")
        file, at = rng.choice(names), rng.randrange(OWN_LINES)
        wrong, bug = break_line(rng, lines[file][at])
        buggy, without = _with(right, file, at, wrong), _with(right, file, at, "pass")
        wanted, got = (evaluate(files) for files in (right, buggy))
        failing = [i for i in range(PUBLIC) if wanted[i] != got[i]]
        needed = evaluate(without) != wanted  # no line that does nothing
        if failing and needed and not too_large(wanted + got):
            break
    x, y = INPUTS[failing[0]]
    prompt = (
        f"Fix {names[0]}(x, y) in the files {', '.join(names)}, end.\n"
        f"{names[0]}({x}, {y}) gave {got[failing[0]]}, wanted {wanted[failing[0]]}"
    )
    data = {
        "rules": rules,
        "right": right,
        "buggy": buggy,
        "file": file,
        "at": at,
        "bug": bug,
        "wanted": wanted,
    }
    return Task("project", family, level, prompt, data)


def _with(files: dict[str, list[str]], file: str, at: int, code: str) -> dict[str, list[str]]:
    """The files with another line in one place."""
    return files | {file: [code if place == at else line for place, line in enumerate(files[file])]}


# -- the environment -----------------------------------------------------------------------------------


def open_environment(task: Task) -> Environment:
    """The buggy files, and the tools over them."""
    files = {name: list(lines) for name, lines in task.data["buggy"].items()}
    project = Project(task.data["rules"], files, task.data["wanted"])
    return Environment(Toolbox(project.tools()), project)


# -- the expert ----------------------------------------------------------------------------------------


def expert(task: Task, rng: random.Random, mistake: str | None = None) -> Expert:
    """Opens one file after the other, compares line by line what should be there with what is, and replaces the first
    that differs; then the tests. `mistake="slip"` edits a wrong line or writes a wrong fix; `mistake="lazy"` claims
    it when the first file is read."""
    data = task.data
    slip = _slip(task, rng) if mistake == "slip" else None
    file, at, code = slip or (data["file"], data["at"], data["right"][data["file"]][data["at"]])
    said = ""
    for name in data["buggy"]:
        yield turn(f"{said}open {name}", call=("open", {"file": name}))
        if mistake == "lazy":
            break
        notes, last = [], at if name == file else len(data["right"][name]) - 1
        for line in range(last + 1):
            wanted = code if (name, line) == (file, at) else data["right"][name][line]
            notes.append(
                note(line, wanted, data["buggy"][name][line], "fix" if (name, line) == (file, at) else "ok")
            )
        said = f"{' '.join(notes)} "
        if name == file:
            arguments = {"file": name, "line": LINE_MARKS[at], "code": code}
            yield turn(f"{said}{name}", call=("edit", arguments))
            yield turn("test", call=("test", {}))
            break
    yield turn("end", content="fixed")


def _slip(task: Task, rng: random.Random) -> tuple[str, int, str]:
    """A file, a line and a code that do not repair it: the result is another on some pair of digits."""
    data, names = task.data, list(task.data["buggy"])
    wanted = evaluate(data["right"], HIDDEN)
    while True:
        file = data["file"] if rng.random() < 0.5 else rng.choice(names)
        at = rng.randrange(OWN_LINES)
        code = rng.choice([random_line(rng).code, "pass", data["right"][file][at]])
        if evaluate(_with(data["buggy"], file, at, code), HIDDEN) != wanted:
            return file, at, code


def note(at: int, right: str, found: str, decision: str) -> str:
    """A line of the thought: what is asked for, what stands there, and what to do about it."""
    return f"{RULE_MARKS[at]} {_short(right)} {LINE_MARKS[at]} {_short(found)} {decision}"


def _short(code: str) -> str:
    """`shorthand`, and for a call the function's name."""
    called = code.removeprefix("x = ").removesuffix("(x, y)")
    return called if f"x = {called}(x, y)" == code else shorthand(code)


# -- the verifier --------------------------------------------------------------------------------------


def verify(task: Task, messages: list[Message], environment: Environment) -> Verdict:
    """Each file does what it says for every pair of digits, and whoever repaired them had opened the one with the bug
    before it was edited, and needed few edits: not a word, a guess, or trying everything until the tests passed."""
    project, most, data, answer = environment.state, most_calls(task.level), task.data, final_answer(messages)
    if not answer or answers_early(messages):
        return Verdict(False, "no answer, or it went on behind it")
    if not project.edits:
        return Verdict(False, "nothing was edited")
    if project.edits > most:
        return Verdict(False, f"{project.edits} edits, where {most} are plenty")
    if next((what for what, file in project.done if file == data["file"]), "") != "open":
        return Verdict(False, f"file {data['file']} was not opened before it was edited")
    if gives_up(answer):
        return Verdict(False, f"answered {answer[:40]!r}, whatever was done")
    files = list(data["right"])
    tests = [(name, x, y) for name in files for x, y in (HIDDEN if name == files[0] else HIDDEN + BEYOND)]
    pairs = zip(tests, project.values(tests), values(data["right"], tests))
    wrong = [test for test, got, want in pairs if got != want]
    found = f", not {wrong[0][0]}{wrong[0][1:]}" if wrong else ""
    return Verdict(not wrong, f"{len(tests) - len(wrong)} of {len(tests)} hidden tests pass{found}")


# -- what the others have to know ----------------------------------------------------------------------

OWN = {
    "rules": {
        "p": ["multiply x by 2", "add y to x", "call q"],
        "q": ["if x over 9 subtract 3 from x", "add 4 to x"],
    },
    "right": {"p": ["x = x * 2", "x = x + y", "x = q(x, y)"], "q": ["if x > 9: x = x - 3", "x = x + 4"]},
    "buggy": {"p": ["x = x * 2", "x = x + y", "x = q(x, y)"], "q": ["if x > 9: x = x - 3", "x = x + 5"]},
    "file": "q",
    "at": 1,
    "bug": "constant",
}


def own_task(words: str) -> Task | None:
    """The demo's project, whatever is said about it."""
    if not words.startswith("Fix p(x, y) in the files p, q"):
        return None
    return Task("project", "project", 2, words, OWN | {"wanted": evaluate(OWN["right"])})


DEMO = Demo(
    own_task,
    examples=("Fix p(x, y) in the files p, q, end.\np(1, 2) gave 9, wanted 8",),
    place="\n".join(f"{name}: {'; '.join(lines)}" for name, lines in OWN["buggy"].items()),
    left=lambda task, environment: program(environment.state.files),
)

FAMILIES = {"project": Family(range(2, 4), {}, length=460)}
ONCE = "repair a project of 2 or 3 files at the first attempt"
BEST = "repair a project, best of 4 chosen by running the public tests"
ROWS = (
    Row("project/pass@1", "project", says=ONCE),
    Row("project/best_of_4", "project", attempts=4, says=BEST),
)

register(
    World(
        "project",
        generate,
        open_environment,
        expert,
        verify,
        FAMILIES,
        ROWS,
        KINDS,
        colour="#882255",
        shortcuts=SHORTCUTS,
        demo=DEMO,
    )
)
