"""Exercise sheets: one list of tools, and many requests worked on in shorthand.

What a trajectory turns on is small: which of these tools is meant, what it and its arguments are called, which name to
put in. A trajectory of 600 tokens holds that once or twice, a sheet twenty times. Three kinds:

    sheet      nine requests worked on to the end; or each tool asked for once, and some that are not there: what
               stands in an earlier line would be copied from it
    begun      requests as people type them, and the first thought of each: is there a tool, what is it about
    spelling   names and verbs as a sentence writes them, and as a thought does: other tokens of the same word
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

from kimi_mini.worlds.base import Sheet, Task
from kimi_mini.worlds.desk.application import SAID, Desk, form, open_environment, tools
from kimi_mini.worlds.desk.domains import Domain
from kimi_mini.worlds.desk.evolution import Spec, tools_of
from kimi_mini.worlds.desk.language import wordings
from kimi_mini.worlds.desk.language.words import everyday, names, word
from kimi_mini.worlds.desk.play.clerk import NO_TOOL, expert
from kimi_mini.worlds.desk.surface import Surface, assembled, drawn, named
from kimi_mini.worlds.desk.tasks import PATTERNS, SIZES, Words, draft, quoted
from kimi_mini.worlds.tools import Toolbox

REQUESTS = 9  # of a sheet whose requests are worked on to the end
DECLARED = range(6, 13)
LOOKED_UP = range(8, 17)
BEGUN, FEW = 10, range(1, 9)  # requests of a sheet of first thoughts, and tools that it declares
TALK, REFUSED = 0.1, 0.25  # shares of talk, and of what no tool serves
SPELT, SPELLING = 40, 0.3  # lines of a sheet of spelling; share of these sheets


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


def plain_sheet(rng: random.Random, breadth: float = 1.0) -> Sheet:
    """First thoughts on what people type, or spelling."""
    return spelling(rng) if rng.random() < SPELLING else begun(rng, breadth)


def begun(rng: random.Random, breadth: float = 1.0) -> Sheet:
    """Declarations, then requests as people type them, each with the first thought on it, which is learned."""
    domain = drawn(rng, Surface(breadth=breadth))
    of = tools_of(domain, rng)
    chosen = _some(rng, domain, of, breadth)
    declared, pieces, left = {(spec.kind, spec.what) for spec in chosen}, [], BEGUN
    kind = _kind(rng)
    while left:
        if kind == "talk":
            said = wordings.talk(
                rng, quoted(rng, True)(names(rng, 1, plainly=True)[0]), plainly=True, breadth=breadth
            )
            pieces += [(f"\n{said}\n", False), (f"no tool {NO_TOOL}", True)]
            left, kind = left - 1, _kind(rng)
            continue
        pattern = rng.choice(list(PATTERNS))
        made, text = draft(
            rng, pattern, domain, rng.choice(SIZES[pattern][:3]), Words(breadth=breadth, plainly=True)
        )
        done = set(made.needs) <= declared
        if done is not (kind == "done"):
            continue
        about = {"pattern": pattern, "domain": domain.name, "gone": None, "form": "{value}"}
        about["outcome"] = "done" if done else "no tool"
        task = assembled(pattern, 1, made, text, chosen, None, ({}, {}), about)
        if not task.held_out:
            first = next(expert(task, rng))
            thought = f"{first['reasoning_content']} {first.get('content') or ''}".rstrip()
            pieces += [(f"\n{text}\n", False), (thought, first.get("weight", 1) != 0)]
            left, kind = left - 1, _kind(rng)
    return [(_declared(chosen), False), *pieces]


def _kind(rng: random.Random) -> str:
    """Of a request: done, no tool, or talk."""
    return rng.choices(("talk", "no tool", "done"), (TALK, REFUSED, 1 - TALK - REFUSED))[0]


def _some(rng: random.Random, domain: Domain, of: Sequence[Spec], breadth: float) -> list[Spec]:
    """A few tools: those of one pattern, so that something can be done, and others."""
    made, _ = draft(rng, rng.choice(list(PATTERNS)), domain, 2, Words(breadth=breadth, plainly=True))
    needed = [spec for spec in of if (spec.kind, spec.what) in made.needs]
    others = [spec for spec in of if spec not in needed]
    chosen = needed + rng.sample(others, min(len(others), rng.choice(FEW) - 1))
    rng.shuffle(chosen)
    return named(rng, chosen, breadth=breadth)


def spelling(rng: random.Random) -> Sheet:
    """Names and verbs out of the middle or the head of a line, and what a thought makes of them."""
    pieces: Sheet = []
    for _ in range(SPELT):
        name, verb, number = names(rng, 1, plainly=True)[0], everyday(rng), rng.randrange(1, 100)
        head = verb if rng.random() < 0.5 else wordings.capital(verb)
        lines = (
            (f"{number} {name}: {head}", f' {number} "{name}" do {verb}'),
            (f"{head} {number} {name}.", f' {number} "{name}" do {verb}'),
            (f"{head} of {name}", f' "{name}" read {verb}'),
            (f"{word(rng)} {name}", f' now "{name}" then end'),
        )
        said, thought = rng.choice(lines)
        pieces += [(f"\n{said}", False), (thought, True)]
    return pieces
