"""World `chain`: calculations that need steps. The door registers it."""

from kimi_mini.worlds.chain.world import MODULUS, OPERATIONS  # noqa: F401  the world registers itself
