"""is it right, and how sure are we: scoreboard, rubrics, adversaries, probes of the inside"""

from kimi_mini.evaluation.adversary import perform
from kimi_mini.evaluation.error_rates import VERIFIERS, Rate
from kimi_mini.evaluation.rubric import RUBRIC, Criterion, Rubric, judge, outcome, passes
from kimi_mini.evaluation.scoreboard import ROWS, measure, solve

__all__ = [
    "ROWS",
    "RUBRIC",
    "VERIFIERS",
    "Criterion",
    "Rate",
    "Rubric",
    "judge",
    "measure",
    "outcome",
    "passes",
    "perform",
    "solve",
]
