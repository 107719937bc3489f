"""Trajectories whose truth is known by how they were made, to try verifiers on.

The scripts stand beside their worlds; here they are played, with real tools and real state. A verifier must refuse the
wrong ones and accept the right ones: `error_rates` counts how often it errs.
"""

from __future__ import annotations

import random

from kimi_mini.agent.conversation import Conversation, opening
from kimi_mini.agent.loop import converse
from kimi_mini.agent.policy import Script
from kimi_mini.worlds import Kind, Task


def perform(kind: Kind, task: Task, rng: random.Random) -> Conversation:
    """Play one trajectory of `kind` on `task`: real tools, real state, a user who answers where the world has one."""
    conversation = opening(task)
    converse(Script(lambda played: kind.script(played.task, rng)), [conversation])
    return conversation
