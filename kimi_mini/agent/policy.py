"""Whatever takes the next turn: a protocol, and a KimiMini in this process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from kimi_mini.agent.conversation import Conversation
from kimi_mini.inference.decoder import Decoder
from kimi_mini.inference.sampling import sample
from kimi_mini.model.kimi import KimiMini
from kimi_mini.text.tokenizer import Tokenizer


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
            Reply(written[row], chances[row], "stop" if written[row][-1] == self.stop else "length")
            for row in rows
        ]
