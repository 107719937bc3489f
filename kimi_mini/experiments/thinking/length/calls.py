"""The calls of a dialogue: which items they asked for, which numbers their ids bear, and how the last one broke."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence

from kimi_mini.agent.conversation import Conversation
from kimi_mini.text.tokenizer import Tokenizer

NUMBERED = 24  # calls whose numbers are logged one by one


def how_it_broke(talk: Conversation, tokenizer: Tokenizer) -> tuple[int, str]:
    """How many calls were right before the first turn that was not, and what was wrong about that."""
    path, asked = talk.task.data["path"], items_asked(talk.messages)
    made = next(
        (i for i, (item, right) in enumerate(zip(asked, path)) if item != right), min(len(asked), len(path))
    )
    if made == len(path):
        return made, "right" if talk.verdict().passed else "wrong answer after the last call"
    if made < len(asked) and asked[made]:
        return made, what_was_asked(asked[made], path, made)
    how = f"cut off ({talk.finish})" if made == len(asked) and talk.finish != "stop" else "unreadable"
    name = first_name(talk, tokenizer, made)
    if name is None:
        return made, "stopped too early" if talk.finish == "stop" else how
    return made, f"{how} after {'the right' if name == path[made] else 'another'} name"


def first_name(talk: Conversation, tokenizer: Tokenizer, turn: int) -> str | None:
    """The first item that a turn (from 0) names, in a call that can be read or not; None when there is none."""
    ids = talk.segments[turn].ids if turn < len(talk.segments) else []
    found = re.search(r'"item":"([a-z ]+)', tokenizer.decode(ids))
    return found and found[1]


def what_was_asked(item: str, path: Sequence[str], index: int) -> str:
    """A wrong item, put into words."""
    words = {word for name in path[: index + 1] for word in name.split()}
    if item in path[:index]:
        return "an earlier item again"
    return "two names mixed up" if item.split() and set(item.split()) <= words else "some other name"


def items_asked(messages: Sequence[dict]) -> list[str]:
    """The item of every call, in order; unreadable arguments give an empty name."""
    found = []
    for message in messages:
        for call in message.get("tool_calls") or []:
            try:
                found.append(str(json.loads(call["function"]["arguments"])["item"]))
            except (ValueError, KeyError, TypeError):
                found.append("")
    return found


def numbers_of(messages: Sequence[dict]) -> list[int]:
    """The number at the end of every call's id, in order; -1 where there is none."""
    ends = [call["id"].rpartition(":")[2] for message in messages for call in message.get("tool_calls") or []]
    return [int(end) if end.isascii() and end.isdigit() else -1 for end in ends]


def tally(dialogues: Sequence[list[int]]) -> dict:
    """Calls of all dialogues, those whose number is right and those whose number is new in its dialogue; and for each
    of the first calls how many made it, and how many of those with the right number."""
    pairs = [pair for numbers in dialogues for pair in enumerate(numbers)]
    made, right = (
        Counter(place for place, _ in pairs),
        Counter(place for place, number in pairs if place == number),
    )
    first = range(min(NUMBERED, len(made)))
    return {
        "made": len(pairs),
        "numbered": right.total(),
        "unique": sum(len(set(n)) for n in dialogues),
        "made_at": [made[i] for i in first],
        "numbered_at": [right[i] for i in first],
    }
