"""Trajectories whose truth is known by how they were made, to try verifiers on.

The scripts stand beside their worlds (`kimi_mini/worlds/adversary/`); here they are played, with real tools and real
state. A verifier must refuse the wrong ones and accept the right ones: `error_rates` counts how often it errs.
"""

from __future__ import annotations

import random

from kimi_mini.agent import conversation as conversation_
from kimi_mini.worlds import Kind, Task


def perform(kind: Kind, task: Task, rng: random.Random) -> conversation_.Conversation:
    """Play one trajectory of `kind` on `task`: real tools, real state."""
    conversation = conversation_.opening(task)
    script = kind.script(task, rng)
    message = next(script)
    while True:
        results = conversation_.act(conversation, message)
        try:
            message = script.send(results[0]["content"] if results else "")
        except StopIteration:
            return conversation
