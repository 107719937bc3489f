"""The expert at the desk: a clerk who knows the plan and reads every result.

A thought says what it is for, what is wanted now and which tool and arguments serve it, so that the call behind it is
copied from it:

    least best "red fig" 12 now "blue tea" then "old rope" then end read price .lookup_cost(label)
    orders now "red fig" for two days then "blue tea" for 4 days then end do rent .hire(count integer,label string)

Its first word is the goal: behind a result the request is far away, the last thought is near. An order is repeated as
the request has it, word by word; the call puts its name and its number apart. What is left of a list stands there as
well: the first thought copies all of it, each thought after that begins one entry later in the one before. Who looks
for his place in the request again, far behind, often finds another one. What was read is carried along until the
answer says it.
The first thought goes through all tools that the work takes, the one that is called last: each has its name and
arguments behind it, or `find tools` if it has to be found, or `no tool`, and then the work is not begun.
Kind and word of the tool stand side by side, as a description has them. Names of tools and arguments stand behind a
sign, as they do in declaration and call: with a space before it the same name would be other tokens.
"""

from __future__ import annotations

import random
from collections.abc import Generator

from kimi_mini.worlds.base import Expert, Message, Task, turn
from kimi_mini.worlds.desk.application import Desk, searched, value_of
from kimi_mini.worlds.desk.evolution import Spec
from kimi_mini.worlds.desk.surface import HELD_OUT_TRANSIENT, TRANSIENT
from kimi_mini.worlds.tools import FIND

CONFUSED = 0.06  # share of calls with two arguments whose types are taken for each other at first
NO_TOOL = "I have no tool for that."
BROKEN = "That did not work."
NOTHING = "There is none."


def missing(name: str) -> str:
    """The honest answer when a thing is not there."""
    return f'There is no "{name}".'


class Stopped(Exception):
    """The work cannot go on; the text is the answer."""


def expert(task: Task, rng: random.Random, mistake: str | None = None) -> Expert:
    """A clerk. `mistake="slip"` takes one wrong step or makes up the answer, `mistake="lazy"` stops before the end."""
    data = task.data
    if mistake and data["outcome"] == "no tool":
        yield turn("end", content=rng.choice(["done", "12", "It is done."]))
        return
    clerk = _Clerk(task, rng, mistake)
    try:
        play = getattr(clerk, f"play_{data['pattern']}", clerk.play_plan)
        if data.get("talk"):
            raise Stopped("no tool", NO_TOOL)
        thought, answer = yield from play(**data["steps"])
    except Stopped as stopped:
        thought, answer = stopped.args
    if mistake and (data["outcome"] != "done" or not clerk.slipped):
        answer = clerk.made_up()
    yield turn(thought, content=answer)


Step = Generator[Message, str, object]


class _Clerk:
    def __init__(self, task: Task, rng: random.Random, mistake: str | None):
        self.task, self.rng, self.mistake, self.data = task, rng, mistake, task.data
        self.specs = {(s.kind, s.what): s for s in map(Spec.of, task.data["tools"])}
        calls = len(task.data["reads"]) + len(task.data["writes"])
        self.left = rng.randrange(max(1, calls)) if mistake else None  # calls before the wrong one
        self.slipped = False
        self.unknown = set(map(tuple, task.data["needs"])) if task.data.get("finder") else set()
        self.absent = task.data.get("absent", Desk.absent)
        self.passing = {*TRANSIENT, *HELD_OUT_TRANSIENT, *task.data["failures"].values()}
        if "absent" in task.data:  # in words that nobody knows: the first time, it may pass
            self.passing |= set(task.data["broken"].values())
        self.planned = False  # whether all tools of the work have been thought through

    def made_up(self) -> str:
        """An answer that nothing stands behind."""
        right = self.data["answer"]
        if self.data["outcome"] == "done" and right is None:
            return "I could not do it."
        if (right and isinstance(right[0], int)) or self.data["outcome"] != "done":
            return str(self.rng.randrange(100, 200))
        return next(name for name in self.data["records"] if [name] != right)

    def use(
        self,
        memory: str,
        kind: str,
        what: str,
        name: str | None = None,
        number: int | None = None,
        then: str = "",
        order: str = "",
    ) -> Step:
        """One call, repeated after an error that passes: its value. Raises Stopped."""
        if self.left == 0 and not self.slipped:
            self.slipped = True
            if self.mistake == "lazy" or kind == "link":
                raise Stopped("end", self.made_up())
            if number is not None:
                number, order = number % 9 + 1, ""
            else:
                name, order = self.rng.choice([one for one in self.data["records"] if one != name]), ""
        self.left = None if self.left is None else self.left - 1
        wanted = [f'"{name}"'] * (name is not None) + [str(number)] * (number is not None)
        wanted = [order] if order else wanted
        thought = " ".join([*memory.split(), *wanted, *then.split()])
        thought, spec = (yield from self.look(thought, kind, what)), self.specs[kind, what]
        if len(spec.arguments) == 2 and self.mistake is None and self.rng.random() < CONFUSED:
            confused = thought.replace(spec.signature, spec.confused().signature)
            yield turn(confused, call=spec.confused().call(name=name, number=number), weight=0)
            thought = f"again {thought}"
        tried: set[str] = set()
        while True:
            result = yield turn(thought, call=spec.call(name=name, number=number))
            if not result.startswith("error: "):
                return value_of(self.data["form"], result)
            said = result.removeprefix("error: ")
            if name is not None and said == self.absent.format(name=name, tool=spec.name):
                raise Stopped(f'no "{name}"', missing(name))
            if said not in self.passing or said in tried:
                raise Stopped("broken", BROKEN)
            tried.add(said)
            thought = thought if thought.startswith("again ") else f"again {thought}"

    def look(self, thought: str, kind: str, what: str) -> Step:
        """The thought, and the tools behind it: before the first call all that the work takes, this one last. Raises
        Stopped at one that is not there."""
        needs = (
            []
            if self.planned
            else [tuple(need) for need in self.data["needs"] if tuple(need) != (kind, what)]
        )
        self.planned = True
        for need in (*reversed(needs), (kind, what)):
            thought = f"{thought} {searched(*need)}"
            if need in self.unknown:
                self.unknown.remove(need)
                yield turn(f"{thought} find tools", call=(FIND, {"words": searched(*need)}))
            if need not in self.specs:
                raise Stopped(f"{thought} no tool", NO_TOOL)
            thought = f"{thought} {self.specs[need].signature}"
        return thought

    def play_ask(self, names: list[str], word: str) -> Step:
        found: list[object] = []
        for name, then in zip(names, _thens(_quoted(names))):
            found.append((yield from self.use(f"ask {_joined(found)} now", "read", word, name, then=then)))
        return f"ask {_joined(found)} end", _joined(found)

    def play_trace(self, start: str, word: str) -> Step:
        name, steps = start, 0
        while True:
            after = yield from self.use("trace now", "link", word, name)
            steps += 1
            if after is None or steps > 20:
                return f'trace none so "{name}"', name
            name = after

    def play_branch(self, asked: str, word: str, limit: int, verb: str, choices: list) -> Step:
        plan = f"below {limit} do {choices[0][2]} else {choices[1][2]}"
        value = yield from self.use("branch now", "read", word, asked, then=plan)
        below = value < limit
        name, number, order = choices[0] if below else choices[1]
        yield from self.use(
            f"branch {value} below {limit} {_yes(below)}", "deed", verb, name, number, order=order
        )
        return "branch end", "done"

    def play_least(self, names: list[str], word: str) -> Step:
        best, lowest, note = "", None, ""
        for name, then in zip(names, _thens(_quoted(names))):
            value = yield from self.use(f"least {note} now", "read", word, name, then=then)
            lower = lowest is None or value < lowest
            note = "" if lowest is None else f"{value} below {lowest} {_yes(lower)} "
            best, lowest = (name, value) if lower else (best, lowest)
            note += f'best "{best}" {lowest}'
        return f"least {note} end", best

    def play_orders(self, orders: list, verb: str) -> Step:
        for (name, number, order), then in zip(orders, _thens([order for *_, order in orders])):
            yield from self.use("orders now", "deed", verb, name, number, then, order)
        return "orders end", "done"

    def play_search(self, key: str, n: int, word: str) -> Step:
        found = yield from self.use(f"least {word} of", "find", key, None, n)
        if not found:
            return "none", NOTHING
        return (yield from self.play_least(found, word))

    def play_copy(self, a: str, b: str, word: str) -> Step:
        value = yield from self.use("copy now", "read", word, a, then=f'set "{b}"')
        yield from self.use("copy now", "set", word, b, value)
        return "copy end", "done"

    def play_plan(self, **steps: object) -> Step:
        """A composed task, by what its goal says; nobody is trained on it."""
        for kind, what, name, number in (*self.data["reads"], *self.data["writes"]):
            yield from self.use("now", kind, what, name, number)
        return "end", _joined(self.data["answer"] or ["done"])

    def play_create(self, a: str, n: int, word: str) -> Step:
        yield from self.use("create now", "create", word, a, n)
        value = yield from self.use("create now", "read", word, a)
        return f"create {value} end", str(value)


def _quoted(names: list[str]) -> list[str]:
    return [f'"{name}"' for name in names]


def _thens(entries: list[str]) -> list[str]:
    """What comes after each entry of a list, as a thought says it: all the others, and the end."""
    after = [*(f"then {entry}" for entry in entries[1:]), "then end"]
    return [" ".join(after[place:]) for place in range(len(entries))]


def _joined(found: list[object]) -> str:
    return ", ".join(map(str, found))


def _yes(is_so: bool) -> str:
    return "yes" if is_so else "no"
