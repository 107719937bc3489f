"""How the shipped tokenizer was made; this command writes data/tokenizer/ again:

    python -m kimi_mini.experiments.pretraining.vocabulary

It learns from what the model will read: real text, and the worlds' own conversations. The conversations weigh more, so
that item names, labels and the punctuation of JSON become one token each and a call costs few tokens.
"""

import random
from collections.abc import Iterator

from kimi_mini import worlds
from kimi_mini.agent import loop
from kimi_mini.base.command import in_one_line
from kimi_mini.base.paths import TOKENIZER
from kimi_mini.text import chat, corpus
from kimi_mini.text.tokenizer import Tokenizer

CONVERSATIONS = 300  # of each family and level
WEIGHT = 12
TEXT_CHARACTERS = 600_000  # of each kind of real text


def world_texts(seed: int = 0) -> Iterator[str]:
    """Rendered conversations of every family and level whose sentences are fixed, all from the training side of the
    split. A world that draws every word anew (`desk`) has no words that would deserve a token."""
    rng = random.Random(seed)
    trained = (family for family in worlds.FAMILIES.values() if family.trained)
    for family in (family for family in trained if not worlds.WORLDS[family.world].varied):
        for level in family.levels:
            for _ in range(CONVERSATIONS):
                played = loop.play(worlds.generate(rng, family.name, level), rng)
                yield chat.render(played.messages, played.tools, as_written=True)
                played.environment.close()
    for world in worlds.WORLDS.values():
        if world.recital is not None:
            yield from (world.recital(rng) for _ in range(CONVERSATIONS))


def real_text() -> list[tuple[str, int]]:
    """Code and a book, a weight of one each."""
    texts = []
    for documents in (corpus.stdlib_documents(), corpus.book_documents()):
        left = TEXT_CHARACTERS
        for document in documents:
            if left <= 0:
                break
            texts.append((document.text[:left], 1))
            left -= len(document.text)
    return texts


def make() -> Tokenizer:
    """Train on worlds and real text."""
    return Tokenizer.train([*((text, WEIGHT) for text in world_texts()), *real_text()], 1024)


def write() -> None:
    """Train it and write it."""
    print(make().save(TOKENIZER))


if __name__ == "__main__":
    raise SystemExit(in_one_line(write))
