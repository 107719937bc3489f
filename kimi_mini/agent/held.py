"""An agent whose calls a grammar holds to the schemas of its tools, in its own loop."""

from __future__ import annotations

from kimi_mini.agent.conversation import Conversation
from kimi_mini.agent.policy import LocalPolicy
from kimi_mini.inference.serving.constrained import Constraint, with_found
from kimi_mini.inference.writer import Row
from kimi_mini.model.kimi import KimiMini
from kimi_mini.text.tokenizer import Tokenizer


class HeldPolicy(LocalPolicy):
    """The agent in its own loop, its calls held to the schemas of the tools that it has by now: those declared, and
    those that a search has found."""

    def __init__(self, model: KimiMini, tokenizer: Tokenizer):
        super().__init__(model, tokenizer)
        self.tokenizer = tokenizer

    def _row(self, conversation: Conversation, max_tokens: int) -> Row:
        row = super()._row(conversation, max_tokens)
        options = {"thinking": conversation.thinking, "next_call": conversation.calls}
        tools = with_found(conversation.tools, conversation.messages)
        row.allowed = Constraint(self.tokenizer, tools, **options)
        return row
