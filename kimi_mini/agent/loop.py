"""The agent loop: messages -> turn -> tool calls -> results -> ... -> answer, for many conversations at a time.

    converse   whoever takes the turns (see `policy`): a script, a model in this process, a remote engine
    run        a model, or whatever else is to be judged, works on tasks
    play       a task's scripted expert works on it (for synthesis)

Tokens in, tokens out: what the model wrote is never rendered and tokenised again, because another spelling of the same
text would be another sequence than the one it was sampled from (and RL would train on tokens nobody sampled).

Context management: when a conversation outgrows its limit, something old is hidden (`Limits.hide`). K2 Thinking hides
old tool results and keeps the calls; unless told so, ours drops old calls together with their results and keeps what
the task says and the last turns. What was written stays in `Conversation.segments`, and ids count all calls.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from kimi_mini.agent import conversation as state
from kimi_mini.agent.conversation import (
    Conversation,
    Limits,
    act,
    begin,
    has_room,
    hear,
    make_room,
    observe,
    opening,
    stuck,
)
from kimi_mini.agent.policy import Answer, Policy, Reply, Script
from kimi_mini.text import chat
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.worlds import WORLDS, Task
from kimi_mini.worlds.base import Message


def take_turn(
    conversation: Conversation, turn: Reply | Answer, tokenizer: Tokenizer | None, limits: Limits | None
) -> None:
    """Put a turn into the conversation: its message, what the tools answer, and what the user says to an answer.

    A Reply also adds its tokens as sampled, and those of results and user; without a tokenizer there are only messages.
    `finish` is set when nobody goes on, or a limit is reached (None: there are none). Of a turn that was paused the
    tokens are kept, and nothing else happens.
    """
    if turn.finish == "paused":
        state.write(conversation, turn.ids, _own(turn), turn.logprobs, ends=False)
        return
    conversation.turns += 1
    message = _message(conversation, turn, tokenizer)
    if turn.finish in ("length", "loops"):
        conversation.messages.append({**message, "tool_calls": None})
        conversation.finish = turn.finish
        return
    answers = act(conversation, message)
    if not answers:
        said = conversation.environment.user_turn(message.get("content") or "")
        if said is None:
            return
        conversation.finish = None
        conversation.messages.append({"role": "user", "content": said})
        if tokenizer is not None:
            hear(conversation, tokenizer)
    elif tokenizer is not None:
        observe(conversation, chat.encode_results(tokenizer, answers, thinking=conversation.thinking))
    if limits is not None:
        _keep_limits(conversation, limits, tokenizer)


def _message(conversation: Conversation, turn: Reply | Answer, tokenizer: Tokenizer | None) -> Message:
    """The message of a turn; the tokens of a Reply are kept."""
    if isinstance(turn, Answer):
        conversation.written += turn.usage.get("completion_tokens", 0)
        return turn.message
    ids = conversation.part + turn.ids
    state.write(conversation, turn.ids, _own(turn), turn.logprobs)
    message = chat.parse_ids(tokenizer, ids, None if conversation.thinking else False)
    return message if conversation.thinking else {**message, "thinking": False}


def _own(turn: Reply) -> list[bool]:
    return [True] * len(turn.ids) if turn.own is None else turn.own


def _keep_limits(conversation: Conversation, limits: Limits, tokenizer: Tokenizer | None) -> None:
    """End a conversation that has used up its turns or its context, or is stuck; hide what is old where that helps.
    Without a tokenizer there are no tokens, and always room."""
    if conversation.turns >= limits.turns:
        conversation.finish = "turns"
        return
    if stuck(conversation, limits.repeats):
        conversation.finish = "repeats"
        return
    if limits.manage and tokenizer is not None and not has_room(conversation, limits):
        make_room(conversation, limits, tokenizer)
    if not has_room(conversation, limits):
        conversation.finish = "context"


def converse(
    policy: Policy,
    conversations: Sequence[Conversation],
    tokenizer: Tokenizer | None = None,
    limits: Limits | None = None,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Go on with all conversations as one batch until each has ended, or its policy says nothing more.

    progress(n): how many have.
    """
    most = Limits() if limits is None else limits
    policy.open(conversations, most.context)
    active = [conversation for conversation in conversations if conversation.finish is None]
    while active:
        turns = policy.reply(active, most.turn_tokens)
        for conversation, turn in zip(active, turns):
            if turn is not None:
                take_turn(conversation, turn, tokenizer, limits)
        active = [
            conversation
            for conversation, turn in zip(active, turns)
            if turn is not None and (conversation.finish is None or policy.to_the_end)
        ]
        if progress is not None:
            progress(len(conversations) - len(active))


def run(
    policy: Policy,
    tokenizer: Tokenizer | None,
    tasks: Sequence[Task],
    limits: Limits,
    thinking: bool = True,
    progress: Callable[[int], None] | None = None,
) -> list[Conversation]:
    """Work on all `tasks` as one batch until each has ended. Order of the result is that of `tasks`.

    Without a tokenizer, for a policy that speaks in messages, contexts are not counted.
    """
    conversations = [begun(task, tokenizer, limits, thinking) for task in tasks]
    converse(policy, conversations, tokenizer, limits, progress)
    return conversations


def begun(task: Task, tokenizer: Tokenizer | None, limits: Limits, thinking: bool = True) -> Conversation:
    """A conversation up to the model's first turn; it has ended where there is no room for one."""
    conversation = opening(task, thinking)
    if tokenizer is not None:
        begin(conversation, tokenizer)
        if not has_room(conversation, limits):
            conversation.finish = "context"
    return conversation


def play(
    task: Task, rng: random.Random, mistake: str | None = None, thinking: bool = True, first_call: int = 0
) -> Conversation:
    """Let the world's scripted expert work on `task`: the finished conversation, messages only."""
    conversation = opening(task, thinking)
    conversation.calls = first_call
    converse(Script(lambda c: WORLDS[c.task.world].expert(c.task, rng, mistake)), [conversation])
    return conversation
