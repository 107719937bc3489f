"""Figures of notebook 10: experts in few bits, adapters, the endpoint, calls held to schemas, what serving costs."""

from kimi_mini.course.figures.deployment import adapters, constrained, costs, int4, serving

__all__ = ["adapters", "constrained", "costs", "int4", "serving"]
