"""World `repair`: a function with one bug. The door registers it."""

from kimi_mini.worlds.repair import world  # noqa: F401  registers itself
