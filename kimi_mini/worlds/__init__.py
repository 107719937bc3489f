"""a task, the tools and the place to do it, an expert, a verdict: one file a world; tools/: toolbox, sandbox

``WORLDS`` maps a world's name to its module, ``FAMILIES`` a family to its world.
"""

from kimi_mini.worlds import chain, repair, shop
from kimi_mini.worlds.base import Environment, Task, Verdict

WORLDS = {"chain": chain, "shop": shop, "repair": repair}
FAMILIES = {family: name for name, world in WORLDS.items() for family in world.FAMILIES}

__all__ = ["FAMILIES", "WORLDS", "Environment", "Task", "Verdict", "generate"]


def generate(rng, family: str, level: int, held_out: bool = False) -> Task:
    """A task of ``family`` on the asked side of the split: held-out tasks are told apart by their content,
    so no seed can bring one into a training stream."""
    world = WORLDS[FAMILIES[family]]
    while True:
        task = world.generate(rng, family, level)
        if task.held_out == held_out:
            return task
