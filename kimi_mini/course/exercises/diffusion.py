"""Checkers for the exercises of notebook 11 (text that is refined)."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from kimi_mini.course.exercises.base import Checked, Hint, checker, known_mistake, one_number, value_of

# -- the bound of two tokens ---------------------------------------------------------------------------

LOSSES = ((2.0, 1.5, 0.4, 0.1), (0.3, 3.0, 0.2, 2.2), (1.0, 1.0, 1.0, 1.0), (5.0, 0.0, 2.5, 0.7))


def bound_of_two(first: float, second: float, first_last: float, second_last: float) -> float:
    """The bound from -log p of each token with both masked, and with it alone masked."""
    return (first + second + first_last + second_last) / 2


WRONG_BOUNDS = (
    (lambda a, b, c, d: (a + b) / 3 + (c + d) / 6, "that is without the weight 1/t: both are masked with chance t^2, "
     "one alone with t(1 - t), and each masked token has to count 1/t"),
    (lambda a, b, c, d: a + b, "both tokens at a glance: the second is never seen in the light of the first"),
    (lambda a, b, c, d: a + d, "that is one order, from left to right; the bound is the mean over both"),
    (lambda a, b, c, d: b + c, "that is one order, from right to left; the bound is the mean over both"),
    (lambda a, b, c, d: c + d, "somebody has to go first, and sees nothing"),
    (lambda a, b, c, d: (a + b + c + d) / 4, "in nats a token; asked for is the whole text"),
    (lambda a, b, c, d: a + b + c + d, "each of the two orders has the chance 1/2"),
    (lambda a, b, c, d: min(a + d, b + c), "the better order: nobody knows it beforehand"),
    (lambda a, b, c, d: max(a + d, b + c), "the worse order: a mean is asked for"),
)  # fmt: skip


@checker
def check_bound(function: Callable[[float, float, float, float], float]) -> Checked:
    """function(first, second, first_last, second_last): the bound in nats of a text of two tokens."""
    given = [one_number(value_of(function, *case)) for case in LOSSES]
    same = lambda a, b: all(abs(x - y) < 1e-6 for x, y in zip(a, b))
    if same(given, [bound_of_two(*case) for case in LOSSES]):
        return Checked(True, "half of what left to right costs and half of what right to left costs")
    wrong = {hint: [rule(*case) for case in LOSSES] for rule, hint in WRONG_BOUNDS}
    return Checked(False, known_mistake(given, wrong, same) or f"not {given[0]:.3f} for {LOSSES[0]}")


# -- a sampler -----------------------------------------------------------------------------------------

SURE = torch.tensor([0.9, 0.2, 0.7, 0.95, 0.3, 0.8, 0.1, 0.6])
MASKED = torch.tensor([0, 1, 1, 0, 1, 1, 1, 1], dtype=torch.bool)
MOMENTS = tuple(
    (SURE, masked, block, at_once)
    for masked in (
        MASKED,
        torch.ones(8, dtype=torch.bool),
        MASKED & (torch.arange(8) > 3),
        torch.arange(8) == 7,
    )
    for block, at_once in ((8, 1), (8, 3), (4, 1), (4, 2), (2, 2), (1, 1))
)


def next_places(
    sure: Tensor, masked: Tensor, block: int, at_once: int, least: bool = False, anywhere: bool = False
) -> set[int]:
    """The surest masked places of the first block that has any."""
    open_ = masked.nonzero().flatten().tolist()
    first = open_[0] // block
    own = [place for place in open_ if anywhere or place // block == first]
    return set(sorted(own, key=lambda place: sure[place].item() * (1 if least else -1))[:at_once])


WRONG_PLACES = (
    (lambda s, m, b, k: set(s.argsort(descending=True)[:k].tolist()), "what is written already is written: only masked "
     "places"),
    (lambda s, m, b, k: next_places(s, m, b, k, anywhere=True), "the block is not kept: nothing behind it before it is "
     "finished"),
    (lambda s, m, b, k: next_places(s, m, b, k, least=True), "those are the least certain"),
    (lambda s, m, b, k: set(m.nonzero().flatten()[:k].tolist()), "that goes from left to right"),
    (lambda s, m, b, k: next_places(s, m, b, 1), "one at a time: `at_once` may be more"),
    (lambda s, m, b, k: set(m.nonzero().flatten().tolist()), "all at once"),
)  # fmt: skip


@checker
def check_places(function: Callable[[Tensor, Tensor, int, int], Sequence[int]]) -> Checked:
    """function(sure, masked, block, at_once): where tokens are put down next, (L,) each."""
    given = []
    for sure, masked, block, at_once in MOMENTS:
        value = value_of(function, sure.clone(), masked.clone(), block, at_once)
        given.append({int(one_number(place)) for place in value})
    if given == [next_places(*moment) for moment in MOMENTS]:
        return Checked(True, "with a block of 1 it writes from left to right, with one of 8 where it likes")
    wrong = {hint: [rule(*moment) for moment in MOMENTS] for rule, hint in WRONG_PLACES}
    number = next(i for i, moment in enumerate(MOMENTS) if given[i] != next_places(*moment))
    _, masked, block, at_once = MOMENTS[number]
    where = f"masked {masked.int().tolist()}, block {block}, at_once {at_once}: not {sorted(given[number])}"
    return Checked(False, known_mistake(given, wrong) or where)


# -- what a policy gradient takes for a log-probability ------------------------------------------------


def _writings() -> list[tuple[Tensor, Tensor]]:
    """losses (steps, L) of every token as every step saw it, and when each was put down, -1 for a given one."""
    dice, made = torch.Generator().manual_seed(0), []
    for steps, given in ((6, 0), (6, 2), (3, 0), (3, 1)):
        losses = torch.rand(steps, 6, generator=dice) * 3
        when = torch.randperm(6, generator=dice) % steps
        when[:given] = -1
        made.append((losses, when))
    return made


def log_probability(losses: Tensor, when: Tensor, late: int = 0, given: bool = False) -> float:
    """Of a writing, in nats: each token as the step saw it that put it down. late: steps after that; given: whether
    given tokens count."""
    places = [place for place in range(len(when)) if given or when[place] >= 0]
    seen = [min(max(int(when[place]), 0) + late, len(losses) - 1) for place in places]
    return -sum(losses[step, place].item() for step, place in zip(seen, places))


def _left(losses: Tensor, when: Tensor, count: bool) -> float:
    """All tokens that were masked at each step; count: their mean in place of their sum."""
    found = 0.0
    for step, row in enumerate(losses):
        own = row[when >= step]
        found -= (own.mean() if count and len(own) else own.sum()).item()
    return found


WRONG_WRITINGS = (
    (lambda a, w: -log_probability(a, w), "losses are minus log-probabilities: mind the sign"),
    (lambda a, w: -a[0][w >= 0].sum().item(), "that is the look at a glance: every token as the empty canvas saw it"),
    (lambda a, w: log_probability(a, w, given=True), "given tokens (-1) are nobody's choice: they do not count"),
    (lambda a, w: log_probability(a, w, late=1), "seen a step too late: what the step saw that put a token down"),
    (lambda a, w: log_probability(a, w) / int((w >= 0).sum()), "a mean over tokens; asked for is the whole writing"),
    (lambda a, w: _left(a, w, False), "a step counts the tokens that it put down, not all that were masked then"),
    (lambda a, w: _left(a, w, True), "that is the bound along this order: the mean over what each step might have put "
     "down; the policy knows which it did"),
)  # fmt: skip


@checker
def check_writing(function: Callable[[Tensor, Tensor], float]) -> Checked:
    """function(losses, when): log-probability in nats of a writing; losses (steps, L), when (L,)."""
    cases = _writings()
    given = [one_number(value_of(function, losses.clone(), when.clone())) for losses, when in cases]
    same = lambda a, b: all(abs(x - y) < 1e-4 for x, y in zip(a, b))
    if same(given, [log_probability(*case) for case in cases]):
        return Checked(
            True, "its gradient, times the reward, is the policy gradient: one look a step, and no bias"
        )
    wrong = {hint: [rule(*case) for case in cases] for rule, hint in WRONG_WRITINGS}
    wanted = "take each token's loss at the step that put it down"
    return Checked(False, known_mistake(given, wrong, same) or f"not {given[0]:.3f} for the first: {wanted}")


# -- a reward ------------------------------------------------------------------------------------------

LENGTH, PLACE, DIGIT = 6, 2, 7


def keeps_sum(text: Sequence[int]) -> bool:
    """The last digit is the sum of the others, modulo 10."""
    return sum(text[:-1]) % 10 == text[-1]


def keeps_place(text: Sequence[int]) -> bool:
    """The third digit is a seven."""
    return text[PLACE] == DIGIT


def _texts() -> list[list[int]]:
    """Texts of all four kinds, about as many of each."""
    rng, found = random.Random(0), []
    for number in range(200):
        text = [rng.randrange(10) for _ in range(LENGTH)]
        if number % 2:
            text[PLACE] = DIGIT
        if number % 4 > 1:
            text[-1] = sum(text[:-1]) % 10
        found.append(text)
    return found


@checker
def check_reward(function: Callable[[list[int]], float]) -> Checked:
    """function(text): a reward for six digits whose third is a 7 and whose last is the sum of the others modulo 10."""
    texts = _texts()
    worth = {kind: [] for kind in ((True, True), (True, False), (False, True), (False, False))}
    for text in texts:
        value = one_number(value_of(function, list(text)))
        if value != value or abs(value) == float("inf"):
            raise Hint(f"the reward of {text} is {value}")
        worth[keeps_sum(text), keeps_place(text)].append(value)
    both, only_sum, only_place, none = worth.values()
    best = max(max(values) for values in worth.values())
    if min(both) < best or max(only_sum + only_place + none) >= best:
        raise Hint(
            "a text that keeps both has to get the most, each of them the same, and nothing else may get as much"
        )
    if max(none) >= min(only_place) or max(none) >= min(only_sum):
        raise Hint(
            "most texts keep nothing at the start, and get the same: pay for each constraint by itself, or there is "
            "nothing to climb"
        )
    return Checked(
        True, f"{best:g} for both, {min(only_sum):g} and {min(only_place):g} for one: a slope from anywhere"
    )
