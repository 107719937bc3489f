"""The recipe that every training here follows: step size, rates, and what is shown while it runs.

Found on the nano with 4096 tokens a step. Muon's rate is that of Moonlight's rule (0.2 sqrt(max) times the orthogonal
update), 40 times K2's because the model is a million times smaller; embedding, head and norms get AdamW's own.
"""

from __future__ import annotations

import numpy as np
import torch
from tqdm import tqdm

from kimi_mini.base.errors import KimiError
from kimi_mini.model.config import KimiConfig
from kimi_mini.model.kimi import KimiMini
from kimi_mini.training.loop import History
from kimi_mini.training.machine.placement import is_out_of_memory
from kimi_mini.training.optim.muonclip import MuonClip

STEP_TOKENS, MICRO_TOKENS = 4096, 2048
MUON_LR, ADAMW_LR, WEIGHT_DECAY, TAU, BIAS_RATE = 0.008, 0.01, 0.05, 100.0, 0.005
RL_LR, RL_ADAMW_LR = 3e-4, 1e-4


def new_model(preset: str, device: torch.device, seed: int) -> KimiMini:
    """A preset with random weights. KimiError for one that is not known, or that this machine cannot hold."""
    torch.manual_seed(seed)
    try:
        config = KimiConfig.preset(preset)
    except ValueError as error:
        raise KimiError(str(error)) from None
    try:
        return KimiMini(config).to(device)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        total = config.count_parameters().total
        raise KimiError(
            f"{preset} has {total:,} parameters, more than fit here: take a smaller --preset"
        ) from None


def optimizer_for(model: KimiMini, lr: float = MUON_LR, adamw_lr: float = ADAMW_LR) -> MuonClip:
    """MuonClip with the rates of this project (feasible on 4096 tokens a step)."""
    return MuonClip(model, lr=lr, adamw_lr=adamw_lr, weight_decay=WEIGHT_DECAY, tau=TAU)


class Bar:
    """A progress bar over tokens that also shows the loss and how fast it goes."""

    def __init__(self, total: int):
        self.bar = tqdm(total=total, unit="tok", unit_scale=True, dynamic_ncols=True, leave=False)

    def __call__(self, step: int, history: History) -> None:
        self.bar.update(sum(history.tokens) - self.bar.n)
        if step % 10 == 0:
            self.bar.set_postfix(
                loss=f"{np.mean(history.loss[-20:]):.3f}", max_logit=f"{history.max_logit[-1]:.0f}"
            )

    def close(self) -> None:
        self.bar.close()


def curve(history: History, points: int = 200) -> dict[str, list[float]]:
    """A history thinned to `points` means, for figures."""
    size = max(1, len(history.loss) // points)
    cut = len(history.loss) // size * size
    thin = {"tokens": np.asarray(history.tokens)[:cut].reshape(-1, size).sum(1).tolist()}
    for name in ("loss", "max_logit", "max_violation", "clipped_heads"):
        thin[name] = np.asarray(getattr(history, name))[:cut].reshape(-1, size).mean(1).round(4).tolist()
    return thin
