"""Reinforcement learning of a model that refines: rounds of writing, judging and one step.

A round writes a group of texts for each prompt, as the policy that is trained: tokens in a random order, drawn at
temperature 1. The verifier judges them, the mean of a group is its baseline (K2 report, 3.2.3), and the step minimises

    mean over texts of (reward - mean of its group) * (minus what stands for log p(text))

where an estimator gives the stand-in as weighted losses (see `estimators`). What differs between models is a `Way`: how
texts are written, what stands for their log-probabilities, and the losses of the model. So a model that writes from
left to right learns by the same rounds.

How far a policy has moved is told by the log-probabilities of the whole writing, under it and under the start:

    KL = E_texts and orders [ sum over steps of log pi(tokens of the step) - log pi_start(tokens of the step) ]

The orders are equally likely under both, so this is the divergence of the two ways of writing. That of the texts alone
is at most as large; from left to right there is one order, and they are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kimi_mini.inference.diffusion import Style, mask_token, refine
from kimi_mini.model.kimi import KimiMini, evaluating
from kimi_mini.training.diffusion.bound import Noised, refined_losses, reweighted
from kimi_mini.training.diffusion.estimators import Estimator, Written, by_steps
from kimi_mini.training.loop import History, in_training, train_step
from kimi_mini.training.rl.objective import advantages


class Prompt(NamedTuple):
    """A context; a canvas, [MASK] where there is something to write; and the verifier of what stands on it then: 1 if
    all is right, less if not."""

    context: tuple[int, ...]
    canvas: tuple[int, ...]
    reward: Callable[[Sequence[int]], float]


def refining(model: KimiMini, prompts: Sequence[Prompt], seed: int) -> Written:
    """Texts of the policy whose gradient `by_steps` estimates without bias: one token a step, in a random order."""
    contexts = [prompt.context for prompt in prompts]
    canvas = torch.tensor([prompt.canvas for prompt in prompts])
    done = refine(model, contexts, canvas, Style("random", temperature=1.0), seed)
    return Written.of(contexts, done, mask_token(model))


def all_steps(written: Written, rng: np.random.Generator) -> Noised:
    """Every step as it was taken: the losses of a text sum up to minus the log-probability of its writing."""
    return by_steps(written, rng, count=int(written.when.max()) + 1)


@dataclass(frozen=True)
class Way:
    """How a model writes, the stand-in that it learns by, the exact log-probability, and the losses of a batch."""

    write: Callable[[KimiMini, Sequence[Prompt], int], Written] = refining
    estimator: Estimator = by_steps
    exact: Estimator = all_steps
    losses: Callable[[KimiMini, Noised], Tensor] = refined_losses


class Round(NamedTuple):
    """What a round measured: mean reward; share of right texts; distinct right texts of a group, the mean over groups;
    looks, how often the model has looked at a text, in writing and in learning."""

    reward: float
    right: float
    distinct: float
    looks: float


@dataclass
class Course(History):
    """What a run leaves behind: the training history, and its rounds."""

    rounds: list[Round] = field(default_factory=list)


def texts_of(written: Written) -> list[tuple[int, ...]]:
    """What stands on each canvas."""
    return [tuple(ids[mask].tolist()) for ids, mask in zip(written.batch.ids, written.batch.mask)]


def judged(prompts: Sequence[Prompt], written: Written, group: int) -> tuple[Tensor, float]:
    """Rewards (P, K) of the texts, those of a prompt together; and the distinct right texts of a group."""
    texts = texts_of(written)
    rewards = torch.tensor([prompt.reward(text) for prompt, text in zip(prompts, texts)]).view(-1, group)
    right = [
        {text for text, reward in zip(texts[row * group :], group_rewards) if reward >= 1}
        for row, group_rewards in enumerate(rewards.tolist())
    ]
    return rewards, float(np.mean([len(found) for found in right]))


def weighted(batch: Noised, gains: Tensor) -> Noised:
    """The batch of an estimator, each text's losses times its advantage: gains (N,).

    A text may have several rows. The loss of a step is a mean over the tokens of all rows, so each row counts as often
    as there are rows of a text: an estimator that looks more often takes no smaller step.
    """
    copies = len(batch.ids) // len(gains)
    return reweighted(batch, gains.repeat_interleave(copies) * copies)


def reinforce(
    model: KimiMini,
    optimizer,
    prompts: Callable[[int], Sequence[Prompt]],
    rounds: int,
    way: Way = Way(),
    group: int = 8,
    seed: int = 0,
    rows: int = 1024,
    progress: Callable[[int, Course], None] | None = None,
) -> Course:
    """`rounds` rounds with `prompts(round)`, `group` texts each; rows: those of a micro-batch.

    A round in which no group has both better and worse texts teaches nothing, and takes no step.
    """
    rng, course = np.random.default_rng([seed, 7]), Course()
    with in_training(model):
        for number in range(rounds):
            asked = [prompt for prompt in prompts(number) for _ in range(group)]
            with evaluating(model):
                written = way.write(model, asked, int(rng.integers(2**31)))
            rewards, distinct = judged(asked, written, group)
            batch = weighted(way.estimator(written, rng), advantages(rewards).flatten())
            steps, looks = int(written.when.max()) + 1, len(batch.ids) // len(asked)
            said = Round(
                rewards.mean().item(), (rewards >= 1).float().mean().item(), distinct, float(steps + looks)
            )
            course.rounds.append(said)
            if (batch.weight != 0).any():
                train_step(model, optimizer, _parts(batch, rows), 0.0, course, losses=way.losses)
            if progress is not None:
                progress(number, course)
    return course


def _parts(batch: Noised, rows: int) -> list[Noised]:
    """Micro-batches of `rows` rows; those without any signal are left out. The loss of a step is a mean over the tokens
    that it is given: so the others count less, as if nobody had been left out."""
    parts = [batch.rows(start, start + rows) for start in range(0, len(batch.ids), rows)]
    said = [part for part in parts if (part.weight != 0).any()]
    share = sum(part.learned for part in said) / sum(part.learned for part in parts)
    return [reweighted(part, torch.full((len(part.ids),), share)) for part in said]


@torch.no_grad()
def logprobs(model: KimiMini, written: Written, way: Way = Way(), rows: int = 1024) -> Tensor:
    """Log-probability in nats of how each text was written, (N,)."""
    batch = way.exact(written, np.random.default_rng(0))
    losses = torch.zeros(batch.weight.shape)
    with evaluating(model):
        for start in range(0, len(batch.ids), rows):
            part = batch.rows(start, start + rows)
            if (part.weight != 0).any():
                losses[start : start + rows][part.weight != 0] = way.losses(model, part).cpu().float()
    return -losses.sum(1).view(len(written.when), -1).sum(1)


def divergence(model: KimiMini, start: KimiMini, written: Written, way: Way = Way()) -> float:
    """KL of the model's way of writing from that of the start, in nats a text, by texts that the model wrote."""
    return (logprobs(model, written, way) - logprobs(start, written, way)).mean().item()
