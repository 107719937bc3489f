"""The frames of what people ask: for each pattern the sentences of several voices, and an exam in other sentences.

A voice is a text file, written by one hand in one manner; each line is a template: [this|that] are alternatives. What
is said plainly is of the first voice and of `everyday`, which nothing else takes. The later voices are for further
courses alone: no exam is said in them. Slots:
{a} and {b} names in quotes, {list} a list, {word} and {key} a number's or link's word, {thing}, {things}, {n}, {limit},
{verb}, {then} and {other} deeds: a verb with its number. No text has an apostrophe: it could be the mark of a name.

A frame of the exam shares no run of four words with a trained one; most of its words stand in some trained frame, since
a model that begins with random weights can know no others.
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path

VOICES = (
    "plain",
    "terse",
    "spoken",
    "letters",
    "teacher",
)  # the plainest first: training begins with few frames
LATER_VOICES = ("chat", "street", "lexicon")


def expanded(grammar: str) -> tuple[str, ...]:
    """All texts of a grammar, template by template; templates stand on lines or between slashes."""
    made: list[str] = []
    for template in re.split(r" / |\n", grammar.strip()):
        parts = [part.split("|") for part in re.split(r"[\[\]]", template.strip())]
        made += map("".join, itertools.product(*parts))
    return tuple(made)


def voice(name: str) -> dict[str, tuple[str, ...]]:
    """The frames of a voice, pattern by pattern."""
    text = (Path(__file__).parent / "voices" / f"{name}.txt").read_text("utf-8")
    sections = (section.partition("\n") for section in text.split("\n## ")[1:])
    return {pattern: expanded(grammar) for pattern, _, grammar in sections}


def of_voices(names: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """The frames of several voices together, pattern by pattern."""
    spoken = [voice(name) for name in names]
    return {pattern: tuple(itertools.chain(*(one[pattern] for one in spoken))) for pattern in spoken[0]}


HELD_OUT_FRAMES = voice("held_out")
FRAMES, PLAIN = of_voices(VOICES), of_voices((VOICES[0], "everyday"))
LATER, LATER_PLAIN = of_voices(LATER_VOICES), of_voices(LATER_VOICES[:2])
