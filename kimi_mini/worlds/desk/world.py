"""World `desk`: many trades, tools that nobody has seen, words that nobody has chosen beforehand.

Trained families are the patterns of `desk.tasks`; each task of training is drawn in a surface of its own. `plain` is
all of them as people type it first: short sentences, common words, quotes or none, and tools that say in words of
their own what went wrong. The probes are families that are trained nowhere: each takes the held-out part of one thing
and leaves the rest as in training, or asks for compositions and domains that are in no training stream.
"""

from __future__ import annotations

import random

from kimi_mini.worlds.base import Task
from kimi_mini.worlds.desk.adversary import KINDS, SHORTCUTS
from kimi_mini.worlds.desk.application import open_environment
from kimi_mini.worlds.desk.composed import COMPOSED
from kimi_mini.worlds.desk.judge import verify
from kimi_mini.worlds.desk.play.clerk import expert
from kimi_mini.worlds.desk.play.sheets import plain_sheet, sheet
from kimi_mini.worlds.desk.surface import FINDER, Surface, dressed
from kimi_mini.worlds.desk.tasks import PATTERNS, SIZES
from kimi_mini.worlds.registry import Family, World, register
from kimi_mini.worlds.rows import Limits, Row

DONE = {"error": False, "outcome": "done"}  # what is measured is the one thing that a probe changes
PROBES = {
    "names": Surface(names=True, **DONE),
    "wordings": Surface(wordings=True, **DONE),
    "systems": Surface(systems=True, **DONE),
    "formats": Surface(formats=True, **DONE),
    "distractors": Surface(distractors=range(3, 11), **DONE),
    "renamed": Surface(tools=True, **DONE),
    "domains": Surface(domain=True, **DONE),
    "errors": Surface(error=True, outcome="done"),
    "missing": Surface(error=False, outcome="missing"),
    "refuse": Surface(error=False, outcome="no tool"),
    "finder": Surface(finder=1.0, **DONE),
}


def generate(rng: random.Random, family: str, level: int, breadth: float = 1.0) -> Task:
    """A task of `family`; the level of a pattern is its size, that of `plain` and of a probe the pattern's number."""
    if family in PATTERNS:
        return dressed(rng, family, family, level, Surface(breadth=breadth, finder=FINDER))
    if family == "composed":
        return dressed(rng, family, level, level, Surface(**DONE))
    pattern = list(PATTERNS)[level - 1]
    surface = Surface(breadth=breadth, plainly=True) if family == "plain" else PROBES[family]
    return dressed(rng, family, pattern, rng.choice(SIZES[pattern]), surface)


EVERY = range(1, len(PATTERNS) + 1)
NAMED = [number for number, pattern in enumerate(PATTERNS, 1) if pattern not in ("search", "create")]
TOKENS = 640
SHARES = dict(ask=0.15, trace=0.12, branch=0.24, least=0.20, orders=0.18, search=0.18, copy=0.18, create=0.12)
PLAIN = 0.6
FAMILIES = {
    **{name: Family(SIZES[name], dict(think=share), length=TOKENS) for name, share in SHARES.items()},
    "ask": Family(SIZES["ask"], dict(think=SHARES["ask"], sheet=0.8), sheet=sheet, length=TOKENS),
    "plain": Family(EVERY, dict(think=PLAIN, sheet=0.7), sheet=plain_sheet, length=TOKENS),
    **{name: Family(NAMED if name == "missing" else EVERY, {}) for name in PROBES},
    "composed": Family(range(1, len(COMPOSED) + 1), {}),
}

LIMITS = Limits(turn_tokens=224, turns=16, context=2048)  # the longest turns of the expert have 180 tokens
SAYS = {
    "ask": "look up numbers, in any words and with any tools",
    "trace": "follow a link to its end, in any words and with any tools",
    "branch": "act on a condition, in any words and with any tools",
    "least": "find the lowest of a list, in any words and with any tools",
    "orders": "work through a list, in any words and with any tools",
    "search": "search, then pick, in any words and with any tools",
    "copy": "carry a number over, in any words and with any tools",
    "create": "create and look, in any words and with any tools",
    "plain": "any of these as people type it: short sentences, common words, quotes or none",
    "names": "names of words that no training text holds",
    "wordings": "wordings that are not trained",
    "systems": "system prompts that are not trained",
    "formats": "result formats that are not trained",
    "distractors": "three to twelve declared tools, most of them of no use",
    "renamed": "tools and arguments with names of words never seen",
    "domains": "tools of trades that are not trained",
    "errors": "one error on the way, in words never seen",
    "missing": "a thing that is not there is said to be missing",
    "refuse": "what no declared tool can do is said to be so",
    "finder": "the tool has to be found first",
    "composed": "kinds of tasks that are never trained",
}
FLOORS = dict.fromkeys((*PATTERNS, "plain"), 0.97) | dict(
    names=0.95,
    wordings=0.90,
    systems=0.95,
    formats=0.90,
    distractors=0.90,
    renamed=0.90,
    domains=0.75,
    errors=0.90,
    missing=0.90,
    refuse=0.90,
    finder=0.75,
    composed=0.30,
)
ROWS = tuple(
    Row(f"desk/{name}", name, limits=LIMITS, floor=FLOORS[name], says=SAYS[name]) for name in FAMILIES
)

register(
    World(
        "desk",
        generate,
        open_environment,
        expert,
        verify,
        FAMILIES,
        ROWS,
        KINDS,
        colour="#D55E00",
        varied=True,
        shortcuts=SHORTCUTS,
    )
)
