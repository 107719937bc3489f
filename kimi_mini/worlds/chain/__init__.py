"""Worlds `chain` and `algebra`: calculations that need steps. The door registers them."""

from kimi_mini.worlds.chain.world import MODULUS, OPERATIONS  # noqa: F401, I001  the world registers itself, then its neighbour
from kimi_mini.worlds.chain import algebra  # noqa: F401
