"""What the rows of the bench set side by side: our models and steps, and those of others that do the same work."""

from __future__ import annotations

import tempfile

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kimi_mini.base.errors import KimiError
from kimi_mini.experiments.deployment.stopwatch import Action
from kimi_mini.model.config import KimiConfig
from kimi_mini.model.kernels import attention
from kimi_mini.model.kimi import KimiMini

NANO = KimiConfig.preset("nano")
MID = KimiConfig.preset(
    "nano",
    hidden_size=256,
    num_hidden_layers=6,
    num_attention_heads=4,
    kv_lora_rank=64,
    qk_nope_head_dim=32,
    qk_rope_head_dim=32,
    v_head_dim=64,
    n_routed_experts=64,
    num_experts_per_tok=4,
    moe_intermediate_size=128,
    intermediate_size=640,
    routed_scaling_factor=1.998,
)
STEP_TOKENS = 4096


# ---- models and steps -----------------------------------------------------------------------------------


def batch(config: KimiConfig, tokens: int, length: int) -> Tensor:
    """Random ids (tokens / length, length), the same every time."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, config.vocab_size, (max(1, tokens // length), length), generator=generator)


def build(config: KimiConfig) -> KimiMini:
    torch.manual_seed(0)
    return KimiMini(config)


def training_step(model: nn.Module, ids: Tensor, optimizer=None) -> Action:
    """Forward, cross-entropy on every token, backward, and the optimizer's step if there is one."""

    def step() -> None:
        model.zero_grad(set_to_none=True)
        F.cross_entropy(model(ids).logits.flatten(0, 1), ids.flatten()).backward()
        if optimizer is not None:
            optimizer.step()

    return step


def same_in_transformers(model: KimiMini, **options) -> nn.Module:
    """transformers' DeepseekV3ForCausalLM with the weights of `model`."""
    try:
        from transformers import DeepseekV3ForCausalLM, logging
    except ImportError:
        line = "the benchmark compares with transformers: pip install transformers==5.23.0"
        raise KimiError(line) from None
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return DeepseekV3ForCausalLM.from_pretrained(folder, dtype=torch.float32, **options)


def dense_twin(config: KimiConfig) -> KimiConfig:
    """The same model with a plain MLP in every layer, as wide as the experts that one token sees."""
    width = config.moe_intermediate_size * (config.num_experts_per_tok + config.n_shared_experts)
    return config.replace(first_k_dense_replace=config.num_hidden_layers, intermediate_size=width)


def adamw_for(model: KimiMini) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)


# ---- attention kernels, for `kernels.using(attention=...)` ---------------------------------------------


def sdpa(
    q: Tensor, k: Tensor, v: Tensor, scale: float, valid=None, track: bool = True
) -> tuple[Tensor, None]:
    """torch's scaled_dot_product_attention in place of ours: values padded to the key width, no maximum."""
    width = max(q.shape[-1], v.shape[-1])
    q, k, padded = (F.pad(x, (0, width - x.shape[-1])) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, padded, is_causal=True, scale=scale)[..., : v.shape[-1]], None


def untracked(
    q: Tensor, k: Tensor, v: Tensor, scale: float, valid=None, track: bool = True
) -> tuple[Tensor, None]:
    """Our attention without the maximum."""
    return attention.causal_attention(q, k, v, scale, track=False)


def attend_kept(q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """One decode step over a cache of every head's keys and values, as multi-head attention has it.

    q (B, H, 1, d), keys (B, H, T, d), values (B, H, T, d_v) -> (B, H, 1, d_v)
    """
    return ((q @ keys.mT) * q.shape[-1] ** -0.5).softmax(-1) @ values
