"""An exercise sheet of the desk: one list of tools, and nine requests worked on in shorthand.

What a trajectory turns on is small: which of these tools is meant, what it is called, what its arguments are called,
which name to put in. A trajectory of 600 tokens holds that once or twice. A sheet of as many holds it twenty times.
"""

from __future__ import annotations

import json
import random

from kimi_mini.worlds.base import Environment, Sheet, Task
from kimi_mini.worlds.desk.application import FORMATS, Desk, tools
from kimi_mini.worlds.desk.domains import TRAINED
from kimi_mini.worlds.desk.evolution import Spec, evolve
from kimi_mini.worlds.desk.play import expert
from kimi_mini.worlds.desk.surface import assembled, named
from kimi_mini.worlds.desk.tasks import PATTERNS, SIZES, Words, draft
from kimi_mini.worlds.tools import Toolbox

REQUESTS = 9
DECLARED = range(4, 10)


def open_environment(task: Task) -> Environment:
    """Fresh records, and the declared tools over them."""
    data = task.data
    failures = {int(call): text for call, text in data["failures"].items()}
    records = {name: dict(record) for name, record in data["records"].items()}
    desk = Desk(records, failures, dict(data["broken"]))
    return Environment(Toolbox(tools(list(map(Spec.of, data["tools"])), desk, data["form"])), desk)


def sheet(rng: random.Random) -> Sheet:
    """Declarations, then for each request what the expert thinks and what the tools answer; thoughts are learned."""
    domain = rng.choice(TRAINED)
    chosen = named(rng, rng.sample(evolve(domain.name), rng.choice(DECLARED)))
    declared = {(spec.kind, spec.what) for spec in chosen}
    form, pieces, left = rng.choice(FORMATS), [], REQUESTS
    while left:
        pattern = rng.choice(list(PATTERNS))
        made, text = draft(rng, pattern, domain, rng.choice(SIZES[pattern][:2]), Words())
        done = set(made.needs) <= declared
        if not done and rng.random() < 0.7:  # most requests can be met
            continue
        outcome = "done" if done else "no tool"
        about = {"pattern": pattern, "domain": domain.name, "outcome": outcome, "gone": None, "form": form}
        task = assembled(pattern, 1, made, text, chosen, None, ({}, {}), about)
        if not task.held_out:
            pieces += _worked_on(task, rng)
            left -= 1
    box = open_environment(task).toolbox
    return [(json.dumps(box.declarations(), separators=(",", ":")), False), *pieces]


def _worked_on(task: Task, rng: random.Random) -> Sheet:
    """A task in shorthand: request, then thoughts and results in turn, a line each."""
    environment, script = open_environment(task), expert(task, rng)
    pieces, message = [(f"\n{task.prompt}\n", False)], next(script)
    while message.get("tool_calls"):
        call = message["tool_calls"][0]["function"]
        result = environment.toolbox.call(call["name"], call["arguments"]).content
        pieces += [(message["reasoning_content"], True), (f"\n{result}\n", False)]
        message = script.send(result)
    return [*pieces, (f"{message['reasoning_content']} {message['content']}", True)]
