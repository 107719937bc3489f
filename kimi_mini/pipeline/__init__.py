"""what `make run` does: the plan, the stages in their order, and what they leave behind"""

from kimi_mini.pipeline.main import go_on
from kimi_mini.pipeline.plan import Plan, Run

__all__ = ["Plan", "Run", "go_on"]
