"""config -> layers -> KimiMini -> checkpoint; kernels/: the same functions, faster

config, presets, costs   every size and switch, under Hugging Face's names, and what they cost
layers, rope             Linear, RMSNorm, MLP; rotary positions
attention, moe           latent attention; router and experts
statistics               what training passes leave behind for QK-Clip and the routers
kimi                     KimiMini, the whole
checkpoint               a folder as Hugging Face's
compact                  the same model in less room: experts in four bits
kernels                  the five functions that take the time, readable and fast
"""

from kimi_mini.model import kernels
from kimi_mini.model.attention import LatentAttention
from kimi_mini.model.config import KimiConfig
from kimi_mini.model.kimi import KimiMini, evaluating
from kimi_mini.model.layers import MLP, RMSNorm
from kimi_mini.model.moe import Experts, MoE, Router, gate_factor
from kimi_mini.model.statistics import Statistics

__all__ = [
    "MLP",
    "Experts",
    "KimiConfig",
    "KimiMini",
    "LatentAttention",
    "MoE",
    "RMSNorm",
    "Router",
    "Statistics",
    "evaluating",
    "gate_factor",
    "kernels",
]
