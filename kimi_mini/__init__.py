"""kimi_mini: Kimi K2 Thinking, whole, on your own laptop."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kimi_mini.model.config import KimiConfig
    from kimi_mini.model.kimi import KimiMini
    from kimi_mini.training.optim.muonclip import MuonClip

__all__ = ["KimiConfig", "KimiMini", "MuonClip"]

_HOME = {"KimiConfig": "model.config", "KimiMini": "model.kimi", "MuonClip": "training.optim.muonclip"}


def __getattr__(name: str):
    """Import a public name on its first use, so that the command line need not wait for torch."""
    if name not in _HOME:
        raise AttributeError(f"module 'kimi_mini' has no attribute {name!r}")
    return getattr(import_module(f"kimi_mini.{_HOME[name]}"), name)
