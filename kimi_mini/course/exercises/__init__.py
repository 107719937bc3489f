"""Checkers and hints of the notebooks' exercises, one file a notebook and one for each long exercise:
`exercises.moe.check_route(...)`."""

from kimi_mini.course.exercises import (
    agent,
    deployment,
    diffusion,
    evaluation,
    overview,
    rl,
    thinking,
    verifiers,
)
from kimi_mini.course.exercises.learning import muonclip, pretraining
from kimi_mini.course.exercises.long import grammars, probes
from kimi_mini.course.exercises.model import attention, moe

__all__ = [
    "agent",
    "attention",
    "deployment",
    "diffusion",
    "evaluation",
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
