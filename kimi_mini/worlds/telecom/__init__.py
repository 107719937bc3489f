"""World `telecom`: a customer whose phone only the customer can touch. The door registers it."""

from kimi_mini.worlds.telecom import world  # noqa: F401  registers itself
