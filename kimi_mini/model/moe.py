"""Mixture of experts: a router sends each token to a few of many small MLPs; a shared one sees every token.

The router scores experts with a sigmoid. A bias per expert, outside the gradient, is added to the scores only
to *choose*; the weight of a chosen expert is its unbiased score, renormalised, times a constant. After each
step the bias of overloaded experts goes down and that of idle ones up, so that load evens out without a loss
term.

The experts of a layer are three 3-D tensors, and no token is dropped.

Sources: DeepSeek-V3 report section 2.1.2 and inference code `Gate`, `MoE`; Moonlight report appendix C.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kimi_mini.model import kernels
from kimi_mini.model.config import KimiConfig
from kimi_mini.model.layers import MLP
from kimi_mini.model.statistics import StaysFp32, Tally


@lru_cache
def gate_factor(experts: int, chosen: int, samples: int = 20_000, seed: int = 0) -> float:
    """routed_scaling_factor for `chosen` of `experts`, by Moonlight's Monte-Carlo (appendix C).

    Draw Gaussian logits, sigmoid, keep the best, renormalise to p: the sum of independent expert outputs
    weighted by p shrinks by sqrt(sum p^2), so its inverse brings the routed sum back to the size of one dense
    output. 64 choose 6 gives 2.446, Moonlight's value; 384 choose 8 gives 2.828 (K2 uses 2.827).
    """
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(samples, experts, generator=generator, device="cpu")
    best = logits.topk(chosen).values.sigmoid()
    p = best / best.sum(-1, keepdim=True)
    return p.square().sum(-1).rsqrt().mean().item()


def allowed_by_groups(choice: Tensor, n_group: int, topk_group: int) -> Tensor:
    """Keep the `topk_group` groups whose two best experts sum highest; -inf elsewhere. choice (N, E) -> (N,
    E).

    -inf, not 0: a legal expert with a negative bias would lose against a masked 0.
    """
    grouped = choice.unflatten(-1, (n_group, -1))  # (N, G, E/G)
    best = grouped.topk(2, -1).values.sum(-1).topk(topk_group, -1, sorted=False).indices
    keep = torch.zeros(grouped.shape[:2], dtype=torch.bool, device=choice.device).scatter_(1, best, True)
    return grouped.masked_fill(~keep[..., None], float("-inf")).flatten(1)


class Router(StaysFp32):
    """Chooses `num_experts_per_tok` experts for each token and weighs them.

    weight (E, h) is trained. e_score_correction_bias (E,) is a buffer that takes part in choosing only and
    never has a gradient. It stays fp32 whatever the model is cast to: it moves by 0.001 a step, which bf16
    would round away. `tap`, if there is one, is told every choice, and its answer is taken: see `replayed`.
    """

    tap: Callable[[Tensor], Tensor] | None = None  # experts (N, k) -> experts (N, k)

    def __init__(self, config: KimiConfig):
        super().__init__()
        self.top_k, self.factor = config.num_experts_per_tok, config.routed_scaling_factor
        self.normalise = config.norm_topk_prob
        self.n_group, self.topk_group = config.n_group, config.topk_group
        experts = config.n_routed_experts
        self.weight = nn.Parameter(torch.empty(experts, config.hidden_size))
        self.register_buffer("e_score_correction_bias", torch.zeros(experts, dtype=torch.float32))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (N, h) -> indices (N, k) int64 and gate weights (N, k) fp32."""
        return self.weigh(F.linear(x.float(), self.weight.float()).sigmoid())

    def weigh(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """scores (N, E) fp32 -> chosen experts (N, k) and their weights (N, k), free of the bias."""
        indices = self.choose(scores.detach())
        weights = scores.gather(1, indices)
        if self.normalise:
            weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
        return indices, weights * self.factor

    def choose(self, scores: Tensor) -> Tensor:
        """The k experts of each token by biased score. scores (N, E) -> (N, k)."""
        choice = scores + self.e_score_correction_bias
        if self.n_group > 1:
            choice = allowed_by_groups(choice, self.n_group, self.topk_group)
        chosen = choice.topk(self.top_k, -1, sorted=False).indices
        return chosen if self.tap is None else self.tap(chosen)

    @torch.no_grad()
    def update_bias(self, load: Tensor, rate: float, rule: str = "sign") -> None:
        """Move the bias by the tokens that each expert got, load (E,).

        "sign" (DeepSeek-V3): b += rate * sign(mean load - load).
        "centred" (Moonlight): the same step minus its mean over experts, so that the sum of biases never
        drifts.
        """
        load = load.float()
        step = torch.sign(load.mean() - load)
        if rule == "centred":
            step = step - step.mean()
        elif rule != "sign":
            raise ValueError(f"unknown rule {rule!r}; choose 'sign' or 'centred'")
        self.e_score_correction_bias += rate * step


@contextmanager
def tapped(routers: Sequence[Router], taps: Sequence[Callable[[Tensor], Tensor]]) -> Iterator[None]:
    """Context: every router has its tap."""
    for router, tap in zip(routers, taps, strict=True):
        router.tap = tap
    try:
        yield
    finally:
        for router in routers:
            router.tap = None


@contextmanager
def choices(routers: Sequence[Router]) -> Iterator[list[list[Tensor]]]:
    """Context: a list for each router, which gets the experts (N, k) of every call, in decoding too."""
    found: list[list[Tensor]] = [[] for _ in routers]

    def keeps(kept: list[Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda chosen: kept.append(chosen) or chosen

    with tapped(routers, [keeps(kept) for kept in found]):
        yield found


@contextmanager
def replayed(routers: Sequence[Router], chosen: Sequence[Tensor]) -> Iterator[None]:
    """Context: the routers take these experts, whatever they would choose; the gate weights stay their own.

    chosen: for each router (B, T, k) long, for batches of that shape, padding included; -1 leaves the choice to it.
    ValueError for a batch of another shape.
    """

    def plays(given: Tensor) -> Callable[[Tensor], Tensor]:
        flat = given.flatten(0, -2)

        def tap(own: Tensor) -> Tensor:
            if own.shape != flat.shape:
                raise ValueError(f"experts {tuple(flat.shape)} cannot be replayed on {tuple(own.shape)}")
            return torch.where(flat < 0, own, flat)

        return tap

    with tapped(routers, [plays(given) for given in chosen]):
        yield


class Experts(nn.Module):
    """E SwiGLU MLPs as 3-D tensors (E, out, in). reads: what it makes of a tensor before anything computes with it,
    see `model.compact.int4`; None: nothing."""

    reads: Callable[[Tensor], Tensor] | None = None

    def __init__(self, config: KimiConfig):
        super().__init__()
        e, h, width = config.n_routed_experts, config.hidden_size, config.moe_intermediate_size
        self.gate_proj = nn.Parameter(torch.empty(e, width, h))
        self.up_proj = nn.Parameter(torch.empty(e, width, h))
        self.down_proj = nn.Parameter(torch.empty(e, h, width))

    def matrices(self) -> tuple[Tensor, ...]:
        """gate_proj, up_proj and down_proj as it computes with them."""
        stored = (self.gate_proj, self.up_proj, self.down_proj)
        return stored if self.reads is None else tuple(self.reads(matrix) for matrix in stored)

    def forward(self, x: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
        """x (N, h), indices and weights (N, k) -> sum over the chosen experts, (N, h)."""
        return kernels.routed_experts(x, indices, weights, *self.matrices())


class MoE(nn.Module):
    """Router, routed experts, and the shared experts as one MLP, n_shared_experts times as wide."""

    def __init__(self, config: KimiConfig):
        super().__init__()
        self.gate = Router(config)
        self.experts = Experts(config)
        shared = config.n_shared_experts * config.moe_intermediate_size
        self.shared_experts = MLP(config.hidden_size, shared) if shared else None

    def forward(self, x: Tensor, valid: Tensor | None = None, tally: Tally | None = None) -> Tensor:
        """x (B, T, h) -> (B, T, h). The load goes to `tally` if there is one; valid (B, T) leaves padding out."""
        flat = x.flatten(0, 1)
        indices, weights = self.gate(flat)
        if tally is not None:
            tally.count(indices, None if valid is None else valid.flatten())
        out = self.experts(flat, indices, weights)
        if self.shared_experts is not None:
            out = out + self.shared_experts(flat)
        return out.view_as(x)
