"""Reinforcement learning with verifiable rewards: Kimi K2's policy objective, and what keeps it honest.

For every task x the model of the last round, pi_old, writes K attempts y_1 ... y_K; the world's verifier gives each its
reward r_i. With r_mean over the K attempts K2 minimises (report, section 3.2.3; k1.5, section 2.3.2)

    L = E_x [ 1/K sum_i ( r_i - r_mean - tau log( pi(y_i|x) / pi_old(y_i|x) ) )^2 ]

whose gradient is that of REINFORCE with the group's mean as baseline, and a pull back towards pi_old:
no value network, no division by the standard deviation, no clipping. Around it stand

    budget        an attempt that runs out of its token budget is cut off and punished; so is one that repeats itself
    capping       rewards lie between -cap and cap, so that no single attempt can dominate a step
    PTX           the language-model loss on examples that passed, of the other families too, against forgetting
    temperature   sampling starts warm and cools down over the rounds

A group whose attempts all passed or all failed says nothing (all advantages are 0), so tasks of moderate difficulty
teach most. Only tokens that the model sampled itself count; what tools wrote is never in the loss.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from kimi_mini.agent import loop
from kimi_mini.agent.conversation import Conversation, training_rows
from kimi_mini.agent.policy import LocalPolicy
from kimi_mini.base import ranks
from kimi_mini.base.errors import KimiError
from kimi_mini.model.compact import int4
from kimi_mini.model.kimi import KimiMini
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training.batch import Batch, Example, collate, token_losses
from kimi_mini.training.machine import distributed
from kimi_mini.training.rl.budget import Budgets
from kimi_mini.training.rl.config import RLConfig
from kimi_mini.training.rl.curriculum import Curriculum, Drawn
from kimi_mini.training.rl.objective import OBJECTIVES, Scale, Written, token_logprobs
from kimi_mini.training.rl.partial import Backlog, stale_share
from kimi_mini.training.rl.rewards import reward

Judge = Callable[[Sequence[Sequence[Conversation]]], Tensor]  # groups -> win rates (P, K), 0 to 1


@dataclass
class Round:
    """What one round measured, for plots."""

    reward: float
    success: float
    tokens: float
    moderate: float  # share of tasks with some, but not all, attempts right
    temperature: float
    successes: list[float]  # of each task, the share of its attempts that passed
    budgets: dict[str, float] = field(
        default_factory=dict
    )  # tokens of an attempt, by family, as known after it
    seen: dict[str, float] = field(default_factory=dict)  # what `watch` has measured before the update
    tasks: list[list] = field(default_factory=list)  # of partial rollouts: those that were finished, as drawn
    stale: float = 0.0  # the share of their tokens that earlier rounds have sampled
    waiting: int = 0  # attempts that go on in the next round


def sample_round(
    model: KimiMini, tokenizer: Tokenizer, config: RLConfig, drawn: Sequence[Drawn], seed: int, index: int
) -> tuple[list[list[Conversation]], float]:
    """K attempts at each of the drawn tasks, and the temperature they were sampled at.

    Of several ranks each gets its share of the tasks; an attempt depends on its task and number alone.
    """
    temperature = temperature_at(config, index)
    own, each = (
        ranks.share([(number, one.task()) for number, one in enumerate(drawn)]),
        range(config.attempts),
    )
    numbers = [number * config.attempts + attempt for number, _ in own for attempt in each]
    policy = LocalPolicy(
        model, tokenizer, temperature, hash_seed(seed, index), numbers=numbers, loops=config.loops
    )
    done = loop.run(policy, tokenizer, [task for _, task in own for _ in each], config.limits)
    groups = [done[i : i + config.attempts] for i in range(0, len(done), config.attempts)]
    return groups, temperature


def temperature_at(config: RLConfig, index: int) -> float:
    """From the first temperature to the last, in a straight line over the rounds."""
    warm, cool = config.temperature
    return warm + (cool - warm) * index / max(1, config.rounds - 1)


def hash_seed(*numbers: int) -> int:
    """One well-mixed seed out of several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def update(
    model: KimiMini,
    optimizer,
    groups: Sequence[Sequence[Conversation]],
    temperature: float,
    config: RLConfig,
    ptx: Sequence[Batch] = (),
    budgets: Budgets | None = None,
    index: int = 0,
    judge: Judge | None = None,
) -> Round:
    """The optimizer steps of round `index` (`config.updates` of them) on this rank's groups and all others'; `ptx` are
    this rank's batches, too. budgets: what an attempt may take; new ones are noted there. judge: gives the win rates
    that the reward `critic` stands on."""
    budgets = Budgets() if budgets is None else budgets
    rewards, passed, written = _worth(groups, config, budgets, index, judge)
    gains = OBJECTIVES[config.objective].advantage(rewards)
    own = dict(zip(ranks.dealt(len(rewards))[ranks.rank()], groups, strict=True))
    model.train()
    for part in np.array_split(np.arange(len(rewards)), config.updates):
        chosen = [
            (c, gains[g, k].item())
            for g in part
            if g in own
            for k, c in enumerate(own[g])
            if gains[g, k] != 0 or config.zero_signal
        ]
        scale = Scale(len(part) * config.attempts, max(1, written[part].sum().item()), config.limits.context)
        _backward_attempts(model, chosen, scale, temperature, config, index)
        (learned,) = ranks.total(sum(batch.learned for batch in ptx))
        for batch in ptx:
            (config.ptx * token_losses(model, batch).sum() / learned).backward()
        distributed.join_step(model)
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if not torch.isfinite(norm):  # before the step: one such step turns every weight into NaN
            raise KimiError(
                f"the gradient of an RL update is {norm.item()}: lower the rates or tau, or raise the temperature"
            )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    model.statistics.forget()  # loads and maxima of these passes are not those of the next training
    return Round(
        reward=rewards.mean().item(),
        success=passed.mean().item(),
        tokens=written.double().mean().item(),
        moderate=((passed > 0).any(-1) & (passed == 0).any(-1)).float().mean().item(),
        temperature=temperature,
        successes=passed.mean(-1).tolist(),
        budgets=dict(budgets.tokens),
    )


def _worth(
    groups, config: RLConfig, budgets: Budgets, index: int, judge: Judge | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Rewards, whether the verifier accepts, tokens written: of the attempts of all ranks, (P, K) each."""
    families = ranks.gathered([group[0].task.family for group in groups])
    said = [[()] * len(g) for g in groups] if judge is None else judge(groups)[..., None].tolist()
    worth = [[reward(c, config, *rate) for c, rate in zip(*pair)] for pair in zip(groups, said)]
    found = ranks.gathered(
        [[(w["total"], w["passed"], c.written) for w, c in zip(*pair)] for pair in zip(worth, groups)]
    )
    rewards, passed, written = torch.tensor(found, dtype=torch.float32).unbind(-1)
    over = budgets.over(config, index, families, passed, written)
    budgets.learn(config, families, passed, written)
    return torch.where(over, rewards.clamp(max=0), rewards), passed, written


def _backward_attempts(model, chosen, scale: Scale, temperature: float, config: RLConfig, index: int) -> None:
    """Accumulate the gradient of the objective over this rank's attempts with a non-zero advantage; those with none
    would only pull towards pi_old and are left out, unless `zero_signal` keeps them; so is what is stale, where nothing
    bounds its ratio."""
    partial = config.segment_tokens is not None
    since = index if partial and not OBJECTIVES[config.objective].bounded else 0
    rows = [(training_rows(c, since), gain) for c, gain in chosen]
    left = [item for item in rows if any(any(mask) for _, mask, _ in item[0])]
    order = sorted(left, key=lambda item: max(len(row[0]) for row in item[0]))
    for start in range(0, len(order), 16):
        some = order[start : start + 16]
        written = written_by(model, [rows for rows, _ in some], temperature)
        gain = written.new.new_tensor([gain for _, gain in some])
        OBJECTIVES[config.objective](written, gain, scale, config).backward()


def written_by(model: KimiMini, attempts: Sequence[list], temperature: float) -> Written:
    """The tokens that the model chose itself, of attempts that are one or more training rows each."""
    rows = [row for attempt in attempts for row in attempt]
    batch = collate([Example(np.asarray(ids, np.int32), np.asarray(mask, bool)) for ids, mask, _ in rows])
    new, row = token_logprobs(model, batch, temperature)
    old = [value for _, mask, values in rows for value, own in zip(values, mask) if own]
    counts = torch.tensor([len(attempt) for attempt in attempts], device=new.device)
    owner = torch.arange(len(attempts), device=new.device).repeat_interleave(counts)
    return Written(new, new.new_tensor(old), owner[row], len(attempts))


def reinforce(
    model: KimiMini,
    tokenizer: Tokenizer,
    optimizer,
    config: RLConfig,
    seed: int,
    ptx: Callable[[int], Sequence[Batch]] = lambda index: (),
    done: Sequence[Round] = (),
    on_round: Callable[[int, Round], None] | None = None,
    watch: Callable[[Sequence[Sequence[Conversation]], float], dict[str, float]] = lambda *_: {},
    backlog: Backlog | None = None,
    judge: Judge | None = None,
) -> list[Round]:
    """The rounds after those that are `done`, up to `config.rounds`; fewer when the tasks are learned. watch: looks at
    the attempts and their temperature while the model is still the one that sampled them. backlog: what those rounds
    have left unfinished; as it stands when `on_round` is called, it belongs to the state of the run. With `config.int4`
    the rounded experts sample and are trained on, and `model` keeps those that learn: see `int4.round_experts`."""
    history: list[Round] = []
    backlog = Backlog() if backlog is None else backlog
    budgets = Budgets(dict(done[-1].budgets) if done else {})
    curriculum = Curriculum.after(config, seed, [one.successes for one in done], [one.tasks for one in done])
    with int4.aware(model) if config.int4 else nullcontext():
        for index in range(len(done), config.rounds):
            drawn, temperature = curriculum.draw(config, seed, index), temperature_at(config, index)
            if config.segment_tokens is None:
                groups, _ = sample_round(model, tokenizer, config, drawn, seed, index)
            else:
                dice = (temperature, hash_seed(seed, index))
                finished = backlog.sample(model, tokenizer, config, drawn, dice, index)
                drawn, groups = [one.drawn for one in finished], [one.attempts for one in finished]
            seen = watch(groups, temperature)
            history.append(
                update(model, optimizer, groups, temperature, config, ptx(index), budgets, index, judge)
            )
            history[-1].seen = seen
            if config.segment_tokens is not None:
                history[-1].tasks = [list(one) for one in drawn]
                history[-1].stale, history[-1].waiting = stale_share(groups, index), backlog.waiting
            curriculum.learn(drawn, history[-1].successes)
            for conversation in (c for group in groups for c in group):
                conversation.environment.close()
            if on_round is not None:
                on_round(index, history[-1])
            if learned(history[-1], config):
                break
    backlog.close()
    return history


def learned(measured: Round, config: RLConfig) -> bool:
    """Whether nearly all tasks of a round pass in every attempt: their advantages are 0, what is left is noise.

    Few moderate tasks alone do not say so: two levels may be solved, and the third one still out of reach.
    """
    return measured.success > config.solved and measured.moderate < config.least_moderate
