"""World `shop`: errands in a database. The door registers it."""

from kimi_mini.worlds.shop import world  # noqa: F401  registers itself
