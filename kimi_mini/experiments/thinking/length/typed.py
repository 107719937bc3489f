"""A script whose messages are typed as tokens, so that what limits do to a context is done to an expert's as well.

The rows for training that come out of it are those of a rollout: the very contexts that hiding leaves, with the numbers
that calls have in a long dialogue.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from kimi_mini.agent import loop
from kimi_mini.agent.conversation import Conversation, begin, training_rows
from kimi_mini.agent.policy import Reply, Script
from kimi_mini.text import chat
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training.batch import Example
from kimi_mini.worlds.base import Expert
from kimi_mini.worlds.rows import Limits


class Typed(Script):
    """Plays a script of messages as a model would: in tokens, with the right number in each call's id."""

    to_the_end = False

    def __init__(self, script_of: Callable[[Conversation], Expert], tokenizer: Tokenizer):
        super().__init__(script_of)
        self.tokenizer = tokenizer

    def reply(self, conversations: Sequence[Conversation], max_tokens: int) -> list[Reply]:
        """The next turn of each. ValueError for one that is longer than the limits allow a model."""
        return [self._typed(conversation, max_tokens) for conversation in conversations]

    def _typed(self, conversation: Conversation, max_tokens: int) -> Reply:
        message = self._next(conversation).message
        for number, call in enumerate(message.get("tool_calls") or [], conversation.calls):
            call["id"] = f"functions.{call['function']['name']}:{number}"
        ids, mask = chat.encode(self.tokenizer, [{"role": "user", "content": ""}, message])
        own = [token for token, mine in zip(ids, mask) if mine]
        if len(own) > max_tokens:
            raise ValueError(f"a turn of {len(own)} tokens, where {max_tokens} are allowed")
        return Reply(own, [0.0] * len(own), "stop")


def played(
    conversation: Conversation, script: Expert, tokenizer: Tokenizer, limits: Limits, first_call: int = 0
) -> list[Example]:
    """A dialogue to its end, as examples: one for each context that hiding began. With a `first_call` the dialogue is
    in its middle, and its first turn is not learned: nothing says which number it has."""
    conversation.calls = first_call
    begin(conversation, tokenizer)
    loop.converse(Typed(lambda _: script, tokenizer), [conversation], tokenizer, limits)
    rows = training_rows(conversation)
    if first_call:
        mask, turn = rows[0][1], conversation.segments[0]
        mask[turn.start : turn.start + len(turn.ids)] = [False] * len(turn.ids)
    return [Example(np.asarray(ids, np.int32), np.asarray(mask, bool)) for ids, mask, _ in rows]
