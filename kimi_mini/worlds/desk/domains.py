"""Domains: what a desk can be about. Plain data, from which `evolution` makes the tools.

A domain names a thing; numbers that each thing has, with the words that people use for them; links from one thing
to another; deeds, which take a thing and a number; and ways to be rid of a thing, which no task asks for. Words are
those of the trade; in a domain that is made up, any words. Domains of `HELD_OUT` are in no training stream: an agent
that can work there reads.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field

from kimi_mini.worlds.desk.language.words import word


@dataclass(frozen=True)
class Deed:
    """Something done to a thing, a number of times or for a number: `verb` a thing `unit`; "reserve X for 3 days"."""

    verb: str
    unit: str

    def words(self, name: str, number: object) -> str:
        """How people say it: "3 X" for a plain number, "X for 3 days" for one with a unit; without the verb."""
        return f"{name} {self.unit.replace('#', str(number))}" if self.unit else f"{number} {name}"


@dataclass(frozen=True)
class Domain:
    """name, thing, plural; numbers: word -> other words for it; links; deeds; harms: verbs that destroy; catalogue:
    what the things are called, where they are always the same ones."""

    name: str
    thing: str
    plural: str
    numbers: dict[str, tuple[str, ...]]
    links: tuple[str, ...]
    deeds: tuple[Deed, ...]
    harms: tuple[str, ...]
    catalogue: tuple[str, ...] = field(default=(), repr=False)


def _domain(name: str, things: str, numbers: str, links: str, deeds: str, harms: str) -> Domain:
    thing, plural = things.split("/")
    words = [entry.split("=") for entry in numbers.split()]
    return Domain(
        name,
        thing,
        plural,
        {word: tuple(others[0].split(",")) if others else () for word, *others in words},
        tuple(links.split()),
        tuple(
            Deed(verb, unit) for verb, _, unit in (deed.strip().partition(" ") for deed in deeds.split(";"))
        ),
        tuple(harms.split()),
    )


_ALL = (
    _domain(
        "shop",
        "item/items",
        "price=cost stock=supply weight=mass rating=score",
        "next neighbour",
        "buy; order; lend for # days",
        "discard return",
    ),
    _domain(
        "kitchen",
        "dish/dishes",
        "calories=energy minutes=time salt servings=portions",
        "side sauce",
        "cook; serve; chill for # hours",
        "burn bin",
    ),
    _domain(
        "garden",
        "plant/plants",
        "height=size age water=thirst petals",
        "neighbour parent",
        "plant; water with # litres; shade for # weeks",
        "uproot mow",
    ),
    _domain(
        "school",
        "pupil/pupils",
        "mark=grade age=years absences row",
        "friend tutor",
        "praise # times; award; teach for # lessons",
        "expel suspend",
    ),
    _domain(
        "harbour",
        "ship/ships",
        "length crew=sailors cargo=load draught=depth",
        "escort follower",
        "load with # crates; tow for # miles; paint # times",
        "sink scrap",
    ),
    _domain(
        "museum",
        "painting/paintings",
        "year=date room value=worth width",
        "copy pendant",
        "show for # weeks; clean # times; lend for # months",
        "sell destroy",
    ),
    _domain(
        "garage",
        "car/cars",
        "mileage=distance power seats=places doors",
        "trailer spare",
        "repair for # hours; wash # times; hire for # days",
        "crush tow",
    ),
    _domain(
        "clinic",
        "patient/patients",
        "pulse=heartbeat bed temperature=fever visits",
        "carer relative",
        "examine # times; treat for # days; give # doses",
        "dismiss forget",
    ),
    _domain(
        "warehouse",
        "box/boxes",
        "volume aisle=lane units=pieces level",
        "below above",
        "ship; stack; store for # months",
        "shred empty",
    ),
    _domain(
        "post",
        "parcel/parcels",
        "postage=fee grams=weight stamps zone=district",
        "sender reply",
        "send; stamp # times; hold for # days",
        "lose refuse",
    ),
    _domain(
        "zoo",
        "animal/animals",
        "legs cage=pen food=feed speed=pace",
        "mother mate",
        "feed; weigh # times; watch for # hours",
        "release sell",
    ),
    _domain(
        "cinema",
        "film/films",
        "duration=minutes screen=hall seats=places votes",
        "sequel remake",
        "screen # times; book for # people; advertise for # weeks",
        "cancel cut",
    ),
    _domain(
        "farm",
        "field/fields",
        "acres=area harvest=yield slope cows=cattle",
        "upstream border",
        "plough # times; sow with # sacks; rest for # years",
        "flood burn",
    ),
    _domain(
        "library",
        "book/books",
        "shelf pages copies chapters",
        "continuation translation",
        "reserve for # evenings; renew # times; donate",
        "withdraw pulp",
    ),
    _domain(
        "airport",
        "flight/flights",
        "gate passengers altitude delay",
        "connection diversion",
        "announce # times; refuel with # tonnes; charter for # nights",
        "ground divert",
    ),
    _domain(
        "workshop",
        "violin/violins",
        "strings lacquer tension resonance",
        "predecessor twin",
        "tune # semitones; polish # times; rent for # concerts",
        "dismantle smash",
    ),
)

HELD_OUT = ("library", "airport", "workshop")
DOMAINS = {domain.name: domain for domain in _ALL}
TRAINED = tuple(domain for domain in _ALL if domain.name not in HELD_OUT)
UNSEEN = tuple(DOMAINS[name] for name in HELD_OUT)
_OF_UNSEEN = set(re.findall("[a-z]+", str(UNSEEN)))
_UNITS = ("", "# times", "for # {}", "with # {}")


def made_up(rng: random.Random) -> Domain:
    """A domain whose every word is any word: what it is about can only be read. None is a word of an unseen domain."""
    said: list[str] = []
    while len(said) < 15:
        one = word(rng)
        said += [one] if one not in said and one not in _OF_UNSEEN else []
    thing, *said = said
    deeds = tuple(Deed(verb, rng.choice(_UNITS).format(unit)) for verb, unit in zip(said[:3], said[3:6]))
    numbers = dict.fromkeys(said[6:10], ())
    return Domain("made up", thing, f"{thing}s", numbers, tuple(said[10:12]), deeds, tuple(said[12:14]))
