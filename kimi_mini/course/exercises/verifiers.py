"""Checkers for the exercises of notebook 06 (the verifier economy)."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

from kimi_mini import worlds
from kimi_mini.agent.conversation import Conversation, first_messages
from kimi_mini.agent.loop import converse
from kimi_mini.agent.policy import Script
from kimi_mini.base.intervals import wilson
from kimi_mini.course.exercises.base import Checked, Hint, checker, one_number, value_of
from kimi_mini.worlds import Environment, Task, Verdict, World
from kimi_mini.worlds.base import Expert, Message, turn
from kimi_mini.worlds.registry import SLIP
from kimi_mini.worlds.repair import world as repair

SEEDS = 24  # tasks on which a world is tried
DIFFERENT = 12  # of them, at least
MOST_TURNS = 40  # of a script
Play = Callable[[Task, random.Random], Expert]


def _of_world(what: str, function: Callable, *arguments: Any) -> Any:
    """Value of one of the world's functions. Raises Hint that names it."""
    try:
        return function(*arguments)
    except Exception as error:
        raise Hint(f"{what} raised {type(error).__name__}: {error}") from error


def _tasks(world: World) -> list[Task]:
    """Tasks of all levels of the world's first family. Raises Hint when they are no tasks, or all alike."""
    name, family = next(iter(world.families.items()))
    levels = list(family.levels)
    made = [
        [
            _of_world("generate", world.generate, random.Random(i), name, levels[i % len(levels)])
            for i in range(SEEDS)
        ]
        for _ in range(2)
    ]
    if not all(isinstance(task, Task) for task in made[0]):
        raise Hint(f"generate returns a Task, not {made[0][0]!r:.60}")
    if any(task.world != world.name or task.family != name for task in made[0]):
        raise Hint(
            f"Task({world.name!r}, {name!r}, level, prompt, data): a task names its world and its family"
        )
    keys = [[task.key for task in tasks] for tasks in made]
    if keys[0] != keys[1]:
        raise Hint("the same seed makes another task: take chance from `rng` alone")
    if len(set(keys[0])) < DIFFERENT:
        raise Hint(f"{len(set(keys[0]))} different tasks of {SEEDS}: what is the same is learned by heart")
    return made[0]


def _bounded(script: Expert) -> Expert:
    """The same turns. Raises RuntimeError when they do not end."""
    message = next(script, None)
    for _ in range(MOST_TURNS):
        if message is None:
            return
        result = yield message
        try:
            message = script.send(result)
        except StopIteration:
            return
    raise RuntimeError(f"more than {MOST_TURNS} turns")


def _played(world: World, task: Task, what: str, script: Play) -> tuple[list[Message], Verdict]:
    """Messages of a script, and the verdict on them. Raises Hint when there is none."""
    environment = _of_world("open_environment", world.open_environment, task)
    if not isinstance(environment, Environment) or environment.toolbox is None:
        raise Hint(
            "open_environment returns an Environment with a Toolbox: without tools nothing can be done"
        )
    conversation = Conversation(task, first_messages(task), environment)
    policy = Script(lambda c: _bounded(script(task, random.Random(task.key))))
    _of_world(what, converse, policy, [conversation])
    verdict = _of_world("verify", world.verify, task, conversation.messages, environment)
    environment.close()
    if (
        not isinstance(verdict, Verdict)
        or not isinstance(verdict.evidence, str)
        or not verdict.evidence.strip()
    ):
        raise Hint(
            "verify returns Verdict(passed, evidence): what it saw, in words, for a refusal and for a pass"
        )
    return conversation.messages, verdict


def _words(messages: list[Message]) -> str:
    """The last words of the agent: all that a verifier sees that reads words only."""
    said = [m["content"] for m in messages if m["role"] == "assistant" and m.get("content")]
    return said[-1].strip() if said else ""


def _replayed(*messages: Message) -> Expert:
    for message in messages:  # noqa: UP028  a tuple cannot be told results
        yield message


def _tries(world: World) -> dict[str, tuple[bool, Play]]:
    """Scripts of any world, made of what its expert does: name -> (is it right?, script)."""

    def turns(task: Task, rng: random.Random) -> list[Message]:
        return [m for m in _played(world, task, "the expert", world.expert)[0] if m["role"] == "assistant"]

    def errs(task: Task, rng: random.Random) -> Expert:
        return _replayed(turn("", call=("no such tool", {})), *turns(task, rng))

    def only_words(task: Task, rng: random.Random) -> Expert:
        return _replayed(turns(task, rng)[-1])

    def calls_late(task: Task, rng: random.Random) -> Expert:
        *before, call, answer = turns(task, rng)
        return _replayed(*before, answer, call, answer)

    return {
        "the expert's work behind a call that failed and changed nothing": (True, errs),
        "the right last words, and nothing done": (False, only_words),
        "the last call behind the answer, and the answer once more": (False, calls_late),
    }


def _check_adversaries(world: World, tasks: list[Task]) -> None:
    """Raises Hint unless two of the world's own wrong kinds fool whoever reads only words, each in its own way."""
    own = [kind for kind in world.kinds if not kind.right and kind.name != SLIP]
    if len(own) < 2:
        raise Hint(
            "two adversaries: a script below @kinds.wrong('its name') each, and kinds=kinds in the World"
        )
    shapes = {}
    for kind in own:
        shown = []
        for task in tasks:
            expected = _words(_played(world, task, "the expert", world.expert)[0])
            messages, _ = _played(world, task, kind.name, kind.script)
            if _words(messages) != expected:
                raise Hint(
                    f"{kind.name!r} says {_words(messages)!r}, where the expert says {expected!r}: "
                    "whoever reads only words sees through it; a real adversary looks right"
                )
            shown.append([(m.get("content"), m.get("tool_calls")) for m in messages])
        if (twin := shapes.setdefault(repr(shown), kind.name)) != kind.name:
            raise Hint(f"{kind.name!r} does just what {twin!r} does: two names for one cheat")


@checker
def check_world(world: World) -> Checked:
    """world: a World with tools, a verifier and two adversaries among its kinds."""
    if not isinstance(world, World):
        raise Hint(
            "begin with World(name, generate, open_environment, expert, verify, families, rows, kinds)"
        )
    tasks, saw = _tasks(world), set()
    scripts = {kind.name: (kind.right, kind.script) for kind in world.kinds}
    for name, (right, script) in (scripts | _tries(world)).items():
        for task in tasks:
            messages, verdict = _played(world, task, name, script)
            if all(message["role"] != "assistant" for message in messages):
                raise Hint(f"{name!r} says nothing: a script yields turns")
            saw.add(verdict.evidence)
            if verdict.passed != right:
                raise Hint(
                    f"{'refused, and right' if right else 'accepted, and wrong'}: {name!r} on {task.prompt!r}; "
                    f"the evidence: {verdict.evidence}"
                )
    _check_adversaries(world, tasks)
    if len(saw) < DIFFERENT // 2:
        raise Hint("the evidence is always the same: say what was found and what was wanted")
    return Checked(True, f"{len(scripts) + 3} ways to work on {SEEDS} tasks, and every verdict right")


@checker
def check_enough(function: Callable[[float], int]) -> Checked:
    """function(limit) is the smallest n for which 0 errors of n put the upper end of Wilson's interval at the limit."""
    for limit in (0.01, 0.05, 0.1):
        value = one_number(value_of(function, limit))
        right = next(n for n in range(1, 10_000) if wilson(0, n)[1] <= limit)
        if not float(value).is_integer():
            return Checked(False, f"n is a whole number, not {value!r}")
        value = int(value)
        if value == round(3 / limit):
            return Checked(False, "the rule of three (3 / limit) is close, but Wilson's interval wants more")
        if value != right:
            upper = wilson(0, value)[1] if value > 0 else 1
            return Checked(
                False,
                f"limit {limit}: 0 of {value} errors give an upper end of {upper:.4f}; "
                f"{'too few' if value < right else 'fewer are enough'}",
            )
    return Checked(True, "381 clean trials bound an error rate by 1%: that is why we use thousands")


@checker
def check_cheat(function: Callable[[list[str], dict], tuple[str, str]]) -> Checked:
    """function(lines, tests) is one edit (mark, code) that passes the public tests and is no repair.

    tests: (x, y) -> wanted. It is tried on three tasks, in the sandbox, and put before the verifier.
    """
    for seed in range(3):
        task = worlds.generate(random.Random(seed), "repair", 2 + seed)
        environment = repair.open_environment(task)
        tests = dict(zip(repair.INPUTS[: repair.PUBLIC], task.data["wanted"]))
        value = value_of(function, list(task.data["buggy"]), tests)
        if not (
            isinstance(value, (tuple, list))
            and len(value) == 2
            and all(isinstance(part, str) for part in value)
        ):
            return Checked(False, "return the mark of a line and its new code, such as ('A', 'x = x + 1')")
        result = environment.toolbox.call("edit", json.dumps({"line": value[0], "code": value[1]}))
        if not environment.state.public_tests_pass:
            return Checked(False, f"the tool says {result.content}; the lines are {environment.state.lines}")
        verdict = repair.verify(task, [turn("", content="fixed")], environment)
        if verdict.passed:
            return Checked(False, "that is a real repair; make one that only knows the tests")
    return Checked(True, f"the public tests pass, and the verifier refuses: {verdict.evidence}")
