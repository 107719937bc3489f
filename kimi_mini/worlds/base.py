"""What every world shares: a task, the place where it is worked on, a verdict, and the words of an expert.

A world is one file with four functions, the parts of K2's agentic data synthesis (report, section 3.1.1):

    generate(rng, family, level) -> Task          seeded, with a difficulty
    open_environment(task) -> Environment         real state and real tools
    expert(task, rng, mistake) -> generator       a scripted policy; `mistake` makes it err on purpose
    verify(task, messages, environment) -> Verdict    looks at results and final state; at wording for denials

and says the rest about itself at its end (see `worlds.registry`). Where a family turns on one small decision, it has
an exercise sheet that practises just that decision, a dozen times in the space of one trajectory. A trajectory of 220
tokens holds a single comparison of two numbers.
"""

from __future__ import annotations

import hashlib
import json
import random
import string
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

from kimi_mini.worlds.tools import Toolbox

SYSTEM = "You are Kimi."
HELD_OUT_SHARE = 16  # one task in sixteen is held out, by content

Message = dict[str, Any]
Sheet = list[tuple[str, bool]]  # pieces of text, and whether they are to be learned
Expert = Generator[Message, str, None]


def is_held_out(key: str) -> bool:
    """Whether the task with this content key belongs to the evaluation side."""
    return int(key[:8], 16) % HELD_OUT_SHARE == 0


@dataclass(frozen=True)
class Task:
    """One thing to do: what the user says, and what the world must look like when it begins.

    `level` counts the steps that the task needs (chain length, hops, items, lines). `data` is
    everything that the environment and the verifier need; the model never sees it. `system` is the system message;
    None for a dialogue without one.
    """

    world: str
    family: str
    level: int
    prompt: str
    data: dict[str, Any] = field(default_factory=dict)
    system: str | None = SYSTEM

    @cached_property
    def key(self) -> str:
        """A name for the content: equal for two tasks that ask the same thing about the same world. The world includes
        rows that the model may never read; a family's `measured` levels leave out where what it reads is too little
        to tell tasks apart."""
        content = json.dumps([self.family, self.prompt, self.data], sort_keys=True)
        return hashlib.sha1(content.encode()).hexdigest()

    @property
    def held_out(self) -> bool:
        """True for the one task in sixteen that no training stream may contain."""
        return is_held_out(self.key)


@dataclass
class Environment:
    """The live side of a task: its tools and whatever they act on (a database, a source file)."""

    toolbox: Toolbox | None = None
    state: Any = None

    def user_turn(self, answer: str) -> str | None:
        """What the user says to an answer; None when the user has nothing more to say, which ends the task."""
        return None

    def close(self) -> None:
        """Release what the state holds, a database connection for instance."""
        if hasattr(self.state, "close"):
            self.state.close()


@dataclass(frozen=True)
class Verdict:
    """What a verifier says, and the evidence it says it on."""

    passed: bool
    evidence: str


@dataclass(frozen=True)
class Kind:
    """One way to work on a task, known to be right or wrong by how it is made: a name that says how, and the script.

    A script is like an expert; it knows everything, the hidden tests too. Wrong ones look right: the right words over
    the wrong state, the right answer without the work. Right ones look unusual: another order, a mistake put right.
    """

    name: str
    right: bool
    families: tuple[str, ...]
    script: Callable[[Task, random.Random], Expert]
    from_level: int = 1


class Kinds(list[Kind]):
    """The kinds of one world, collected from its scripts by `@kinds.right(...)` and `@kinds.wrong(...)`."""

    def __init__(self, *families: str):
        super().__init__()
        self.families = families

    def right(self, name: str, *families: str, from_level: int = 1):
        """The script below makes a right trajectory, in `families` or in all of them."""
        return self._add(name, True, families, from_level)

    def wrong(self, name: str, *families: str, from_level: int = 1):
        """The script below makes a wrong trajectory, in `families` or in all of them."""
        return self._add(name, False, families, from_level)

    def _add(self, name: str, is_right: bool, families: tuple[str, ...], from_level: int):
        def add(script):
            self.append(Kind(name, is_right, families or self.families, script, from_level))
            return script

        return add


def labels(rng: random.Random, count: int) -> list[str]:
    """`count` letters in order from a random first one, so that a late label is no surprise."""
    first = rng.randint(0, len(string.ascii_lowercase) - count)
    return list(string.ascii_lowercase[first : first + count])


_SYLLABLES = [consonant + vowel for consonant in "bdfghjklmnprstvwz" for vowel in "aiou"]


def invented(rng: random.Random, count: int) -> list[str]:
    """`count` different invented words of two or three syllables, none of which begins another: what cannot be known
    by heart has to be read. Without the letter e, so that none is a word of SQL."""
    words: list[str] = []
    while len(words) < count:
        word = "".join(rng.choices(_SYLLABLES, k=rng.choice((2, 2, 3))))
        if not any(word.startswith(other) or other.startswith(word) for other in words):
            words.append(word)
    return words


def needs(**properties: dict) -> dict:
    """The JSON schema of arguments that are all required."""
    return {"type": "object", "properties": properties, "required": list(properties)}


def turn(
    thought: str, content: str | None = None, call: tuple[str, dict] | None = None, weight: int = 1
) -> Message:
    """One assistant message of an expert: a thought, then an answer or a call `(name, arguments)`. weight 0: a wrong
    step, which is not learned; what puts it right is.

    The call's id is left open: the loop that plays the expert counts the calls of the dialogue.
    """
    message: Message = {"role": "assistant", "content": content, "reasoning_content": thought}
    if weight != 1:
        message["weight"] = weight
    if call is not None:
        name, arguments = call
        text = json.dumps(arguments, separators=(",", ":"))
        message["tool_calls"] = [
            {"id": None, "type": "function", "function": {"name": name, "arguments": text}}
        ]
    return message


def final_answer(messages: list[Message]) -> str | None:
    """The text of the last assistant message, if it is an answer and not a call; stripped."""
    last = messages[-1] if messages else {}
    if last.get("role") != "assistant" or last.get("tool_calls"):
        return None
    return (last.get("content") or "").strip()


def plain(answer: str) -> str:
    """An answer without quotes around it or a full stop at its end."""
    return answer.rstrip(".").strip("\"' ").rstrip(".")


def answers_early(messages: list[Message]) -> bool:
    """Whether the assistant went on behind an answer without a word of the user: it claimed before it was done."""
    return any(
        message.get("role") == "assistant" and not message.get("tool_calls") and after.get("role") != "user"
        for message, after in pairwise(messages)
    )


def most_calls(needed: int) -> int:
    """How many calls a task that needs `needed` may take: room for mistakes put right, none for trying everything."""
    return 2 * needed + 2
