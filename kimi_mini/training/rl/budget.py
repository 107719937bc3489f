"""A budget of tokens for each family: what right answers took, and no more; always, or in every other phase.

The budget of a family is a percentile of the lengths of its right attempts, found once, in the first round that has
enough of them. A right attempt over it is worth nothing, where at least a share of the attempts at its task pass: who
solves a task seldom may take the time.

A budget that always holds teaches a model that it cannot think longer when it has to. Toggle takes turns: some rounds
with the budget, as many without.

Source: K2 report, 3.2.3 (budget); K2.5 report, 4.4.2 (Toggle; percentile, share and length of a phase unpublished).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kimi_mini.training.rl.config import RLConfig

ENOUGH = 8  # right attempts of a family


@dataclass
class Budgets:
    """family -> tokens of an attempt, of those that are known."""

    tokens: dict[str, float] = field(default_factory=dict)

    def learn(self, config: RLConfig, families: Sequence[str], passed: Tensor, written: Tensor) -> None:
        """Note the budgets of families that have none yet. families of P tasks; passed, written (P, K)."""
        if config.budget is None:
            return
        for family in sorted(set(families) - self.tokens.keys()):
            of = torch.tensor([one == family for one in families])
            lengths = written[of][passed[of] > 0]
            if len(lengths) >= ENOUGH:
                self.tokens[family] = torch.quantile(lengths, config.budget / 100).item()

    def over(
        self, config: RLConfig, index: int, families: Sequence[str], passed: Tensor, written: Tensor
    ) -> Tensor:
        """Which attempts of round `index` are worth nothing, (P, K)."""
        held = not config.toggle or index // config.toggle % 2 == 0
        most = [self.tokens.get(family, float("inf")) if held else float("inf") for family in families]
        known = passed.mean(-1, keepdim=True) >= config.budget_from
        return known & (written > torch.tensor(most)[:, None])
