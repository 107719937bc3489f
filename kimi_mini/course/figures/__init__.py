"""Figures as pure functions of numbers, one file a subject: `figures.moe.balance(...)`."""

from kimi_mini.course.figures import (
    agent,
    attention,
    moe,
    muonclip,
    rl,
    routing,
    scores,
    style,
    thinking,
    trace,
    training,
    verifiers,
)

__all__ = [
    "agent",
    "attention",
    "moe",
    "muonclip",
    "rl",
    "routing",
    "scores",
    "style",
    "thinking",
    "trace",
    "training",
    "verifiers",
]
