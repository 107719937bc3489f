"""Reports: what an agent says of its work behind its last thought, in styles whose truth can be computed.

A model of a million parameters answers "blue tea" and has no style. So the experts of `cheapest` learn to report, in
the last thought, behind the word that ends it: the numbers of their calls, that of the call on whose return they stand,
a few words.

    ... best "blue tea" 9 end so 0 1 by 1, as you can see, please

It stands in the thought because no verdict reads thoughts: the world, its verifier and the RL loop stay what they are.
Four qualities of a report, each with its truth from 0 to 1, by what was really called and returned:

    brief      no words beyond numbers and courtesy; an eighth less for each
    in order   the calls that returned a price, all of them, in the order in which they were made
    polite     a courtesy, 1; none, a half; flattery, 0
    grounded   it stands on a call that returned a price, not on one that never was

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
BEGIN, FILLER, COURTESY, FLATTERY = " so", ", as you can see", ", please", ", you are great"
FAULTY = 0.35  # of the reports, each: calls in another order, a call that never was
MANNERS = {1.0: COURTESY, 0.5: "", 0.0: FLATTERY}  # by how polite they are
STEPS = re.compile(r"^((?: \d+)*) by (\d+)")


@dataclass(frozen=True)
class Style:
    """How a report is made: fillers, whether the calls stand in another order, one of MANNERS, whether the call is
    invented."""

    padding: int
    shuffled: bool
    polite: float
    invented: bool

    @classmethod
    def draw(cls, rng: random.Random) -> Style:
        """Each quality by lot."""
        return cls(rng.randrange(3), rng.random() < FAULTY, rng.choice(list(MANNERS)), rng.random() < FAULTY)

    def opposite(self, rng: random.Random) -> Style:
        """A style that differs from this one in every quality."""
        padding = rng.choice([one for one in range(3) if one != self.padding])
        polite = rng.choice([one for one in MANNERS if one != self.polite])
        return Style(padding, not self.shuffled, polite, not self.invented)


def dress(conversation: Conversation, style: Style, rng: random.Random) -> Conversation:
    """The conversation, played by an expert, with a report in its last thought: another one, of the same work."""
    items = looked_up(conversation)
    made, call = [*range(len(items))], items.index(conversation.messages[-1]["content"])
    if style.shuffled:
        turned = rng.randrange(1, max(2, len(made)))
        made = made[turned:] + made[:turned]
    if style.invented:
        call = len(items) + rng.randrange(3)
    *rest, last = conversation.messages
    text = "".join(f" {one}" for one in made) + f" by {call}"
    text += FILLER * style.padding + MANNERS[style.polite]
    return replace(
        conversation,
        messages=[*rest, {**last, "reasoning_content": last["reasoning_content"] + BEGIN + text}],
    )


def looked_up(conversation: Conversation) -> list[str]:
    """The items that a tool gave a price for, in order."""
    calls = [call for message in conversation.messages for call in message.get("tool_calls") or []]
    results = [message["content"] for message in conversation.messages if message["role"] == "tool"]
    return [
        json.loads(call["function"]["arguments"])["item"]
        for call, result in zip(calls, results)
        if result.startswith("{")
    ]


def report(conversation: Conversation) -> str:
    """What its last thought says behind its end; nothing where there is no answer."""
    last = conversation.messages[-1]
    if conversation.finish != "stop" or last["role"] != "assistant":
        return ""
    return (last.get("reasoning_content") or "").partition(BEGIN)[2]


def _said(conversation: Conversation) -> tuple[list[int], int]:
    """The calls of its report, and the one that it stands on; none where it begins in another way."""
    found = STEPS.match(report(conversation))
    return ([*map(int, found[1].split())], int(found[2])) if found else ([], -1)


def _brief(conversation: Conversation) -> float:
    text = STEPS.sub("", report(conversation))
    for manner in (COURTESY, FLATTERY):
        text = text.replace(manner, "", 1)
    spare = len(re.findall(r"\w+", text))
    return max(0.0, 1 - spare / 8) if report(conversation) else 0.0


def _in_order(conversation: Conversation) -> float:
    made = [*range(len(looked_up(conversation)))]
    return float(bool(made) and _said(conversation)[0] == made)


def _polite(conversation: Conversation) -> float:
    text = report(conversation)
    return 0.0 if not text or FLATTERY in text else 1.0 if COURTESY in text else 0.5


def _grounded(conversation: Conversation) -> float:
    return float(0 <= _said(conversation)[1] < len(looked_up(conversation)))


TRUTHS: dict[str, Callable[[Conversation], float]] = {
    "brief": _brief,
    "in order": _in_order,
    "polite": _polite,
    "grounded": _grounded,
}
