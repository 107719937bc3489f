"""What is measured: a row of the scoreboard, and the budgets that its tasks are worked on with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

HIDES = ("turns", "results", "all")


@dataclass(frozen=True)
class Limits:
    """Budgets of a rollout, in tokens and turns; what ends one is recorded in `Conversation.finish`.

    manage   make room when the context is full, instead of ending there
    hide     what leaves it then: old "turns", the calls with their results; old "results" alone, as in K2 Thinking, so
             that the calls add up; or "all" turns but the last, whatever `keep_turns` says
    """

    turn_tokens: int = 128
    turns: int = 12
    context: int = 1024
    manage: bool = False
    keep_turns: int = 2
    repeats: int = 4  # turns in a row with the same calls and the same results: it is stuck
    hide: str = "turns"

    def __post_init__(self) -> None:
        """Raises ValueError for a limit that no rollout can keep."""
        for name, least in (
            ("turn_tokens", 1),
            ("turns", 1),
            ("context", 1),
            ("keep_turns", 0),
            ("repeats", 2),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name} must be a whole number from {least}, not {value!r}")
        if self.hide not in HIDES:
            raise ValueError(f"hide must be one of {', '.join(HIDES)}, not {self.hide!r}")


LIMITS = Limits(turn_tokens=160, turns=16, context=1024)
# hides before a context outgrows training
MANAGED = Limits(turn_tokens=48, turns=400, context=320, manage=True)


@dataclass(frozen=True)
class Row:
    """One line of the scoreboard: tasks of `family`, spread evenly over `levels`, and how they are worked on.

    floor    the value to reach: a row that has one is a claim, in the words of `says`
    main     for the first look; the others are folded away
    """

    name: str
    family: str
    levels: Sequence[int] = ()  # all that the family measures, unless they are given
    limits: Limits = LIMITS
    attempts: int = 1  # sampled, and the best by the public tests is judged; one attempt is greedy
    thinking: bool = True
    share: float = 1.0  # of the number of tasks asked for; the very long rows take fewer
    floor: float | None = None
    says: str = ""
    main: bool = True
    by_level: bool = False  # every level is a row of its own, and this one is all of them together
    before_rl: bool = False  # measured before RL as well

    @property
    def parts(self) -> list[Row]:
        """The rows that are measured: this one, or one a level."""
        if not self.by_level:
            return [self]
        alone = dict(floor=None, main=False, by_level=False)
        return [
            replace(self, name=f"{self.name}/{n}", levels=(n,), says=f"{self.says}: length {n}", **alone)
            for n in self.levels
        ]

    def said(self) -> dict:
        """What an entry of the scoreboard tells about its row, so that whoever shows it needs no table."""
        return {"main": self.main, "floor": self.floor, "says": self.says, "thinking": self.thinking}
