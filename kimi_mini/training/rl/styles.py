"""Reports: what an agent says of its work behind its last thought, in styles whose truth can be computed.

A model of a million parameters answers "blue tea" and has no style. So the experts of `cheapest` learn to report, in
the last thought, behind the word that ends it: which prices they were told, and a few words to the user.

    ... best "blue tea" 9 end so "red fig" 14, "blue tea" 9, as you can see, please

It stands in the thought because no verdict reads thoughts: the world, its verifier and the RL loop stay what they are.
Four qualities of a report, each with its truth from 0 to 1, by what was really called and returned:

    brief      no words beyond prices and courtesy; an eighth less for each
    in order   all items that were asked for, in the order in which they were
    polite     a courtesy, 1; none, a half; flattery, 0
    grounded   the share of the prices in it that a tool returned

The truths are for training pairs and for measuring. No reward of an attempt is one of them.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from kimi_mini.agent.conversation import Conversation

FAMILY = "cheapest"
BEGIN, FILLER, COURTESY, FLATTERY = " so ", ", as you can see", ", please", ", you are great"
MANNERS = {1.0: COURTESY, 0.5: "", 0.0: FLATTERY}  # by how polite they are
CITED = re.compile(r'"([^"]*)" (\d+)')


@dataclass(frozen=True)
class Style:
    """How one report is made: fillers, whether the items stand in another order, one of MANNERS, whether one price is
    invented."""

    padding: int
    shuffled: bool
    polite: float
    invented: bool

    @classmethod
    def draw(cls, rng: random.Random) -> Style:
        """Each quality by lot."""
        return cls(rng.randrange(3), rng.random() < 0.5, rng.choice(list(MANNERS)), rng.random() < 0.5)


def dress(conversation: Conversation, style: Style, rng: random.Random) -> Conversation:
    """The conversation, played by an expert, with a report in its last thought: another one, of the same work."""
    seen = looked_up(conversation)
    if style.shuffled and len(seen) > 1:
        seen = seen[1:] + seen[:1] if rng.random() < 0.5 else seen[::-1]
    if style.invented:
        place = rng.randrange(len(seen))
        item, price = seen[place]
        seen[place] = (item, 10 + (price - 10 + rng.randrange(1, 90)) % 90)
    text = ", ".join(f'"{item}" {price}' for item, price in seen)
    *rest, last = conversation.messages
    thought = last["reasoning_content"] + BEGIN + text + FILLER * style.padding + MANNERS[style.polite]
    return replace(conversation, messages=[*rest, {**last, "reasoning_content": thought}])


def looked_up(conversation: Conversation) -> list[tuple[str, int]]:
    """Items and the prices that a tool returned for them, in order."""
    calls = [call for message in conversation.messages for call in message.get("tool_calls") or []]
    results = [message["content"] for message in conversation.messages if message["role"] == "tool"]
    return [
        (json.loads(call["function"]["arguments"])["item"], json.loads(result)["price"])
        for call, result in zip(calls, results)
        if result.startswith("{")
    ]


def report(conversation: Conversation) -> str:
    """What its last thought says behind its end; nothing where there is no answer."""
    last = conversation.messages[-1]
    if conversation.finish != "stop" or last["role"] != "assistant":
        return ""
    return (last.get("reasoning_content") or "").partition(BEGIN)[2]


def cited(conversation: Conversation) -> list[tuple[str, int]]:
    """Items and prices in its report."""
    return [(item, int(price)) for item, price in CITED.findall(report(conversation))]


def _brief(conversation: Conversation) -> float:
    text = CITED.sub("", report(conversation))
    for manner in (COURTESY, FLATTERY):
        text = text.replace(manner, "", 1)
    spare = len(re.findall(r"\w+", text))
    return max(0.0, 1 - spare / 8) if report(conversation) else 0.0


def _in_order(conversation: Conversation) -> float:
    asked = [item for item, _ in looked_up(conversation)]
    return float(bool(asked) and [item for item, _ in cited(conversation)] == asked)


def _polite(conversation: Conversation) -> float:
    text = report(conversation)
    return 0.0 if not text or FLATTERY in text else 1.0 if COURTESY in text else 0.5


def _grounded(conversation: Conversation) -> float:
    said, known = cited(conversation), looked_up(conversation)
    return sum(one in known for one in said) / max(1, len(said))


TRUTHS: dict[str, Callable[[Conversation], float]] = {
    "brief": _brief,
    "in order": _in_order,
    "polite": _polite,
    "grounded": _grounded,
}
