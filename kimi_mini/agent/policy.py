"""Whoever takes the next turn: a scripted expert, a KimiMini in this process, or anything that speaks in messages.

Policy         the contract: conversations in, one turn for each of them out
Answer         a turn as a message, of a policy that knows no tokens (a script, a remote engine)
Reply          a turn as tokens, of a policy whose tokens are kept and may be trained on
Script         plays a generator of messages, such as a world's expert
LocalPolicy    decodes with a model and a latent cache, with a thinking budget if it is given one
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from kimi_mini.agent.conversation import Conversation
from kimi_mini.inference.thinking import Turn, check_budget
from kimi_mini.inference.writer import Marks, Row, Writer, dice, stops_of
from kimi_mini.model.kimi import KimiMini
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.worlds.base import Expert, Message


@dataclass(frozen=True)
class Answer:
    """One turn as an assistant message (OpenAI's dict), how it ended, and what it cost if that is known.

    usage: such as {"completion_tokens": 12}.
    """

    message: Message
    finish: str = "stop"  # stop | length
    usage: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Reply:
    """One turn as tokens (its end included): which of them the model chose, their log-probabilities, how it ended.

    A turn that is paused goes on in the next Reply to the same conversation.
    """

    ids: list[int]
    logprobs: list[float]
    finish: str  # stop | length | loops | paused
    own: list[bool] | None = None  # None: all of them

    @classmethod
    def of(cls, turn: Turn) -> Reply:
        """A turn of `thinking.write`."""
        return cls(turn.ids, turn.logprobs, turn.finish, turn.own)


class Policy(Protocol):
    """Whatever can take the next turn of several conversations.

    A policy reads `conversation.messages` and `conversation.tools`, or `conversation.ids` if it works with tokens.
    None in place of a turn: it has nothing more to say. With `to_the_end` only that ends a conversation, and not an
    answer: a script may call tools behind its answer.
    """

    to_the_end: bool

    def open(self, conversations: Sequence[Conversation], context: int) -> None:
        """These conversations will come, of at most `context` tokens each."""

    def reply(self, conversations: Sequence[Conversation], max_tokens: int) -> list[Reply | Answer | None]:
        """The next turn of each, of at most `max_tokens` tokens."""


class Script:
    """Plays generators of messages: one a conversation, told what its last call returned or what the user said."""

    to_the_end = True

    def __init__(self, script_of: Callable[[Conversation], Expert]):
        self.script_of = script_of
        self.scripts: dict[Conversation, Expert] = {}

    def open(self, conversations: Sequence[Conversation], context: int) -> None:
        self.scripts = {conversation: self.script_of(conversation) for conversation in conversations}

    def reply(self, conversations: Sequence[Conversation], max_tokens: int) -> list[Answer | None]:
        return [self._next(conversation) for conversation in conversations]

    def _next(self, conversation: Conversation) -> Answer | None:
        script = self.scripts[conversation]
        try:
            message = script.send(heard(conversation)) if conversation.turns else next(script)
        except StopIteration:
            return None
        if not conversation.thinking:
            message = {**message, "reasoning_content": "", "thinking": False}
        return Answer(message)


def heard(conversation: Conversation) -> str:
    """What came back after the last turn: the first of its calls' results, or what the user said; else nothing."""
    messages = conversation.messages
    last = max(index for index, message in enumerate(messages) if message["role"] == "assistant")
    return messages[last + 1]["content"] if last + 1 < len(messages) else ""


class LocalPolicy:
    """A KimiMini in this process. Keeps one place of a latent cache a conversation for as long as the batch lives.

    budget: most tokens of a thought (None: the model decides). What a conversation samples depends on `seed`, its
    number, and its turn: not on who else is in the batch. The number is its place among those that were opened, or,
    where a batch is cut from a longer list, its entry in `numbers`.

    segment: how many tokens a conversation may write before it is paused, in the middle of a turn if need be; another
    policy may go on with it. loops: a turn that writes the same so many times in a row ends there; 0: it may go on.
    """

    to_the_end = False

    def __init__(
        self,
        model: KimiMini,
        tokenizer: Tokenizer,
        temperature: float = 0.0,
        seed: int = 0,
        budget: int | None = None,
        numbers: Sequence[int] | None = None,
        segment: int | None = None,
        loops: int = 0,
    ):
        check_budget(budget)
        self.model, self.temperature, self.seed, self.budget = model, temperature, seed, budget
        self.stops, self.marks = stops_of(model, tokenizer), Marks.of(tokenizer)
        self.given, self.segment, self.loops = numbers, segment, loops
        self.writer: Writer | None = None
        self.places: dict[Conversation, int] = {}
        self.numbers: dict[Conversation, int] = {}
        self.left: dict[Conversation, float] = {}  # tokens until it is paused

    def open(self, conversations: Sequence[Conversation], context: int) -> None:
        """Make room for a batch of conversations of at most `context` tokens each, and a forced </think>."""
        longest = min(context + (self.budget is not None), self.model.config.max_position_embeddings)
        self.writer = Writer(self.model, len(conversations), max(longest, context), self.temperature)
        self.places = {conversation: place for place, conversation in enumerate(conversations)}
        numbers = range(len(conversations)) if self.given is None else self.given
        self.numbers = dict(zip(conversations, numbers, strict=True))
        self.left = dict.fromkeys(conversations, float("inf") if self.segment is None else self.segment)

    def reply(self, conversations: Sequence[Conversation], max_tokens: int) -> list[Reply | None]:
        """Decode one turn for each conversation, all at once; none for those that are paused."""
        if 2 * len(conversations) <= len(self.places):  # the others have ended
            self.writer.select([self.places[conversation] for conversation in conversations])
            self.places = {conversation: place for place, conversation in enumerate(conversations)}
        rows = {c: self._row(c, max_tokens) for c in conversations if self.left[c]}
        for conversation, row in rows.items():
            self.writer.join(self.places[conversation], row)
        self.writer.run()
        return [self._reply(c, rows[c], max_tokens) if c in rows else None for c in conversations]

    def _row(self, conversation: Conversation, max_tokens: int) -> Row:
        """The turn to be written, with what was written of it before it was paused."""
        part = len(conversation.part)
        start, again = len(conversation.ids) - part, [part] if part else []
        own_dice = dice(self.seed, self.numbers[conversation], conversation.turns, *again)
        row = Row(
            conversation.ids[:start], 0, self.stops, own_dice, self.budget, self.marks, loops=self.loops
        )
        for token, own in zip(conversation.part, conversation.mask[start:]):
            row.add(token, own)
        row.most = min(max_tokens, row.written + self.left[conversation])
        return row

    def _reply(self, conversation: Conversation, row: Row, max_tokens: int) -> Reply:
        """What is new in the row."""
        part = len(conversation.part)
        self.left[conversation] -= sum(row.own[part:])
        paused = row.finish == "length" and row.written == row.most < max_tokens
        finish = "paused" if paused else row.finish
        return Reply(row.ids[part:], row.logprobs[part:], finish, row.own[part:])
