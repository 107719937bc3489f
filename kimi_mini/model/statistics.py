"""What a training pass leaves behind beside the gradients: largest attention logits, and loads of the experts.

QK-Clip and the balancing of the routers need these numbers after the optimizer's step, over all its
micro-batches. They cannot be returned with the logits of one pass, so they are collected in one object that
the model owns (`model.statistics`). The forward pass writes, MuonClip and `model.update_router_bias` read.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from kimi_mini.model.config import KimiConfig


class StaysFp32(nn.Module):
    """A module whose own fp32 buffers move with a model but stay fp32 when it is cast to another dtype."""

    def _apply(self, fn, recurse=True):
        before = {name: x for name, x in self._buffers.items() if x.dtype == torch.float32}
        super()._apply(fn, recurse)  # what model.to, .cuda, .bfloat16 go through
        for name, x in before.items():
            now = self._buffers[name]
            if now.dtype != torch.float32:  # the old numbers: the new ones are rounded
                self._buffers[name] = x.to(now.device)
        return self


class Tally(NamedTuple):
    """One layer's rows of the statistics, views that a pass writes to."""

    max_logits: Tensor  # (H,)
    load: Tensor | None  # (E,), None in a dense layer

    def see(self, max_logits: Tensor) -> None:
        """Take in the largest logit of each head, (H,)."""
        torch.maximum(self.max_logits, max_logits, out=self.max_logits)

    def count(self, indices: Tensor, valid: Tensor | None = None) -> None:
        """Add the chosen experts of N tokens, (N, k); valid (N,) bool leaves padding out."""
        real = torch.ones_like(indices) if valid is None else valid[:, None].expand_as(indices).long()
        # a GPU need not wait for it, as bincount would
        self.load.index_add_(0, indices.flatten(), real.flatten())


class Seen:
    """Takes what a Tally takes and keeps it: a compiled layer gives both back, for writing on the side is no output.

    max_logits   [(H,)], and loads [(E,) int64]: empty until they are told. Lists, for torch 2.13 forgets an attribute
                 that is set after FlexAttention was called.
    """

    def __init__(self, experts: int | None):
        self.experts = experts
        self.max_logits: list[Tensor] = []
        self.loads: list[Tensor] = []

    def see(self, max_logits: Tensor) -> None:
        """Keep the largest logit of each head, (H,)."""
        self.max_logits.append(max_logits)

    def count(self, indices: Tensor, valid: Tensor | None = None) -> None:
        """Count the chosen experts of N tokens, (N, k); valid (N,) bool leaves padding out."""
        hits = indices[..., None] == torch.arange(
            self.experts, device=indices.device
        )  # (N, k, E), fused away
        self.loads.append((hits if valid is None else hits & valid[:, None, None]).sum((0, 1)))


class Statistics(StaysFp32):
    """Sums and maxima over the training passes since they were last forgotten.

    max_logits (L, H) fp32          largest scaled attention logit of each head, -inf if no token was seen: the S_h
                                    of QK-Clip
    loads (MoE layers, E) int64     tokens that each expert got
    last_loads (MoE layers, E)      what `take_loads` gave last, for who watches a run; None before

    Only passes in training mode and without a cache count: evaluation and generation are no evidence. Not part of
    a checkpoint.
    """

    def __init__(self, config: KimiConfig):
        super().__init__()
        layers = range(config.num_hidden_layers)
        self.moe_layers = [i for i in layers if config.is_moe_layer(i)]
        maxima = torch.full((len(layers), config.num_attention_heads), float("-inf"), dtype=torch.float32)
        loads = torch.zeros(len(self.moe_layers), config.n_routed_experts, dtype=torch.int64)
        self.register_buffer("max_logits", maxima, persistent=False)
        self.register_buffer("loads", loads, persistent=False)
        self.last_loads: Tensor | None = None

    def layer(self, index: int) -> Tally:
        """The rows of layer `index`."""
        routed = index in self.moe_layers
        return Tally(self.max_logits[index], self.loads[self.moe_layers.index(index)] if routed else None)

    def take_loads(self) -> Tensor:
        """A copy of the loads, which start anew."""
        self.last_loads = self.loads.clone()
        self.loads.zero_()
        return self.last_loads

    def forget_max_logits(self) -> None:
        """The maxima start anew."""
        self.max_logits.fill_(float("-inf"))

    def forget(self) -> None:
        """Both start anew, as if the passes since the last step had not been."""
        self.forget_max_logits()
        self.loads.zero_()
