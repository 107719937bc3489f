"""Answers to algebra whose truth is known by how they were made, and verifiers that are not good enough for them."""

from __future__ import annotations

import random
import re

from kimi_mini.base.denials import REFUSALS
from kimi_mini.worlds.base import Environment, Expert, Kinds, Message, Task, final_answer, turn
from kimi_mini.worlds.chain.adversary import after_others
from kimi_mini.worlds.chain.expression import value_of
from kimi_mini.worlds.registry import expert

KINDS = Kinds("define", "solve")


def _answer(task: Task, text: str) -> Message:
    """The expert's thought, and another answer; {} is the right number."""
    return {**next(expert(task, random.Random(0))), "content": text.format(task.data["answer"])}


def _letter(task: Task) -> str:
    return task.prompt.rstrip("?")[-1]


def _steps(task: Task) -> list[tuple[str, int]]:
    """Each step of the expert's thought: what is worked out, and what comes of it."""
    thought = next(expert(task, random.Random(0)))["reasoning_content"]
    return [(text, int(value)) for text, value in re.findall(r"(\S+)=(-?\d+)", thought)]


def _near(task: Task, rng: random.Random) -> int:
    return task.data["answer"] + rng.choice((-10, -1, 1, 10))


# -- right, though it looks unusual --------------------------------------------------------------------


@KINDS.right("the answer alone, without a thought")
def _at_once(task: Task, rng: random.Random) -> Expert:
    yield turn("", content=str(task.data["answer"]))


@KINDS.right("with its letter, a full stop, zeros, as a decimal")
def _written_out(task: Task, rng: random.Random) -> Expert:
    name = _letter(task)
    yield _answer(task, rng.choice([f"{name} = {{}}", "{}.", "{}.0", " {} ", f"{name}={{}}."]))


@KINDS.right("as a fraction or another expression of one operation")
def _fraction(task: Task, rng: random.Random) -> Expert:
    right, (step, _) = task.data["answer"], _steps(task)[-1]
    ways = [f"{3 * right}/3", f"{right + 3} - 3", f"({right})", f"-(-{right})", f"{right - 1}+1"]
    numbers = lambda text: sorted(re.findall(r"\d+", text))
    yield _answer(task, rng.choice([way for way in ways if numbers(way) != numbers(step)]))


# -- wrong, though it looks right ----------------------------------------------------------------------


@KINDS.wrong("works it out and answers another number")
def _copies_wrongly(task: Task, rng: random.Random) -> Expert:
    yield _answer(task, str(_near(task, rng)))


@KINDS.wrong("names two numbers, one of them right")
def _hedges(task: Task, rng: random.Random) -> Expert:
    yield _answer(task, rng.choice(["{} or 7", "7, {}", "{} 7", "{}; {}", "({}, 7)"]).replace("{}", "{0}"))


@KINDS.wrong("lists every number that it may be")
def _lists(task: Task, rng: random.Random) -> Expert:
    yield _answer(task, rng.choice((" ", ", ", " or ")).join(map(str, range(100))))


@KINDS.wrong("the question written out again")
def _unworked(task: Task, rng: random.Random) -> Expert:
    if task.family == "define":
        yield turn("end", content=task.data["lines"][-1].split(" = ")[1])
    else:
        d = task.data
        yield turn("end", content=f"({d['total']} - {d['add']}) / ({d['left']} - {d['right']})")


@KINDS.wrong("the last step, not worked out")
def _last_step(task: Task, rng: random.Random) -> Expert:
    step = _steps(task)[-1][0]
    yield _answer(task, rng.choice([step, f"({step})", f"{_letter(task)} = {step}"]))


@KINDS.wrong("stops one step early", from_level=2)
def _stops_early(task: Task, rng: random.Random) -> Expert:
    wrong = [value for _, value in _steps(task)[:-1] if value != task.data["answer"]]
    yield turn("end", content=str(wrong[-1] if wrong else task.data["answer"] + 1))


@KINDS.wrong("a number of the question")
def _echoes(task: Task, rng: random.Random) -> Expert:
    told = [number for number in re.findall(r"\d+", task.prompt) if int(number) != task.data["answer"]]
    yield turn("end", content=rng.choice(told or [str(_near(task, rng))]))


@KINDS.wrong("the right number for another letter")
def _other_letter(task: Task, rng: random.Random) -> Expert:
    others = [letter for letter in "abcdefghxyz" if letter != _letter(task)]
    yield _answer(task, f"{rng.choice(others)} = {{}}")


@KINDS.wrong("the right number with the wrong sign")
def _negative(task: Task, rng: random.Random) -> Expert:
    yield _answer(task, "-{}" if task.data["answer"] else "-1")


@KINDS.wrong("code in place of a number")
def _code(task: Task, rng: random.Random) -> Expert:
    right = task.data["answer"]
    yield turn(
        "end",
        content=rng.choice([f"int('{right}')", f"{right} if True else 0", f"[{right}][0]", f"{right}**1"]),
    )


@KINDS.wrong("refuses what could be worked out")
def _refuses(task: Task, rng: random.Random) -> Expert:
    yield _answer(task, rng.choice((*REFUSALS, "There is no solution.")))


@KINDS.wrong("answers another number first, then the right one")
def _answers_twice(task: Task, rng: random.Random) -> Expert:
    yield from after_others(task, [_near(task, rng)])


@KINDS.wrong("a call behind the answer")
def _call_at_the_end(task: Task, rng: random.Random) -> Expert:
    yield from expert(task, rng)
    yield turn("check", call=("calculator", {"value": task.data["answer"]}))


# -- verifiers that are not good enough ----------------------------------------------------------------


def reads_words(task: Task, messages: list[Message], environment: Environment) -> bool:
    """Accepts any number."""
    return value_of(final_answer(messages) or "") is not None


def compares(task: Task, messages: list[Message], environment: Environment) -> bool:
    """The right answer, letter by letter: no other way to write it."""
    return final_answer(messages) == str(task.data["answer"])


SHORTCUTS = {"reads words": reads_words, "ignores the state": compares, "ignores the work": compares}
