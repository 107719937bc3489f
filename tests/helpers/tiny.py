"""A KimiMini of 50,000 parameters with random weights, and a policy that types what the scripted experts say."""

import random

import torch

from kimi_mini import KimiConfig, KimiMini
from kimi_mini.agent.policy import LocalPolicy, Reply
from kimi_mini.text import chat
from kimi_mini.worlds import WORLDS

SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "kv_lora_rank": 16,
    "intermediate_size": 48,
    "moe_intermediate_size": 16,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
}


def tiny_model(seed: int = 0, std: float = 0.2, **changes) -> KimiMini:
    """Weights large enough for its logits to differ from token to token."""
    torch.manual_seed(seed)
    return KimiMini(KimiConfig.preset("nano", **{**SHAPE, "initializer_range": std, **changes}))


def typed(tokenizer, message: dict) -> list[int]:
    """The tokens that a model would have to write for this assistant message, its end included."""
    ids, mask = chat.encode(tokenizer, [{"role": "user", "content": ""}, message])
    return [token for token, own in zip(ids, mask) if own]


class Typist:
    """A policy without a model: each conversation's expert says what to do, and its words are typed as tokens.

    `spell(conversation, message)` may return other tokens for a message: calls with a fault, nonsense.
    """

    def __init__(self, tokenizer, spell=None):
        self.tokenizer, self.spell = (
            tokenizer,
            spell or (lambda conversation, message: typed(tokenizer, message)),
        )
        self.experts, self.context = {}, None

    to_the_end = False

    def open(self, conversations, context):
        self.context = context

    def reply(self, conversations, max_tokens):
        return [self._type(conversation, max_tokens) for conversation in conversations]

    def _type(self, conversation, max_tokens):
        assert len(conversation.ids) + max_tokens <= self.context, "a cache would overflow here"
        if id(conversation) not in self.experts:
            expert = WORLDS[conversation.task.world].expert(conversation.task, random.Random(0))
            self.experts[id(conversation)] = expert
            message = next(expert)
        else:
            message = self.experts[id(conversation)].send(conversation.messages[-1]["content"])
        if not conversation.thinking:
            message = {**message, "reasoning_content": "", "thinking": False}
        for call in message.get("tool_calls") or []:
            call["id"] = f"functions.{call['function']['name']}:{conversation.calls}"
        ids = self.spell(conversation, message)
        finish = "stop" if len(ids) <= max_tokens else "length"
        return Reply(ids[:max_tokens], [-0.5] * len(ids[:max_tokens]), finish)


class Prompted(LocalPolicy):
    """A LocalPolicy whose decoder is followed: for every turn the logits before its first token are kept, and the
    tokens it is made to write are those of a typist, so that a random model gets as far as an expert."""

    def __init__(self, model, tokenizer):
        super().__init__(model, tokenizer)
        self.typist, self.seen = Typist(tokenizer), []

    def open(self, conversations, context):
        super().open(conversations, context)
        self.typist.open(conversations, context)

    def reply(self, conversations, max_tokens):
        places = [self.places[conversation] for conversation in conversations]
        for conversation, place in zip(conversations, places):
            self.writer.join(place, self._row(conversation, max_tokens))
        logits = self._feed(self.writer.pending)
        replies = self.typist.reply(conversations, max_tokens)
        feed = [[] for _ in self.places]
        for conversation, place, reply in zip(conversations, places, replies):
            self.seen.append((list(conversation.ids), logits[place]))
            feed[place] = reply.ids[:-1]
        self._feed(feed)
        return replies

    def _feed(self, tokens):
        logits = self.writer.decoder.extend(tokens)
        for held, new in zip(self.writer.held, tokens):
            held += new
        return logits
