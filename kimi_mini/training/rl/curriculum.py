"""Which tasks a round of RL has: all kinds in turn, or those of moderate difficulty more often.

A task whose attempts all pass, or all fail, teaches nothing: its advantages are 0. What one teaches goes with the
variance p (1 - p) of an attempt. So each kind (family and level) is drawn in proportion to that, p being its success of
late; a little is left for the others, since what was out of reach comes into it. Tasks of which some attempts passed
come again: the attempts that failed are still to be won.

Source: Kimi k1.5, section 2.3.4 (curriculum and prioritised sampling); K2 report, 3.2.1 (moderate difficulty).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from kimi_mini import worlds
from kimi_mini.training.rl.config import RLConfig

FADE = 0.7  # what a round counts for in the next one
LEFT = 0.02  # of the weight, for kinds that are solved or out of reach
MOST = 64  # tasks that are kept for another visit


class Drawn(NamedTuple):
    """A task by what makes it again."""

    family: str
    level: int
    seed: str

    def task(self) -> worlds.Task:
        """The task, always the same."""
        return worlds.generate(random.Random(self.seed), self.family, self.level)


@dataclass
class Curriculum:
    """What is known of the tasks: attempts and passes of each kind, fading, and tasks to be visited again, with their
    success. Nothing of it is saved: the successes of the rounds so far give it again, see `after`."""

    seen: dict[tuple[str, int], list[float]] = field(default_factory=dict)
    again: dict[Drawn, float] = field(default_factory=dict)

    @classmethod
    def after(
        cls,
        config: RLConfig,
        seed: int,
        rounds: Sequence[Sequence[float]],
        tasks: Sequence[Sequence[Sequence]] = (),
    ) -> Curriculum:
        """As it stands after these rounds, each given by the success of its tasks: those that it drew, or `tasks`."""
        curriculum = cls()
        for index, successes in enumerate(rounds):
            other = [Drawn(*one) for one in tasks[index]] if tasks else []
            curriculum.learn(other or curriculum.draw(config, seed, index), successes)
        return curriculum

    def weight(self, kind: tuple[str, int]) -> float:
        """p (1 - p) of a kind, by its attempts of late and one of each sort, and a little more."""
        attempts, passed = self.seen.get(kind, (0.0, 0.0))
        success = (passed + 1) / (attempts + 2)
        return success * (1 - success) + LEFT

    def draw(self, config: RLConfig, seed: int, index: int) -> list[Drawn]:
        """The tasks of a round."""
        rng, fresh = random.Random(f"{seed}/rl/{index}"), config.prompts
        visited: list[Drawn] = []
        if config.prioritised:
            count = min(int(config.revisited * config.prompts), len(self.again))
            visited, fresh = rng.sample(list(self.again), count), config.prompts - count
            kinds = rng.choices(config.tasks, [self.weight(kind) for kind in config.tasks], k=fresh)
        else:
            kinds = [config.tasks[i % len(config.tasks)] for i in range(fresh)]
        return [Drawn(*kind, f"{seed}/rl/{index}/{i}") for i, kind in enumerate(kinds)] + visited

    def learn(self, drawn: Sequence[Drawn], successes: Sequence[float]) -> None:
        """Note the share of the attempts that passed, of each task of a round."""
        self.seen = {kind: [FADE * number for number in counts] for kind, counts in self.seen.items()}
        for task, success in zip(drawn, successes, strict=True):
            counts = self.seen.setdefault((task.family, task.level), [0.0, 0.0])
            counts[0] += 1
            counts[1] += success
            self.again.pop(task, None)
            if 0 < success < 1:
                self.again[task] = success
        best = sorted(self.again, key=lambda task: abs(self.again[task] - 0.5))[:MOST]
        self.again = {task: self.again[task] for task in best}
