"""Work at the desk whose truth is known by how it was made: what is done (work) and what is said of it (words)."""

from kimi_mini.worlds.desk.adversary import words  # noqa: F401  adds its kinds
from kimi_mini.worlds.desk.adversary.work import KINDS, SHORTCUTS  # noqa: F401
