"""The checker for a probe (notebook 06): find the tool that a filter of single calls lets through.

Tools that evolve are executed before anybody is trained on them. One call a tool shows that it runs; whether it has a
state, and keeps to it, shows only in the calls behind it. Here an application of world `desk` has one tool that answers
its first call as it should, and is broken all the same.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from kimi_mini.course.exercises.base import Checked, Hint, checker, value_of
from kimi_mini.worlds.desk.application import Desk, tools
from kimi_mini.worlds.desk.domains import DOMAINS
from kimi_mini.worlds.desk.evolution import Spec, evolve
from kimi_mini.worlds.desk.language.words import names
from kimi_mini.worlds.tools import Toolbox

SUITE = ("read", "find", "set", "create", "harm")  # the tools that are given to a probe
DOMAINS_TRIED = ("zoo", "harbour", "library")
MOST = 40  # calls of a probe
RIGHT = "right"  # what a probe says when no tool is broken


@dataclass
class Frozen(Desk):
    """The tool of this kind answers from the records that the desk began with."""

    kind: str = ""

    def __post_init__(self) -> None:
        self.first = Desk(copy.deepcopy(self.records))

    def use(self, spec: Spec, name: str | None, number: int | None) -> object:
        if spec.kind == self.kind:
            return self.first.use(spec, name, number)
        return super().use(spec, name, number)


@dataclass
class Remembers(Desk):
    """The tool of this kind answers a question as it did when it was asked it first."""

    kind: str = ""
    told: dict = field(default_factory=dict)

    def use(self, spec: Spec, name: str | None, number: int | None) -> object:
        value = super().use(spec, name, number)
        return self.told.setdefault((name, number), value) if spec.kind == self.kind else value


@dataclass
class Forgets(Desk):
    """The tool of this kind says that it has written, and has not; `after`: so many calls go well."""

    kind: str = ""
    after: int = 0

    def use(self, spec: Spec, name: str | None, number: int | None) -> object:
        before = copy.deepcopy(self.records)
        value = super().use(spec, name, number)
        if spec.kind == self.kind:
            self.records = before if self.after <= 0 else self.records
            self.after -= 1
        return value


@dataclass
class Elsewhere(Desk):
    """The tool of this kind acts upon the first record, whichever it is told."""

    kind: str = ""

    def use(self, spec: Spec, name: str | None, number: int | None) -> object:
        misled = spec.kind == self.kind and name in self.records
        return super().use(spec, next(iter(self.records)) if misled else name, number)


BROKEN = (  # (kind of the tool, how it is broken, in words)
    ("read", Frozen, {}, "answers from the records that it began with"),
    ("find", Frozen, {}, "answers from the records that it began with"),
    ("read", Remembers, {}, "answers a question as it did the first time"),
    ("find", Remembers, {}, "answers a question as it did the first time"),
    ("set", Forgets, {}, "says that it has written, and has not"),
    ("create", Forgets, {}, "says that it has written, and has not"),
    ("harm", Forgets, {}, "says that it has removed, and has not"),
    ("set", Forgets, {"after": 1}, "writes once and never again"),
    ("set", Elsewhere, {}, "writes to the first record, whichever it is told"),
)


class Bench:
    """A desk of some records with one tool of each kind, and the calls that were made of it."""

    def __init__(self, domain: str, desk: type[Desk] = Desk, **options: object):
        rng, word = random.Random(domain), next(iter(DOMAINS[domain].numbers))
        self.names = names(rng, 3, held_out=True)
        numbers = rng.sample(range(1, 100), 3)
        records = {name: {word: number} for name, number in zip(self.names, numbers)}
        specs = [spec for spec in evolve(domain) if spec.kind == "harm" or spec.what == word]
        self.specs = {spec.kind: spec for spec in reversed(specs) if spec.kind in SUITE}
        self.box = Toolbox(tools(list(self.specs.values()), desk(records, **options), "{json}"))
        self.calls = 0

    def call(self, kind: str, name: str | None = None, number: int | None = None) -> object:
        """What that tool answers: a number, a list of names, True, or a text that begins with "error". Raises
        LookupError for a kind that is not there, RuntimeError for a call too many."""
        if kind not in self.specs:
            raise LookupError(f"no tool {kind!r}; there are {', '.join(SUITE)}")
        self.calls += 1
        if self.calls > MOST:
            raise RuntimeError(f"more than {MOST} calls; tools come by the thousand, a probe has to be short")
        called, values = self.specs[kind].call(name=name, number=number)
        content = self.box.call(
            called, json.dumps({k: v for k, v in values.items() if v is not None})
        ).content
        return content if content.startswith("error") else json.loads(content)


@checker
def check_probe(function: Callable[[Callable[..., object], list[str]], str]) -> Checked:
    """function(call, names) is the kind of the broken tool, or "right".

    call(kind, name=..., number=...) runs a tool; names: the records that are there.
    """
    for domain in DOMAINS_TRIED:
        bench = Bench(domain)
        said = value_of(function, bench.call, list(bench.names))
        if not isinstance(said, str) or said not in (*SUITE, RIGHT):
            raise Hint(f"return one of {', '.join(SUITE)}, or {RIGHT!r}; not {said!r:.60}")
        if said != RIGHT:
            raise Hint(f"a false alarm: no tool is broken, and your probe says {said!r}")
        if not bench.calls:
            raise Hint("your probe makes no call")
    for kind, desk, options, how in BROKEN:
        for domain in DOMAINS_TRIED:
            bench = Bench(domain, desk, kind=kind, **options)
            said = value_of(function, bench.call, list(bench.names))
            if said == RIGHT:
                raise Hint(f"let through: `{kind}` {how}")
            if said != kind:
                raise Hint(f"`{kind}` {how}, and your probe blames {said!r}: ask a second witness")
    return Checked(
        True, f"{len(BROKEN)} broken tools named in each of {len(DOMAINS_TRIED)} trades, no false alarm"
    )
