"""KimiMini: embedding, pre-norm layers of latent attention and experts, final norm, untied head.

The module tree and the state-dict keys are those of Hugging Face's `DeepseekV3ForCausalLM`, with the routed
experts of a layer as three 3-D tensors (`mlp.experts.gate_proj` (E, width, h), ...).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kimi_mini.base.errors import BadFile
from kimi_mini.model import checkpoint
from kimi_mini.model.attention import LatentAttention
from kimi_mini.model.config import KimiConfig
from kimi_mini.model.layers import MLP, Linear, RMSNorm
from kimi_mini.model.moe import Experts, MoE, Router
from kimi_mini.model.rope import RotationTable
from kimi_mini.model.statistics import Statistics, Tally


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
        self, x: Tensor, rotation: Tensor, valid: Tensor | None = None, cache=None, tally: Tally | None = None
    ) -> Tensor:
        """x (B, T, h) -> (B, T, h); arguments as in LatentAttention and MoE."""
        x = x + self.self_attn(self.input_layernorm(x), rotation, valid, cache, tally)
        normed = self.post_attention_layernorm(x)
        return x + (self.mlp(normed, valid, tally) if self.routed else self.mlp(normed))


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
        self.statistics = Statistics(config)
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
        self, input_ids: Tensor, positions: Tensor | None = None, valid: Tensor | None = None, cache=None
    ) -> Output:
        """input_ids (B, T) int -> Output with logits (B, T, V).

        positions (T,) or (B, T): default 0 .. T-1. valid (B, T) bool: real tokens when rows are padded on the
        right. cache: the inference.cache.Chunk that a LatentCache made room for.
        """
        hidden = self.hidden_states(input_ids, valid, positions, cache)
        return Output(self.lm_head(hidden), hidden)

    def hidden_states(
        self, input_ids: Tensor, valid: Tensor | None = None, positions: Tensor | None = None, cache=None
    ) -> Tensor:
        """(B, T) -> (B, T, h) after the final norm: training applies `lm_head` where it needs logits.

        ValueError for ids that are not (B, T) or empty, and for positions from max_position_embeddings on.
        """
        if not isinstance(input_ids, Tensor) or input_ids.dim() != 2 or input_ids.numel() == 0:
            given = tuple(input_ids.shape) if isinstance(input_ids, Tensor) else type(input_ids).__name__
            raise ValueError(f"input_ids must be a tensor of shape (batch, length), not empty, got {given}")
        counts = self.training and cache is None  # what is decoded is no evidence of training
        rotation = self.rotations(input_ids, positions if cache is None else cache.positions)
        x = self.model.embed_tokens(input_ids)
        for index, layer in enumerate(self.model.layers):
            view = None if cache is None else cache.layer(index)
            x = layer(x, rotation, valid, view, self.statistics.layer(index) if counts else None)
        return self.model.norm(x)

    def rotations(self, input_ids: Tensor, positions: Tensor | None) -> Tensor:
        """Rotations of the given positions, (1 or B, T, d_r/2) complex64.

        ValueError for a position that is negative or not below max_position_embeddings.
        """
        limit = self.config.max_position_embeddings
        low, high = (0, input_ids.shape[1] - 1) if positions is None else map(int, positions.aminmax())
        if low < 0 or high >= limit:
            raise ValueError(
                f"positions must be in 0 .. {limit - 1} (max_position_embeddings), got {low} .. {high}"
            )
        table = self.rotation(high + 1, input_ids.device)
        if positions is None:
            return table[None]
        return table[positions if positions.dim() == 2 else positions[None]]

    # ---- what training reads ---------------------------------------------------------------------------

    def attention_layers(self) -> list[LatentAttention]:
        """The attention of every layer, in order."""
        return [layer.self_attn for layer in self.model.layers]

    def routers(self) -> list[Router]:
        """The router of every MoE layer, in order."""
        return [layer.mlp.gate for layer in self.model.layers if layer.routed]

    def update_router_bias(self, rate: float, rule: str = "sign") -> None:
        """Balance all routers (Router.update_bias) by their loads, which start anew: after each optimizer step."""
        for router, load in zip(self.routers(), self.statistics.take_loads()):
            router.update_bias(load, rate, rule)

    # ---- what figures read -----------------------------------------------------------------------------

    @torch.no_grad()
    def routing(self, input_ids: Tensor, valid: Tensor | None = None) -> list[tuple[Tensor, Tensor]]:
        """For each MoE layer: chosen experts (B, T, k) and their gate weights (B, T, k)."""
        with evaluating(self), recorded(self.routers()) as calls:
            self.hidden_states(input_ids, valid)
        return [tuple(x.view(*input_ids.shape, -1) for x in output) for _, output in calls]

    @torch.no_grad()
    def attention_weights(self, input_ids: Tensor) -> Tensor:
        """(L, B, H, T, T): what every head of every layer looks at."""
        layers = self.attention_layers()
        with evaluating(self), recorded(layers) as calls:
            self.hidden_states(input_ids)
        return torch.stack(
            [layer.logits(*inputs[:2]).softmax(-1) for layer, (inputs, _) in zip(layers, calls)]
        )

    # ---- disk ------------------------------------------------------------------------------------------

    def save_pretrained(
        self, folder: str | Path, tokenizer_files: list[str | Path] = (), packed: bool = False
    ) -> None:
        """Write a Hugging Face folder (config.json, model.safetensors, copies of `tokenizer_files`); packed: its routed
        experts in INT4."""
        checkpoint.save_folder(folder, self.config, self.state_dict(), tokenizer_files, packed)

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
        model.statistics = Statistics(config)  # a folder does not hold them
        if config.tie_word_embeddings:
            model.lm_head.weight = model.model.embed_tokens.weight
        return model.to(device) if device is not None else model


@contextmanager
def recorded(modules: Iterable[nn.Module]) -> Iterator[list[tuple[tuple, Any]]]:
    """Context: a list that gets (inputs, output) of each call of these modules, in the order of the calls."""
    calls = []
    hooks = [
        m.register_forward_hook(lambda _, inputs, output: calls.append((inputs, output))) for m in modules
    ]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


class evaluating:
    """Context: the model in eval mode, its former mode restored afterwards."""

    def __init__(self, model: nn.Module):
        self.model = model

    def __enter__(self):
        self.was_training = self.model.training
        self.model.eval()

    def __exit__(self, *_):
        self.model.train(self.was_training)
