"""World `data`: a question over a database of several tables. The door registers it."""

from kimi_mini.worlds.data import world  # noqa: F401  registers itself
