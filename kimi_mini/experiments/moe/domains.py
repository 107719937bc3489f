"""Four kinds of text to watch a router with: Python, prose, arithmetic, tool calls; each in windows of its own.

Python is the standard library, prose is Moby-Dick, arithmetic and tool calls are what the scripted experts of the
worlds say, the latter in K2's chat format. Held-out windows come from documents and tasks that training never sees.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import numpy as np

from kimi_mini import worlds
from kimi_mini.agent import loop
from kimi_mini.text import chat, corpus
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training.batch import Batch, Example, collate

DOMAINS = ("Python", "prose", "arithmetic", "tool calls")


def windows(
    tokenizer: Tokenizer,
    count: int,
    length: int = 128,
    held_out: bool = False,
    seed: int = 0,
    domains: Sequence[str] = DOMAINS,
) -> dict[str, np.ndarray]:
    """`count` windows of `length` tokens of each domain, in random order: name -> (count, length) int32.

    Raises ValueError when a domain has too little text.
    """
    found = {}
    for name in domains:
        stream = _fill(_pieces(tokenizer, name, held_out, seed), count * length)
        if len(stream) < count * length:
            raise ValueError(
                f"{name} has {len(stream):,} tokens; {count} windows of {length} need {count * length:,}"
            )
        cut = corpus.pack(stream, length)[:count]
        found[name] = np.random.default_rng(seed).permutation(cut)
    return found


def batches(
    texts: dict[str, np.ndarray], step: int, per_domain: int, learned: np.ndarray | None = None
) -> list[Batch]:
    """The one batch of a training step: the next `per_domain` windows of every domain, from the start when they end.

    learned (length,) bool: the places of a window that carry loss; all without it.
    """
    rows = []
    for pool in texts.values():
        rows += [pool[i % len(pool)] for i in range(step * per_domain, (step + 1) * per_domain)]
    return [collate([Example(row, np.ones(len(row), bool) if learned is None else learned) for row in rows])]


def _fill(pieces: Iterator[Sequence[int]], size: int) -> np.ndarray:
    """Pieces one after the other until there are `size` tokens, or no more pieces."""
    parts, total = [], 0
    for piece in pieces:
        parts.append(np.asarray(piece, np.int32))
        total += len(piece)
        if total >= size:
            break
    return np.concatenate(parts) if parts else np.empty(0, np.int32)


def _pieces(tokenizer: Tokenizer, name: str, held_out: bool, seed: int) -> Iterator[Sequence[int]]:
    """Documents, calculations or conversations as tokens."""
    if name in ("Python", "prose"):
        documents = corpus.stdlib_documents() if name == "Python" else corpus.book_documents()
        for document in corpus.split(documents)[held_out]:
            yield corpus.token_stream(tokenizer, [document])
        return
    rng = random.Random(f"{name} {seed}")
    families = list(worlds.WORLDS["chain" if name == "arithmetic" else "shop"].families)
    while True:
        family = rng.choice(families)
        level = rng.choice(worlds.FAMILIES[family].levels)
        played = loop.play(worlds.generate(rng, family, level, held_out), rng)
        if name == "arithmetic":
            yield tokenizer.encode(_calculation(played.messages), allow_special=False)
        else:
            yield chat.encode(tokenizer, played.messages, played.tools)[0]
        played.environment.close()


def _calculation(messages: list[dict]) -> str:
    """Question, working and answer as plain text, one line each."""
    question, worked = messages[-2], messages[-1]
    return f"{question['content']}\n{worked['reasoning_content']}\n{worked['content']}\n\n"
