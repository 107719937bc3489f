"""Policy objectives, side by side: how the rewards of K attempts at a task become a gradient.

r_1 ... r_K are the rewards of a group, A_i the advantage of attempt i; its tokens have log-probabilities log pi now and
log pi_old when they were sampled, with rho = pi / pi_old. All are written as losses, to be minimised:

    k2         1/(2 tau) (A - tau sum_t log rho_t)^2                  K2 report, 3.2.3; k1.5, 2.3.2
    k2.5       - clip(rho_t, e^-low, e^high) A + tau (log rho_t)^2    K2.5 report, Eq. 1
    reinforce  - r sum_t log pi_t                                     Williams 1992
    rloo       the same with r_i less the mean of the others          arXiv 2402.14740
    ppo        - min(rho_t A, clip(rho_t, 1 - low, 1 + high) A)       arXiv 1707.06347, without its critic
    grpo       the same, mean over each attempt; A / std              arXiv 2402.03300, without its KL term
    dr_grpo    the same, over a constant; A not divided               arXiv 2503.20783
    gspo       the same with one ratio an attempt, exp(mean log rho)  arXiv 2507.18071
    cispo      - sg(min(rho_t, 1 + high)) A log pi_t                  arXiv 2506.13585

Where a source sums over the tokens of an attempt and takes the mean of attempts, the sum is divided by the mean length
of an attempt: one constant for all of them, so that the weight of PTX means the same beside each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from kimi_mini.model.kimi import KimiMini
from kimi_mini.training.batch import Batch
from kimi_mini.training.rl.config import RLConfig


@dataclass(frozen=True)
class Written:
    """Tokens that the policy chose, of `count` attempts: their log-probabilities now (with gradient) and when they were
    sampled, (M,) both, and the attempt of each, (M,) of whole numbers."""

    new: Tensor
    old: Tensor
    attempt: Tensor
    count: int

    @property
    def log_ratio(self) -> Tensor:
        """log pi / pi_old of each token, (M,)."""
        return self.new - self.old

    def summed(self, values: Tensor) -> Tensor:
        """The sum over the tokens of each attempt. values (M,) -> (N,)."""
        return values.new_zeros(self.count).index_add(0, self.attempt, values)

    def lengths(self) -> Tensor:
        """Tokens of each attempt, (N,); 1 where there are none."""
        return self.summed(torch.ones_like(self.new)).clamp(min=1)


@dataclass(frozen=True)
class Scale:
    """What the losses of a step are divided by: attempts and tokens of the whole step, those without an advantage too,
    and the most tokens that an attempt may have."""

    attempts: float
    tokens: float
    longest: float


# ---- advantages: rewards (P, K) -> (P, K) ------------------------------------------------------------------


def told(rewards: Tensor, gains: Tensor) -> Tensor:
    """The gains, 0 in a group whose rewards are all equal: what is left of 0.3 less the mean of 0.3 is rounding, and
    no signal."""
    return gains.masked_fill(rewards.amax(-1, keepdim=True) == rewards.amin(-1, keepdim=True), 0.0)


def advantages(rewards: Tensor) -> Tensor:
    """r_i - r_mean within each group."""
    return told(rewards, rewards - rewards.mean(-1, keepdim=True))


def leave_one_out(rewards: Tensor) -> Tensor:
    """r_i less the mean of the other attempts: a baseline that does not depend on attempt i."""
    count = rewards.shape[-1]
    return told(rewards, rewards - (rewards.sum(-1, keepdim=True) - rewards) / (count - 1))


def standardised(rewards: Tensor) -> Tensor:
    """(r_i - r_mean) / std: easy and hard tasks, whose rewards vary little, count more."""
    return advantages(rewards) / (rewards.std(-1, correction=0, keepdim=True) + 1e-6)


def raw(rewards: Tensor) -> Tensor:
    """The rewards themselves: no baseline."""
    return rewards


# ---- losses: the share of these attempts in the loss of a step ---------------------------------------------


def policy_loss(new: Tensor, old: Tensor, advantage: Tensor, tau: float) -> Tensor:
    """K2's objective for sequence log-probabilities `new` (with gradient) and `old`, all (N,).

    Divided by 2 tau, which changes no minimum: the gradient is then -(advantage - tau log ratio) grad log pi,
    of the same size whatever tau is.
    """
    return ((advantage - tau * (new - old)) ** 2).mean() / (2 * tau)


def k2(w: Written, gain: Tensor, scale: Scale, tau: float, clip: tuple[float, float]) -> Tensor:
    """Whole attempts, squared: REINFORCE with the group's mean as baseline, and a pull towards pi_old."""
    return policy_loss(w.summed(w.new), w.summed(w.old), gain, tau) * w.count / scale.tokens


def k25(w: Written, gain: Tensor, scale: Scale, tau: float, clip: tuple[float, float]) -> Tensor:
    """Tokens; those whose log-ratio left [-low, high] learn nothing from the reward, whatever the advantage's sign: tau
    alone still pulls them back."""
    low, high = clip
    ratio = w.log_ratio.clamp(-low, high).exp()
    return (tau * w.log_ratio**2 - ratio * gain[w.attempt]).sum() / scale.tokens


def reinforce(w: Written, gain: Tensor, scale: Scale, tau: float, clip: tuple[float, float]) -> Tensor:
    """The plain policy gradient. With `leave_one_out` as advantage it is RLOO."""
    return -(gain[w.attempt] * w.new).sum() / scale.tokens


def clipped(log_ratio: Tensor, gain: Tensor, clip: tuple[float, float]) -> Tensor:
    """PPO's surrogate, of the shape of log_ratio: no gradient once the ratio has moved far enough the right way."""
    low, high = clip
    ratio = log_ratio.exp()
    return -torch.minimum(ratio * gain, ratio.clamp(1 - low, 1 + high) * gain)


def ppo(w: Written, gain: Tensor, scale: Scale, tau: float, clip: tuple[float, float]) -> Tensor:
    """The mean of the surrogate over all tokens."""
    return clipped(w.log_ratio, gain[w.attempt], clip).sum() / scale.tokens


def grpo(w: Written, gain: Tensor, scale: Scale, tau: float, clip: tuple[float, float]) -> Tensor:
    """The mean over each attempt, then over attempts: a token of a long attempt counts less."""
    each = w.summed(clipped(w.log_ratio, gain[w.attempt], clip)) / w.lengths()
    return each.sum() / scale.attempts


def dr_grpo(w: Written, gain: Tensor, scale: Scale, tau: float, clip: tuple[float, float]) -> Tensor:
    """The sum over each attempt by the same constant for all: a long wrong attempt pays for each token."""
    return clipped(w.log_ratio, gain[w.attempt], clip).sum() / (scale.attempts * scale.longest)


def gspo(w: Written, gain: Tensor, scale: Scale, tau: float, clip: tuple[float, float]) -> Tensor:
    """One ratio an attempt, the geometric mean of its tokens': all of them are clipped, or none."""
    return clipped(w.summed(w.log_ratio) / w.lengths(), gain, clip).sum() / scale.attempts


def cispo(w: Written, gain: Tensor, scale: Scale, tau: float, clip: tuple[float, float]) -> Tensor:
    """REINFORCE with truncated importance weights: a weight is cut, the gradient of its token is not."""
    weight = w.log_ratio.exp().clamp(max=1 + clip[1]).detach()
    return -(weight * gain[w.attempt] * w.new).sum() / scale.tokens


@dataclass(frozen=True)
class Objective:
    """A loss, the advantage that belongs to it, and the clip of its source (K2.5 and CISPO publish none). bounded: a
    token of an older policy may stay in the loss, for there is a bound to what its ratio can do."""

    loss: Callable[[Written, Tensor, Scale, float, tuple[float, float]], Tensor]
    advantage: Callable[[Tensor], Tensor] = advantages
    clip: tuple[float, float] = (0.2, 0.2)
    bounded: bool = True

    def __call__(self, written: Written, gain: Tensor, scale: Scale, config: RLConfig) -> Tensor:
        """The share of these attempts, with advantages `gain` (N,), in the loss of a step."""
        return self.loss(written, gain, scale, config.tau, config.clip or self.clip)


OBJECTIVES = {
    "k2": Objective(k2, bounded=False),
    "k2.5": Objective(k25, clip=(0.5, 0.5)),
    "reinforce": Objective(reinforce, raw, bounded=False),
    "rloo": Objective(reinforce, leave_one_out, bounded=False),
    "ppo": Objective(ppo),
    "grpo": Objective(grpo, standardised),
    "dr_grpo": Objective(dr_grpo),
    "gspo": Objective(gspo, standardised, (3e-4, 4e-4)),
    "cispo": Objective(cispo, standardised, (1.0, 4.0)),
}


# ---- log-probabilities -------------------------------------------------------------------------------------


def token_distributions(model: KimiMini, batch: Batch, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """Of all own tokens, row by row: the log-probabilities (M, V) of what could stand there, at the sampling
    temperature; the token, and its row, (M,) both."""
    batch = batch.to(model.lm_head.weight.device)
    hidden = model.hidden_states(batch.ids, valid=batch.valid)
    written = batch.mask[:, 1:]  # (B, T-1)
    logits = model.lm_head(hidden[:, :-1][written]).float() / temperature  # (M, V)
    rows = torch.arange(len(written), device=written.device)[:, None].expand_as(written)[written]
    return logits.log_softmax(-1), batch.ids[:, 1:][written], rows


def token_logprobs(model: KimiMini, batch: Batch, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probabilities of all own tokens at the sampling temperature, row by row, and the row of each; (M,) both."""
    distributions, ids, rows = token_distributions(model, batch, temperature)
    return distributions.gather(-1, ids[:, None])[:, 0], rows
