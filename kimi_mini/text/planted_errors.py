"""Planted errors: ten ways in which a rewriter can go wrong, to measure the fidelity check of `rephrase`.

plant(text, error, rng)    a rewritten text with one error of the kind in it
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from kimi_mini.text import rephrase
from kimi_mini.text.rephrase import LAST, NAME, VALUES, Fact, read, said, sentence, sentences


def plant(text: str, error: str, rng: np.random.Generator) -> str | None:
    """A rewritten text with one error of the kind, or None where it has no place (no number, only one person)."""
    wrong = ERRORS[error](text, rng)
    return None if wrong == text else wrong


def _pick(rng: np.random.Generator, found: Sequence):
    return found[rng.integers(len(found))]


def _dropped(text: str, rng: np.random.Generator, step: int = 0) -> str:
    digits = [match.start() for match in re.finditer(r"\d", text)]
    if not digits:
        return text
    place = _pick(rng, digits)
    return text[:place] + (str((int(text[place]) + step) % 10) if step else "") + text[place + 1 :]


def _changed(text: str, rng: np.random.Generator) -> str:
    return _dropped(text, rng, step=int(rng.integers(1, 10)))


def _misspelled(text: str, rng: np.random.Generator) -> str:
    names = list(NAME.finditer(text))
    if not names:
        return text
    place = _pick(rng, names).end() - 2  # the last letter but one
    return text[:place] + text[place + 1 :]


def _swapped(text: str, rng: np.random.Generator) -> str:
    names = list(NAME.finditer(text))
    if not names:
        return text
    match = _pick(rng, names)
    others = [
        last
        for last in (*LAST, *(name.split()[1] for name in NAME.findall(text)))
        if last not in match.group()
    ]
    new = f"{match.group().split()[0]} {_pick(rng, others)}"
    return text[: match.start()] + new + text[match.end() :]


def _exchanged(text: str, rng: np.random.Generator) -> str:
    facts = read(text)
    pairs = [(a, b) for a in facts for b in facts if a.attribute == b.attribute and a.value < b.value]
    if not pairs:
        return text
    first, second = (fact.value for fact in _pick(rng, pairs))
    swap = {first: second, second: first}
    return re.sub(rf"\b({first}|{second})\b", lambda match: swap[match.group()], text)


def _another(text: str, rng: np.random.Generator) -> str:
    fact = _pick(rng, read(text))
    return re.sub(rf"\b{fact.value}\b", str(_pick(rng, VALUES[fact.attribute])), text, count=1)


def _lost(text: str, rng: np.random.Generator) -> str:
    found = sentences(text)
    found.pop(rng.integers(len(found)))
    return " ".join(found)


def _invented(text: str, rng: np.random.Generator) -> str:
    facts = read(text)
    person, attribute = facts[-1].person, str(_pick(rng, sorted(VALUES)))
    values = [value for value in VALUES[attribute] if Fact(person, attribute, value) not in facts]
    form = str(_pick(rng, rephrase.OTHER_WORDS[attribute]))
    more = sentence(form, rephrase.pronoun_of(person), str(_pick(rng, values)))
    return text if person == "?" else f"{text} {more}"


def _negated(text: str, rng: np.random.Generator) -> str:
    verbs = list(
        re.finditer(r"\b(lives|works|plays|was|is|has|settled|practises|became|came|loves|earns)\b", text)
    )
    if not verbs:
        return text
    place = _pick(rng, verbs).start()
    return f"{text[:place]}never {text[place:]}"


def _wrong_verb(text: str, rng: np.random.Generator) -> str:
    """One sentence about one thing, in words for another: she lives in 1951."""
    found = sentences(text)
    plain = [i for i, part in enumerate(found) if len(said(part)) == 1 and said(part)[0][0] != "?"]
    if not plain:
        return text
    place = _pick(rng, plain)
    (attribute, value), who = said(found[place])[0], (NAME.findall(found[place]) or ["she", "he"])
    subject = (
        who[0]
        if who[0] in found[place]
        else next(x for x in rephrase.FIRST if x in found[place].lower().split())
    )
    other = str(_pick(rng, [key for key in VALUES if key != attribute]))
    found[place] = sentence(str(_pick(rng, rephrase.OTHER_WORDS[other])), subject, value)
    return " ".join(found)


ERRORS = {
    "dropped digit": _dropped,
    "changed digit": _changed,
    "misspelled name": _misspelled,
    "swapped names": _swapped,
    "exchanged values": _exchanged,
    "another value": _another,
    "lost sentence": _lost,
    "invented fact": _invented,
    "negated": _negated,
    "wrong verb": _wrong_verb,
}
