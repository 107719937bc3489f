"""one step and many: batch, loop, optim/ (Muon, QK-Clip), machine/, synthesis, fine-tuning, rl/"""

from kimi_mini.training.loop import load_state, save_state, train

__all__ = ["load_state", "save_state", "train"]
