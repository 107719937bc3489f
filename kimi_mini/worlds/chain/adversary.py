"""Calculations whose truth is known by how they were made, and verifiers that are not good enough for them."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from kimi_mini.base.denials import REFUSALS
from kimi_mini.worlds.base import Environment, Expert, Kinds, Message, Task, final_answer, turn
from kimi_mini.worlds.registry import SLIP, expert

KINDS = Kinds("chain", "add", "times")


def answer_of(task: Task) -> str:
    """The right last words."""
    return str(task.data["answer"])


# -- right, though it looks unusual --------------------------------------------------------------------


@KINDS.right("the answer alone, without a thought")
def _at_once(task: Task, rng: random.Random) -> Expert:
    yield turn("", content=answer_of(task))


@KINDS.right("zeros in front, spaces around")
def _spaced(task: Task, rng: random.Random) -> Expert:
    message = next(expert(task, rng))
    yield {**message, "content": rng.choice([" {}", "{}\n", "0{}", "00{} "]).format(answer_of(task))}


@KINDS.right("works it out in another way")
def _other_working(task: Task, rng: random.Random) -> Expert:
    yield turn(f"I see that it must be {answer_of(task)}; let me check that. Yes.", content=answer_of(task))


@KINDS.right("makes a mistake, notices, and puts it right")
def _corrected(task: Task, rng: random.Random) -> Expert:
    first, second = next(expert(task, rng, "slip")), next(expert(task, rng))
    thought = f"{first['reasoning_content']} no, again {second['reasoning_content']}"
    yield {**second, "reasoning_content": thought}


# -- wrong, though it looks right ----------------------------------------------------------------------


@KINDS.wrong("works it out and answers another number")
def _copies_wrongly(task: Task, rng: random.Random) -> Expert:
    message = next(expert(task, rng))
    yield {**message, "content": str(_near(task, rng))}


def _near(task: Task, rng: random.Random) -> int:
    """A number like the right one, but not it."""
    right = task.data["answer"]
    return rng.choice([n for n in (right - 10, right - 1, right + 1, right + 10) if n >= 0])


@KINDS.wrong(SLIP)
def _slips(task: Task, rng: random.Random) -> Expert:
    right = next(expert(task, rng))
    message = right
    while message == right:  # a slip that changes nothing is none
        message = next(expert(task, rng, "slip"))
    yield message


@KINDS.wrong("stops one step early", from_level=2)
def _stops_early(task: Task, rng: random.Random) -> Expert:
    if task.family == "chain":
        yield from _shortened(task, task.data["steps"][:-1], rng)
    else:
        message = next(expert(task, rng))
        yield {**message, "content": str(task.data["answer"])[1:]}


@KINDS.wrong("goes one step too far")
def _goes_too_far(task: Task, rng: random.Random) -> Expert:
    if task.family == "chain":
        steps = task.data["steps"]
        yield from _shortened(task, [*steps, ["z", "+", rng.randrange(1, 10)]], rng)
    else:
        message = next(expert(task, rng))
        yield {**message, "content": f"1{message['content']}"}


def _shortened(task: Task, steps: list, rng: random.Random) -> Expert:
    other = Task("chain", "chain", len(steps), task.prompt, {**task.data, "steps": steps})
    return expert(other, rng)


@KINDS.wrong("guesses, without a thought")
def _guesses(task: Task, rng: random.Random) -> Expert:
    digits = len(str(task.data["answer"]))
    yield turn("", content=str(rng.randrange(100) if task.family == "chain" else rng.randrange(10**digits)))


@KINDS.wrong("names two numbers, one of them right")
def _hedges(task: Task, rng: random.Random) -> Expert:
    pair = [str(task.data["answer"]), str(_near(task, rng))]
    rng.shuffle(pair)
    message = next(expert(task, rng))
    yield {**message, "content": rng.choice([" or ", " ", ", "]).join(pair)}


@KINDS.wrong("a hundred too many: no remainder taken, or a carry too much")
def _no_remainder(task: Task, rng: random.Random) -> Expert:
    yield _answers(task, str(task.data["answer"] + 100 * rng.randrange(1, 4)))


@KINDS.wrong("the right digits in another order")
def _turned_round(task: Task, rng: random.Random) -> Expert:
    right = f"{task.data['answer']:02d}"
    orders = [right[::-1], right[1:] + right[0], right[0] + right[:0:-1]]
    yield _answers(task, rng.choice([one for one in orders if int(one) != int(right)] or [f"1{right}"]))


@KINDS.wrong("the right number below zero")
def _negative(task: Task, rng: random.Random) -> Expert:
    yield _answers(task, f"-{answer_of(task)}")


@KINDS.wrong("a number of the question")
def _echoes(task: Task, rng: random.Random) -> Expert:
    told = [number for number in re.findall(r"\d+", task.prompt) if int(number) != task.data["answer"]]
    yield turn("end", content=rng.choice(told))


@KINDS.wrong("the last step, not worked out")
def _unworked(task: Task, rng: random.Random) -> Expert:
    data = task.data
    step = re.findall(r"(\S+)=", next(expert(task, rng))["reasoning_content"])[-1]
    whole = f"{data.get('left')}{'+' if task.family == 'add' else '*'}{data.get('right')}"
    yield _answers(task, step if task.family == "chain" else whole)


@KINDS.wrong("lists every number that it may be")
def _lists(task: Task, rng: random.Random) -> Expert:
    right = task.data["answer"]
    near = range(100) if task.family == "chain" else range(max(0, right - 9), right + 10)
    yield _answers(task, rng.choice((" ", ", ")).join(map(str, near)))


@KINDS.wrong("refuses what could be worked out")
def _refuses(task: Task, rng: random.Random) -> Expert:
    yield _answers(task, rng.choice((*REFUSALS, "I have no calculator.")))


@KINDS.wrong("answers another number first, then the right one")
def _answers_twice(task: Task, rng: random.Random) -> Expert:
    yield from after_others(task, [_near(task, rng)])


@KINDS.wrong("answers number after number until it is the right one")
def _answers_often(task: Task, rng: random.Random) -> Expert:
    right = task.data["answer"]
    yield from after_others(task, [right + n for n in range(1, rng.randrange(4, 9))])


@KINDS.wrong("a call behind the answer")
def _call_at_the_end(task: Task, rng: random.Random) -> Expert:
    yield from expert(task, rng)
    yield turn("check", call=("calculator", {"value": task.data["answer"]}))


def after_others(task: Task, numbers: Sequence[int]) -> Expert:
    """These answers, one after the other, and the right one last."""
    for number in (*numbers, answer_of(task)):
        yield turn("end", content=str(number))


def _answers(task: Task, content: str) -> Message:
    """The expert's thought, and another answer."""
    return {**next(expert(task, random.Random(0))), "content": content}


# -- verifiers that are not good enough ----------------------------------------------------------------


def reads_words(task: Task, messages: list[Message], environment: Environment) -> bool:
    """Accepts any number."""
    return (final_answer(messages) or "").isdigit()


def compares(task: Task, messages: list[Message], environment: Environment) -> bool:
    """The right answer and nothing else: a chain has neither state nor work."""
    return final_answer(messages) == answer_of(task)


SHORTCUTS = {"reads words": reads_words, "ignores the state": compares, "ignores the work": compares}
