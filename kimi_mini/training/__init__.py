"""one step and many: batch, loop, optim/ (Muon, QK-Clip), machine/, synthesis, fine-tuning, rl/"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kimi_mini.training.loop import load_state, save_state, train

__all__ = ["load_state", "save_state", "train"]


def __getattr__(name: str):
    """Import a public name on its first use: the plan of a run needs no torch, and takes RLConfig from here."""
    if name not in __all__:
        raise AttributeError(f"module 'kimi_mini.training' has no attribute {name!r}")
    from kimi_mini.training import loop

    return getattr(loop, name)
