"""Rephrasing: the same facts in other words, a chunk at a time, and a check that no fact was changed.

K2 reads a text of knowledge once in each of several wordings instead of many times in one. A model rewrites it chunk by
chunk, with what it has already written as context, and a second look compares every chunk with its source. Here all
three parts are small enough to read: pages about people who do not exist, a rewriter that is a grammar, a check that
reads both texts into (person, attribute, value).

    page(people)             the raw text: every person in the same four sentences, all but the first with a pronoun
    rewrite(text, rng)       chunk after chunk: write, check, and write again when the check finds something
    problems(...)            the check: words from nowhere; facts that were lost, changed or made up

`planting` puts errors into a rewrite to measure the check.

Source: Kimi K2 report (arXiv 2507.20534) section 2.2, rephrasing for knowledge data.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

FIRST = {
    "she": "Alma Berta Clara Dora Edda Flora Greta Hanna Ida Jette Klara Lena Mara Nora Olga Paula Rosa Selma".split(),
    "he": "Anton Bruno Carl David Emil Felix Georg Hugo Ivan Jakob Karl Leon Max Nils Otto Paul Ralf Simon".split(),
}
_STARTS = (
    "Bal Bor Cas Dam Del Fal Fen Gar Gol Hal Hem Jar Kal Kel Lam Lor Mal Mor Nal Nor Pal Por Ral Ros Sal Tor"
)
_ENDS = (
    "ander bach berg burg dahl dorf ein eke eler er feld gard haus heim hof ik ing kamp lin mann mark mer nau ner "
    "onek quist rup sen stad stein stett strom ter thal vik wald ward win zik"
)
LAST = [start + end for start in _STARTS.split() for end in _ENDS.split()]  # one each: no two people share it
VALUES = {
    "year": [str(year) for year in range(1920, 2000)],
    "town": (
        "Lima Oslo Rome Paris Cairo Delhi Seoul Tunis Quito Dublin Lisbon Madrid Vienna Warsaw "
        "Athens Bergen Havana Nairobi Boston Kyoto"
    ).split(),
    "trade": (
        "baker tailor miller potter weaver joiner teacher doctor lawyer painter plumber farmer "
        "sailor hunter barber butcher printer mason smith cooper"
    ).split(),
    "music": (
        "harp flute violin cello trumpet drum guitar piano banjo zither organ horn oboe lute "
        "fiddle tuba clarinet bassoon whistle viola"
    ).split(),
}
_KNOWN_VALUES = {value for values in VALUES.values() for value in values}
RAW = {
    "year": "{x} was born in the year {v}",
    "town": "{x} lives in the town of {v}",
    "trade": "{x} works as a {v}",
    "music": "{x} plays the {v}",
}
OTHER_WORDS = {
    "year": (
        "{x} was born in {v}",
        "{x} came into the world in {v}",
        "{x} is a child of the year {v}",
        "{x} first saw the light in {v}",
        "it was in {v} that {x} was born",
    ),
    "town": (
        "{x} lives in {v}",
        "{x} has a house in {v}",
        "{x} is at home in {v}",
        "today {x} lives in {v}",
        "{x} settled in {v}",
    ),
    "trade": (
        "{x} works as a {v}",
        "{x} is a {v}",
        "{x} earns a living as a {v}",
        "by trade {x} is a {v}",
        "{x} became a {v}",
    ),
    "music": (
        "{x} plays the {v}",
        "{x} practises the {v}",
        "in the evening {x} plays the {v}",
        "{x} is good at the {v}",
        "{x} loves to play the {v}",
    ),
}
QUESTIONS = {
    "year": "When was {x} born?",
    "town": "Where does {x} live?",
    "trade": "What does {x} work as?",
    "music": "What does {x} play?",
}
CHUNK = 5  # sentences

_WORD = re.compile(r"[A-Za-z]+|\d+")
NAME = re.compile(rf"\b(?:{'|'.join(FIRST['she'] + FIRST['he'])}) [A-Z][a-z]+")
_FORMS = [(attribute, form) for attribute in VALUES for form in (RAW[attribute], *OTHER_WORDS[attribute])]
_NEUTRAL = {word.lower() for _, form in _FORMS for word in _WORD.findall(form)}
_NEUTRAL |= {"she", "he", "and"}
_PATTERNS = [
    (
        attribute,
        re.compile(form.format(x=rf"(?P<who>{NAME.pattern}|she|he|~)", v=r"(?P<value>\w+)"), re.IGNORECASE),
    )
    for attribute, form in _FORMS
]


class Fact(NamedTuple):
    """One thing that a text says."""

    person: str
    attribute: str
    value: str


@dataclass(frozen=True)
class Person:
    """A name, the pronoun that goes with it, and a value for every attribute."""

    name: str
    pronoun: str
    values: dict[str, str]

    @property
    def facts(self) -> list[Fact]:
        """All there is to know."""
        return [Fact(self.name, attribute, value) for attribute, value in self.values.items()]


def people(count: int, rng: np.random.Generator, taken: frozenset[str] = frozenset()) -> list[Person]:
    """`count` people, each with a last name that nobody else has, nor anybody in `taken`. Raises ValueError when the
    names run out."""
    names = [last for last in LAST if last not in {name.split()[1] for name in taken}]
    if count > len(names):
        raise ValueError(f"only {len(names)} names are left, {count} are wanted")
    group = []
    for place in rng.permutation(len(names))[:count]:
        pronoun = str(rng.choice(sorted(FIRST)))
        values = {key: str(rng.choice(values)) for key, values in VALUES.items()}
        group.append(Person(f"{rng.choice(FIRST[pronoun])} {names[place]}", pronoun, values))
    return group


# --------------------------------------------------------------------------------------------------- writing
def sentence(form: str, subject: str, value: str) -> str:
    """A form filled in, with a capital letter and a full stop."""
    text = form.format(x=subject, v=value)
    return f"{text[0].upper()}{text[1:]}."


def page(group: Sequence[Person]) -> str:
    """Raw text: one person after the other, always the same sentences."""
    return " ".join(
        sentence(RAW[fact.attribute], person.pronoun if place else person.name, fact.value)
        for person in group
        for place, fact in enumerate(person.facts)
    )


def sentences(text: str) -> list[str]:
    """Cut behind full stops."""
    return re.split(r"(?<=\.) ", text) if text else []


def chunks(text: str, size: int = CHUNK) -> list[str]:
    """`size` sentences at a time, wherever that cuts."""
    found = sentences(text)
    return [" ".join(found[i : i + size]) for i in range(0, len(found), size)]


def write_chunk(chunk: str, context: str, rng: np.random.Generator) -> str:
    """The facts of `chunk` in other words and another order, person by person.

    `context` is what has been rewritten so far: it says who the first "she" of the chunk is.
    """
    facts, written = read(chunk, context), []
    for person in dict.fromkeys(fact.person for fact in facts):
        own = [fact for fact in facts if fact.person == person]
        for place in rng.permutation(len(own)):
            form = str(rng.choice(OTHER_WORDS[own[place].attribute]))
            again = bool(written) and written[-1][0] == person
            # ... lives in Lima and works as a baker
            if again and form.startswith("{x} ") and rng.random() < 0.2:
                tail = form.removeprefix("{x} ").format(v=own[place].value)
                written[-1] = (person, f"{written[-1][1][:-1]} and {tail}.")
                continue
            subject = pronoun_of(person) if again and rng.random() < 0.5 else person
            written.append((person, sentence(form, subject, own[place].value)))
    return " ".join(text for _, text in written)


def pronoun_of(name: str) -> str:
    """She or he, by the first name; nobody has none."""
    return next((pronoun for pronoun, names in FIRST.items() if name.split()[0] in names), "?")


Writer = Callable[[str, str, np.random.Generator], str]


def rewrite(
    text: str, rng: np.random.Generator, write: Writer = write_chunk, check: bool = True, tries: int = 8
) -> tuple[str, int]:
    """A whole text in other words, and how many rewritten chunks the check refused.

    A chunk that fails `tries` times is taken over as it stands in the source.
    """
    done, before, refused = "", "", 0
    for chunk in chunks(text):
        for _ in range(tries):
            new = write(chunk, done, rng)
            if not check or not problems(chunk, new, before, done):
                break
            refused += 1
        else:
            new = chunk
        done, before = f"{done} {new}".strip(), f"{before} {chunk}".strip()
    return done, refused


# --------------------------------------------------------------------------------------------------- reading
def read(text: str, context: str = "") -> list[Fact]:
    """What a text says, in its order. "She" is the person named last, if need be in `context`, when that is a she;
    what is said of nobody, or of the wrong pronoun, belongs to "?". A value in a sentence that has none of the forms is
    a fact with the attribute "?"."""
    last, facts = (NAME.findall(context) or ["?"])[-1], []
    for part in sentences(text):
        last = (NAME.findall(part) or [last])[-1]
        fits = last in part or pronoun_of(last) in part.lower().split()
        person = last if fits else "?"
        facts += [Fact(person, attribute, value) for attribute, value in said(part)]
    return facts


def said(part: str) -> list[tuple[str, str]]:
    """(attribute, value) of each clause of a sentence: "She lives in Lima and works as a baker." has two."""
    first, *more = part.removesuffix(".").split(" and ")
    # ~: the subject of the first
    found = [_clause(clause) for clause in (first, *(f"~ {tail}" for tail in more))]
    if None in found:
        return [("?", word) for word in _WORD.findall(part) if word in _KNOWN_VALUES]
    return found


def _clause(clause: str) -> tuple[str, str] | None:
    """The attribute whose form a clause has, and the value in it."""
    matches = ((attribute, pattern.fullmatch(clause)) for attribute, pattern in _PATTERNS)
    return next(((attribute, match["value"]) for attribute, match in matches if match), None)


def problems(source: str, rewritten: str, before: str = "", done: str = "") -> list[str]:
    """What is wrong with a rewritten chunk; nothing, when it says what its source says.

    before, done    the text in front of the chunk: of the source, and as rewritten so far
    """
    known = set(_WORD.findall(f"{before} {source}"))
    strange = [
        word for word in _WORD.findall(rewritten) if word not in known and word.lower() not in _NEUTRAL
    ]
    wanted, found = read(source, before), read(rewritten, done)
    found_problems = [f"a word from nowhere: {word}" for word in strange]
    found_problems += [f"lost: {fact}" for fact in wanted if fact not in found]
    found_problems += [f"made up: {fact}" for fact in found if fact not in wanted]
    return found_problems


def same_words(source: str, rewritten: str) -> bool:
    """The cheap check: names, numbers and values are the same bag of words. It cannot tell whose they are."""

    def bag(text: str) -> set[str]:
        return {word for word in _WORD.findall(text) if word.lower() not in _NEUTRAL}

    return bag(source) == bag(rewritten)
