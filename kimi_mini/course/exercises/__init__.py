"""Checkers and hints of the notebooks' exercises, one file a notebook and one for each long exercise:
`exercises.moe.check_route(...)`."""

from kimi_mini.course.exercises import (
    agent,
    attention,
    deployment,
    moe,
    muonclip,
    overview,
    pretraining,
    rl,
    thinking,
    verifiers,
)
from kimi_mini.course.exercises.long import grammars, probes

__all__ = [
    "agent",
    "attention",
    "deployment",
    "grammars",
    "moe",
    "muonclip",
    "overview",
    "pretraining",
    "probes",
    "rl",
    "thinking",
    "verifiers",
]
