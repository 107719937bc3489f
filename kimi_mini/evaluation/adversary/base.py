"""What a kind of trajectory is, how one is played, and the words that the scripts share."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from kimi_mini import worlds
from kimi_mini.agent import conversation as conversation_
from kimi_mini.worlds import Task
from kimi_mini.worlds.base import Expert, Message, turn

SHOP = ("follow", "condition", "cheapest", "buy")
CHAIN = ("chain", "add", "times")


@dataclass(frozen=True)
class Kind:
    """One way to be right or wrong: a name that says how, and the script that plays it."""

    name: str
    right: bool
    families: tuple[str, ...]
    script: Callable[[Task, random.Random], Expert]
    from_level: int = 1


KINDS: list[Kind] = []


def wrong(name: str, *families: str, from_level: int = 1):
    """Registers the script below it as a kind of wrong trajectory."""
    return _kind(name, False, families, from_level)


def right(name: str, *families: str, from_level: int = 1):
    """Registers the script below it as a kind of right trajectory."""
    return _kind(name, True, families, from_level)


def _kind(name: str, is_right: bool, families: tuple[str, ...], from_level: int):
    def register(script):
        KINDS.append(Kind(name, is_right, families, script, from_level))
        return script

    return register


def perform(kind: Kind, task: Task, rng: random.Random) -> conversation_.Conversation:
    """Play one trajectory of ``kind`` on ``task``: real tools, real state."""
    conversation = conversation_.opening(task)
    script = kind.script(task, rng)
    message = next(script)
    while True:
        results = conversation_.act(conversation, message)
        try:
            message = script.send(results[0]["content"] if results else "")
        except StopIteration:
            return conversation


def expert(task: Task, rng: random.Random, mistake: str | None = None) -> Expert:
    """The scripted expert of the task's world."""
    return worlds.WORLDS[task.world].expert(task, rng, mistake)


def answer_of(task: Task) -> str:
    """The right last words."""
    data = task.data
    if task.family == "follow":
        return data["path"][-1]
    return str(data["answer"]) if "answer" in data else "fixed" if task.world == "repair" else "done"


def reads_of(task: Task) -> list[tuple[str, dict]]:
    """The calls that a ``follow``, ``cheapest`` or ``condition`` has to make before it may answer or decide."""
    tool = {"follow": "next", "cheapest": "price", "condition": "stock"}[task.family]
    items = task.data.get("path") or task.data.get("items") or [task.data["asked"]]
    return [(tool, {"item": item}) for item in items]


def buys_of(task: Task) -> list[tuple[str, dict]]:
    """The purchases that a ``condition`` or ``buy`` asks for; none for the others."""
    return [("buy", {"item": item, "count": count}) for item, count in task.data.get("bought", [])]


def several(calls: list[tuple[str, dict]]) -> Message:
    """All calls in one message."""
    message = turn("")
    message["tool_calls"] = [turn("", call=call)["tool_calls"][0] for call in calls]
    return message
