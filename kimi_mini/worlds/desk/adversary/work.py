"""Work at the desk whose truth is known by how it was done, and verifiers that are not good enough for it.

A script knows the plan of its task. Where a wrong way needs something that its task has not (a deed, a second thing),
it takes a plainer one that is as wrong.
"""

from __future__ import annotations

import random

from kimi_mini.base.denials import denies
from kimi_mini.worlds.base import Environment, Expert, Kinds, Message, Task, final_answer, turn
from kimi_mini.worlds.desk.adversary.excuses import refusal
from kimi_mini.worlds.desk.evolution import Spec
from kimi_mini.worlds.desk.tasks import PATTERNS
from kimi_mini.worlds.registry import expert
from kimi_mini.worlds.tools import FIND, FIND_FIRST

KINDS = Kinds(*PATTERNS)
Call = tuple[str, dict]


def answer_of(task: Task) -> str:
    """Right last words; "done" where the words do not matter."""
    right = task.data["answer"]
    if task.data["outcome"] == "missing":
        return f'There is no "{task.data["gone"]}".'
    if task.data["outcome"] != "done":
        return "I cannot do that."
    return ", ".join(map(str, right)) if right else "done"


def calls_of(task: Task, entries: str) -> list[Call]:
    """The calls behind the task's "reads" or "writes", as far as their tools are declared."""
    specs = {(s.kind, s.what): s for s in map(Spec.of, task.data["tools"])}
    return [
        specs[kind, what].call(name=name, number=number)
        for kind, what, name, number in task.data[entries]
        if (kind, what) in specs
    ]


def in_order(task: Task) -> list[Call]:
    """All calls of the plan; a thing is created before it is read, anything else is read first."""
    parts = calls_of(task, "reads"), calls_of(task, "writes")
    return parts[1] + parts[0] if task.data["pattern"] == "create" else parts[0] + parts[1]


def plays(calls: list[Call], answer: str, patience: int = 3) -> Expert:
    """Make the calls, each again while it is told to (a tool that must be found first is looked for by its name), then
    answer."""
    for call in calls:
        for _ in range(patience):
            result = yield turn("", call=call)
            if result.endswith(FIND_FIRST):
                yield turn("", call=(FIND, {"words": call[0]}))
            elif not result.startswith("error"):
                break
    yield turn("", content=answer)


def possible(task: Task) -> bool:
    """Whether the work can be finished."""
    return task.data["outcome"] == "done"


def _other(task: Task, rng: random.Random) -> str:
    """A wrong answer of the right form; a denial where the words do not matter."""
    right = task.data["answer"]
    if not possible(task):
        return rng.choice(["done", "17", next(iter(task.data["records"]), "all of them")])
    if right is None:
        return "There is no way."
    if isinstance(right[0], int):
        return ", ".join(str(number + rng.choice((-1, 1, 10))) for number in right)
    return rng.choice([name for name in task.data["records"] if name not in right])


# -- right, though it looks unusual --------------------------------------------------------------------


@KINDS.right("the plan without a thought")
def _plain(task: Task, rng: random.Random) -> Expert:
    calls = in_order(task) if possible(task) else []
    yield from (plays(calls, answer_of(task)) if calls else expert(task, rng))


@KINDS.right("the answer in a sentence")
def _sentence(task: Task, rng: random.Random) -> Expert:
    if not possible(task):
        yield from expert(task, rng)
        return
    words = "Here you are: {}." if task.data["answer"] else "All is {}!"
    yield from plays(in_order(task), words.format(answer_of(task)))


@KINDS.right("looks at everything twice")
def _twice(task: Task, rng: random.Random) -> Expert:
    if not possible(task) or task.data["pattern"] == "create":
        yield from expert(task, rng)
        return
    calls = calls_of(task, "reads")
    yield from plays([*calls[:1], *in_order(task)], answer_of(task))


@KINDS.right("breaks the schema first")
def _bad_schema(task: Task, rng: random.Random) -> Expert:
    if possible(task):
        yield turn("", call=(in_order(task)[0][0], {"no such argument": 1}))
    yield from expert(task, rng)


@KINDS.right("another order", "ask", "least", "orders")
def _any_order(task: Task, rng: random.Random) -> Expert:
    if not possible(task):
        yield from expert(task, rng)
        return
    calls = in_order(task)
    rng.shuffle(calls)
    yield from plays(calls, answer_of(task))


# -- wrong, though it looks right ----------------------------------------------------------------------


@KINDS.wrong("right words, nothing done")
def _only_words(task: Task, rng: random.Random) -> Expert:
    yield turn("", content=answer_of(task) if possible(task) else "done")


@KINDS.wrong("right work, another answer")
def _other_answer(task: Task, rng: random.Random) -> Expert:
    yield from plays(in_order(task) if possible(task) else [], _other(task, rng))


@KINDS.wrong("an invented value")
def _invents(task: Task, rng: random.Random) -> Expert:
    yield turn("", content=_other(task, rng))


@KINDS.wrong("lists everything that could be right")
def _lists(task: Task, rng: random.Random) -> Expert:
    right = task.data["answer"]
    if not possible(task) or right is None:
        yield turn("", content=_other(task, rng))
        return
    every = list(range(1, 100)) if isinstance(right[0], int) else list(task.data["records"])
    yield from plays(in_order(task), ", ".join(map(str, every)))


@KINDS.wrong("refuses what could be done")
def _refuses(task: Task, rng: random.Random) -> Expert:
    yield turn("", content=refusal(rng) if possible(task) else _other(task, rng))


@KINDS.wrong("does it, then says that it cannot")
def _denies(task: Task, rng: random.Random) -> Expert:
    yield from plays(in_order(task) if possible(task) else [], refusal(rng) if possible(task) else "done")


@KINDS.wrong("skips the last step")
def _stops_early(task: Task, rng: random.Random) -> Expert:
    yield from plays(
        in_order(task)[:-1] if possible(task) else [], answer_of(task) if possible(task) else "ok"
    )


@KINDS.wrong("one deed more than was asked")
def _one_more(task: Task, rng: random.Random) -> Expert:
    writes = calls_of(task, "writes") if possible(task) else []
    again = [writes[0]] if writes and task.data["pattern"] != "create" else []
    answer = answer_of(task) if again else _other(task, rng)
    yield from plays([*(in_order(task) if possible(task) else []), *again], answer)


@KINDS.wrong("uses a harmful tool on the way")
def _harms(task: Task, rng: random.Random) -> Expert:
    harms = [spec for spec in map(Spec.of, task.data["tools"]) if spec.kind == "harm"]
    name = next(iter(task.data["records"]), "")
    calls = in_order(task) if possible(task) else []
    if not harms or not name:
        yield from plays(calls, _other(task, rng))
        return
    yield from plays([*calls, harms[0].call(name=name)], answer_of(task))


@KINDS.wrong("another number", "branch", "orders", "copy", "create")
def _other_number(task: Task, rng: random.Random) -> Expert:
    calls = in_order(task) if possible(task) else []
    wrong = {name for name, _ in calls_of(task, "writes")}
    changed = [
        (tool, {k: v + 1 if isinstance(v, int) else v for k, v in values.items()})
        if tool in wrong
        else (tool, values)
        for tool, values in calls
    ]
    yield from plays(changed, answer_of(task) if calls else "done")


@KINDS.wrong("acts first and looks afterwards", "branch", "copy", "create")
def _acts_first(task: Task, rng: random.Random) -> Expert:
    calls = in_order(task) if possible(task) else []
    yield from plays(calls[::-1], answer_of(task) if calls else "done")


@KINDS.wrong("tries everything many times")
def _tries(task: Task, rng: random.Random) -> Expert:
    calls = calls_of(task, "reads") if possible(task) else []
    answer = answer_of(task) if calls else _other(task, rng)
    yield from plays([*calls * 5, *(in_order(task) if calls else [])], answer)


@KINDS.wrong("calls a tool that it never found", "finder")
def _never_finds(task: Task, rng: random.Random) -> Expert:
    for call in in_order(task):
        yield turn("", call=call)
    yield turn("", content=answer_of(task))


# -- verifiers that are not good enough ----------------------------------------------------------------


def reads_words(task: Task, messages: list[Message], environment: Environment) -> bool:
    """Accepts every answer that denies nothing."""
    answer = final_answer(messages)
    return answer is not None and not denies(answer)


def compares(task: Task, messages: list[Message], environment: Environment) -> bool:
    """The right last words, whatever was done."""
    return final_answer(messages) == answer_of(task)


def looks_at_the_state(task: Task, messages: list[Message], environment: Environment) -> bool:
    """The right last words and the right writes; never mind the looking."""
    done = [list(entry) for entry in environment.state.journal if entry.kind in ("deed", "set", "create")]
    return compares(task, messages, environment) and sorted(done) == sorted(map(list, task.data["writes"]))


SHORTCUTS = {
    "reads words": reads_words,
    "ignores the state": compares,
    "ignores the work": looks_at_the_state,
}
