"""MuonClip: Muon for the hidden matrices, AdamW for the rest, and QK-Clip against exploding attention logits.

Muon makes query and key weights grow in all directions at once, and their product enters the softmax: the largest
attention logit can climb into the thousands and the loss spikes. QK-Clip looks at S_h, the largest logit that head
h showed during the step (scaled as the softmax sees it, before the mask's -inf, over all micro-batches), and when
S_h > tau shrinks, AFTER the optimizer step, exactly the rows that make head h's logits, by gamma = tau / S_h:

    q_proj (or q_b_proj)   rows of head h, nope part     sqrt(gamma)
                           rows of head h, rope part     gamma        (its key is shared, so queries carry it all)
    kv_b_proj              key rows of head h            sqrt(gamma)
                           value rows of head h          untouched
    kv_a_proj_with_mqa     the shared rope key           untouched    (every head reads it)

so that every logit of head h is multiplied by gamma, and no other head notices. It is a control knob, not a
layer: forward and backward of the step are not changed, and heads below tau are never touched.

Sources: Kimi K2 technical report (arXiv 2507.20534) section 2.1, Algorithm 1; Moonlight (arXiv 2502.16982) for the
AdamW half; logits are signed and include the softmax scale, as in the report.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim.adamw import adamw

from kimi_mini.muon import Muon, _evaluate


class Clip(NamedTuple):
    """One head that QK-Clip shrank in a step."""

    layer: int
    head: int
    gamma: float


def clip_factors(max_logits: Tensor, tau: float) -> Tensor:
    """gamma for every head: tau / S where S > tau, else exactly 1. max_logits (..., H) -> (..., H)."""
    return torch.where(max_logits > tau, tau / max_logits, torch.ones_like(max_logits))


@torch.no_grad()
def qk_clip_(attention: nn.Module, max_logits: Tensor, tau: float) -> Tensor:
    """Shrink the query and key rows of every head whose largest logit is over tau. Returns gamma (H,).

    attention    a multi-head latent attention layer: `config` with the head sizes, `kv_b_proj` and either `q_b_proj`
                 (queries through a low rank) or `q_proj`
    max_logits   (H,) largest softmax input of each head over the whole step
    """
    config = attention.config
    heads, nope, rope = config.num_attention_heads, config.qk_nope_head_dim, config.qk_rope_head_dim
    if max_logits.shape != (heads,):
        raise ValueError(f"need one maximum for each of {heads} heads, got shape {tuple(max_logits.shape)}")
    q_proj = attention.q_proj if config.q_lora_rank is None else attention.q_b_proj
    query = q_proj.weight.view(heads, nope + rope, -1)  # (H, nope + rope, in)
    key_value = attention.kv_b_proj.weight.view(heads, nope + config.v_head_dim, -1)  # (H, nope + v, kv_lora_rank)

    gamma = clip_factors(max_logits.to(query), tau)
    by_head = gamma.view(heads, 1, 1)
    query[:, :nope] *= by_head.sqrt()
    query[:, nope:] *= by_head
    key_value[:, :nope] *= by_head.sqrt()
    return gamma


def split_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """(for Muon, for AdamW): hidden matrices, among them the router gate; and embeddings, head, norms.

    An embedding or a head looks like a matrix but is a table: each row belongs to one token and is moved by that
    token alone, so there is nothing to orthogonalise. Parameters without requires_grad are left out.
    """
    tables = {id(p) for module in model.modules() if isinstance(module, nn.Embedding) for p in module.parameters()}
    for_muon, for_adamw = [], []
    for name, param in model.named_parameters():
        if not param.requires_grad:
            continue
        is_table = id(param) in tables or "lm_head" in name.split(".") or "embed_tokens" in name.split(".")
        (for_adamw if is_table or param.ndim < 2 else for_muon).append(param)
    return for_muon, for_adamw


class MuonClip(Muon):
    """One optimizer for the whole model: Muon groups, AdamW groups and QK-Clip, one step, one state_dict.

    params        a KimiMini, split by `split_parameters`; or parameter groups of your own, each with
                  "algorithm": "muon" or "adamw"
    lr            of the Muon groups; adamw_lr of the AdamW groups (None: the same). Both live in
                  param_groups[i]["lr"], so any PyTorch scheduler moves both
    weight_decay  decoupled, and on norms too (Moonlight appendix D calls that crucial)
    tau           the cap on attention logits, 100 for K2; float("inf") switches QK-Clip off
    model         whose attention logits to watch, where `params` are groups. It offers max_logits() -> (L, H) and
                  reset_max_logits(); its layers with a `kv_b_proj`, in order, are the L rows

    After a step: `last_max_logits` (L, H) and `last_clip`, a list of (layer, head, gamma). `skipped_steps` counts.
    Weights must be fp32 (or fp64): in bf16 a gamma of 0.999 rounds to 1 and nothing is ever clipped.
    """

    def __init__(
        self,
        params: nn.Module | Iterable,
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
        params = [dict(group) for group in params]
        for group in params:
            if group.get("algorithm") == "adamw":
                group.setdefault("lr", lr if adamw_lr is None else adamw_lr)
                group.setdefault("betas", betas)
                group.setdefault("eps", eps)
        super().__init__([g for g in params if g["params"]], lr, weight_decay, momentum, nesterov, ns_steps, ns_dtype)
        self.tau = tau
        self.model = model
        self.attention = [m for m in model.modules() if hasattr(m, "kv_b_proj")] if model is not None else []
        self.last_clip: list[Clip] = []
        self.last_max_logits: Tensor | None = None
        self.skipped_steps = 0

    def _check_group(self, group: dict) -> None:
        algorithm = group.get("algorithm")
        if algorithm not in ("muon", "adamw"):
            raise ValueError(f"each group needs 'algorithm': 'muon' or 'adamw', got {algorithm!r}")
        for param in group["params"]:
            if param.dtype not in (torch.float32, torch.float64):
                raise ValueError(f"MuonClip updates fp32 weights (use autocast for bf16 arithmetic), got {param.dtype}")
        if algorithm == "muon":
            super()._check_group(group)

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Update all weights, then clip. Raises FloatingPointError, before anything is changed, on a bad logit."""
        loss = _evaluate(closure)
        maxima = self._read_max_logits()
        for group in self.param_groups:
            (self._update_group if group["algorithm"] == "muon" else self._update_adamw_group)(group)
        self._clip(maxima)
        return loss

    def skip_step(self) -> None:
        """Call in place of step() when a batch must not count (loss or gradient not finite).

        Weights, momenta and step counts stay; gradients are dropped and the logit maxima start anew, so that the
        next step does not clip on the evidence of a batch that it never trained on.
        """
        self.zero_grad()
        if self.model is not None:
            self.model.reset_max_logits()
        self.last_clip = []
        self.skipped_steps += 1

    def _update_adamw_group(self, group: dict) -> None:
        params = [p for p in group["params"] if p.grad is not None]
        for p in params:
            if not self.state[p]:
                self.state[p] = dict(
                    step=torch.zeros((), device=p.device), exp_avg=torch.zeros_like(p), exp_avg_sq=torch.zeros_like(p)
                )
        if params:
            states = [self.state[p] for p in params]
            lists = [[s[key] for s in states] for key in ("exp_avg", "exp_avg_sq")]
            beta1, beta2 = group["betas"]
            adamw(params, [p.grad for p in params], *lists, [], [s["step"] for s in states], fused=True, amsgrad=False,
                  beta1=beta1, beta2=beta2, lr=group["lr"], weight_decay=group["weight_decay"], eps=group["eps"],
                  maximize=False)  # fmt: skip

    def _read_max_logits(self) -> Tensor | None:
        """(L, H) maxima since the last step, over all micro-batches and, under torchrun, over all ranks."""
        if not self.attention:
            return None
        maxima = self.model.max_logits()
        if dist.is_available() and dist.is_initialized():
            maxima = maxima.clone()
            dist.all_reduce(maxima, op=dist.ReduceOp.MAX)
        broken = (maxima.isnan() | (maxima == float("inf"))).nonzero().tolist()  # -inf: no token seen, no evidence
        if broken:
            layer, head = broken[0]
            raise FloatingPointError(
                f"attention logit of layer {layer}, head {head} is {maxima[layer, head].item()}: the forward pass has "
                "overflowed. No weight was changed. Call optimizer.skip_step() if it was one bad batch; if it "
                "comes back, load the last checkpoint and lower the learning rate or tau"
            )
        return maxima

    def _clip(self, maxima: Tensor | None) -> None:
        self.last_clip, self.last_max_logits = [], maxima
        if maxima is None:
            return
        gammas = clip_factors(maxima, self.tau)
        self.last_clip = [Clip(l, h, gammas[l, h].item()) for l, h in (gammas < 1).nonzero().tolist()]
        for layer in sorted({clip.layer for clip in self.last_clip}):
            qk_clip_(self.attention[layer], maxima[layer], self.tau)
        self.model.reset_max_logits()
