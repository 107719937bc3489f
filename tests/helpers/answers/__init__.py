"""Answers to the exercises, a module a notebook or a long exercise: RIGHT holds (checker, answer), WRONG (checker, answer, words of the hint)."""

from answers import (
    agent,
    attention,
    deployment,
    diffusion,
    evaluation,
    moe,
    muonclip,
    overview,
    pretraining,
    probes,
    rl,
    thinking,
    verifiers,
)

PAGES = (
    overview,
    moe,
    attention,
    muonclip,
    pretraining,
    agent,
    verifiers,
    probes,
    rl,
    thinking,
    evaluation,
    deployment,
    diffusion,
)
RIGHT = [pair for page in PAGES for pair in page.RIGHT]
WRONG = [case for page in PAGES for case in page.WRONG]
