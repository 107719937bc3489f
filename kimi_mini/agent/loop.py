"""The agent loop: messages -> model -> tool calls -> results -> ... -> answer, for many tasks at a time.

    Conversation   one task being worked on: its messages, and the very tokens the model has seen and written
    play           a scripted expert at the wheel (for synthesis)
    run            a model at the wheel, batched; observation tokens are never the model's own
    LocalPolicy    decodes one turn for each conversation with a KimiMini and a static cache

Tokens in, tokens out: what the model wrote is never rendered and tokenised again, because another spelling of the same
text would be another sequence than the one it was sampled from (and RL would train on tokens nobody sampled).

Context management, as in K2 Thinking: when a conversation outgrows its limit, old tool results are hidden. Ours drops
the old calls together with their results and keeps what the task says and the last turns.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from kimi_mini.agent.conversation import (
    Conversation,
    Limits,
    _has_room,
    _observe,
    act,
    begin,
    hide_old_turns,
    opening,
)
from kimi_mini.agent.policy import Policy, Reply
from kimi_mini.text import chat
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.worlds import WORLDS, Task


def play(
    task: Task, rng: random.Random, mistake: str | None = None, thinking: bool = True, first_call: int = 0
):
    """Let the world's scripted expert work on ``task``. Returns the finished Conversation (messages only)."""
    conversation = opening(task, thinking)
    conversation.calls = first_call
    expert = WORLDS[task.world].expert(task, rng, mistake)
    message = next(expert)
    while True:
        if not thinking:
            message = {**message, "reasoning_content": "", "thinking": False}
        results = act(conversation, message)
        try:
            message = expert.send(results[0]["content"] if results else "")
        except StopIteration:
            return conversation


def take_turn(conversation: Conversation, reply: Reply, tokenizer: Tokenizer, limits: Limits) -> None:
    """Put a reply into the conversation: tokens as sampled, the message they parse to, and the tools' answers."""
    conversation.turn_starts.append(len(conversation.ids))
    conversation.turns += 1
    conversation.ids += reply.ids
    conversation.mask += [True] * len(reply.ids)
    conversation.logprobs += reply.logprobs
    conversation.written += len(reply.ids)
    message = chat.parse_ids(tokenizer, reply.ids, None if conversation.thinking else False)
    if not conversation.thinking:
        message["thinking"] = False
    if reply.finish == "length":
        conversation.messages.append({**message, "tool_calls": None})
        conversation.finish = "length"
        return
    results = act(conversation, message)
    if not results:
        return
    _observe(conversation, chat.encode_results(tokenizer, results, thinking=conversation.thinking))
    if conversation.turns >= limits.turns:
        conversation.finish = "turns"
        return
    if limits.manage and not _has_room(conversation, limits):
        hide_old_turns(conversation, limits.keep_turns)
    if not _has_room(conversation, limits):
        conversation.finish = "context"


def run(
    policy: Policy,
    tokenizer: Tokenizer,
    tasks: Sequence[Task],
    limits: Limits,
    thinking: bool = True,
    progress=None,
) -> list[Conversation]:
    """Work on all ``tasks`` as one batch until each has ended. Order of the result is that of ``tasks``."""
    conversations = [opening(task, thinking) for task in tasks]
    for conversation in conversations:
        begin(conversation, tokenizer)
        if not _has_room(conversation, limits):
            conversation.finish = "context"
    policy.open(conversations, limits.context)
    active = [conversation for conversation in conversations if conversation.finish is None]
    while active:
        for conversation, reply in zip(active, policy.reply(active, limits.turn_tokens)):
            take_turn(conversation, reply, tokenizer, limits)
        active = [conversation for conversation in active if conversation.finish is None]
        if progress is not None:
            progress(len(conversations) - len(active))
    return conversations


def success_rate(conversations: Sequence[Conversation]) -> float:
    """Share of conversations that their verifier accepts."""
    return float(np.mean([conversation.verdict().passed for conversation in conversations]))
