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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, logsigmoid, pad

from kimi_mini.agent.conversation import Conversation
from kimi_mini.model.kimi import KimiMini, evaluating
from kimi_mini.model.layers import Linear
from kimi_mini.text import chat
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training.batch import Batch, Example, collate
from kimi_mini.training.optim.schedule import scale_lr

RIGHT = "right"  # the rubric whose truth a verifier knows
SURPRISE = 6.0  # nats
ROWS = 32  # conversations that are read at a time

Groups = Sequence[Sequence[Conversation]]


class Pair(NamedTuple):
    """Two conversations about the same task; rubric -> whether `one` is the better one under it."""

    one: Conversation
    other: Conversation
    better: dict[str, bool]


class Critic:
    """The policy's backbone, and a head with one output in place of its vocabulary.

    Beside each token it feels how improbable the policy, as it was then, finds it: the negative log-probability times a
    vector, added to the embedding. What one would have said instead is known behind the last layer only, and a copy of
    three layers has none left to compare it with what was said.

    model: a KimiMini, for optimizers; its `lm_head` is (h, 1), `surprised` (h,) that vector; both start at 0.
    """

    def __init__(self, policy: KimiMini, tokenizer: Tokenizer):
        self.policy, self.model = (copy.deepcopy(policy) for _ in range(2))
        self.tokenizer, width = tokenizer, policy.config.hidden_size
        self.policy.eval().requires_grad_(False)
        self.model.lm_head = Linear(width, 1).to(policy.lm_head.weight)
        self.model.surprised = nn.Parameter(policy.lm_head.weight.new_zeros(width))
        nn.init.zeros_(self.model.lm_head.weight)

    def reads(self, conversation: Conversation, rubrics: Sequence[str]) -> tuple[list[int], list[int]]:
        """Its input: the conversation as the policy has it, from the user's words on, then a system's turn for each
        rubric; and the place of the last token of each of these turns, where its score is read."""
        ids, ends = conversation.ids, []
        if not ids:  # an expert's, in messages alone
            ids = chat.encode(self.tokenizer, conversation.messages, conversation.tools)[0]
        ids = ids[ids.index(self.tokenizer.special["<|im_user|>"]) :]
        for rubric in rubrics:
            ids = ids + chat.encode(self.tokenizer, [{"role": "system", "content": rubric}])[0]
            ends.append(len(ids) - 1)
        return ids, ends

    def scores(self, asked: Sequence[tuple[Conversation, Sequence[str]]]) -> Tensor:
        """With gradient, the scores of conversations under the rubrics of each, one after the other, (sum of R,)."""
        read = [self.reads(*one) for one in asked]
        batch = collate([Example(np.asarray(ids, np.int32), np.zeros(len(ids), bool)) for ids, _ in read])
        batch = batch.to(self.model.lm_head.weight.device)
        hidden = self.hidden(batch)  # (B, T, h)
        rows, places = zip(*((row, place) for row, (_, ends) in enumerate(read) for place in ends))
        return self.model.lm_head(hidden[list(rows), list(places)])[:, 0]

    def hidden(self, batch: Batch) -> Tensor:
        """(B, T, h): the backbone's, which feels the surprises of the policy."""
        said = self.surprise(batch)[..., None] * self.model.surprised
        hook = self.model.model.embed_tokens.register_forward_hook(lambda _, inputs, output: output + said)
        try:
            return self.model.hidden_states(batch.ids, valid=batch.valid)
        finally:
            hook.remove()

    @torch.no_grad()
    def surprise(self, batch: Batch) -> Tensor:
        """(B, T): how improbable the policy finds each token, in nats; none for the first, and at most SURPRISE."""
        logits = self.policy(batch.ids, valid=batch.valid).logits[:, :-1]
        losses = cross_entropy(logits.flatten(0, 1), batch.ids[:, 1:].flatten(), reduction="none")
        return pad(losses.view(len(logits), -1).clamp(max=SURPRISE), (1, 0))

    @torch.no_grad()
    def score(self, conversations: Sequence[Conversation], *rubrics: str) -> Tensor:
        """A score for each, (N,), or with several rubrics (N, R): only differences mean something."""
        asked = [(conversation, rubrics) for conversation in conversations]
        with evaluating(self.model):
            found = torch.cat([self.scores(asked[i : i + ROWS]) for i in range(0, len(asked), ROWS)])
        return found if len(rubrics) == 1 else found.view(len(asked), len(rubrics))


# ---- learning ----------------------------------------------------------------------------------------------


def pair_loss(better: Tensor, worse: Tensor) -> Tensor:
    """The mean of - log sigmoid(s_better - s_worse), of scores (N,) each."""
    return -logsigmoid(better - worse).mean()


def train_critic(
    critic: Critic,
    optimizer,
    pairs: Sequence[Pair],
    steps: int,
    each: int = 8,
    seed: int = 0,
    rate: Callable[[int], float] = lambda step: 1.0,
) -> list[float]:
    """`steps` optimizer steps on `each` pairs, in an order that the seed decides; the losses. rate: factor of the
    learning rates, by step."""
    order, rng, losses = [], random.Random(f"{seed}/critic"), []
    critic.model.train()
    for step in range(steps):
        scale_lr(optimizer, rate(step))
        while len(order) < each:
            order += rng.sample(range(len(pairs)), len(pairs))
        some, order = [pairs[i] for i in order[:each]], order[each:]
        loss = pair_loss(*_better_and_worse(critic, some, rng))
        loss.backward()
        nn.utils.clip_grad_norm_(critic.model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
    critic.model.statistics.forget()
    return losses


def _better_and_worse(
    critic: Critic, pairs: Sequence[Pair], rng: random.Random | None = None
) -> tuple[Tensor, Tensor]:
    """Scores of the better and the worse ones, (sum of R,) each: a pair counts once for each of its rubrics, which are
    asked in their order, or by lot."""
    asked = [rng.sample(list(pair.better), len(pair.better)) if rng else list(pair.better) for pair in pairs]
    one, other = critic.scores(
        [*((pair.one, said) for pair, said in zip(pairs, asked))]
        + [*((pair.other, said) for pair, said in zip(pairs, asked))]
    ).chunk(2)
    wins = one.new_tensor([pair.better[rubric] for pair, said in zip(pairs, asked) for rubric in said]).bool()
    return torch.where(wins, one, other), torch.where(wins, other, one)


@torch.no_grad()
def accuracy(critic: Critic, pairs: Sequence[Pair]) -> dict[str, float]:
    """rubric -> the share of the pairs whose better one has the higher score; a draw counts half."""
    won: dict[str, list[float]] = {}
    with evaluating(critic.model):
        for start in range(0, len(pairs), ROWS // 2):
            some = pairs[start : start + ROWS // 2]
            better, worse = _better_and_worse(critic, some)
            points = ((better > worse).double() + 0.5 * (better == worse).double()).tolist()
            for rubric, point in zip((rubric for pair in some for rubric in pair.better), points):
                won.setdefault(rubric, []).append(point)
    return {rubric: sum(points) / len(points) for rubric, points in won.items()}


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
        pairs += [Pair(*both, {RIGHT: True}) for both in list(zip(right, wrong))[:most]]
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
        scores = self.critic.score(flat, *self.rubrics).view(len(groups), -1, len(self.rubrics))  # (P, K, R)
        rates = win_rates(scores.transpose(1, 2)).mean(1)
        if self.optimizer is not None:
            refresh(self.critic, self.optimizer, groups, self.kept, self.steps, self.rounds)
        self.rounds += 1
        return rates
