"""A small document store with an index, and two tools over it: search by words, open by number.

A document is about one name, its subject: it states a few facts of the form "The town of tavo is mira." Its number says
nothing, so it has to be searched for; what a search returns are numbers and subjects, no facts, so it has to be opened.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property

from kimi_mini.worlds.base import needs
from kimi_mini.worlds.tools import Tool, ToolError

MOST = 4  # documents that a search returns
Facts = list[tuple[str, str]]  # (relation, value), in the order of the text


def text(subject: str, facts: Facts) -> str:
    """The document as it is read."""
    return " ".join(f"The {relation} of {subject} is {value}." for relation, value in facts)


def words(of: str) -> list[str]:
    """The words of a text, without case and marks."""
    return re.findall(r"[a-z0-9]+", of.lower())


@dataclass
class Library:
    """Documents by their numbers: (subject, facts). done: what was searched and opened, in order."""

    documents: dict[str, tuple[str, Facts]]
    done: list[tuple[str, str]] = field(default_factory=list)

    @cached_property
    def index(self) -> dict[str, set[str]]:
        """Word -> the numbers of the documents that it stands in."""
        found = defaultdict(set)
        for number, (subject, facts) in self.documents.items():
            for word in words(text(subject, facts)):
                found[word].add(number)
        return dict(found)

    def search(self, query: str) -> str:
        """Up to four documents with the rarest words of the query: what they are about, the best first."""
        self.done.append(("search", query))
        scores: dict[str, float] = defaultdict(float)
        for word in sorted(set(words(query))):  # sums of floats depend on their order
            having = self.index.get(word, set())
            for number in having:
                scores[number] += 1 / len(having) + (self.documents[number][0] == word)
        best = sorted(scores, key=lambda number: (-scores[number], number))[:MOST]
        return ", ".join(f"{number} {self.documents[number][0]}" for number in best) or "nothing found"

    def open(self, number: str) -> str:
        """The text of a document."""
        if number not in self.documents:
            raise ToolError(f"no document {number[:8]}")
        self.done.append(("open", number))
        return text(*self.documents[number])

    def tools(self) -> list[Tool]:
        """Both tools over this library."""
        kind = {"type": "string"}
        return [
            Tool("search", "", needs(query=kind), self.search),
            Tool("open", "", needs(number=kind), self.open),
        ]
