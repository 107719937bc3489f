"""More tools than fit: `find_tools` alone is declared, and the others are found by words.

What the model reads of a found tool is its declaration, as it would stand in the list of tools; from then on it may be
called. Found is what stands whole in a result: one that has no room for all leaves the last ones out.

Ranking: BM25 over the words of name and description; a rare word counts more than a frequent one, a short text more
than a long one. No word in common is no match.

Source: Robertson and Zaragoza, The Probabilistic Relevance Framework: BM25 and Beyond (2009), section 3.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from kimi_mini.worlds.tools.toolbox import MAX_CONTENT, Tool, Toolbox, ToolError

FIND = "find_tools"
FIND_FIRST = f"call {FIND} first"
NONE = "none"  # the result when no tool matches
K1, B = (
    1.5,
    0.75,
)  # of BM25: how soon a word that comes again stops to count, how much the length of a text counts


class Finder(Toolbox):
    """A toolbox that declares `find_tools` and the first `declared` of its tools; the others have to be found.

    best: how many a search finds at most. Raises ValueError when two tools share a name, a number makes no sense, or
    a tool's declaration alone is longer than a result may be.
    """

    def __init__(self, tools: Iterable[Tool], declared: int = 0, best: int = 3, canonical: bool = True):
        about = "Finds tools by words that say what they do; a tool that was found may be called."
        schema = {"type": "object", "properties": {"words": {"type": "string"}}, "required": ["words"]}
        super().__init__([Tool(FIND, about, schema, self.find), *tools], canonical)
        if declared < 0 or best < 1:
            raise ValueError(f"declared must be 0 or more and best 1 or more, not {declared} and {best}")
        self.best, self._declared = best, 1 + declared
        self.hidden = {name: self.tools.pop(name) for name in list(self.tools)[self._declared :]}
        for tool in self.hidden.values():
            if len(self._text([tool])) > MAX_CONTENT:
                raise ValueError(
                    f"tool {tool.name!r}: its declaration is longer than {MAX_CONTENT} characters"
                )
        self._texts = {
            name: Counter(_words(f"{name} {one.description}")) for name, one in self.hidden.items()
        }

    def declarations(self) -> list[dict]:
        """What is declared from the start; found tools stand in the results."""
        return super().declarations()[: self._declared]

    def find(self, words: str) -> str:
        """The declarations of the best tools for these words as JSON, or "none"; they may be called from now on."""
        if not (asked := _words(words)):
            raise ToolError('words: say what the tool does, such as "read price"')
        found = self._ranked(asked)[: self.best]
        while len(self._text(found)) > MAX_CONTENT:
            found.pop()
        self.tools |= {tool.name: tool for tool in found}
        return self._text(found) if found else NONE

    def _text(self, tools: Sequence[Tool]) -> str:
        declared = [tool.declaration() for tool in tools]
        return json.dumps(declared, ensure_ascii=False, separators=(",", ":"), sort_keys=self.canonical)

    def scores(self, asked: Sequence[str]) -> dict[str, float]:
        """For every tool that has to be found, how well it matches these words (in small letters); 0 is not at all."""
        mean = sum(text.total() for text in self._texts.values()) / max(1, len(self._texts)) or 1.0
        scores = dict.fromkeys(self._texts, 0.0)
        for word in dict.fromkeys(asked):
            having = sum(word in text for text in self._texts.values())
            rare = math.log(1 + (len(self._texts) - having + 0.5) / (having + 0.5))
            for name, text in self._texts.items():
                slow = K1 * (1 - B + B * text.total() / mean)
                scores[name] += rare * text[word] * (K1 + 1) / (text[word] + slow)
        return scores

    def _ranked(self, asked: Sequence[str]) -> list[Tool]:
        """All tools that match, the best first; equal ones in the order in which they were given."""
        scores = self.scores(asked)
        order = sorted(scores, key=scores.get, reverse=True)
        return [self.hidden[name] for name in order if scores[name] > 0]

    def _hint(self) -> str:
        return FIND_FIRST


def _words(text: str) -> list[str]:
    """Words in small letters; a name in camelCase or with _ and - is several."""
    return re.findall(r"[^\W_]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", text).lower())
