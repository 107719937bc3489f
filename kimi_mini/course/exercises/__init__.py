"""Checkers and hints of the notebooks' exercises, one file a notebook: `exercises.moe.check_route(...)`."""

from kimi_mini.course.exercises import (
    agent,
    attention,
    moe,
    muonclip,
    overview,
    pretraining,
    thinking,
    verifiers,
)

__all__ = ["agent", "attention", "moe", "muonclip", "overview", "pretraining", "thinking", "verifiers"]
