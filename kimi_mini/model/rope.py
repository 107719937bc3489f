"""Rotary positions: each pair of neighbouring numbers is a complex number, turned by an angle that grows with
position.

DeepSeek's layout: the pairs are (x0, x1), (x2, x3), ... . Turning the halves (x0, x_{d/2}) instead is the
other common convention; weights made for one give nonsense under the other. YaRN stretches the slow
frequencies to reach longer contexts, and sharpens the softmax to make up for it.

Sources: DeepSeek-V3 inference code, `precompute_freqs_cis` and `apply_rotary_emb`; YaRN, arXiv 2309.00071.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kimi_mini.model.config import KimiConfig


def yarn_mscale(factor: float, mscale: float) -> float:
    """How much YaRN sharpens attention for a context stretched by `factor`: 0.1 * mscale * ln(factor) + 1."""
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0


def softmax_scale(config: KimiConfig) -> float:
    """What query . key is multiplied by before the softmax: (nope + rope)^-0.5, times mscale^2 under YaRN."""
    scale = config.qk_head_dim**-0.5
    if config.rope_scaling and config.rope_scaling.get("mscale_all_dim"):
        scale *= yarn_mscale(config.rope_scaling["factor"], config.rope_scaling["mscale_all_dim"]) ** 2
    return scale


def rotation_gain(config: KimiConfig) -> float:
    """Factor on cos and sin: 1 unless YaRN gives no mscale, or mscale and mscale_all_dim that differ."""
    rope = config.rope_scaling
    if not rope:
        return 1.0
    if rope.get("attention_factor") is not None:
        return rope["attention_factor"]
    factor, own, everywhere = rope["factor"], rope.get("mscale"), rope.get("mscale_all_dim")
    if own and everywhere:
        return yarn_mscale(factor, own) / yarn_mscale(factor, everywhere)
    return yarn_mscale(factor, 1.0)


def frequencies(config: KimiConfig) -> Tensor:
    """Angle per position of each pair, (qk_rope_head_dim / 2,) fp32; with YaRN if the config has it."""
    d = config.qk_rope_head_dim
    freqs = 1.0 / config.rope_theta ** (torch.arange(0, d, 2, dtype=torch.float32, device="cpu") / d)
    if not config.rope_scaling:
        return freqs
    low, high = yarn_range(config)
    ramp = ((torch.arange(d // 2, dtype=torch.float32, device="cpu") - low) / (high - low)).clamp(0, 1)
    return freqs * (1 - ramp) + freqs / config.rope_scaling["factor"] * ramp


def yarn_range(config: KimiConfig) -> tuple[float, float]:
    """First and last index of YaRN's ramp: frequencies below it stay, those above are divided by factor."""
    rope, d, theta = config.rope_scaling, config.qk_rope_head_dim, config.rope_theta

    def index(turns):  # the frequency that makes `turns` full turns over the original context
        length = rope.get("original_max_position_embeddings") or config.max_position_embeddings
        return d * math.log(length / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = index(rope.get("beta_fast") or 32), index(rope.get("beta_slow") or 1)
    if rope.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, d - 1)
    return low, high + 0.001 if low == high else high


def rotations(config: KimiConfig, length: int, device=None) -> Tensor:
    """e^{i * position * frequency} for positions 0 .. length-1: (length, qk_rope_head_dim / 2) complex64."""
    angles = torch.outer(torch.arange(length, dtype=torch.float32, device="cpu"), frequencies(config))
    return torch.polar(torch.full_like(angles, rotation_gain(config)), angles).to(device)


def apply_rope(x: Tensor, rotation: Tensor) -> Tensor:
    """Turn neighbouring pairs of the last dimension. x (..., d_r); rotation complex, broadcast against (...,
    d_r / 2), or the same as real numbers (..., d_r / 2, 2), for compilers that know no complex ones.

    Computed in fp32, returned in x's dtype.
    """
    pairs = x.float().contiguous().unflatten(-1, (-1, 2))  # (..., d_r / 2, 2)
    if rotation.is_complex():
        return torch.view_as_real(torch.view_as_complex(pairs) * rotation).flatten(-2).to(x.dtype)
    (first, second), (cos, sin) = pairs.unbind(-1), rotation.unbind(-1)
    turned = torch.stack([first * cos - second * sin, first * sin + second * cos], -1)
    return turned.flatten(-2).to(x.dtype)


class RotationTable:
    """`rotations` of a config, kept per device and grown on demand: a model on the meta device has none."""

    def __init__(self, config: KimiConfig):
        self.config, self.tables = config, {}

    def __call__(self, length: int, device) -> Tensor:
        """The first `length` positions, (length, d_r / 2) complex64 on `device`."""
        table = self.tables.get(device)
        if table is None or len(table) < length:
            size = max(length, 512, 2 * len(table) if table is not None else 0)
            table = self.tables[device] = rotations(self.config, size, device)
        return table[:length]
