"""prompt tokens -> new tokens: cache, decoder, sampling, thinking budgets, attempts"""

from kimi_mini.inference.api import respond
from kimi_mini.inference.decoder import Decoder
from kimi_mini.inference.generation import generate
from kimi_mini.inference.thinking import write
from kimi_mini.inference.writer import Writer

__all__ = ["Decoder", "Writer", "generate", "respond", "write"]
