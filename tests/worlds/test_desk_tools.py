"""The desk's tools: they evolve from domains, and each does what its kind says to records that change."""

import copy
import json
import random
from collections import Counter

import pytest

from kimi_mini.worlds.desk.application import Desk, tools
from kimi_mini.worlds.desk.domains import DOMAINS, TRAINED, UNSEEN
from kimi_mini.worlds.desk.evolution import KINDS, evolve, renamed
from kimi_mini.worlds.tools import Toolbox
from kimi_mini.worlds.tools.schema import compile_schema

# ---- evolution: every tool is executed ------------------------------------------------------------------------


def test_there_are_hundreds_of_tools_and_a_fifth_of_the_trades_is_held_out():
    trained, unseen = (
        [spec for domain in side for spec in evolve(domain.name)] for side in (TRAINED, UNSEEN)
    )
    assert len(DOMAINS) >= 12 and len(trained) >= 200 and len(unseen) >= 40
    assert {spec.kind for spec in trained} == {spec.kind for spec in unseen} == set(KINDS)
    assert len({spec.name for spec in trained}) > 150, "names of several applications, in several styles"


@pytest.mark.parametrize("domain", DOMAINS)
def test_names_of_one_application_differ_and_two_tools_never_do_the_same(domain):
    specs = evolve(domain)
    assert max(Counter((spec.application, spec.name) for spec in specs).values()) == 1
    assert max(Counter((spec.kind, spec.what) for spec in specs).values()) == 1
    assert specs == evolve.__wrapped__(domain) and specs != evolve.__wrapped__(domain, seed=1)


class Bench:
    """A tool beside a tool that sets the same number, over two records; `call` gives the result as JSON or text."""

    def __init__(self, spec, desk=Desk, **failing):
        numbers = {word: 11 + place for place, word in enumerate(DOMAINS[spec.domain].numbers)}
        records = {name: numbers | dict.fromkeys(DOMAINS[spec.domain].links) for name in ("fig", "Blue tea")}
        self.spec, self.desk = spec, desk(copy.deepcopy(records), **failing)
        self.box = Toolbox(tools([spec], self.desk, "{json}"))

    def call(self, name="fig", number=5, **more):
        called, arguments = self.spec.call(name=name, number=number)
        content = self.box.call(called, json.dumps(arguments | more)).content
        return content if content.startswith("error") else json.loads(content)


def does_its_kind(spec, desk=Desk):
    """Call the tool and look at what is there afterwards; a second state must be seen, not the first."""
    bench = Bench(spec, desk)
    records, what, before = bench.desk.records, spec.what, copy.deepcopy(bench.desk.records)
    if spec.kind == "read":
        assert bench.call() == before["fig"][what]
        bench.desk.use(next(s for s in evolve(spec.domain) if (s.kind, s.what) == ("set", what)), "fig", 77)
        assert bench.call() == 77 and bench.call("Blue tea") == before["Blue tea"][what]
    elif spec.kind == "link":
        assert bench.call() is None
        records["fig"][what] = "Blue tea"
        assert bench.call() == "Blue tea" and bench.call("Blue tea") is None
    elif spec.kind == "find":
        assert bench.call(number=before["fig"][what]) == ["fig", "Blue tea"] and bench.call(number=99) == []
        records["fig"][what] = 99
        assert bench.call(number=99) == ["fig"] and bench.call(number=before["fig"][what]) == ["Blue tea"]
    elif spec.kind == "create":
        assert bench.call("plum", 5) is True and records == before | {"plum": {what: 5}}
        assert bench.call("plum", 6) == 'error: there is "plum" already' and records["plum"] == {what: 5}
    else:
        after = {"set": before | {"fig": before["fig"] | {what: 5}}, "deed": before}
        assert bench.call() is True
        assert records == after.get(spec.kind, {"Blue tea": before["Blue tea"]})
    done = len(bench.desk.journal)
    if spec.kind not in ("find", "create"):
        assert bench.call("purple cow") == 'error: no "purple cow" here'
    assert bench.call(more=1).startswith("error: arguments") and len(bench.desk.journal) == done


@pytest.mark.parametrize("domain", DOMAINS)
def test_every_tool_does_what_its_kind_says(domain):
    """Under its own name, and under names that say nothing."""
    rng = random.Random(domain)
    for spec in evolve(domain):
        compile_schema(spec.schema)
        assert spec.description and spec.of(json.loads(json.dumps(spec.as_data()))) == spec
        for held_out in (None, False, True):
            does_its_kind(spec if held_out is None else renamed(rng, spec, held_out))


class Forgetful(Desk):
    """Mutant: answers by the records that it began with."""

    def __post_init__(self):
        self.first = Desk(copy.deepcopy(self.records))

    def use(self, spec, name, number):
        if spec.kind in ("read", "link", "find"):
            return self.first.use(spec, name, number)
        return super().use(spec, name, number)


class Idle(Desk):
    """Mutant: writes down what it should do, and does not do it."""

    def use(self, spec, name, number):
        before = copy.deepcopy(self.records)
        result = super().use(spec, name, number)
        self.records.update(before)
        self.records.pop("plum", None)
        return result


@pytest.mark.parametrize(
    ("kind", "mutant"),
    [("read", Forgetful), ("link", Forgetful), ("find", Forgetful)]
    + [(kind, Idle) for kind in ("set", "create", "harm")],
)
def test_a_tool_that_ignores_its_state_is_found_out(kind, mutant):
    for spec in evolve("zoo"):
        if spec.kind == kind:
            does_its_kind(spec)
            with pytest.raises(AssertionError):
                does_its_kind(spec, mutant)


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_comes_once_and_a_broken_tool_stays_broken(kind):
    """And a call that fails leaves nothing behind."""
    spec = next(spec for spec in evolve("farm") if spec.kind == kind)
    busy = Bench(spec, failures={1: "busy"})
    before = copy.deepcopy(busy.desk.records)
    assert busy.call("fig" if kind != "create" else "plum") == "error: busy"
    assert (busy.desk.records, busy.desk.journal, busy.desk.calls) == (before, [], 1)
    assert not str(busy.call("fig" if kind != "create" else "plum")).startswith("error")
    assert len(busy.desk.journal) == 1
    broken = Bench(spec, broken={spec.name: "out of order"})
    assert [broken.call() for _ in range(3)] == ["error: out of order"] * 3
    assert (broken.desk.records, broken.desk.journal) == (before, [])
