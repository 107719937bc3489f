"""World `search`: questions over a small library whose answer lies several documents away. The door registers it."""

from kimi_mini.worlds.search import world  # noqa: F401  registers itself
