"""The critic: a copy of the policy that reads a rubric and a conversation, and gives a score.

It is trained on pairs, one better than the other under a rubric: with scores s it says that a beats b with probability
sigmoid(s_a - s_b) (Bradley and Terry), and learns from

    L = - log sigmoid(s_better - s_worse)

A score means nothing alone. What a reward takes is an attempt's chance to win against another one at its task, so
it lies between 0 and 1 whatever the scores are.

It reads what the policy read and wrote, and nothing else: no verdict, no reward, no truth. Verdicts are its labels, of
attempts that it has judged already: a critic that learned first and judged then would only repeat the verifier.

Source: K2 report, 3.2.2 (rubrics, pairwise ranking, a closed loop with verifiable rollouts).
"""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from kimi_mini.agent.conversation import Conversation
from kimi_mini.model.kimi import KimiMini, evaluating
from kimi_mini.model.layers import Linear
from kimi_mini.text import chat
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training.batch import Batch, Example, collate

RIGHT = "right"  # the rubric whose truth a verifier knows
ROWS = 32  # conversations that are read at a time

Groups = Sequence[Sequence[Conversation]]


class Pair(NamedTuple):
    """Two conversations about the same task, and the rubric under which one is better."""

    rubric: str
    better: Conversation
    worse: Conversation


class Critic:
    """The policy's backbone, and a head with one output in place of its vocabulary.

    model: a KimiMini, for optimizers; its `lm_head` is (h, 1) and starts at 0.
    """

    def __init__(self, policy: KimiMini, tokenizer: Tokenizer):
        self.model, self.tokenizer = copy.deepcopy(policy), tokenizer
        self.model.lm_head = Linear(policy.config.hidden_size, 1).to(policy.lm_head.weight)
        nn.init.zeros_(self.model.lm_head.weight)

    def reads(self, conversation: Conversation, rubric: str) -> list[int]:
        """Its input: the rubric as a system's turn, then the conversation as the policy has it."""
        asked = chat.encode(self.tokenizer, [{"role": "system", "content": rubric}])[0]
        told = conversation.ids
        if not told:  # an expert's, in messages alone
            told = chat.encode(self.tokenizer, conversation.messages, conversation.tools)[0]
        return asked + told

    def scores(self, batch: Batch) -> Tensor:
        """The head's output at the last token of each row, (B,), with its gradient."""
        batch = batch.to(self.model.lm_head.weight.device)
        hidden = self.model.hidden_states(batch.ids, valid=batch.valid)
        last = batch.valid.sum(-1) - 1
        return self.model.lm_head(hidden[torch.arange(len(last)), last])[:, 0]

    def batch(self, conversations: Sequence[Conversation], rubrics: Sequence[str]) -> Batch:
        """What it reads of these, padded."""
        read = [np.asarray(self.reads(*one), np.int32) for one in zip(conversations, rubrics, strict=True)]
        return collate([Example(ids, np.zeros(len(ids), bool)) for ids in read])

    @torch.no_grad()
    def score(self, conversations: Sequence[Conversation], rubric: str) -> Tensor:
        """A score for each, (N,): only differences mean something."""
        with evaluating(self.model):
            parts = [conversations[i : i + ROWS] for i in range(0, len(conversations), ROWS)]
            return torch.cat([self.scores(self.batch(part, [rubric] * len(part))) for part in parts])


# ---- learning ----------------------------------------------------------------------------------------------


def pair_loss(better: Tensor, worse: Tensor) -> Tensor:
    """The mean of - log sigmoid(s_better - s_worse), of scores (N,) each."""
    return -logsigmoid(better - worse).mean()


def train_critic(
    critic: Critic, optimizer, pairs: Sequence[Pair], steps: int, each: int = 12, seed: int = 0
) -> list[float]:
    """`steps` optimizer steps on `each` pairs, in an order that the seed decides; the losses."""
    order, rng, losses = [], random.Random(f"{seed}/critic"), []
    critic.model.train()
    for _ in range(steps):
        while len(order) < each:
            order += rng.sample(range(len(pairs)), len(pairs))
        some, order = [pairs[i] for i in order[:each]], order[each:]
        rubrics = [pair.rubric for pair in some]
        both = [pair.better for pair in some] + [pair.worse for pair in some]
        better, worse = critic.scores(critic.batch(both, rubrics * 2)).chunk(2)
        loss = pair_loss(better, worse)
        loss.backward()
        nn.utils.clip_grad_norm_(critic.model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
    critic.model.statistics.forget()
    return losses


def accuracy(critic: Critic, pairs: Sequence[Pair]) -> float:
    """The share of the pairs whose better one has the higher score; a draw counts half."""
    won = 0.0
    for rubric in dict.fromkeys(pair.rubric for pair in pairs):
        some = [pair for pair in pairs if pair.rubric == rubric]
        both = [pair.better for pair in some] + [pair.worse for pair in some]
        better, worse = critic.score(both, rubric).chunk(2)
        won += ((better > worse).double() + 0.5 * (better == worse).double()).sum().item()
    return won / len(pairs)


# ---- in the loop -------------------------------------------------------------------------------------------


def win_rates(scores: Tensor) -> Tensor:
    """The chance that an attempt beats one of its group, itself among them: scores (..., K) -> (..., K), 0 to 1."""
    return (scores[..., :, None] - scores[..., None, :]).sigmoid().mean(-1)


def verifiable(groups: Groups, most: int = 4) -> list[Pair]:
    """Of each group up to `most` pairs of an attempt that its verifier accepts and one that it does not."""
    pairs: list[Pair] = []
    for group in groups:
        passed = [conversation.verdict().passed for conversation in group]
        right = [conversation for conversation, good in zip(group, passed) if good]
        wrong = [conversation for conversation, good in zip(group, passed) if not good]
        pairs += [Pair(RIGHT, *both) for both in list(zip(right, wrong))[:most]]
    return pairs


def refresh(critic: Critic, optimizer, groups: Groups, kept: Sequence[Pair], steps: int, seed: int) -> int:
    """Train on the verifiable pairs of fresh rollouts, and on as many of those `kept`, so that nothing is unlearned;
    how many fresh ones there were. Without any nothing moves."""
    fresh = verifiable(groups)
    if fresh:
        old = random.Random(f"{seed}/kept").sample(kept, min(len(fresh), len(kept)))
        train_critic(critic, optimizer, [*fresh, *old], steps, seed=seed)
    return len(fresh)


@dataclass
class CriticReward:
    """A critic as part of the reward: groups of attempts -> win rates (P, K), the mean over some rubrics.

    With an optimizer it is refreshed on the verdicts of these attempts, after it has judged them; without it is frozen.
    """

    critic: Critic
    rubrics: Sequence[str]
    optimizer: object = None
    kept: Sequence[Pair] = ()
    steps: int = 4
    rounds: int = 0

    def __call__(self, groups: Groups) -> Tensor:
        if not groups:  # partial rollouts may finish none
            return torch.zeros(0, 0)
        flat = [conversation for group in groups for conversation in group]
        rates = [win_rates(self.critic.score(flat, r).view(len(groups), -1)) for r in self.rubrics]
        if self.optimizer is not None:
            refresh(self.critic, self.optimizer, groups, self.kept, self.steps, self.rounds)
        self.rounds += 1
        return torch.stack(rates).mean(0)
