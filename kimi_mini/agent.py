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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch

from kimi_mini.inference.decoder import Decoder
from kimi_mini.inference.sampling import sample
from kimi_mini.model.kimi import KimiMini
from kimi_mini.text import chat
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.worlds import WORLDS, Environment, Task, Verdict
from kimi_mini.worlds.base import Message

SYSTEM = "You are Kimi."


@dataclass(frozen=True)
class Limits:
    """Budgets of a rollout, in tokens and turns; what ends one is recorded in ``Conversation.finish``."""

    turn_tokens: int = 128
    turns: int = 12
    context: int = 1024
    manage: bool = False  # hide old turns when the context is full, instead of ending there
    keep_turns: int = 2

    def __post_init__(self) -> None:
        """Raises ValueError for a limit that no rollout can keep."""
        for name, least in (("turn_tokens", 1), ("turns", 1), ("context", 1), ("keep_turns", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name} must be a whole number from {least}, not {value!r}")


@dataclass
class Conversation:
    """A task with everything said so far. ``ids`` is the context, ``mask`` marks what the model wrote itself."""

    task: Task
    messages: list[Message]
    environment: Environment
    thinking: bool = True
    ids: list[int] = field(default_factory=list)
    mask: list[bool] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    turn_starts: list[int] = field(default_factory=list)
    prompt_length: int = 0
    turns: int = 0  # all of them, the hidden ones too
    calls: int = 0
    written: int = 0
    finish: str | None = None
    kept_from: int = 0  # positions of the cache that are still right after old turns were hidden

    @property
    def tools(self) -> list[dict] | None:
        """Declarations for the template, or None for a task without tools."""
        box = self.environment.toolbox
        return box.declarations() if box else None

    def verdict(self) -> Verdict:
        """What the world's verifier says of the messages and the final state."""
        return WORLDS[self.task.world].verify(self.task, self.messages, self.environment)


def opening(task: Task, thinking: bool = True) -> Conversation:
    """System prompt and the user's words, in a freshly opened environment."""
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": task.prompt}]
    return Conversation(task, messages, WORLDS[task.world].open_environment(task), thinking)


def act(conversation: Conversation, message: Message) -> list[Message]:
    """Append an assistant message, run its calls, append and return the tool messages; decide whether it ends here."""
    conversation.messages.append(message)
    results = []
    box = conversation.environment.toolbox
    for call in message.get("tool_calls") or []:
        name = call["function"]["name"]
        if call.get("id") is None:
            call["id"] = f"functions.{name}:{conversation.calls}"
        conversation.calls += 1
        text = box.call(name, call["function"]["arguments"]).content if box else "error: no tools are declared here"
        results.append({"role": "tool", "name": name, "tool_call_id": call["id"], "content": text})
    conversation.messages += results
    if not results:
        conversation.finish = "stop"
    return results


def play(task: Task, rng: random.Random, mistake: str | None = None, thinking: bool = True, first_call: int = 0):
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


# -- a model at the wheel ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reply:
    """One turn as tokens: what was sampled (end token included), its log-probabilities, and how it ended."""

    ids: list[int]
    logprobs: list[float]
    finish: str  # stop | length


class Policy(Protocol):
    """Whatever can take the next turn of several conversations."""

    def open(self, conversations: Sequence[Conversation], context: int) -> None: ...

    def reply(self, conversations: Sequence[Conversation], max_tokens: int) -> list[Reply]: ...


class LocalPolicy:
    """A KimiMini in this process. Keeps one cache row a conversation for as long as the batch lives."""

    def __init__(self, model: KimiMini, tokenizer: Tokenizer, temperature: float = 0.0, seed: int = 0):
        self.model, self.tokenizer, self.temperature = model, tokenizer, temperature
        self.generator = torch.Generator(model.lm_head.weight.device).manual_seed(seed)
        self.stop = tokenizer.token_id("<|im_end|>")
        self.rows: dict[int, int] = {}
        self.decoder: Decoder | None = None

    def open(self, conversations: Sequence[Conversation], context: int) -> None:
        """Make room for a batch of conversations of at most ``context`` tokens each."""
        self.decoder = Decoder(self.model, len(conversations), context)
        self.rows = {id(conversation): row for row, conversation in enumerate(conversations)}

    def _compact(self, conversations: Sequence[Conversation]) -> None:
        """Drop the rows of finished conversations once they are the majority."""
        if 2 * len(conversations) <= len(self.rows):
            self.decoder.select([self.rows[id(c)] for c in conversations])
            self.rows = {id(c): row for row, c in enumerate(conversations)}

    @torch.no_grad()
    def reply(self, conversations: Sequence[Conversation], max_tokens: int) -> list[Reply]:
        """Decode one turn for each conversation, all at once."""
        self._compact(conversations)
        was_training = self.model.training
        self.model.eval()
        rows = [self.rows[id(c)] for c in conversations]
        lengths = self.decoder.lengths.tolist()
        pending: list[list[int]] = [[] for _ in lengths]
        for row, conversation in zip(rows, conversations):
            if conversation.kept_from:
                lengths[row], conversation.kept_from = conversation.kept_from, 0
        self.decoder.truncate(lengths)
        for row, conversation in zip(rows, conversations):
            pending[row] = conversation.ids[lengths[row] :]
        replies = self._decode(rows, pending, max_tokens)
        self.model.train(was_training)
        return replies

    def _decode(self, rows: list[int], pending: list[list[int]], max_tokens: int) -> list[Reply]:
        written: list[list[int]] = [[] for _ in pending]
        chances: list[list[float]] = [[] for _ in pending]
        live = list(rows)
        for _ in range(max_tokens):
            logits = self.decoder.extend(pending)
            ids, logprobs = sample(logits[live], self.temperature, self.generator)
            pending = [[] for _ in pending]
            for row, token, logprob in zip(live, ids.tolist(), logprobs.tolist()):
                written[row].append(token)
                chances[row].append(logprob)
                if token != self.stop:
                    pending[row] = [token]
            live = [row for row in live if pending[row]]
            if not live:
                break
        return [
            Reply(written[row], chances[row], "stop" if written[row][-1] == self.stop else "length") for row in rows
        ]


def _observe(conversation: Conversation, ids: Iterable[int]) -> None:
    """Append tokens that the environment wrote."""
    ids = list(ids)
    conversation.ids += ids
    conversation.mask += [False] * len(ids)
    conversation.logprobs += [0.0] * len(ids)


def begin(conversation: Conversation, tokenizer: Tokenizer) -> None:
    """Tokenise the opening, up to where the model takes over."""
    ids, _ = chat.encode(
        tokenizer,
        conversation.messages,
        conversation.tools,
        add_generation_prompt=True,
        thinking=conversation.thinking,
    )
    _observe(conversation, ids)
    conversation.prompt_length = len(ids)


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


def _has_room(conversation: Conversation, limits: Limits) -> bool:
    """Whether one more turn fits into the context."""
    return len(conversation.ids) + limits.turn_tokens <= limits.context


def hide_old_turns(conversation: Conversation, keep: int) -> None:
    """Shorten the context to the prompt and the last ``keep`` turns with their results; 0 hides them all.

    A turn begins after a generation prompt, which stays. The cached prompt stays valid; the rest is fed again.
    """
    kept = conversation.turn_starts[max(0, len(conversation.turn_starts) - keep) :]
    start, prompt = kept[0] if kept else len(conversation.ids), conversation.prompt_length
    for name in ("ids", "mask", "logprobs"):
        values = getattr(conversation, name)
        setattr(conversation, name, values[:prompt] + values[start:])
    shift = start - prompt
    conversation.turn_starts = [begin - shift for begin in kept]
    conversation.kept_from = min(prompt, len(conversation.ids) - 1)


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
