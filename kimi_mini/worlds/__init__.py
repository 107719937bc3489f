"""a task, the tools and the place to do it, an expert, a verdict: one file a world; tools/: toolbox, sandbox

`WORLDS` maps a name to its `World`, `FAMILIES` a family's name to its `Family`. To add a world: write its file,
or a folder where one file is too little, and add its name to the line below.
"""

from kimi_mini.worlds import chain, shop, repair, desk, data, notes, telecom, search  # noqa: F401, I001  each registers itself; order: the scoreboard's
from kimi_mini.worlds.base import Environment, Kind, Task, Verdict
from kimi_mini.worlds.registry import FAMILIES, WORLDS, Demo, Family, World, generate
from kimi_mini.worlds.rows import Limits, Row

__all__ = [
    "FAMILIES",
    "WORLDS",
    "Demo",
    "Environment",
    "Family",
    "Kind",
    "Limits",
    "Row",
    "Task",
    "Verdict",
    "World",
    "generate",
]
