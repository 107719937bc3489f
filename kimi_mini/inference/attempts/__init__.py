"""several attempts at one task: what they are worth, how to choose among them, and what equal tokens are"""

from kimi_mini.inference.attempts.budget import Score, compare, matched, per_task, score
from kimi_mini.inference.attempts.choices import (
    Attempt,
    Chooser,
    Chosen,
    best_of,
    lucky,
    majority,
    single,
    spent,
    stop_at_first,
    surest,
)
from kimi_mini.inference.attempts.passing import pass_at, pass_at_k

__all__ = [
    "Attempt",
    "Chooser",
    "Chosen",
    "Score",
    "best_of",
    "compare",
    "lucky",
    "majority",
    "matched",
    "pass_at",
    "pass_at_k",
    "per_task",
    "score",
    "single",
    "spent",
    "stop_at_first",
    "surest",
]
