"""What a finished conversation is worth."""

from __future__ import annotations

from kimi_mini.agent.conversation import Conversation


def reward(conversation: Conversation, budget_penalty: float = 0.5) -> float:
    """1 if the verifier accepts, else 0; an attempt that ran out of tokens or turns loses `budget_penalty`."""
    if conversation.finish != "stop":
        return max(-1.0, -budget_penalty)
    return 1.0 if conversation.verdict().passed else 0.0
