"""KimiMini: embedding, pre-norm layers of latent attention and experts, final norm, untied head.

The module tree and the state-dict keys are those of Hugging Face's `DeepseekV3ForCausalLM`, with the routed
experts of a layer as three 3-D tensors (`mlp.experts.gate_proj` (E, width, h), ...).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from kimi_mini.base.errors import BadFile
from kimi_mini.model import checkpoint
from kimi_mini.model.attention import LatentAttention
from kimi_mini.model.config import KimiConfig
from kimi_mini.model.kernels.linear import Linear
from kimi_mini.model.moe import MLP, Experts, MoE, Router
from kimi_mini.model.norm import RMSNorm
from kimi_mini.model.rope import RotationTable


class Layer(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); the mlp is dense in the first layers, then routed."""

    def __init__(self, config: KimiConfig, index: int):
        super().__init__()
        self.self_attn = LatentAttention(config)
        self.routed = config.is_moe_layer(index)
        self.mlp = MoE(config) if self.routed else MLP(config.hidden_size, config.intermediate_size)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self, x: Tensor, rotation: Tensor, valid: Tensor | None = None, cache=None, inspect: bool = False
    ) -> Tensor:
        """x (B, T, h) -> (B, T, h); arguments as in LatentAttention and MoE."""
        x = x + self.self_attn(self.input_layernorm(x), rotation, valid, cache, inspect)
        normed = self.post_attention_layernorm(x)
        return x + (self.mlp(normed, valid, inspect) if self.routed else self.mlp(normed))


class Backbone(nn.Module):
    """Everything but the head (the `model.` part of the checkpoint)."""

    def __init__(self, config: KimiConfig):
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config, i) for i in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


@dataclass
class Output:
    """What a forward pass returns: logits (B, T, V) and the hidden states (B, T, h) they came from."""

    logits: Tensor
    hidden_states: Tensor


class KimiMini(nn.Module):
    """A decoder-only mixture-of-experts language model.

    Initialisation: every matrix, embedding, expert and router ~ Normal(0, initializer_range); norms 1; biases
    0 (as in transformers). Pass `torch.device("meta")` as a context to build one without memory.
    """

    def __init__(self, config: KimiConfig):
        super().__init__()
        self.config = config
        self.model = Backbone(config)
        self.lm_head = Linear(config.hidden_size, config.vocab_size)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight
        self.rotation = RotationTable(config)
        self.apply(self._initialise)

    @torch.no_grad()
    def _initialise(self, module: nn.Module) -> None:
        std = self.config.initializer_range
        if isinstance(module, (nn.Linear, nn.Embedding, Router)):
            module.weight.normal_(0.0, std)
        elif isinstance(module, Experts):
            for weight in (module.gate_proj, module.up_proj, module.down_proj):
                weight.normal_(0.0, std)

    # ---- forward ---------------------------------------------------------------------------------------

    def forward(
        self,
        input_ids: Tensor,
        positions: Tensor | None = None,
        valid: Tensor | None = None,
        cache=None,
        inspect: bool = False,
    ) -> Output:
        """input_ids (B, T) int -> Output with logits (B, T, V).

        positions (T,) or (B, T): default 0 .. T-1. valid (B, T) bool: real tokens when rows are padded on the
        right. cache: a generation.LatentCache that has been told about this chunk.
        """
        hidden = self.hidden_states(input_ids, valid, positions, cache, inspect)
        return Output(self.lm_head(hidden), hidden)

    def hidden_states(
        self,
        input_ids: Tensor,
        valid: Tensor | None = None,
        positions: Tensor | None = None,
        cache=None,
        inspect: bool = False,
    ) -> Tensor:
        """(B, T) -> (B, T, h) after the final norm: training applies `lm_head` where it needs logits."""
        if not isinstance(input_ids, Tensor) or input_ids.dim() != 2:
            given = tuple(input_ids.shape) if isinstance(input_ids, Tensor) else type(input_ids).__name__
            raise ValueError(f"input_ids must be a tensor of shape (batch, length), got {given}")
        rotation = self.rotations(input_ids, positions if cache is None else cache.positions)
        x = self.model.embed_tokens(input_ids)
        for index, layer in enumerate(self.model.layers):
            x = layer(x, rotation, valid, None if cache is None else cache.layer(index), inspect)
        return self.model.norm(x)

    def rotations(self, input_ids: Tensor, positions: Tensor | None) -> Tensor:
        """Rotations of the given positions, (1 or B, T, d_r/2) complex64."""
        if positions is None:
            return self.rotation(input_ids.shape[1], input_ids.device)[None]
        table = self.rotation(self.config.max_position_embeddings, input_ids.device)
        return table[positions if positions.dim() == 2 else positions[None]]

    # ---- what training reads ---------------------------------------------------------------------------

    def routers(self) -> list[Router]:
        """The router of every MoE layer, in order."""
        return [layer.mlp.gate for layer in self.model.layers if layer.routed]

    def max_logits(self) -> Tensor:
        """(L, H) fp32: the largest scaled attention logit of each head since the last reset, -inf if none."""
        heads, weight = self.config.num_attention_heads, self.lm_head.weight
        none = torch.full((heads,), float("-inf"), device=weight.device)
        seen = (layer.self_attn.max_logits for layer in self.model.layers)
        return torch.stack([none if m is None else m for m in seen])

    def reset_max_logits(self) -> None:
        """Forget the maxima (MuonClip does this after its step)."""
        for layer in self.model.layers:
            layer.self_attn.max_logits = None

    def forget_statistics(self) -> None:
        """Forget maxima and loads, as if the passes since the last step had not been: the step is done again."""
        self.reset_max_logits()
        for router in self.routers():
            router.load.zero_()

    def expert_load(self) -> Tensor:
        """(MoE layers, E) int64: tokens that each expert got in training since the last bias update."""
        loads = [router.load for router in self.routers()]
        empty = torch.zeros(0, self.config.n_routed_experts, dtype=torch.int64)
        return torch.stack(loads) if loads else empty

    def update_router_bias(self, rate: float, rule: str = "sign") -> None:
        """Balance all routers (Router.update_bias) and reset their loads: once after each optimizer step."""
        for router in self.routers():
            router.update_bias(rate, rule)

    # ---- what figures read -----------------------------------------------------------------------------

    @torch.no_grad()
    def routing(self, input_ids: Tensor, valid: Tensor | None = None) -> list[tuple[Tensor, Tensor]]:
        """For each MoE layer: chosen experts (B, T, k) and their gate weights (B, T, k)."""
        with evaluating(self):
            self.hidden_states(input_ids, valid, inspect=True)
        return [layer.mlp.last_routing for layer in self.model.layers if layer.routed]

    @torch.no_grad()
    def attention_weights(self, input_ids: Tensor) -> Tensor:
        """(L, B, H, T, T): what every head of every layer looks at."""
        with evaluating(self):
            self.hidden_states(input_ids, inspect=True)
        return torch.stack([layer.self_attn.last_weights for layer in self.model.layers])

    # ---- disk ------------------------------------------------------------------------------------------

    def save_pretrained(self, folder: str | Path, tokenizer_files: list[str | Path] = ()) -> None:
        """Write a Hugging Face folder (config.json, model.safetensors, copies of `tokenizer_files`)."""
        checkpoint.save_folder(folder, self.config, self.state_dict(), tokenizer_files)

    @classmethod
    def from_pretrained(cls, folder: str | Path, dtype: torch.dtype | None = None, device=None) -> KimiMini:
        """Read a folder that this class, transformers, or a DeepSeek-V3-shaped hub release wrote."""
        config, state = checkpoint.load_folder(folder, dtype)
        with torch.device("meta"):
            model = cls(config)
        try:
            missing, unexpected = model.load_state_dict(state, strict=False, assign=True)
        except RuntimeError as error:  # sizes
            raise BadFile(
                f"{folder} does not fit its config.json: {str(error).splitlines()[-1].strip()}"
            ) from None
        if missing or unexpected:
            raise BadFile(
                f"{folder} does not fit its config.json: {len(missing)} tensors missing "
                f"{missing[:3]}, {len(unexpected)} unknown {unexpected[:3]}"
            )
        for router in model.routers():
            router.load = torch.zeros(router.load.shape, dtype=torch.int64)
        if config.tie_word_embeddings:
            model.lm_head.weight = model.model.embed_tokens.weight
        return model.to(device) if device is not None else model


class evaluating:
    """Context: the model in eval mode, its former mode restored afterwards."""

    def __init__(self, model: nn.Module):
        self.model = model

    def __enter__(self):
        self.was_training = self.model.training
        self.model.eval()

    def __exit__(self, *_):
        self.model.train(self.was_training)
