"""Checkers for the exercises of notebook 07 (joint reinforcement learning)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from kimi_mini.course.exercises.base import Checked, Hint, checker, close, numbers, one_number, value_of
from kimi_mini.course.writer import Game, play
from kimi_mini.training.rl.budget import Budgets
from kimi_mini.training.rl.config import RLConfig

# -- K2's objective ------------------------------------------------------------------------------------

REWARDS = torch.tensor(
    [[1.0, 0, 0, 1, -0.5], [0, 0, 0, 1, 0], [1, 1, 1, 1, 1]]
)  # the last prompt says nothing
RATIOS = 0.4 * torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
TAU = 0.3


def _k2(
    rewards: Tensor,
    ratio: Tensor,
    tau: float,
    baseline: Callable[[Tensor], Tensor] = lambda r: r.mean(1, keepdim=True),
    spread: Callable[[Tensor], Tensor] = lambda r: torch.ones(()),
    pull: float = 1.0,
    factor: float | None = None,
    count: Callable[[Tensor], float] = Tensor.numel,
) -> Tensor:
    gain = (rewards - baseline(rewards)) / spread(rewards)
    return (-2 * tau if factor is None else factor) * (gain - pull * tau * ratio) / count(rewards)


WRONG_K2 = (
    (dict(baseline=Tensor.mean), "one baseline for all prompts: an easy prompt is then praised for being easy, a hard "
     "one blamed. The mean is over the K attempts at one prompt"),
    (dict(baseline=lambda r: r.mean(0)), "that mean runs over prompts: the attempts at one prompt stand in a row"),
    (dict(baseline=lambda r: torch.zeros(())), "no baseline: subtract the mean of the K attempts"),
    (dict(baseline=lambda r: (r.sum(1, keepdim=True) - r) / (r.shape[1] - 1)), "the mean of the *others* is RLOO's "
     "baseline; K2's is the mean of all K"),
    (dict(spread=lambda r: r.std(1, correction=0, keepdim=True) + 1e-6), "K2 does not divide by the spread of the "
     "rewards, GRPO does"),
    (dict(pull=0.0), "the pull towards the old policy is missing: it stands inside the square"),
    (dict(pull=-1.0), "the pull has the wrong sign: it shrinks the log-ratio"),
    (dict(factor=2 * TAU), "the sign: L is minimised, so a good attempt has a negative number here"),
    (dict(factor=-1.0), "nearly: that is L / (2 tau), as the package has it. The square gives a 2, the inside a tau"),
    (dict(factor=-2.0), "the inner derivative is missing: the log-probability stands behind a tau"),
    (dict(factor=-TAU), "the 2 of the square is missing"),
    (dict(count=lambda r: r.shape[1]), "L is a mean over prompts, too"),
    (dict(count=lambda r: r.shape[0]), "L has a 1/K: a mean over the attempts"),
    (dict(count=lambda r: 1), "L is a mean, over prompts and over attempts"),
)  # fmt: skip


@checker
def check_k2(function: Callable[[Tensor, Tensor, float], Tensor]) -> Checked:
    """function(rewards, log_ratio, tau), (P, K) both: what stands before grad log pi(y|x) of each attempt, (P, K)."""
    value = value_of(function, REWARDS.clone(), RATIOS.clone(), TAU)
    given = numbers(value, REWARDS.shape, "return one number an attempt, (P, K)")
    if close(given, _k2(REWARDS, RATIOS, TAU)):
        return Checked(
            True, "REINFORCE with the group's mean as baseline, and a pull; the last prompt only pulls"
        )
    return _known(given, {hint: _k2(REWARDS, RATIOS, TAU, **wrong) for wrong, hint in WRONG_K2})


def _known(given: Tensor, wrong: Mapping[str, Tensor]) -> Checked:
    hint = next((hint for hint, other in wrong.items() if close(given, other)), None)
    return Checked(
        False, hint or f"not these numbers: {[round(x, 3) for x in given.flatten()[:4].tolist()]}, ..."
    )


# -- K2.5's mask ---------------------------------------------------------------------------------------

ATTEMPT = torch.repeat_interleave(torch.arange(4), torch.tensor([2, 6, 3, 5]))
TOKENS = torch.tensor([0.1, -0.9, 0.7, 0.05, -0.2, 0.5, -0.6, 0, 0.3, -0.5, 0.8, -0.3, 0.2, 0.9, -0.8, 0.01])
GAINS = torch.tensor([0.6, -0.4, 0.6, -0.8])[ATTEMPT]
LOW, HIGH = 0.55, 0.45


def _inside(x: Tensor, gain: Tensor) -> Tensor:
    return (x >= -LOW) & (x <= HIGH)


def _k25(
    mask: Callable[[Tensor, Tensor], Tensor] = _inside,
    ratio: Callable[[Tensor], Tensor] = torch.exp,
    pull: Callable[[Tensor, Tensor], Tensor] = lambda x, kept: 2 * TAU * x,
    count: Callable[[], Any] = lambda: len(TOKENS),
    sign: float = 1.0,
) -> Tensor:
    kept = mask(TOKENS, GAINS)
    return sign * (pull(TOKENS, kept) - kept * ratio(TOKENS) * GAINS) / count()


def _by_sign(x: Tensor, gain: Tensor) -> Tensor:
    return ~torch.where(gain > 0, x > HIGH, x < -LOW)


WRONG_K25 = (
    (dict(mask=_by_sign), "that mask asks for the advantage's sign, as PPO's: it lets a token drift as far as it likes "
     "in the wrong direction. This one is blind: outside is outside"),
    (dict(count=lambda: 4 * ATTEMPT.bincount()[ATTEMPT]), "that is a mean over each attempt, and then over attempts: a "
     "token of a long attempt counts less. Divide by the tokens of the whole batch"),
    (dict(mask=lambda x, gain: torch.ones_like(x)), "no token is masked"),
    (dict(pull=lambda x, kept: 2 * TAU * x * kept), "only the first term is masked: the pull brings back those who are "
     "outside"),
    (dict(ratio=lambda x: torch.ones_like(x)), "the ratio itself is missing: d exp(x) = exp(x) dx"),
    (dict(ratio=lambda x: x.clamp(-LOW, HIGH).exp(), mask=lambda x, gain: torch.ones_like(x)), "a ratio that is cut "
     "and keeps its gradient is CISPO's: here who is outside has none"),
    (dict(mask=lambda x, gain: (x.exp() >= 1 - LOW) & (x.exp() <= 1 + HIGH)), "the bounds are of the log-ratio, not of "
     "the ratio"),
    (dict(mask=lambda x, gain: _inside(torch.zeros(4).index_add(0, ATTEMPT, x)[ATTEMPT], gain)), "each token is masked "
     "by its own log-ratio, not by its attempt's"),
    (dict(mask=lambda x, gain: x <= HIGH), "both sides: a token that fell too far is masked, too"),
    (dict(pull=lambda x, kept: TAU * x), "the 2 of the square is missing in the pull"),
    (dict(pull=lambda x, kept: 0 * x), "the pull tau (log ratio)^2 is missing"),
    (dict(pull=lambda x, kept: -2 * TAU * x), "the pull has the wrong sign: a loss holds + tau (log ratio)^2"),
    (dict(sign=-1.0), "the sign: the report maximises, a loss is minimised"),
    (dict(count=lambda: 1), "divide by N, the tokens of the whole batch"),
)  # fmt: skip


@checker
def check_k25(function: Callable[..., Tensor]) -> Checked:
    """function(log_ratio, advantage, attempt, low, high, tau), (M,) each: what stands before grad log pi, (M,)."""
    copies = [TOKENS.clone(), GAINS.clone(), ATTEMPT.clone()]
    given = numbers(
        value_of(function, *copies, LOW, HIGH, TAU), TOKENS.shape, "return one number a token, (M,)"
    )
    if close(given, _k25()):
        apart = int((_by_sign(TOKENS, GAINS) & ~_inside(TOKENS, GAINS)).sum())
        return Checked(
            True, f"of {len(TOKENS)} tokens PPO would move {apart} more: those that drifted the wrong way"
        )
    return _known(given, {hint: _k25(**wrong) for wrong, hint in WRONG_K25})


# -- Toggle --------------------------------------------------------------------------------------------

PHASE, PERCENTILE, LEAST = 3, 75, 0.5
PASSED = torch.tensor([[1.0, 1, 1, 1], [1, 0, 1, 0], [1, 0, 0, 0], [1, 1, 0, 0]])
WRITTEN = torch.tensor([[40.0, 140, 60, 110], [80, 150, 95, 200], [130, 20, 25, 300], [120, 65, 10, 160]])
WORTH = torch.tensor([[1.0, 1, 1, 1], [1, 0, 1, -0.5], [1, 0, 0, -0.5], [1, 1, 0, 0.25]])  # two were cut off
BUDGET = torch.quantile(WRITTEN[PASSED > 0], PERCENTILE / 100)


def _toggle(
    t: int,
    held: Callable[[int], bool] = lambda t: t // PHASE % 2 == 0,
    budget: Tensor = BUDGET,
    known: Callable[[Tensor], Tensor] = lambda p: p.mean(1, keepdim=True) >= LEAST,
    over: Callable[[Tensor, Tensor], Tensor] = torch.gt,
    worth: Callable[[Tensor], Tensor] = lambda r: r.clamp(max=0),
) -> Tensor:
    lost = over(WRITTEN, budget) & known(PASSED)
    return torch.where(lost, worth(WORTH), WORTH) if held(t) else WORTH


WRONG_TOGGLE = (
    (dict(held=lambda t: t % 2 == 0), "a phase has three rounds: floor(t / m) mod 2"),
    (dict(held=lambda t: t // PHASE % 2 == 1), "the budget holds in phase 0 and rests in phase 1"),
    (dict(held=lambda t: True), "a budget that holds in every round: the model unlearns to think longer"),
    (dict(held=lambda t: False), "the budget never holds"),
    (dict(budget=torch.quantile(WRITTEN, PERCENTILE / 100)), "the percentile is of the right attempts alone: those "
     "that never end would raise it"),
    (dict(budget=torch.stack([torch.quantile(w[p > 0], PERCENTILE / 100) for w, p in zip(WRITTEN, PASSED)])[:, None]),
     "one budget for the family, not one a task: a task with a single right attempt has no percentile"),
    (dict(known=lambda p: torch.ones_like(p) > 0), "a task that is seldom solved may take its time: the budget holds "
     "where at least half of the attempts pass"),
    (dict(known=lambda p: p.mean(1, keepdim=True) > LEAST), "at least half: a half is enough"),
    (dict(known=lambda p: p > 0), "the task decides, by the share of its attempts that pass, not the attempt"),
    (dict(over=torch.ge), "an attempt of just the budget is within it"),
    (dict(worth=torch.zeros_like), "an attempt that was cut off has its punishment forgiven: over the budget is worth "
     "nothing at most"),
    (dict(worth=lambda r: torch.full_like(r, -1.0)), "over the budget is worth nothing, not less than nothing"),
)  # fmt: skip


@checker
def check_toggle(function: Callable[[Tensor, Tensor, Tensor, int], Tensor]) -> Checked:
    """function(rewards, passed, written, t): the rewards of round t, (P, K), under a budget every other phase."""
    config = RLConfig(budget=PERCENTILE, budget_from=LEAST, toggle=PHASE)
    rounds, given = range(4 * PHASE), []
    for t in rounds:
        value = value_of(function, WORTH.clone(), PASSED.clone(), WRITTEN.clone(), t)
        given.append(numbers(value, WORTH.shape, "return the rewards, (P, K)"))
    over = [Budgets({"f": BUDGET.item()}).over(config, t, ["f"] * 4, PASSED, WRITTEN) for t in rounds]
    if all(close(one, torch.where(lost, WORTH.clamp(max=0), WORTH)) for one, lost in zip(given, over)):
        return Checked(True, f"a budget of {BUDGET:.0f} tokens, three rounds on, three rounds off")
    wrong = {hint: torch.stack([_toggle(t, **rule) for t in rounds]) for rule, hint in WRONG_TOGGLE}
    return _known(torch.stack(given), wrong)


# -- a reward that will be gamed -----------------------------------------------------------------------


def _worth(question: str, words: Sequence[str], bonus: Callable) -> float:
    """The reader's bonus as a number. Raises Hint when it is none, or not finite."""
    worth = numbers(value_of(bonus, question, list(words)), (), "return one number")
    if not worth.isfinite():
        raise Hint(f"your bonus for {words} is {worth.item()}")
    return worth.item()


def _said(game: Game) -> str:
    (bonus, truth), (more, left) = game.start, game.end
    return f"bonus {bonus:.2f} to {more:.2f}, right answers {truth:.2f} to {left:.2f}"


@checker
def check_bonus(bonus: Callable[[str, list[str]], float], cap: float = float("inf")) -> Checked:
    """bonus(question, words): a reward that looks sensible and is gamed; cap: the one that closes the hole."""
    ours = lambda question, words: _worth(question, words, bonus)
    game = play(ours)
    if game.spread == 0:
        raise Hint("your bonus is the same for all attempts: no advantage, nothing is learned")
    if game.lead < 0.1 * game.spread:
        raise Hint("at the start wrong answers have as much of it as right ones: nobody would reward that")
    if game.gained > -0.2:
        raise Hint(f"not gamed: {_said(game)}. Reward what can be had without a right answer")
    if cap is None or cap is ...:
        raise Hint(f"gamed: {_said(game)}. Now set my_cap: the sum of right answer and bonus stays below it")
    if isinstance(cap, bool) or not (cap := one_number(cap)) > 0:
        raise Hint(f"gamed: {_said(game)}. But a cap is a number above 0: it would make all attempts alike")
    if cap >= game.highest:
        raise Hint(
            f"gamed: {_said(game)}. A cap above every reward caps nothing: the highest was {game.highest:.3g}"
        )
    closed = play(ours, cap)
    if not closed.differ:
        raise Hint(
            "gamed, and the cap makes all attempts of the first round alike: a smaller bonus leaves room"
        )
    if closed.gained < 0.1:
        raise Hint(
            f"gamed: {_said(game)}. With the cap: {_said(closed)}. What is a right answer worth, and a wrong one?"
        )
    return Checked(True, f"gamed: {_said(game)}; with a cap of {cap:g}: {_said(closed)}")
