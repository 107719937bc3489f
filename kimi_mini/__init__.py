"""kimi_mini: Kimi K2 Thinking, whole, on your own laptop."""

from .config import KimiConfig
from .model import KimiMini

__all__ = ["KimiConfig", "KimiMini", "MuonClip"]


def __getattr__(name: str):
    """MuonClip is imported on first use: a reader of the model alone need not load the optimizer."""
    if name == "MuonClip":
        from .muonclip import MuonClip
        return MuonClip
    raise AttributeError(f"module 'kimi_mini' has no attribute {name!r}")
