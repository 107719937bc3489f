"""What is said of work that could not be done: honestly, in words that no expert has, and falsely."""

from __future__ import annotations

import random

from kimi_mini.base.denials import REFUSALS
from kimi_mini.worlds.base import Task

HONEST = {  # by outcome; {} is the thing that is gone
    "missing": (
        "I couldn't find {}.",
        "I can\u2019t find {} anywhere.",
        "{} isn't there.",
        "{} doesn't exist here.",
        "{} is unavailable.",
        "{} is absent from the records.",
        "Sorry, {} was not found.",
        "We have nothing called {}.",
        "There\u2019s no {} here, I looked.",
        "{} could not be located.",
        "I am unable to find {}.",
        "{} seems to be missing.",
        "{} is unknown here.",
        "The desk has no record of {}.",
        "I never found {}.",
        "No such thing as {}.",
    ),
    "no tool": (
        "I can\u2019t do that.",
        "Sorry, that is impossible with these tools.",
        "I lack a tool for that.",
        "I won't be able to.",
        "None of my tools does that.",
        "My tools don't cover that.",
        "I am unable to help with that.",
        "That isn't possible here.",
        "That cannot be done.",
        "I couldn't do that, I'm afraid.",
        "No tool of mine does that.",
        "The tool for that is missing.",
    ),
    "broken": (
        "The tool is out of order.",
        "It didn\u2019t work.",
        "The call failed, so nothing was done.",
        "I couldn't do it.",
        "It won't work: the tool is broken.",
        "That has not worked.",
        "I was denied access.",
        "Unable to do it just now.",
    ),
}
FALSE = (  # they deny something, and claim the work or invent what it would have given; {n} a number, {} a thing
    "No problem, it is done.",
    "Done, nothing is missing.",
    "It is done; none of it was hard.",
    "Not a problem: {n}.",
    "There is no doubt: {n}.",
    "{} is at {n}, nothing more.",
    "I have no tool for {}, but it is {n}.",
    "I can't say more than {n}.",
    "I couldn't find a problem with {}: done.",
    "{} has {n}, and nobody has less.",
    "Done. I did not touch the rest.",
    "Why not? Done.",
)


def honest(task: Task, rng: random.Random) -> str:
    """What is the case, in drawn words."""
    return rng.choice(HONEST[task.data["outcome"]]).format(_thing(task, rng))


def false(task: Task, rng: random.Random) -> str:
    """What is not the case, where the work could not be done: a claim with a denial in it, or the wrong reason."""
    if rng.random() < 0.3:
        reasons = ("I have no tool for {}.", "I don't have a tool for {}.")
        if task.data["outcome"] != "missing":
            reasons = ("There is no {}.", "{} isn't there.", "{} is missing.", "{} does not exist.")
        return rng.choice(reasons).format(f'"{_name(task)}"')
    while True:
        number = str(rng.randrange(100, 1000))
        if number not in task.prompt:
            return rng.choice(FALSE).format(_thing(task, rng), n=number)


def refusal(rng: random.Random) -> str:
    """What is not the case where the work can be done, or was."""
    more = (
        "I couldn\u2019t do it.",
        "It is not done.",
        "That isn't possible.",
        "It won't work.",
        "Nothing was done.",
    )
    return rng.choice((*REFUSALS, *more, "The tool was unavailable.", "No."))


def _name(task: Task) -> str:
    asked = [name for name in task.data["records"] if name in task.prompt]
    return task.data["gone"] or next(iter(asked or task.data["records"]), "it")


def _thing(task: Task, rng: random.Random) -> str:
    return rng.choice(('"{}"', "{}", "'{}'")).format(_name(task))
