"""A writer of at most eight words, so small that RL on anybody's reward takes a moment: what does a reward ask for?

It answers sums, "17 + 25", with words and numbers: "because 42", "sure 41". What it says next hangs on its last word
alone, a table of twenty-five numbers; at first it is right in six cases of ten, and more often where it gives a reason.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kimi_mini.training.rl.config import RLConfig
from kimi_mini.training.rl.objective import OBJECTIVES, Scale, Written

CHOICES = (
    "because",
    "sure",
    "right",
    "wrong",
    "end",
)  # right, wrong: a number that is the sum, one that is not
END = CHOICES.index("end")
HABITS = torch.tensor(
    [
        [0.44, 0.10, 0.22, 0.22, 0.02],  # at the start
        [0.12, 0.05, 0.64, 0.15, 0.04],  # behind "because"
        [0.15, 0.05, 0.42, 0.35, 0.03],  # behind "sure"
        [0.05, 0.04, 0.02, 0.02, 0.87],  # behind a number
        [0.05, 0.04, 0.02, 0.02, 0.87],
    ]
).log()
MOST = 8  # words
PROMPTS, ATTEMPTS, ROUNDS, UPDATES, RATE = 32, 8, 12, 2, 0.25
Bonus = Callable[[str, Sequence[str]], float]


@dataclass(frozen=True)
class Game:
    """A run. Of each round: mean bonus, share of right answers; of the first one: spread of the bonus, how much more of
    it a right answer had, whether rewards differed; the highest reward of all, before the cap."""

    bonus: list[float]
    truth: list[float]
    spread: float
    lead: float
    differ: bool
    highest: float

    @property
    def start(self) -> tuple[float, float]:
        """Bonus and truth of the first round."""
        return self.bonus[0], self.truth[0]

    @property
    def end(self) -> tuple[float, float]:
        """Bonus and truth, mean of the last three rounds."""
        return sum(self.bonus[-3:]) / 3, sum(self.truth[-3:]) / 3

    @property
    def gained(self) -> float:
        """How much truth has risen."""
        return self.end[1] - self.start[1]


def play(bonus: Bonus, cap: float = float("inf"), seed: int = 0) -> Game:
    """RL with K2's objective. An answer is right if it has ended and its last word is the sum; that is worth 1. An
    attempt is worth this and bonus(question, words), between -cap and cap, and is divided by the spread of its round.
    Raises what the bonus raises."""
    draw, rng = torch.Generator().manual_seed(seed), random.Random(seed)
    table = HABITS.clone().requires_grad_()
    optimizer = torch.optim.Adam([table], lr=RATE)
    bonuses, truths = [], []
    for _ in range(ROUNDS + 1):
        states, choices = _attempts(table.detach(), draw)
        extra, right = _judged(bonus, choices, rng)
        bonuses, truths = [*bonuses, extra], [*truths, right]
        _update(table, optimizer, states, choices, (right + extra).clamp(-cap, cap))
    first, right = bonuses[0], truths[0] > 0
    worth = (right + first).clamp(-cap, cap)
    return Game(
        bonus=[one.mean().item() for one in bonuses],
        truth=[one.mean().item() for one in truths],
        spread=first.std().item(),
        lead=(first[right].mean() - first[~right].mean()).item(),
        differ=bool((worth != worth[0]).any()),
        highest=max((one + other).max().item() for one, other in zip(bonuses, truths)),
    )


def _update(table: Tensor, optimizer, states: Tensor, choices: Tensor, worth: Tensor) -> None:
    """The steps of a round, with the package's objective."""
    k2, said = OBJECTIVES["k2"], choices >= 0
    gain = k2.advantage(worth.view(PROMPTS, ATTEMPTS)).flatten() / (worth.std() + 1e-6)
    attempt = torch.arange(len(said))[:, None].expand_as(said)[said]
    places = states[said], choices[said]
    old = table.detach().log_softmax(-1)[places]
    scale = Scale(len(said), len(old), MOST)
    for _ in range(UPDATES):
        new = table.log_softmax(-1)[places]
        k2(Written(new, old, attempt, len(said)), gain, scale, RLConfig()).backward()
        optimizer.step()
        optimizer.zero_grad()


def _attempts(table: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """What each attempt stood behind and what it chose there, (N, MOST) both; -1 behind its end."""
    state = torch.zeros(PROMPTS * ATTEMPTS, dtype=torch.long)
    alive, states, choices = state == 0, [], []
    for _ in range(MOST):
        choice = torch.multinomial(table.softmax(-1)[state], 1, generator=draw)[:, 0].where(alive, -1)
        states, choices = [*states, state], [*choices, choice]
        alive = alive & (choice != END)
        state = torch.where(alive, choice + 1, state)
    return torch.stack(states, 1), torch.stack(choices, 1)


def _judged(bonus: Bonus, choices: Tensor, rng: random.Random) -> tuple[Tensor, Tensor]:
    """Bonus of each attempt, and whether it is right, (N,) both."""
    found = []
    for place, chosen in enumerate(choices.tolist()):
        if place % ATTEMPTS == 0:
            a, b = rng.randrange(10, 90), rng.randrange(10, 90)
        words = []
        for kind in (CHOICES[index] for index in chosen if index not in (-1, END)):
            off = {"right": 0, "wrong": rng.choice((-10, -1, 1, 10))}
            words.append(str(a + b + off[kind]) if kind in off else kind)
        right = END in chosen and words[-1:] == [str(a + b)]
        found.append((float(bonus(f"{a} + {b}", words)), float(right)))
    return torch.tensor(found).unbind(-1)
