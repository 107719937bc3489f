"""What there is before any rollout: experts and their mistakes, with reports in all styles.

reports    examples, from which an agent learns to report, and to err
pairs_of   pairs, from which a critic learns
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np

from kimi_mini import worlds
from kimi_mini.agent import loop
from kimi_mini.text import chat
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training.batch import Example
from kimi_mini.training.rl.critic import RIGHT, Pair
from kimi_mini.training.rl.styles import FAMILY, TRUTHS, Style, dress

MISTAKES = ("slip", "lazy")


def reports(tokenizer: Tokenizer, level: int, count: int, erring: float, seed: int = 0) -> list[Example]:
    """`count` training examples of work with a report, a share `erring` of it wrong, each in a style by lot."""
    made: list[Example] = []
    for index in range(count):
        rng = random.Random(f"{seed}/report/{level}/{index}")
        task = worlds.generate(rng, FAMILY, level)
        work = loop.play(task, rng, rng.choice(MISTAKES) if rng.random() < erring else None)
        work.environment.close()
        ids, mask = chat.encode(tokenizer, dress(work, Style.draw(rng), rng).messages, work.tools)
        made.append(Example(np.asarray(ids, np.int32), np.asarray(mask, bool)))
    return made


def verified_pair(task: worlds.Task, rng: random.Random) -> Pair:
    """Right and wrong work, each with a report in a style of its own, by the verdict of the task's verifier."""
    right, wrong = loop.play(task, rng), loop.play(task, rng, rng.choice(MISTAKES))
    while wrong.verdict().passed:  # a slip may come right
        wrong = loop.play(task, rng, rng.choice(MISTAKES))
    for work in (right, wrong):
        work.environment.close()
    return Pair(*(dress(work, Style.draw(rng), rng) for work in (right, wrong)), {RIGHT: True})


def style_pair(task: worlds.Task, rng: random.Random) -> Pair:
    """Two reports of the same work, right or wrong, that differ in every quality; which is better, their truths say."""
    work, style = loop.play(task, rng, rng.choice((None, *MISTAKES))), Style.draw(rng)
    work.environment.close()
    one, other = dress(work, style, rng), dress(work, style.opposite(rng), rng)
    gaps = {rubric: truth(one) - truth(other) for rubric, truth in TRUTHS.items()}
    return Pair(one, other, {rubric: gap > 0 for rubric, gap in gaps.items() if gap})


def pairs_of(
    make: Callable[[worlds.Task, random.Random], Pair],
    levels: Sequence[int],
    count: int,
    seed: int,
    held_out: bool = False,
) -> list[Pair]:
    """`count` pairs that `make` makes, levels in turn, on tasks of the asked side of the split."""
    made: list[Pair] = []
    for index in range(count):
        rng = random.Random(f"{seed}/{make.__name__}/{index}/{held_out}")
        task = worlds.generate(rng, FAMILY, levels[index % len(levels)], held_out)
        made.append(make(task, rng))
    return made
