"""Everything that decides what a run of RL does. Needs no torch: it is a part of the plan."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from kimi_mini.worlds.rows import Limits

OBJECTIVES = ("k2", "k2.5", "reinforce", "rloo", "ppo", "grpo", "dr_grpo", "gspo", "cispo")
PARTS = ("verdict", "rubric", "budget", "format", "calls", "critic")


def _said(default: object, words: str):
    return field(default=default, metadata={"says": words})


@dataclass(frozen=True)
class RLConfig:
    """One run of RL; `print` says what each number means. Token counts are per attempt."""

    objective: str = _said(
        "k2", "how an attempt's advantage moves its tokens: kimi_mini.training.rl.objective"
    )
    tau: float = _said(0.1, "strength of the pull back to the policy that sampled (k2, k2.5)")
    clip: tuple[float, float] | None = _said(None, "how far a ratio may fall and rise; None: as published")
    lr: float = _said(3e-4, "rate of Muon")
    adamw_lr: float = _said(1e-4, "rate of AdamW")
    tasks: tuple[tuple[str, int], ...] = _said(
        (("follow", 6), ("follow", 7), ("follow", 8)), "families and levels, of one world or of all"
    )
    prioritised: bool = _said(
        False, "kinds of moderate difficulty are drawn more often, and tasks come again"
    )
    revisited: float = _said(0.25, "the share of tasks that do")
    rounds: int = _said(12, "rounds of sampling and updating")
    prompts: int = _said(16, "tasks a round")
    attempts: int = _said(8, "attempts at each")
    segment_tokens: int | None = _said(
        None, "tokens an attempt may write a round; then it goes on in the next one; None: all end in theirs"
    )
    updates: int = _said(2, "optimizer steps a round, each on its share of the tasks")
    temperature: tuple[float, float] = _said((1.0, 0.8), "of sampling, in the first and the last round")
    zero_signal: bool = _said(
        False, "attempts of groups that say nothing stay in the loss: only tau acts on them (k2, k2.5)"
    )
    ptx: float = _said(0.3, "weight of the loss on examples that passed, against forgetting")
    ptx_tokens: int = _said(4096, "tokens of such examples in each update")
    reward: tuple[tuple[str, float], ...] = _said(
        (("verdict", 1.0), ("budget", 0.5)),
        "parts of an attempt's worth, and their weights: training.rl.rewards",
    )
    cap: float = _said(1.0, "their sum stays between this and its negative")
    budget: float | None = _said(
        None, "tokens for a right answer: this percentile of those before; None: no budget"
    )
    budget_from: float = _said(0.5, "it holds where at least this share of the attempts at a task pass,")
    toggle: int = _said(0, "and in every other phase of so many rounds; 0: always")
    loops: int = _said(
        0, "an attempt that writes the same so many times in a row is cut off, as K2's is; 0: it goes on"
    )
    int4: bool = _said(False, "samples and learns with experts in INT4: model.compact.int4")
    least_moderate: float = _said(0.1, "the run ends when fewer tasks than this share still teach something,")
    solved: float = _said(0.9, "and more attempts than this share succeed")
    limits: Limits = field(
        default_factory=Limits, metadata={"says": "budgets of an attempt, in tokens and turns"}
    )

    def __post_init__(self) -> None:
        """Raises ValueError for an objective or a reward that is unknown, for a cap, a budget, a segment, a clip or a
        loop that is none, for a run without rounds, prompts, updates or tasks, and for what an objective divides by: a
        temperature, and k2's tau, of 0, rloo's one attempt.
        """
        for name in ("rounds", "prompts", "updates"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is 1 or more, not {getattr(self, name)}")
        if not self.tasks:
            raise ValueError("tasks names the families and levels to draw from: there are none")
        if self.objective not in OBJECTIVES:
            raise ValueError(f"no objective {self.objective!r}; choose one of: {', '.join(OBJECTIVES)}")
        if not self.tau >= 0 or (self.objective == "k2" and self.tau == 0):
            raise ValueError(
                f"tau is a number above 0 (0 itself: not with k2, which divides by it), not {self.tau}"
            )
        if self.attempts < 1 + (self.objective == "rloo"):
            raise ValueError(
                f"attempts is 1 or more, and 2 or more with rloo: each is compared with the others, not {self.attempts}"
            )
        if not all(0 < temperature < float("inf") for temperature in self.temperature):
            raise ValueError(f"RL samples at temperatures above 0, not {self.temperature}")
        if strange := [name for name, _ in self.reward if name not in PARTS]:
            raise ValueError(f"no reward {strange[0]!r}; choose from: {', '.join(PARTS)}")
        if not self.cap > 0:
            raise ValueError(f"cap must be above 0, not {self.cap}: it would make all attempts alike")
        if self.segment_tokens is not None and self.segment_tokens < 1:
            raise ValueError(f"segment_tokens is 1 or more, not {self.segment_tokens}")
        if self.loops and self.loops < 2:
            raise ValueError(f"loops is 2 or more, or 0, not {self.loops}: what stands once is no repetition")
        if self.budget is not None and not 0 < self.budget <= 100:
            raise ValueError(f"budget is a percentile, above 0 and up to 100, not {self.budget}")
        if self.clip is not None and not (len(self.clip) == 2 and min(self.clip) > 0):
            raise ValueError(f"clip is two numbers above 0, how far down and up, not {self.clip}")

    def __str__(self) -> str:
        """A line each: the name, its value, what it means."""
        shown = {one.name: getattr(self, one.name) for one in fields(self)} | {"limits": "see below"}
        lines = [f"{one.name:<15} {shown[one.name]!s:<12} {one.metadata['says']}" for one in fields(self)]
        return "\n".join([*lines, str(self.limits)])
