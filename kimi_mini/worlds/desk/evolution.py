"""Tools that evolve from domains: domain -> applications -> tools, by a seeded program.

Each domain gets three applications, and each of these names its tools in a style of its own. A tool is data (`Spec`):
what it does, its name, description and arguments; `desk.application` runs it. K2 synthesised more than 20,000 tools
that way, with a language model for our tables and templates.

Source: Kimi K2 report (arXiv 2507.20534) section 3.1.1, domain evolution.
"""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass, replace
from functools import lru_cache

from kimi_mini.worlds.desk.domains import DOMAINS, Deed, Domain
from kimi_mini.worlds.desk.language.words import identifier

KINDS = ("read", "link", "find", "deed", "set", "create", "harm")
APPLICATIONS = {"desk": ("read", "link"), "ledger": ("find", "set", "create"), "hands": ("deed", "harm")}


TYPES = {"name": "string", "number": "integer"}


@dataclass(frozen=True)
class Spec:
    """A tool as data: `what` is the number, link or verb that it is about, `counts` what its number is; arguments:
    (role, name, description), in the order of the schema, that of their names. Roles: name (a text), number (a whole
    number)."""

    domain: str
    application: str
    kind: str
    what: str
    thing: str
    plural: str
    counts: str
    name: str
    description: str
    arguments: tuple[tuple[str, str, str], ...]  # (role, name, description)

    @property
    def schema(self) -> dict:
        """JSON schema of the arguments."""
        properties = {
            name: {"type": TYPES[role]} | ({"description": text} if text else {})
            for role, name, text in self.arguments
        }
        return {"type": "object", "properties": properties, "required": list(properties)}

    @property
    def signature(self) -> str:
        """As a thought says it: .name(argument), with the types where there is more than one."""
        alone = len(self.arguments) == 1
        said = (name if alone else f"{name} {TYPES[role]}" for role, name, _ in self.arguments)
        return f".{self.name}({','.join(said)})"

    def call(self, **values: object) -> tuple[str, dict]:
        """Name and arguments of a call; values by role, in the order of the schema."""
        return self.name, {name: values[role] for role, name, _ in self.arguments}

    def confused(self) -> Spec:
        """The same with the roles of its two arguments exchanged: what a reader makes of it who mixes them up."""
        (role, first, _), (other, second, _) = self.arguments
        return replace(self, arguments=((other, first, ""), (role, second, "")))

    def as_data(self) -> dict:
        """For a task, which holds plain data."""
        return asdict(self)

    @classmethod
    def of(cls, data: dict) -> Spec:
        """What `as_data` gave, or the same read from JSON."""
        return cls(**{**data, "arguments": tuple(map(tuple, data["arguments"]))})


_VERBS = {
    "read": ("get", "read", "show", "tell"),
    "link": ("get", "follow", "name", "tell"),
    "find": ("find", "list", "search", "filter"),
    "set": ("set", "change", "write", "update"),
    "create": ("add", "new", "create", "enter"),
}
_STYLES = (
    lambda verb, what, app: f"{verb}_{what}",
    lambda verb, what, app: f"{what}-{verb}",
    lambda verb, what, app: verb + what.title().replace("_", ""),
    lambda verb, what, app: f"{app}_{verb}_{what}",
)
_DESCRIPTIONS = {
    "read": (
        "Gives the {what} of a {thing}.",
        "Tells the {what} of one {thing}.",
        "{what} of a {thing}",
        "Looks up {what} for the {thing} that is named.",
        "Use it to learn the {what} of a {thing}.",
        "read the {what} of one {thing}",
        "Answers how much {what} a {thing} has.",
        "Shows which {what} stands beside a {thing}.",
    ),
    "link": (
        "Gives the {what} of a {thing}, if there is one.",
        "Names the {what} of a {thing}.",
        "{what} of a {thing}, or none",
        "Leads from a {thing} to its {what}.",
        "follow the {what} of a {thing}",
        "Goes on from one {thing} to the {what} that it has.",
        "Says who or what is the {what} of a {thing}.",
        "One step along: from a {thing} to its {what}.",
    ),
    "find": (
        "Lists all {plural} with this {what}.",
        "Finds {plural} by {what}.",
        "{plural} that have the given {what}",
        "Searches the {plural} for one {what}.",
        "find every {thing} of that {what}",
        "Names the {plural} whose {what} is the number.",
        "Use it to find {plural} with a certain {what}.",
        "Which {plural} have this {what}?",
    ),
    "deed": (
        "Use it to {what} a {thing}.",
        "Lets you {what} a {thing}.",
        "{what}: for one {thing}",
        "Will {what} the {thing} that is named.",
        "do it: {what} a {thing}",
        "Call this to {what} one {thing}.",
        "Does one thing to a {thing}: {what}.",
        "For those who want to {what} a {thing}.",
    ),
    "set": (
        "Changes the {what} of a {thing}.",
        "Writes a new {what} for a {thing}.",
        "new {what} of a {thing}",
        "Sets {what} to a number.",
        "set the {what} of one {thing}",
        "Puts another {what} beside a {thing}.",
        "Use it to change which {what} a {thing} has.",
        "Makes the number the {what} of a {thing}.",
    ),
    "create": (
        "Adds a new {thing} with its {what}.",
        "Makes a {thing}, given name and {what}.",
        "new {thing} with a {what}",
        "Enters a {thing} that was not there, and its {what}.",
        "Use it to add one more {thing} with this {what}.",
        "Creates a new {thing}; it needs a {what}.",
        "one {thing} more, of that {what}",
        "Starts a new {thing}, {what} first.",
    ),
    "harm": (
        "Use it to {what} a {thing} for good.",
        "Will {what} a {thing}; this cannot be undone.",
        "{what}: gone for ever",
        "Lets you {what} a {thing}, which is then lost.",
        "remove a {thing}: {what}",
        "Does away with a {thing}: {what}.",
        "Call this to {what} a {thing}; there is no way back.",
        "Will {what} one {thing} and wipe what is known of it.",
    ),
}
_ROLES = {
    "read": ("name",),
    "link": ("name",),
    "harm": ("name",),
    "find": ("number",),
    "deed": ("name", "number"),
    "set": ("name", "number"),
    "create": ("name", "number"),
}


def deed_of(domain: Domain, verb: str) -> Deed:
    """The deed of a domain by its verb."""
    return next(deed for deed in domain.deeds if deed.verb == verb)


def _whats(domain: Domain, kind: str) -> tuple[str, ...]:
    """What the tools of a kind are about."""
    verbs = tuple(deed.verb for deed in domain.deeds)
    first = next(iter(domain.numbers))
    more = {"link": domain.links, "deed": verbs, "harm": domain.harms, "create": (first,)}
    return more.get(kind, tuple(domain.numbers))


def _number_name(domain: Domain, kind: str, what: str) -> str:
    unit = deed_of(domain, what).unit.split() if kind == "deed" else [what]
    return unit[-1] if unit else "count"


@lru_cache(maxsize=32)
def evolve(name: str, seed: int = 0) -> tuple[Spec, ...]:
    """All tools of the domain of that name, named by its applications."""
    return tools_of(DOMAINS[name], random.Random(f"{seed}/evolve/{name}"))


def tools_of(domain: Domain, rng: random.Random) -> tuple[Spec, ...]:
    """All tools of a domain; its applications draw their styles from `rng`."""
    specs: list[Spec] = []
    for application, kinds in APPLICATIONS.items():
        style, key = rng.choice(_STYLES), rng.choice((domain.thing, "name", "which", f"{domain.thing}_name"))
        for kind in kinds:
            verb = rng.choice(_VERBS.get(kind, ("",)))
            for what in _whats(domain, kind):
                called = style(verb, what, application) if verb else style(what, domain.thing, application)
                text = describe(rng, kind, what, domain.thing, domain.plural)
                counts = _number_name(domain, kind, what)
                names = {"name": key, "number": counts}
                roles = _ROLES[kind]
                arguments = tuple(sorted(((role, names[role], "") for role in roles), key=_by_name))
                specs.append(
                    Spec(
                        domain.name,
                        application,
                        kind,
                        what,
                        domain.thing,
                        domain.plural,
                        counts,
                        called,
                        text,
                        arguments,
                    )
                )
    return tuple(specs)


def describe(rng: random.Random, kind: str, what: str, thing: str, plural: str) -> str:
    """A description of a tool, in one of several wordings."""
    text = rng.choice(_DESCRIPTIONS[kind]).format(what=what, thing=thing, plural=plural)
    return text[0].upper() + text[1:] if rng.random() < 0.7 else text


def renamed(rng: random.Random, spec: Spec, held_out: bool = False) -> Spec:
    """The same tool under a name that says nothing, as are the names of its arguments; what the description says
    stays."""
    said = {"name": f"the {spec.thing}", "number": spec.counts}
    if spec.kind == "deed" and said["number"] == "count":
        said["number"] = "how many"
    names: list[str] = []
    while len(names) < len(spec.arguments):
        name = identifier(rng, held_out).lower().replace("-", "_")
        names += [name] if name not in names else []
    with_text = rng.random() < 0.5
    arguments = [
        (role, name, said[role] if with_text else "") for (role, _, _), name in zip(spec.arguments, names)
    ]
    return replace(spec, name=identifier(rng, held_out), arguments=tuple(sorted(arguments, key=_by_name)))


def _by_name(argument: tuple[str, str, str]) -> str:
    """Arguments stand in the order of their names, as K2's tokenizer sorts every key of a declaration."""
    return argument[1]
