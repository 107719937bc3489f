"""Worlds about small Python functions: `repair` one with a bug, `write` one. The door registers them."""

from kimi_mini.worlds.repair import world, write  # noqa: F401  each registers itself; order: the scoreboard's
