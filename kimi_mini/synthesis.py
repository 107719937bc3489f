"""Synthesis: scripted experts, who sometimes err, work on generated tasks; each trajectory becomes a training example
with its verdict beside it.

A ``Source`` says what to make (family, levels, mode, share of the training tokens); ``synthesise`` makes the pool of
one source, each trajectory from a seed of its own, so that the result does not depend on the number of processes.

Modes
    think    thought before every call and answer
    reflex   the same actions with an empty thought that the prompt gives
    window   the state after context management: the opening, then only the last turns of a longer episode
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import NamedTuple

import numpy as np

from kimi_mini import agent, chat, worlds
from kimi_mini.tokenizer import Tokenizer
from kimi_mini.train import Example

MISTAKES = ("slip", "slip", "lazy")  # a wrong step twice as often as a shortcut
CHUNK = 256


@dataclass(frozen=True)
class Source:
    """A kind of trajectory and its ``share`` of the training tokens."""

    family: str
    mode: str
    share: float
    levels: tuple[int, ...]


class Trajectory(NamedTuple):
    """A finished trajectory as tokens, with what the verifier said of it."""

    example: Example
    family: str
    level: int
    mode: str
    mistake: str | None
    passed: bool
    key: str


def _sources() -> list[Source]:
    def levels(family: str) -> tuple[int, ...]:
        return tuple(worlds.WORLDS[worlds.FAMILIES[family]].FAMILIES[family])

    shares = [
        ("chain", "think", 0.24), ("add", "think", 0.05), ("times", "think", 0.05), ("follow", "think", 0.03),
        ("condition", "think", 0.08), ("cheapest", "think", 0.13), ("buy", "think", 0.06), ("repair", "think", 0.27),
        ("chain", "reflex", 0.02), ("add", "reflex", 0.003), ("times", "reflex", 0.003), ("follow", "reflex", 0.007),
        ("condition", "reflex", 0.007), ("buy", "reflex", 0.01), ("repair", "reflex", 0.01),
    ]  # fmt: skip
    windows = [Source("follow", "window", 0.05, (3, 4, 5, 6)), Source("buy", "window", 0.01, (4, 5, 6))]
    return [Source(family, mode, share, levels(family)) for family, mode, share in shares] + windows


SOURCES = _sources()


def trajectory(
    tokenizer: Tokenizer, seed: str, family: str, level: int, mode: str, mistakes: float, held_out: bool = False
) -> Trajectory:
    """One trajectory from its seed: generate a task, let the expert play (``mistakes`` is the chance that it errs on
    purpose), verify, tokenise."""
    rng = random.Random(seed)
    task = worlds.generate(rng, family, level, held_out)
    mistake = rng.choice(MISTAKES) if rng.random() < mistakes else None
    if mistake == "lazy" and worlds.FAMILIES[family] == "chain":
        mistake = "slip"
    first_call = rng.randrange(320) if mode == "window" else 0
    played = agent.play(task, rng, mistake, mode != "reflex", first_call)
    verdict = played.verdict()
    example = _tokenise(tokenizer, played, rng if mode == "window" else None)
    played.environment.close()
    return Trajectory(example, family, level, mode, mistake, verdict.passed, task.key)


def _tokenise(tokenizer: Tokenizer, played: agent.Conversation, window: random.Random | None) -> Example:
    """Ids and mask; with ``window`` the oldest turns are left out as context management would, and the first one that
    stays is not learned, because what it followed from is hidden."""
    messages = played.messages
    if window is not None:
        turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        first = window.randrange(1, max(2, len(turns) - 2))
        messages = messages[:2] + messages[turns[first] :]
    ids, mask = chat.encode(tokenizer, messages, played.tools)
    mask = np.asarray(mask, bool)
    if window is not None:
        start = int(mask.argmax())
        stop = start + int((~mask[start:]).argmax())
        mask[start:stop] = False
    return Example(np.asarray(ids, np.uint16), mask)


_TOKENIZER: Tokenizer | None = None


def _chunk(arguments: tuple) -> list[Trajectory]:
    global _TOKENIZER
    if _TOKENIZER is None:
        _TOKENIZER = Tokenizer.load()
    seed, source, start, count, mistakes = arguments
    return [
        trajectory(
            _TOKENIZER,
            f"{seed}/{source.family}/{source.mode}/{i}",
            source.family,
            source.levels[i % len(source.levels)],
            source.mode,
            mistakes,
        )
        for i in range(start, start + count)
    ]


def synthesise(
    source: Source, count: int, seed: int, mistakes: float = 0.15, processes: int = 1
) -> Iterator[list[Trajectory]]:
    """``count`` trajectories of ``source``, level after level in turn, in chunks as they are done."""
    jobs = [
        (seed, source, start, min(CHUNK, count - start), mistakes) for start in range(0, count, CHUNK)
    ]
    if processes == 1:
        yield from map(_chunk, jobs)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_chunk, jobs)


def passed_only(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    """The verifier economy in one line: what failed is never trained on."""
    return [t for t in trajectories if t.passed]
