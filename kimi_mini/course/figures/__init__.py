"""Figures as pure functions of numbers, one file a subject: `figures.moe.balance(...)`."""

from kimi_mini.course.figures import (
    agent,
    deployment,
    muonclip,
    rl,
    scores,
    style,
    thinking,
    trace,
    training,
    verifiers,
)
from kimi_mini.course.figures.model import attention, diffusion, moe, routing

__all__ = [
    "agent",
    "attention",
    "deployment",
    "diffusion",
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
