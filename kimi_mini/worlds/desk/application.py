"""An application at work: records and a journal, and the tools of `evolution` as functions over them.

Deterministic but for the failures that a task asks for by the number of the call: "busy" comes once and does nothing,
a tool that is "broken" never works. Everything that was read, done or destroyed stands in the journal, in its order, so
that a verifier can tell looking from guessing.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from kimi_mini.worlds.base import Environment, Task
from kimi_mini.worlds.desk.evolution import Spec
from kimi_mini.worlds.desk.language.words import word
from kimi_mini.worlds.tools import Finder, Tool, Toolbox, ToolError

SAID = dict(read="read", link="follow", find="find", deed="do", set="set", create="new", harm="remove")


class DeskError(ToolError):
    """What the application says when it cannot: the model reads this text."""


class Entry(NamedTuple):
    """A line of the journal: what kind of tool was used, what it is about, on which record, with which number."""

    kind: str
    what: str
    name: str | None
    number: int | None


@dataclass
class Desk:
    """The state of a task: records (name -> {number or link: value}), journal, failures (number of a call -> text)."""

    records: dict[str, dict]
    failures: dict[int, str] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)  # name of a tool that never works -> text
    journal: list[Entry] = field(default_factory=list)
    absent: str = 'no "{name}" here'  # what it says of a thing that is not there; {tool} may stand in it, too
    calls: int = 0
    vain: set[str] = field(
        default_factory=set
    )  # tools that never work and things that are not there, once tried

    def use(self, spec: Spec, name: str | None, number: int | None) -> object:
        """Run a tool: a value for `read` and `link`, a list of names for `find`, else True. Raises DeskError."""
        self.calls += 1
        if text := self.broken.get(spec.name):
            self.vain.add(spec.name)
            raise DeskError(text)
        if text := self.failures.pop(self.calls, None):
            raise DeskError(text)
        if spec.kind == "create":
            if name in self.records:
                raise DeskError(f'there is "{name}" already')
            self.records[name] = {spec.what: number}
        elif spec.kind != "find" and name not in self.records:
            self.vain.add(name)
            raise DeskError(self.absent.format(name=name, tool=spec.name))
        self.journal.append(Entry(spec.kind, spec.what, name, number))
        if spec.kind in ("read", "link"):
            return self.records[name].get(spec.what)
        if spec.kind == "find":
            return [one for one, record in self.records.items() if record.get(spec.what) == number]
        if spec.kind == "set":
            self.records[name][spec.what] = number
        if spec.kind == "harm":
            del self.records[name]
        return True


# How a result is written: {key} what was asked for, {name} of which record, {value} plain, {json} as JSON has it.
FORMATS = (
    '{{"{key}":{json}}}',
    '{{"{key}": {json}}}',
    "{value}",
    "{key}: {value}",
    '{{"name":"{name}","{key}":{json}}}',
    '{{"ok":true,"result":{json}}}',
    "The {key} is {value}.",
    '{{"{key}":{json},"of":"{name}","note":null}}',
    "{json}",
)
LISTED = 0.3  # share of results in one of FORMATS; the others are in a form of their own, drawn by `form`
HELD_OUT_FORMATS = (
    "{key}={value}",
    "{name} -> {value}",
    '[{{"{key}": {json}, "checked": true}}]',
    "<{key}>{value}</{key}>",
    "result\n- {key}: {value}",
)


SAYINGS = (  # {word} is any word
    *("{key} {value}", "{value} {key}", "{value} is the {key}", "{key} of {name}: {value}", "{key}, {value}"),
    *("The {key} of {name} is {value}.", "{word}: {value}", "{word} {value}", "{word} {key}: {value} {word}"),
    *(
        "{value} ({word})",
        "I found {value}",
        "answer: {value}",
        "{name}: {value}",
        "{key} | {value}",
        "{value}\n{word}",
    ),
    *(
        "{word}\n{key} {value}",
        "({key}) {value}",
        "{name}, {key}: {value}.",
        "{key} is now {value}",
        "[{key}] {value}",
    ),
)
FIELDS = (  # beside the value, in an object
    *('"of":"{name}"', '"name":"{name}"', '"ok":true', '"{word}":null', '"{word}":true', '"{word}":false'),
    *('"{word}":""', '"status":"{word}"', '"{word}":"{word}"', '"{word}":[]', '"source":"{word} {word}"'),
)


def form(rng: random.Random) -> str:
    """A form for the results of a task: one of FORMATS, or one that is made for it. Whoever sees nine forms knows nine
    by heart; a number has to be found wherever it stands."""
    if rng.random() < LISTED:
        return rng.choice(FORMATS)
    if rng.random() < 0.5:
        return _with_words(rng, rng.choice(SAYINGS))
    after = rng.choice(("", " "))
    key = rng.choice(("{key}", "{key}", "{key}", "result", "value", "data", "answer"))
    said = [f'"{key}":{after}{{json}}']
    others = (
        FIELDS if key == "{key}" else FIELDS[:6]
    )  # beside a key that says nothing a text would be another answer
    fields = [field.replace(":", f":{after}", 1) for field in rng.sample(others, rng.choice((0, 1, 1, 2, 3)))]
    place = rng.randint(0, len(fields))
    inside = f",{after}".join([*fields[:place], *said, *fields[place:]])
    whole = f"{{{{{inside}}}}}"
    if rng.random() < 0.15:
        whole = f'{{{{"{{word}}":{after}{whole}}}}}'
    return _with_words(rng, whole)


def _with_words(rng: random.Random, form: str) -> str:
    """The form with a word of training in each place for one."""
    while "{word}" in form:
        form = form.replace("{word}", word(rng), 1)
    return form


def written(form: str, key: str, name: str | None, value: object) -> str:
    """A result in that form; no value is null or none, several are listed."""
    plain = "none" if value is None else value
    if isinstance(value, list):
        plain = ", ".join(f'"{one}"' for one in value) or "none"
    if value is True:
        plain = "done"
    return form.format(key=key, name=name or "all", value=plain, json=json.dumps(value))


def value_of(form: str, result: str) -> object:
    """What a result in that form says: a number, a name, a list of names, None; reads what `written` wrote."""
    pattern = re.escape(form.replace("{{", "{").replace("}}", "}"))
    for slot in ("key", "name"):
        pattern = pattern.replace(re.escape(f"{{{slot}}}"), ".*?")
    is_json = "{json}" in form
    pattern = pattern.replace(re.escape("{json}" if is_json else "{value}"), "(.*)")
    text = re.fullmatch(pattern, result, re.DOTALL)[1]
    if is_json:
        return json.loads(text)
    if re.search(r'^"', text):
        return re.findall(r'"(.*?)"', text)
    return None if text == "none" else int(text) if text.isdecimal() else text


def tool(spec: Spec, desk: Desk, form: str) -> Tool:
    """The tool of a spec over a desk, which answers in that form."""
    roles = {name: role for role, name, _ in spec.arguments}

    def function(**arguments: object) -> str:
        given = {roles[name]: value for name, value in arguments.items()}
        name, number = given.get("name"), given.get("number")
        value = desk.use(spec, name, number)
        return written(form, "status" if value is True else spec.what, name, value)

    return Tool(spec.name, spec.description, spec.schema, function, made=True)


def tools(specs: Sequence[Spec], desk: Desk, form: str) -> list[Tool]:
    """All tools of a task."""
    return [tool(spec, desk, form) for spec in specs]


def open_environment(task: Task) -> Environment:
    """Fresh records, and the declared tools over them."""
    data = task.data
    failures = {int(call): text for call, text in data["failures"].items()}
    records = {name: dict(record) for name, record in data["records"].items()}
    desk = Desk(records, failures, dict(data["broken"]))
    desk.absent = data.get("absent", desk.absent)
    box = Finder if data.get("finder") else Toolbox
    return Environment(
        box(tools(list(map(Spec.of, data["tools"])), desk, data["form"]), canonical=True), desk
    )


def searched(kind: str, what: str) -> str:
    """The words by which a clerk looks for a tool."""
    return f"{SAID[kind]} {what}"


def findable(specs: Sequence[Spec], needs: Sequence[tuple[str, str]]) -> bool:
    """Whether a search for each of these tools, given as kind and word, finds it."""
    box, names = Finder(tools(specs, Desk({}), "")), {(s.kind, s.what): s.name for s in specs}
    return all(f'"name":"{names[need]}"' in box.find(searched(*need)) for need in needs)
