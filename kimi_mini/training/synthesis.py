"""Synthesis: scripted experts, who sometimes err, work on generated tasks; each trajectory becomes a training example
with its verdict beside it.

A `Source` says what to make (family, levels, mode, share of the training tokens, all of it from the files of the
worlds); `synthesise` makes the pool of one source, each trajectory from a seed of its own.

Modes
    think    thought before every call and answer
    reflex   the same actions with an empty thought that the prompt gives
    window   the state after context management: the opening, then only the last turns of a longer episode
    sheet    no trajectory but an exercise sheet: the one decision of a family, many times
"""

from __future__ import annotations

import json
import random
import string
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kimi_mini import worlds
from kimi_mini.agent import conversation, loop
from kimi_mini.base.files import read_arrays, save_arrays
from kimi_mini.text import chat
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training.batch import Example
from kimi_mini.worlds.base import is_held_out
from kimi_mini.worlds.registry import MODES

MISTAKES = ("slip", "slip", "lazy")  # a wrong step twice as often as a shortcut
MISTAKE_RATE = 0.15  # how many demonstrations are wrong on purpose


@dataclass(frozen=True)
class Source:
    """A kind of trajectory, its `share` of the training tokens, and how many tokens one has, about."""

    family: str
    mode: str
    share: float
    levels: tuple[int, ...]
    length: int = 150


def sources_of(varied: bool) -> list[Source]:
    """The sources of all worlds whose surface is always the same, or of those that are varied."""
    return [
        Source(family.name, mode, family.shares[mode], family.levels_in(mode), family.length)
        for mode in MODES
        for family in worlds.FAMILIES.values()
        if mode in family.shares and worlds.WORLDS[family.world].varied is varied
    ]


def _scaled(sources: Sequence[Source], share: float) -> list[Source]:
    whole = sum(source.share for source in sources)
    return [replace(source, share=source.share * share / whole) for source in sources]


def widens(source: Source) -> bool:
    """Whether its trajectories are of a varied world, and so made from few words to any; a family of somebody else's
    making is not."""
    family = worlds.FAMILIES.get(source.family)
    return family is not None and worlds.WORLDS[family.world].varied


SOURCES, VARIED = _scaled(sources_of(False), 1.0), sources_of(True)


def mixture(plain: float) -> list[Source]:
    """Both kinds of sources, of which SOURCES have a share `plain` together; with 1.0 these alone, as they are."""
    if plain == 1.0:
        return SOURCES
    return [*_scaled(SOURCES, plain), *_scaled(VARIED, 1.0 - plain)]


def replay(share: float, even: bool = False) -> list[Source]:
    """SOURCES with `share` of the tokens together: in their own proportions, or even: as much of each family."""
    if not even:
        return [replace(one, share=one.share * share) for one in SOURCES]
    own: dict[str, float] = {}
    for one in SOURCES:
        own[one.family] = own.get(one.family, 0.0) + one.share
    return [replace(one, share=one.share * share / (own[one.family] * len(own))) for one in SOURCES]


class Trajectory(NamedTuple):
    """A finished trajectory as tokens, with what the verifier said of it."""

    example: Example
    family: str
    level: int
    mode: str
    mistake: str | None
    passed: bool
    key: str


def trajectory(
    tokenizer: Tokenizer,
    seed: str,
    family: str,
    level: int,
    mode: str,
    mistakes: float,
    held_out: bool = False,
    breadth: float = 1.0,
) -> Trajectory:
    """One trajectory from its seed: generate a task, let the expert play (`mistakes` is the chance that it errs on
    purpose), verify, tokenise."""
    rng = random.Random(seed)
    if mode == "sheet":
        return Trajectory(
            _tokenise_sheet(tokenizer, rng, family, breadth), family, level, mode, None, True, seed
        )
    task = worlds.generate(rng, family, level, held_out, breadth)
    mistake = rng.choice(MISTAKES) if rng.random() < mistakes else None
    if mistake and mistake not in worlds.WORLDS[task.world].mistakes:
        mistake = worlds.WORLDS[task.world].mistakes[0]
    first_call = rng.randrange(320) if mode == "window" else 0
    played = loop.play(task, rng, mistake, mode != "reflex", first_call)
    verdict = played.verdict()
    example = _tokenise(tokenizer, played, rng if mode == "window" else None)
    played.environment.close()
    return Trajectory(example, family, level, mode, mistake, verdict.passed, task.key)


def _tokenise(
    tokenizer: Tokenizer, played: conversation.Conversation, window: random.Random | None
) -> Example:
    """Ids and mask; with `window` the oldest turns are left out as context management would, and the first one that
    stays is not learned, because what it followed from is hidden."""
    messages = played.messages
    if window is not None:
        turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        first = min(window.randrange(1, max(2, len(turns) - 2)), len(turns) - 1)
        messages = messages[:2] + messages[turns[first] :]
    ids, mask = chat.encode(tokenizer, messages, played.tools)
    mask = np.asarray(mask, bool)
    if window is not None:
        start = int(mask.argmax())
        stop = start + int((~mask[start:]).argmax())
        mask[start:stop] = False
    return Example(np.asarray(ids, np.int32), mask)


def chains(tokenizer: Tokenizer, played: conversation.Conversation) -> list[Example]:
    """An example for each answer, with the calls that led to it, of a dialogue in which the user speaks again: behind
    an answer the thoughts before it are gone (`conversation.hear`); each is learned in the context it is written in."""
    examples = []
    for index, message in enumerate(played.messages):
        if message["role"] == "assistant" and not message.get("tool_calls"):
            ids, mask = chat.encode(tokenizer, played.messages[: index + 1], played.tools)
            examples.append(Example(np.asarray(ids, np.int32), np.asarray(mask, bool)))
    return examples


def _tokenise_sheet(tokenizer: Tokenizer, rng: random.Random, family: str, breadth: float) -> Example:
    """An exercise sheet of the family's world."""
    more = (breadth,) if worlds.WORLDS[worlds.FAMILIES[family].world].varied else ()
    return sheet_of(tokenizer, worlds.FAMILIES[family].sheet(rng, *more))


def sheet_of(tokenizer: Tokenizer, pieces: Iterable[tuple[str, bool]]) -> Example:
    """Pieces of text, each with whether it is learned, as one example."""
    parts = [(tokenizer.encode_plain(text), learned) for text, learned in pieces]
    ids = np.array([token for part, _ in parts for token in part], np.int32)
    return Example(ids, np.repeat([learned for _, learned in parts], [len(part) for part, _ in parts]))


def synthesise(
    tokenizer: Tokenizer,
    source: Source,
    count: int,
    seed: int,
    mistakes: float = MISTAKE_RATE,
    progress: Callable[[int], None] | None = None,
) -> Iterator[Trajectory]:
    """`count` trajectories of `source`, its levels in turn; the i-th depends on `seed` and i alone."""
    for index in range(count):
        yield numbered(tokenizer, source, index, seed, mistakes)
        if progress is not None:
            progress(1)


def numbered(
    tokenizer: Tokenizer,
    source: Source,
    index: int,
    seed: int,
    mistakes: float = MISTAKE_RATE,
    breadth: float = 1.0,
) -> Trajectory:
    """The trajectory of `source` with that number; it depends on nothing else but the seed and the breadth."""
    level = source.levels[index % len(source.levels)]
    name = f"{seed}/{source.family}/{source.mode}/{index}"
    return trajectory(tokenizer, name, source.family, level, source.mode, mistakes, breadth=breadth)


def wanted(
    source: Source, tokens: int, passes: float = 1.5, mistakes: float = MISTAKE_RATE, spare: int = 12
) -> int:
    """How many trajectories make a pool that fine-tuning on `tokens` tokens reads about `passes` times when a share
    `mistakes` of them does not pass; and `spare` more a level."""
    kept = source.share * tokens / source.length / passes
    return int(kept / (1 - mistakes)) + spare * len(source.levels)


def drill_alphabet(tokenizer: Tokenizer) -> np.ndarray:
    """Ids that the recall drills are made of: the words, labels and digits that the worlds will ask to be copied."""
    words = [*"0123456789", *(word for world in worlds.WORLDS.values() for word in world.words)]
    words += [space + letter for letter in string.ascii_lowercase for space in ("", " ")]
    return np.array(sorted({token for word in words for token in tokenizer.encode_plain(word)}))


def whole_alphabet(tokenizer: Tokenizer, seed: int) -> np.ndarray:
    """All ids but the markers, in random order, for an agent that may be asked to copy any word."""
    return np.random.default_rng(seed).permutation(tokenizer.first_special)


def passed_only(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    """The verifier economy in one line: what failed is never trained on."""
    return [t for t in trajectories if t.passed]


def refuse_held_out(trajectories: Iterable[Trajectory]) -> None:
    """Raises ValueError if the task of one of them is held out. Sheets have no task."""
    for item in trajectories:
        if item.mode != "sheet" and is_held_out(item.key):
            raise ValueError(
                f"a held-out task of {item.family}, level {item.level}, is among the training examples"
            )


def save(file: Path, made: Mapping[Source, Sequence[Trajectory]]) -> None:
    """All trajectories in one npz file, written whole or not at all."""
    items = [(number, item) for number, source in enumerate(made) for item in made[source]]
    ids = np.concatenate([item.example.ids for _, item in items])
    mask = np.concatenate([item.example.mask for _, item in items])
    lengths = np.array([len(item.example.ids) for _, item in items], np.int32)
    numbers = np.array([number for number, _ in items], np.int16)
    rest = [[item.level, item.mistake, item.passed, item.key] for _, item in items]
    about = json.dumps({"sources": [asdict(source) for source in made], "rest": rest})
    save_arrays(file, ids=ids, mask=mask, lengths=lengths, sources=numbers, about=np.array(about))


def load(file: Path) -> dict[Source, list[Trajectory]]:
    """What `save` wrote."""
    arrays = read_arrays(file)
    ends = arrays["lengths"].cumsum()[:-1]
    ids, mask = np.split(arrays["ids"], ends), np.split(arrays["mask"], ends)
    numbers, about = arrays["sources"], json.loads(str(arrays["about"]))
    sources = [Source(**{**entry, "levels": tuple(entry["levels"])}) for entry in about["sources"]]
    made: dict[Source, list[Trajectory]] = {source: [] for source in sources}
    for row_ids, row_mask, number, (level, mistake, passed, key) in zip(ids, mask, numbers, about["rest"]):
        source = sources[number]
        example = Example(row_ids, row_mask)
        made[source].append(Trajectory(example, source.family, level, source.mode, mistake, passed, key))
    return made
