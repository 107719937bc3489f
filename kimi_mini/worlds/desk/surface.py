"""What is drawn anew for each task around what it asks: tools, their names and order, results, errors, what is missing.

Every pool is split into a trained and a held-out part before anything is drawn. A `Surface` says which parts a task
takes: training takes the trained part of everything, each probe of the scoreboard the held-out part of one thing.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from kimi_mini.worlds.base import Task
from kimi_mini.worlds.desk.application import HELD_OUT_FORMATS, findable, form
from kimi_mini.worlds.desk.composed import composed
from kimi_mini.worlds.desk.domains import TRAINED, UNSEEN, Domain, made_up
from kimi_mini.worlds.desk.evolution import Spec, describe, renamed, tools_of
from kimi_mini.worlds.desk.language import wordings
from kimi_mini.worlds.desk.language.complaints import ABSENT, LASTING, PASSING, complaint
from kimi_mini.worlds.desk.language.words import names
from kimi_mini.worlds.desk.tasks import SIZES, Draft, Words, draft, quoted

SYSTEMS = (  # None: no system message at all, so that the template says its own
    None,
    "You are Kimi.",
    "You are Kimi.",
    "You are a helpful assistant.",
    "",
    "You work at a desk. Use the tools.",
    "Answer briefly.",
    "You are the assistant of a small company. Be exact.",
    "Help the user with the tools below.",
    "You are Kimi, a careful clerk.",
    "Do what the user asks, nothing else.",
    "Think first, then act.",
)
HELD_OUT_SYSTEMS = (
    "Act as a polite receptionist who never guesses.",
    "This is an automated service; requests come from staff.",
    "You support our team. Keep it short and factual!",
    "Role: back office agent\nLanguage: English",
    "Today is a busy day. Stay calm and consult your instruments.",
)
TRANSIENT = (
    "busy, try again",
    "time-out after 5 s, please repeat",
    "temporarily unavailable, retry",
    "connection lost, try once more",
    "rate limit, repeat the call",
)
HELD_OUT_TRANSIENT = (
    "overloaded just now, try again",
    "no reply within 3 s, retry",
    "network hiccup, repeat it",
)
BROKEN = ("out of order", "permission denied", "not allowed for this account", "switched off by the owner")
RENAMED = 0.5  # share of trajectories whose tools have names that say nothing
MADE_UP = 0.4  # share of trajectories in a domain whose every word is any word
DISTRACTORS = (0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 4, 6, 9)  # of a task in training, each as likely
FINDER = 0.06  # share of the tasks in training whose tools have to be found first
BEHIND = range(19, 59)  # how many distractors such a task has: 20 to 60 tools with those that it takes


@dataclass(frozen=True)
class Surface:
    """Which pools are the held-out ones, and what is forced: least number of distractors, an error, an outcome.

    breadth: how much of the trained pools is drawn from, of 1: training begins with one domain, few wordings and names
    of tools that say something, and widens. What is learned of few words carries over to many, and not the other way.
    Above 1 the later voices say the requests, too.
    """

    names: bool = False
    wordings: bool = False
    systems: bool = False
    formats: bool = False
    tools: bool = False
    domain: bool = False
    breadth: float = 1.0
    distractors: Sequence[int] = DISTRACTORS
    error: bool | None = None  # None: one in five
    outcome: str | None = None  # done, missing, no tool; None: as in training
    finder: float = 0.0  # chance that nothing is declared but `find_tools`
    plainly: bool = False  # as people type it, see `Words`


OUTCOMES = ("done",) * 75 + ("missing",) * 8 + ("no tool",) * 10 + ("talk",) * 4 + ("broken",) * 3


def dressed(rng: random.Random, family: str, pattern: str | int, size: int, surface: Surface) -> Task:
    """A task of a pattern of that size (or the composed one of that number) in a drawn surface."""
    domain = drawn(rng, surface)
    outcome = surface.outcome or rng.choice(OUTCOMES)
    if isinstance(pattern, int):
        made, text = composed(rng, pattern, domain)
    else:
        made, text = draft(
            rng,
            pattern,
            domain,
            size,
            Words(surface.names, surface.wordings, surface.breadth, surface.plainly),
        )
    if outcome == "missing" and (pattern in ("create", "search") or not made.asked):
        outcome = "no tool"
    talk = outcome == "talk" or (outcome == "no tool" and rng.random() < 0.3)
    if talk:
        outcome, text = "no tool", _talk(rng, made, surface)
    gone = _remove(rng, made) if outcome == "missing" else None
    finder = (
        random.Random(f"{text}/{made.records}").random() < surface.finder
    )  # by content: `rng` goes on as it was
    specs = _tools(rng, domain, made, surface, outcome == "no tool", finder)
    shape = rng.choice(HELD_OUT_FORMATS) if surface.formats else form(rng)
    system = rng.choice(HELD_OUT_SYSTEMS if surface.systems else SYSTEMS)
    errors = _errors(rng, made, specs, outcome, surface)
    about = {"pattern": pattern, "domain": domain.name, "outcome": outcome, "gone": gone, "form": shape}
    if surface.plainly:
        about["absent"] = complaint(rng, ABSENT)
    if talk:
        about["talk"] = True
    if finder:
        about["finder"], made.needs = True, [] if talk else made.needs
    return assembled(family, size, made, text, specs, system, errors, about)


def drawn(rng: random.Random, surface: Surface) -> Domain:
    """A domain: unseen, made up, or one of those that training has come to."""
    if surface.domain:
        return rng.choice(UNSEEN)
    if rng.random() < MADE_UP * max(0.0, 2 * min(1.0, surface.breadth) - 1):
        return made_up(rng)
    return rng.choice(TRAINED[: max(1, round(surface.breadth * len(TRAINED)))])


def assembled(
    family: str,
    size: int,
    made: Draft,
    text: str,
    specs: Sequence[Spec],
    system: str | None,
    errors: tuple[dict, dict],
    about: dict,
) -> Task:
    """All that was drawn as a task. errors: failures by the number of the call, and tools that never work; about: the
    pattern, domain, outcome, form, which thing is gone, "talk" if nothing is asked, "finder" if tools have to be
    found."""
    data = about | {
        "tools": [asdict(spec) for spec in specs],
        "failures": errors[0],
        "broken": errors[1],
        "system": system,
        "records": made.records,
        "steps": made.steps,
        "needs": [list(need) for need in made.needs],
        "reads": [list(read) for read in made.reads],
        "writes": [list(write) for write in made.writes],
        "answer": made.answer,
    }
    return Task("desk", family, size, text, data, system=system)


def _talk(rng: random.Random, made: Draft, surface: Surface) -> str:
    name = next(iter(made.records), None) or names(rng, 1)[0]
    name = quoted(rng, True)(name) if surface.plainly else f'"{name}"'
    return wordings.talk(
        rng, name, surface.wordings or surface.outcome is not None, surface.plainly, surface.breadth
    )


def _remove(rng: random.Random, made: Draft) -> str:
    """Take one of the things that the request names out of the records; its name."""
    gone = rng.choice(made.asked)
    if "asked" in made.steps:  # the one that is looked at, or the one that is to be chosen
        gone = rng.choice([made.steps["asked"], made.writes[0][2]])
    del made.records[gone]
    made.writes = [write for write in made.writes if write[2] != gone]
    if gone == made.steps.get("asked") or gone == made.steps.get("a"):
        made.writes = []
    return gone


def _tools(
    rng: random.Random, domain: Domain, made: Draft, surface: Surface, without: bool, finder: bool
) -> list[Spec]:
    """The tools that it takes (`without`: all but one of them), others that would not help, in any order. `finder`: so
    many that they have to be found; drawn until those that it takes can be."""
    of = {(spec.kind, spec.what): spec for spec in tools_of(domain, rng)}
    needs = list(made.needs)
    if without:
        needs.remove(rng.choice(needs))
    others = [spec for need, spec in of.items() if need not in made.needs]
    for other in (drawn(rng, surface), drawn(rng, surface)):
        whats = {what for _, what in made.needs} | set(sum(domain.numbers.values(), ()))
        if other.name != domain.name:
            others += [spec for spec in tools_of(other, rng) if spec.what not in whats]
    count = rng.choice(BEHIND if finder else surface.distractors) + (0 if needs else 1)
    while True:
        chosen = [of[tuple(need)] for need in needs] + rng.sample(others, min(count, len(others)))
        rng.shuffle(chosen)
        specs = named(rng, chosen, surface.tools, surface.breadth)
        if not finder or findable(specs, needs):
            return specs


def named(
    rng: random.Random, chosen: Sequence[Spec], held_out: bool = False, breadth: float = 1.0
) -> list[Spec]:
    """The tools under the names of their applications, or all of them under names that say nothing; described anew, no
    name twice."""
    anonymous, taken = held_out or rng.random() < RENAMED * min(1.0, 2 * breadth), {}
    for spec in chosen:
        one = replace(spec, description=describe(rng, spec.kind, spec.what, spec.thing, spec.plural))
        one = renamed(rng, one, held_out) if anonymous else one
        while one.name in taken:
            one = renamed(rng, one, held_out)
        taken[one.name] = one
    return list(taken.values())


def _errors(rng: random.Random, made: Draft, specs: list[Spec], outcome: str, surface: Surface):
    """Failures by the number of the call (once), and tools that never work."""
    first = next((spec.name for spec in specs if (spec.kind, spec.what) == made.needs[0]), "")
    if outcome == "broken":
        forms = rng.choice((PASSING, LASTING))
        return {}, {
            first: complaint(rng, forms).format(tool=first) if surface.plainly else rng.choice(BROKEN)
        }
    wanted = rng.random() < 0.2 if surface.error is None else surface.error
    if outcome == "no tool" or not wanted:
        return {}, {}
    call = rng.randint(1, max(1, len(made.reads) + len(made.writes))) if outcome == "done" else 1
    if surface.plainly:
        return {str(call): complaint(rng, PASSING).format(tool=first)}, {}
    return {str(call): rng.choice(HELD_OUT_TRANSIENT if surface.error else TRANSIENT)}, {}


def sizes(pattern: str) -> range:
    """The sizes in which a pattern is trained."""
    return SIZES[pattern]
