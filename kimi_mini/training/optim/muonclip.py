"""MuonClip: Muon for the hidden matrices, AdamW for the rest, QK-Clip against exploding attention logits.

Muon makes query and key weights grow in all directions at once, and their product enters the softmax: the
largest attention logit can climb into the thousands, and the loss spikes. QK-Clip watches S_h, the largest
logit of head h in this step (signed, times the softmax scale, over allowed pairs of tokens and all
micro-batches). When S_h > tau it shrinks, AFTER the optimizer step, the rows that make head h's logits, by
gamma = tau / S_h:

    q_b_proj (or q_proj)   rows of head h, nope part      sqrt(gamma)
                           rows of head h, rope part      gamma, for its key is not ours to shrink:
    kv_a_proj_with_mqa     the rope key, one for all      untouched
    kv_b_proj              key rows of head h             sqrt(gamma)
                           value rows of head h           untouched

So every logit of head h is multiplied by gamma, and no other head notices. It is a control knob, not a layer:
forward and backward of the step stay as they were, and a head that never passes tau is never touched.

Sources: Kimi K2 technical report (arXiv 2507.20534) section 2.1 and Algorithm 1; Moonlight (arXiv 2502.16982)
section 2.2 and appendix D for the AdamW half.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from kimi_mini.model.attention import LatentAttention
from kimi_mini.training.machine import distributed
from kimi_mini.training.optim.muon import Muon, check_rates, loss_of

TABLES = {"embed_tokens", "lm_head"}  # matrices by shape only: one row per token of the vocabulary


class Clip(NamedTuple):
    """One head that QK-Clip shrank in the last step."""

    layer: int
    head: int
    gamma: float


def clip_factors(max_logits: Tensor, tau: float) -> Tensor:
    """gamma of every head: tau / S where S > tau, otherwise exactly 1. max_logits (..., H) -> (..., H)."""
    return torch.where(max_logits > tau, tau / max_logits, torch.ones_like(max_logits))


@torch.no_grad()
def qk_clip_(attention: LatentAttention, max_logits: Tensor, tau: float) -> Tensor:
    """Shrink, in place, the query and key rows of every head whose largest logit is over tau.

    attention    a LatentAttention: the first `d_nope` rows of a head come before its rope or value rows
    max_logits   (H,) largest softmax input of each head over the whole step
    returns      gamma (H,), 1 for the heads left alone

    A frozen matrix (requires_grad False) stays as it is; the other one then takes the whole of gamma.
    Raises ValueError when there is not one maximum a head.
    """
    heads, nope = attention.heads, attention.d_nope
    if max_logits.shape != (heads,):
        raise ValueError(f"need one maximum for each of {heads} heads, got shape {tuple(max_logits.shape)}")
    for_query, for_key = logit_weights(attention)
    query = for_query.unflatten(0, (heads, -1))  # (H, nope + rope, in), a view
    key_value = for_key.unflatten(0, (heads, -1))  # (H, nope + value, rank), a view

    gamma = clip_factors(max_logits.to(query), tau)
    by_head = gamma.view(heads, 1, 1)
    each_side = by_head.sqrt() if for_query.requires_grad and for_key.requires_grad else by_head
    if for_query.requires_grad:
        query[:, :nope] *= each_side
        query[:, nope:] *= by_head
    if for_key.requires_grad:
        key_value[:, :nope] *= each_side
    return gamma


def logit_weights(attention: LatentAttention) -> tuple[nn.Parameter, nn.Parameter]:
    """The matrices that QK-Clip may shrink: of the queries, and of the keys (and values); as they are stored, whatever
    an adapter makes of them."""
    q_proj = attention.q_b_proj if attention.has_q_lora else attention.q_proj
    return next(q_proj.parameters()), next(attention.kv_b_proj.parameters())


def split_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The model's trainable parameters as (for Muon, for AdamW).

    Muon: every hidden matrix, the router's gate among them. AdamW: norms, embedding and head. The last two
    look like matrices but are tables: a row belongs to one token, so there is nothing to orthogonalise.
    """
    tables = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    for_muon, for_adamw = [], []
    for name, param in model.named_parameters():
        if param.requires_grad:
            is_table = id(param) in tables or not TABLES.isdisjoint(name.split("."))
            (for_adamw if is_table or param.ndim < 2 else for_muon).append(param)
    return for_muon, for_adamw


class MuonClip(Muon):
    """One optimizer for the whole model: Muon groups, AdamW groups and QK-Clip; one step, one state_dict.

    params        a KimiMini, its parameters split by `split_parameters`; or groups of your own, each a dict
                  with "params" and "algorithm": "muon" or "adamw"
    lr, adamw_lr  of the Muon and the AdamW groups (adamw_lr None: the same). Both end up in
                  param_groups[i]["lr"], so that a scheduler moves both
    weight_decay  decoupled, and on norms too (Moonlight appendix D calls that crucial)
    tau           the cap on attention logits, 100 in K2; float("inf") switches QK-Clip off
    model         the KimiMini whose logits to watch, when `params` are groups: its `statistics` are read at
                  each step and its `attention_layers()` clipped
    The rest is as in Muon and AdamW.

    After each step `last_max_logits` (L, H) and `last_clip`, a list of (layer, head, gamma), say what was
    seen and done; `skipped_steps` counts calls of `skip_step`.

    Raises ValueError for settings out of range, and for weights below fp32: in bf16 a gamma of 0.999 rounds
    to 1 and nothing would ever be clipped.
    """

    def __init__(
        self,
        params: nn.Module | Iterable[dict],
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        adamw_lr: float | None = None,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        ns_dtype: torch.dtype | None = None,
        tau: float = 100.0,
        model: nn.Module | None = None,
    ):
        if not tau > 0:
            raise ValueError(f"tau must be positive (float('inf') switches QK-Clip off), got {tau}")
        if isinstance(params, nn.Module):
            model = params
            for_muon, for_adamw = split_parameters(model)
            params = [dict(params=for_muon, algorithm="muon"), dict(params=for_adamw, algorithm="adamw")]
        # before super().__init__: that calls add_param_group, which reads it
        self._adamw_defaults = dict(lr=lr if adamw_lr is None else adamw_lr, betas=betas, eps=eps, fused=True)
        super().__init__(params, lr, weight_decay, momentum, nesterov, ns_steps, ns_dtype)
        self.tau = tau
        self.model = model
        self.last_clip: list[Clip] = []
        self.last_max_logits: Tensor | None = None
        self.skipped_steps = 0

    def add_param_group(self, param_group: dict) -> None:
        if not isinstance(param_group, dict) or param_group.get("algorithm") not in ("muon", "adamw"):
            raise ValueError("MuonClip needs a model, or groups with an 'algorithm' ('muon' or 'adamw')")
        is_adamw = param_group["algorithm"] == "adamw"
        super().add_param_group({**self._adamw_defaults, **param_group} if is_adamw else param_group)

    def _check_group(self, group: dict) -> None:
        for param in group["params"]:
            if param.dtype not in (torch.float32, torch.float64):
                hint = "to compute in bf16, train with Placement(dtype=torch.bfloat16)"
                raise ValueError(f"MuonClip updates fp32 weights, got {param.dtype}; {hint}")
        if group["algorithm"] == "muon":
            super()._check_group(group)
            return
        check_rates(group)
        if not all(0 <= beta < 1 for beta in group["betas"]):
            raise ValueError(f"betas must be in [0, 1), got {group['betas']}")

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Update every parameter that has a gradient, then clip. `closure` recomputes the loss.

        Raises FloatingPointError, before any weight has changed, when an attention logit was not finite.
        """
        loss = loss_of(closure)
        maxima = self._read_max_logits()
        for group in self.param_groups:
            if group["algorithm"] == "muon":
                self._update_with_muon(group)
            else:
                self._update_with_adamw(group)
        self._clip(maxima)
        return loss

    def skip_step(self) -> None:
        """In place of step() for a batch that must not count: a loss or gradient that is not finite.

        Weights, momenta and step counts stay. Gradients are dropped and the model's statistics start anew, so
        that neither QK-Clip nor the routers act on a batch that was never trained on.
        """
        self.zero_grad()
        self.last_clip = []
        self.skipped_steps += 1
        if self.model is not None:
            self.model.statistics.forget()

    def _update_with_adamw(self, group: dict) -> None:
        params = [p for p in group["params"] if p.grad is not None]
        if not params:
            return
        for p in params:
            if not self.state[p]:
                zeros = {name: torch.zeros_like(p) for name in ("exp_avg", "exp_avg_sq")}
                self.state[p] = dict(step=torch.zeros((), device=p.device), **zeros)
        averages, squares, steps = (
            [self.state[p][name] for p in params] for name in ("exp_avg", "exp_avg_sq", "step")
        )
        settings = {name: group[name] for name in ("lr", "weight_decay", "eps", "fused")}
        beta1, beta2 = group["betas"]
        adamw(
            params,
            [p.grad for p in params],
            averages,
            squares,
            [],
            steps,
            **settings,
            beta1=beta1,
            beta2=beta2,
            amsgrad=False,
            maximize=False,
        )

    def _read_max_logits(self) -> Tensor | None:
        """(L, H) maxima since the last step: over all micro-batches and, under torchrun, all ranks."""
        if self.model is None:
            return None
        maxima = distributed.largest(self.model.statistics.max_logits)
        broken = (maxima.isnan() | maxima.isposinf()).nonzero().tolist()  # -inf is a head that saw no token
        if broken:
            layer, head = broken[0]
            raise FloatingPointError(
                f"the largest attention logit of layer {layer}, head {head} is {maxima[layer, head].item()}: "
                "the forward pass overflowed. No weight was changed. If it was one bad batch, call "
                "optimizer.skip_step(); if it comes back, load the last checkpoint and lower lr or tau."
            )
        return maxima

    def _clip(self, maxima: Tensor | None) -> None:
        self.last_clip, self.last_max_logits = [], maxima
        if maxima is None:
            return
        gammas = clip_factors(maxima, self.tau).tolist()
        for layer, attention in enumerate(self.model.attention_layers()):
            clips = [Clip(layer, head, gamma) for head, gamma in enumerate(gammas[layer]) if gamma < 1]
            if clips and any(weight.requires_grad for weight in logit_weights(attention)):
                qk_clip_(attention, maxima[layer], self.tau)
                self.last_clip += clips
        self.model.statistics.forget_max_logits()

    def __getstate__(self) -> dict:
        """What copy and pickle take along: torch's own part, and ours, the model among it."""
        own = ("_adamw_defaults", "tau", "model", "last_clip", "last_max_logits", "skipped_steps")
        return {**super().__getstate__(), **{name: getattr(self, name) for name in own}}
