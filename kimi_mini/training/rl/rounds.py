"""Reinforcement learning with verifiable rewards: Kimi K2's policy objective, and what keeps it honest.

For every task x the model of the last round, pi_old, writes K attempts y_1 ... y_K; the world's verifier gives each its
reward r_i. With r_mean over the K attempts K2 minimises (report, section 3.2.3; k1.5, section 2.3.2)

    L = E_x [ 1/K sum_i ( r_i - r_mean - tau log( pi(y_i|x) / pi_old(y_i|x) ) )^2 ]

whose gradient is that of REINFORCE with the group's mean as baseline, and a pull back towards pi_old:
no value network, no division by the standard deviation, no clipping. Around it stand

    budget        an attempt that runs out of its token budget is cut off and punished
    capping       rewards lie in [-1, 1], so that no single attempt can dominate a step
    PTX           the language-model loss on examples that passed, of the other families too, against forgetting
    temperature   sampling starts warm and cools down over the rounds

A group whose attempts all passed or all failed says nothing (all advantages are 0), so tasks of moderate difficulty
teach most. Only tokens that the model sampled itself count; what tools wrote is never in the loss.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from kimi_mini import worlds
from kimi_mini.agent import loop
from kimi_mini.agent.conversation import Conversation, training_rows
from kimi_mini.agent.policy import LocalPolicy
from kimi_mini.base import ranks
from kimi_mini.base.errors import KimiError
from kimi_mini.model.kimi import KimiMini
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training.batch import Batch, Example, collate, token_losses
from kimi_mini.training.machine import distributed
from kimi_mini.training.rl.objective import advantages, policy_loss, sequence_logprobs
from kimi_mini.training.rl.rewards import reward
from kimi_mini.worlds.rows import Limits


@dataclass(frozen=True)
class Settings:
    """One RL run. Token counts are per attempt, `lr` factors are the optimizer's business."""

    family: str = "follow"
    levels: tuple[int, ...] = (6, 7, 8)  # beyond the trained five: tasks that succeed about half of the time
    rounds: int = 20
    prompts: int = 16
    attempts: int = 8
    tau: float = 0.1
    temperature: tuple[float, float] = (1.0, 0.8)  # first and last round
    ptx: float = 0.3
    ptx_tokens: int = 4096
    updates: int = 2  # optimizer steps a round, each on its share of the prompts
    budget_penalty: float = 0.5
    least_moderate: float = (
        0.1  # the run ends when a smaller share of the tasks still has something to teach,
    )
    solved: float = 0.9  # and more attempts than this succeed
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        """Raises ValueError for a temperature at which an attempt has no probability: the objective divides by it."""
        if not all(0 < temperature < float("inf") for temperature in self.temperature):
            raise ValueError(f"RL samples at temperatures above 0, not {self.temperature}")


@dataclass
class Round:
    """What one round measured, for plots."""

    reward: float
    success: float
    tokens: float
    moderate: float  # share of tasks with some, but not all, attempts right
    temperature: float


def sample_round(
    model: KimiMini, tokenizer: Tokenizer, settings: Settings, seed: int, index: int
) -> tuple[list[list[Conversation]], float]:
    """K attempts at each of P fresh training tasks, and the temperature they were sampled at.

    Of several ranks each gets its share of the tasks; an attempt depends on its task and number alone.
    """
    rng = random.Random(f"{seed}/rl/{settings.family}/{index}")
    tasks = [
        worlds.generate(rng, settings.family, settings.levels[i % len(settings.levels)])
        for i in range(settings.prompts)
    ]
    temperature = temperature_at(settings, index)
    own, each = ranks.share(list(enumerate(tasks))), range(settings.attempts)
    numbers = [number * settings.attempts + attempt for number, _ in own for attempt in each]
    policy = LocalPolicy(model, tokenizer, temperature, hash_seed(seed, index), numbers=numbers)
    done = loop.run(policy, tokenizer, [task for _, task in own for _ in each], settings.limits)
    groups = [done[i : i + settings.attempts] for i in range(0, len(done), settings.attempts)]
    return groups, temperature


def temperature_at(settings: Settings, index: int) -> float:
    """From the first temperature to the last, in a straight line over the rounds."""
    warm, cool = settings.temperature
    return warm + (cool - warm) * index / max(1, settings.rounds - 1)


def hash_seed(*numbers: int) -> int:
    """One well-mixed seed out of several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def update(
    model: KimiMini,
    optimizer,
    groups: Sequence[Sequence[Conversation]],
    temperature: float,
    settings: Settings,
    ptx: Sequence[Batch] = (),
) -> Round:
    """The optimizer steps of one round (`settings.updates` of them) on this rank's groups and all others'; `ptx` are
    this rank's batches, too."""
    found = ranks.gathered(
        [[(reward(c, settings.budget_penalty), c.written) for c in group] for group in groups]
    )
    rewards, written = torch.tensor(found, dtype=torch.float32).unbind(-1)  # (P, K) each, of all ranks
    gains = advantages(rewards)
    own = dict(zip(ranks.dealt(len(rewards))[ranks.rank()], groups, strict=True))
    model.train()
    for part in np.array_split(np.arange(len(rewards)), settings.updates):
        chosen = [
            (c, gains[g, k].item())
            for g in part
            if g in own
            for k, c in enumerate(own[g])
            if gains[g, k] != 0
        ]
        _backward_attempts(model, chosen, len(part) * settings.attempts, temperature, settings.tau)
        (learned,) = ranks.total(sum(batch.learned for batch in ptx))
        for batch in ptx:
            (settings.ptx * token_losses(model, batch).sum() / learned).backward()
        distributed.join_step(model)
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if not torch.isfinite(norm):  # before the step: one such step turns every weight into NaN
            raise KimiError(
                f"the gradient of an RL update is {norm.item()}: lower tau, or raise the temperature"
            )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    model.statistics.forget()  # loads and maxima of these passes are not those of the next training
    return Round(
        reward=rewards.mean().item(),
        success=(rewards > 0).float().mean().item(),
        tokens=written.double().mean().item(),
        moderate=((rewards > 0).any(-1) & (rewards <= 0).any(-1)).float().mean().item(),
        temperature=temperature,
    )


def _backward_attempts(model, chosen, count: int, temperature: float, tau: float) -> None:
    """Accumulate the gradient of the objective over this rank's attempts with a non-zero advantage.

    Log-probabilities are those of whole attempts, summed over their tokens; the sum over attempts is divided by their
    mean number of tokens, so that it weighs against PTX as a loss per token would. Attempts with advantage 0 would only
    pull towards pi_old and are left out.
    """
    order = sorted(
        ((training_rows(c), gain) for c, gain in chosen), key=lambda item: max(len(row[0]) for row in item[0])
    )
    written = sum(sum(mask) for rows, _ in order for _, mask, _ in rows)
    written, attempts = ranks.total(written, len(order))
    tokens = max(1.0, written / max(1.0, attempts))
    for start in range(0, len(order), 16):
        some = order[start : start + 16]
        new, old = _log_probabilities(model, [rows for rows, _ in some], temperature)
        gain = new.new_tensor([gain for _, gain in some])
        (policy_loss(new, old, gain, tau) * len(some) / (count * tokens)).backward()


def _log_probabilities(
    model: KimiMini, attempts: Sequence[list], temperature: float
) -> tuple[Tensor, Tensor]:
    """Of whole attempts, each the sum over its training rows: now, with gradient, and as sampled; both (N,)."""
    rows = [row for attempt in attempts for row in attempt]
    batch = collate([Example(np.asarray(ids, np.int32), np.asarray(mask, bool)) for ids, mask, _ in rows])
    each = sequence_logprobs(model, batch, temperature)
    counts = torch.tensor([len(attempt) for attempt in attempts], device=each.device)
    owner = torch.arange(len(attempts), device=each.device).repeat_interleave(counts)
    new = each.new_zeros(len(attempts)).index_add(0, owner, each)
    old = new.new_tensor([sum(sum(logprobs) for *_, logprobs in attempt) for attempt in attempts])
    return new, old


def reinforce(
    model: KimiMini,
    tokenizer: Tokenizer,
    optimizer,
    settings: Settings,
    seed: int,
    ptx: Callable[[int], Sequence[Batch]] = lambda index: (),
    first: int = 0,
    on_round: Callable[[int, Round], None] | None = None,
) -> list[Round]:
    """Rounds `first` to `settings.rounds` of sampling and updating; fewer when the tasks are learned."""
    history = []
    for index in range(first, settings.rounds):
        groups, temperature = sample_round(model, tokenizer, settings, seed, index)
        history.append(update(model, optimizer, groups, temperature, settings, ptx(index)))
        for conversation in (c for group in groups for c in group):
            conversation.environment.close()
        if on_round is not None:
            on_round(index, history[-1])
        if learned(history[-1], settings):
            break
    return history


def learned(measured: Round, settings: Settings) -> bool:
    """Whether nearly all tasks of a round pass in every attempt: their advantages are 0, what is left is noise.

    Few moderate tasks alone do not say so: two levels may be solved, and the third one still out of reach.
    """
    return measured.success > settings.solved and measured.moderate < settings.least_moderate
