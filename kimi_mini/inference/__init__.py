"""prompt tokens -> new tokens: cache, decoder, sampling, thinking budgets, attempts"""

from kimi_mini.inference.api import respond
from kimi_mini.inference.generation import generate

__all__ = ["generate", "respond"]
