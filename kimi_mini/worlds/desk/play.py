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

What a trajectory turns on is small: which of these tools is meant, what it and its arguments are called, which name to
put in. A trajectory of 600 tokens holds that once or twice; an exercise sheet, one list of tools and nine requests
worked on in shorthand, twenty times. Half of the sheets ask for each tool once, and for some that are not there: what
stands in an earlier line would be copied from it.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Generator, Sequence

from kimi_mini.worlds.base import Expert, Message, Sheet, Task, turn
from kimi_mini.worlds.desk.application import SAID, Desk, form, open_environment, searched, tools, value_of
from kimi_mini.worlds.desk.evolution import Spec, tools_of
from kimi_mini.worlds.desk.surface import HELD_OUT_TRANSIENT, TRANSIENT, Surface, assembled, drawn, named
from kimi_mini.worlds.desk.tasks import PATTERNS, SIZES, Words, draft
from kimi_mini.worlds.tools import FIND, Toolbox

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
        while True:
            result = yield turn(thought, call=spec.call(name=name, number=number))
            if not result.startswith("error: "):
                return value_of(self.data["form"], result)
            if result.removeprefix("error: ").startswith("no "):
                gone = re.search('"(.*)"', result)
                if gone:
                    raise Stopped(f'no "{gone[1]}"', missing(gone[1]))
            if result.removeprefix("error: ") not in (*TRANSIENT, *HELD_OUT_TRANSIENT):
                raise Stopped("broken", BROKEN)
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


# -- sheets ---------------------------------------------------------------------------------------------

REQUESTS = 9
DECLARED = range(6, 13)
LOOKED_UP = range(8, 17)


def sheet(rng: random.Random, breadth: float = 1.0) -> Sheet:
    """Declarations, then for each request what the expert thinks and what the tools answer; thoughts are learned. One
    sheet in two asks for nothing but the tool: kind and word, then its name and arguments."""
    domain = drawn(rng, Surface(breadth=breadth))
    of, short = tools_of(domain, rng), rng.random() < 0.5
    count = min(len(of), rng.choice(LOOKED_UP if short else DECLARED))
    chosen = named(rng, rng.sample(of, count), breadth=breadth)
    declared = {(spec.kind, spec.what) for spec in chosen}
    if short:
        return [(_declared(chosen), False), *_looked_up(rng, of, chosen)]
    shape, pieces, left = form(rng), [], REQUESTS
    while left:
        pattern = rng.choice(list(PATTERNS))
        made, text = draft(rng, pattern, domain, rng.choice(SIZES[pattern][:2]), Words(breadth=breadth))
        done = set(made.needs) <= declared
        if not done and rng.random() < 0.9:  # most requests can be met
            continue
        outcome = "done" if done else "no tool"
        about = {"pattern": pattern, "domain": domain.name, "outcome": outcome, "gone": None, "form": shape}
        task = assembled(pattern, 1, made, text, chosen, None, ({}, {}), about)
        if not task.held_out:
            pieces += _worked_on(task, rng)
            left -= 1
    return [(_declared(chosen), False), *pieces]


def _declared(chosen: list[Spec]) -> str:
    box = Toolbox(tools(chosen, Desk({}), "{value}"), canonical=True)
    return json.dumps(box.declarations(), separators=(",", ":"))


def _looked_up(rng: random.Random, every: Sequence[Spec], chosen: Sequence[Spec]) -> Sheet:
    """The end of a thought for each of the tools of a domain, of which the chosen ones are there."""
    there = {(spec.kind, spec.what): spec for spec in chosen}
    asked = [(spec.kind, spec.what) for spec in every]
    absent = [need for need in asked if need not in there]
    lines = [*there, *rng.sample(absent, min(len(absent), len(there) // 4))]
    pieces: Sheet = []
    for kind, what in rng.sample(lines, len(lines)):
        spec = there.get((kind, what))
        pieces += [(f"\n{SAID[kind]} {what}", False), (f" {spec.signature}" if spec else " no tool", True)]
    return pieces


def _worked_on(task: Task, rng: random.Random) -> Sheet:
    """A task in shorthand: request, then thoughts and results in turn, a line each."""
    environment, script = open_environment(task), expert(task, rng)
    pieces, message = [(f"\n{task.prompt}\n", False)], next(script)
    while message.get("tool_calls"):
        call = message["tool_calls"][0]["function"]
        result = environment.toolbox.call(call["name"], call["arguments"]).content
        learned = message.get("weight", 1) != 0
        pieces += [(message["reasoning_content"], learned), (f"\n{result}\n", False)]
        message = script.send(result)
    return [*pieces, (f"{message['reasoning_content']} {message['content']}", True)]
