"""World `notes`: a small tree of notes to change and to tidy. The door registers it."""

from kimi_mini.worlds.notes import world  # noqa: F401  registers itself
