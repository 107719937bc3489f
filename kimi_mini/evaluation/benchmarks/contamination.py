"""Has training seen the benchmarks? 13-grams of tokens, and contents, of every task in the streams of training.

A task is read as its prompt with the expert's whole work. Both sides are brought to one form first: markers and any
white space become one blank, and the text is cut into the agent's tokens again. So another layout of the same words is
the same, and other numbers are others.

    raw       any 13-gram of the task stands in the stream: mostly the template, which all tasks of a family share
    content   13-grams that at most a twentieth of the tasks of its part have; what is left is the task's own
    leaked    one single example of the stream holds four fifths of the content 13-grams of a task, or the stream has a
              task of the same content key

Small worlds repeat themselves: a step of a chain is one of a few thousand, so some of a task's own 13-grams stand in
training, each in another example. The union over a stream is told, too; a leak is what stands in one place.

Source: GPT-3's report, appendix C (13-grams); Llama 2's, appendix A.6 (share of a sample's tokens).
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from kimi_mini.agent import loop
from kimi_mini.evaluation.benchmarks.store import Item
from kimi_mini.text import chat
from kimi_mini.text.tokenizer import SPECIAL_TOKENS, Tokenizer

GRAM = 13  # tokens
COMMON = 0.05  # a 13-gram of more than this share of a part's tasks is its template
LEAK = 0.8  # of a task's content 13-grams in one example
FACTORS = np.random.default_rng(13).integers(0, 2**63, GRAM, dtype=np.uint64) * np.uint64(2) + np.uint64(1)


def normal(tokenizer: Tokenizer, ids: Sequence[int]) -> np.ndarray:
    """The same text with one blank for any markers and white space, as tokens again (T,)."""
    text = tokenizer.decode(ids)
    for marker in SPECIAL_TOKENS:
        if marker in text:
            text = text.replace(marker, " ")
    return np.array(tokenizer.encode(" ".join(text.split()), allow_special=False), np.uint64)


def grams(ids: np.ndarray) -> np.ndarray:
    """A 64-bit hash of every 13-gram of (T,) tokens, in order; (T - 12,)."""
    if len(ids) < GRAM:
        return np.zeros(0, np.uint64)
    windows = np.lib.stride_tricks.sliding_window_view(ids + np.uint64(1), GRAM)
    mixed = (windows * FACTORS).sum(-1, dtype=np.uint64)
    return (mixed ^ (mixed >> np.uint64(31))) * np.uint64(0x9E3779B97F4A7C15)


def tokens_of(tokenizer: Tokenizer, item: Item) -> list[int]:
    """A task as tokens: everything that is said while its expert works on it."""
    played = loop.play(item.task, random.Random(item.task.key))
    played.environment.close()
    return chat.encode(tokenizer, played.messages, played.tools)[0]


@dataclass
class Stream:
    """What a search has found in one stream of training: its size, 13-grams that it has (G,), for every task the most
    content 13-grams in one example (N,), and content keys."""

    has: np.ndarray
    most: np.ndarray
    tokens: int = 0
    examples: int = 0
    keys: set[str] = field(default_factory=set)


class Search:
    """The 13-grams of all tasks of some benchmarks; reads streams, and reports."""

    def __init__(self, tokenizer: Tokenizer, benchmarks: dict[str, Sequence[Item]]):
        self.tokenizer = tokenizer
        self.tasks = [(name, item) for name, items in benchmarks.items() for item in items]
        own = [np.unique(grams(normal(tokenizer, tokens_of(tokenizer, item)))) for _, item in self.tasks]
        self.known = np.unique(np.concatenate(own))  # (G,)
        self.raw = [np.searchsorted(self.known, some) for some in own]  # of each task, places in `known`
        self.content = self._without_templates()
        theirs = np.concatenate(self.content)
        order = np.argsort(theirs, kind="stable")
        tasks = np.repeat(np.arange(len(self.tasks)), [len(some) for some in self.content])
        self.owners = tasks[order]  # tasks, by the gram that is theirs
        self.first = np.searchsorted(theirs[order], np.arange(len(self.known) + 1))
        self.streams: dict[str, Stream] = {}

    def _without_templates(self) -> list[np.ndarray]:
        parts: dict[tuple[str, str], list[int]] = {}
        for task, (name, item) in enumerate(self.tasks):
            parts.setdefault((name, item.part), []).append(task)
        content = [np.zeros(0, np.int64)] * len(self.tasks)
        for members in parts.values():
            counts = np.zeros(len(self.known), np.int64)
            for task in members:
                counts[self.raw[task]] += 1
            rare = counts <= max(1, COMMON * len(members))
            for task in members:
                content[task] = self.raw[task][rare[self.raw[task]]]
        return content

    def stream(self, name: str) -> Stream:
        """The stream of that name, empty at first."""
        empty = Stream(np.zeros(len(self.known), bool), np.zeros(len(self.tasks), np.int64))
        return self.streams.setdefault(name, empty)

    def read(self, name: str, examples: Iterable[Sequence[int]], keys: Iterable[str] = ()) -> Stream:
        """Look for all tasks in a stream's examples, each as tokens, and for their keys among its own."""
        stream = self.stream(name)
        for ids in examples:
            stream.tokens, stream.examples = stream.tokens + len(ids), stream.examples + 1
            found = np.unique(grams(normal(self.tokenizer, ids)))
            places = np.searchsorted(self.known, found)
            places = places[self.known[np.minimum(places, len(self.known) - 1)] == found]
            stream.has[places] = True
            owners = [self.owners[self.first[place] : self.first[place + 1]] for place in places]
            if owners:
                tasks, counts = np.unique(np.concatenate(owners), return_counts=True)
                stream.most[tasks] = np.maximum(stream.most[tasks], counts)
        stream.keys |= {item.task.key for _, item in self.tasks} & set(keys)
        return stream

    def leaked(self, name: str) -> list[Item]:
        """The tasks that a stream holds, by their content 13-grams in one example or by their keys."""
        stream = self.streams[name]
        return [
            item
            for task, (_, item) in enumerate(self.tasks)
            if item.task.key in stream.keys
            or (len(self.content[task]) and stream.most[task] >= LEAK * len(self.content[task]))
        ]

    def report(self) -> dict[str, dict[str, dict[str, dict]]]:
        """benchmark -> part -> stream -> numbers."""
        found: dict = {}
        for name, part in dict.fromkeys((name, item.part) for name, item in self.tasks):
            members = [t for t, (n, item) in enumerate(self.tasks) if (n, item.part) == (name, part)]
            found.setdefault(name, {})[part] = {
                stream: self._numbers(stream, members) for stream in self.streams
            }
        return found

    def _numbers(self, name: str, members: Sequence[int]) -> dict:
        """raw, content: share of the tasks with such a 13-gram in the stream; raw_share, content_share: of the 13-grams
        of a task, on average; most: the largest share of a task's content in one example; none: tasks that have no
        content 13-grams, and so only a key."""
        stream, leaked = self.streams[name], {item.task.key for item in self.leaked(name)}
        raw = [stream.has[self.raw[task]] for task in members]
        content = [stream.has[self.content[task]] for task in members if len(self.content[task])]
        most = [stream.most[t] / len(self.content[t]) for t in members if len(self.content[t])]
        mean = lambda values: round(float(np.mean(values)), 4) if len(values) else 0.0
        keys = [self.tasks[task][1].task.key for task in members]
        return {
            "tasks": len(members),
            "raw": mean([some.any() for some in raw]),
            "raw_share": mean([some.mean() for some in raw if len(some)]),
            "content": mean([some.any() for some in content]),
            "content_share": mean([some.mean() for some in content]),
            "most": round(float(max(most, default=0.0)), 4),
            "none": len(members) - len(content),
            "keys": len(stream.keys.intersection(keys)),
            "leaked": len(leaked.intersection(keys)),
        }
