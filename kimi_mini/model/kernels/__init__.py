"""The five functions that a step spends its time in, each in three versions: readable, for a CPU, for a GPU.

    attention    causal softmax attention, with the largest logit of each head    kernels.causal_attention
    experts      every token through its chosen experts                           kernels.routed_experts
    norm         RMSNorm                                                          kernels.rms_norm
    linear       the product with a weight matrix                                 kernels.linear
    head         the loss of every token, from the last hidden state              kernels.head_losses

The layers and the loss call these five; the device of the arguments decides which version runs, or `using` does:

    with kernels.using("reference"):                      # reference.py everywhere: slow, and ten lines each
        ...
    with kernels.using(linear="reference", attention=mine):   # by name, or any function of the same arguments
        ...

All versions compute the same function, and all run on any device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from kimi_mini.model.kernels import attention, experts, norm, reference
from kimi_mini.model.kernels import linear as products
from kimi_mini.model.kernels.cuda import attention as flex
from kimi_mini.model.kernels.cuda import experts as permuted
from kimi_mini.model.kernels.cuda import head as chunked
from kimi_mini.model.kernels.cuda import norm as fusible

__all__ = [
    "TABLE",
    "Versions",
    "causal_attention",
    "head_losses",
    "linear",
    "prepare",
    "rms_norm",
    "routed_experts",
    "using",
]

Kernel = Callable[..., object]


class Versions(NamedTuple):
    """One kernel's three versions."""

    reference: Kernel
    cpu: Kernel
    cuda: Kernel


def _through_linear(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """The losses by the product that is chosen for all weight matrices."""
    logits = reference.at_least_fp32(linear(hidden, weight))
    return F.cross_entropy(logits, targets, reduction="none")


TABLE = {
    "attention": Versions(
        reference.causal_attention, cpu=attention.causal_attention, cuda=flex.causal_attention
    ),
    "experts": Versions(reference.routed_experts, cpu=experts.routed_experts, cuda=permuted.routed_experts),
    "norm": Versions(reference.rms_norm, cpu=norm.rms_norm, cuda=fusible.rms_norm),
    "linear": Versions(reference.linear, cpu=products.linear, cuda=reference.linear),
    "head": Versions(reference.head_losses, cpu=_through_linear, cuda=chunked.head_losses),
}
_CHOSEN: ContextVar[dict[str, Kernel] | None] = ContextVar("kernels", default=None)
_TRACED: dict[str, Kernel] = {}  # what compiled layers call


@contextmanager
def using(everywhere: str | None = None, **choices: str | Kernel) -> Iterator[None]:
    """Context: kernels run in the given version, all of them (`everywhere`) or each by its name in TABLE.

    A version is "reference", "cpu" or "cuda", or a function. An inner context overrules an outer one for the
    kernels that it names; a new thread starts without either. Raises ValueError for a name that is not there.
    """
    chosen = dict(_CHOSEN.get() or {})
    for name, version in {**(dict.fromkeys(TABLE, everywhere) if everywhere else {}), **choices}.items():
        if name not in TABLE:
            raise ValueError(f"no kernel {name!r}: there are {', '.join(TABLE)}")
        if not callable(version) and version not in Versions._fields:
            versions = ", ".join(Versions._fields)
            raise ValueError(f"no version {version!r} of kernel {name!r}: take {versions} or a function")
        chosen[name] = version if callable(version) else getattr(TABLE[name], version)
    before = _CHOSEN.set(chosen)
    try:
        yield
    finally:
        _CHOSEN.reset(before)


def _version(name: str, x: Tensor) -> Kernel:
    """What `using` chose, or else the version for the device of x."""
    if torch.compiler.is_compiling():
        return _TRACED[name]
    return (_CHOSEN.get() or {}).get(name) or getattr(TABLE[name], "cuda" if x.is_cuda else "cpu")


def prepare(x: Tensor) -> None:
    """Before a compiled layer is called on x (B, T, h): fixes the versions that it calls, for a compiler cannot read
    the context, and makes the causal mask of its length."""
    _TRACED.update({name: _version(name, x) for name in TABLE})
    flex.prepare(x.shape[1], x.device)


def causal_attention(
    q: Tensor, k: Tensor, v: Tensor, scale: float, valid: Tensor | None = None, track: bool = True
) -> tuple[Tensor, Tensor | None]:
    """Causal softmax(q k^T * scale) v, and the largest logit of each head.

    q, k (B, H, T, Dq); v (B, H, T, Dv), any Dv; valid (B, T) bool marks query rows that count for the maximum
    (padding on the right is hidden from real rows by causality itself). Logits and softmax in fp32 at least.
    Returns out (B, H, T, Dv) and max_logits (H,) fp32: the exact signed maximum over allowed pairs, -inf if
    no row is valid, None when not `track`. No gradient flows through max_logits.
    """
    return _version("attention", q)(q, k, v, scale, valid, track)


def routed_experts(
    x: Tensor, indices: Tensor, weights: Tensor, gate_proj: Tensor, up_proj: Tensor, down_proj: Tensor
) -> Tensor:
    """sum_j weights[t, j] * expert indices[t, j] of x[t], an expert being down(silu(gate(x)) * up(x)).

    x (N, h), indices and weights (N, k); gate_proj, up_proj (E, width, h), down_proj (E, h, width) -> (N, h).
    """
    return _version("experts", x)(x, indices, weights, gate_proj, up_proj, down_proj)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x (..., D) / sqrt(mean(x^2) + eps) in fp32, rounded to x's dtype, then times weight (D,)."""
    return _version("norm", x)(x, weight, eps)


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """x (..., in) times weight (out, in) transposed -> (..., out)."""
    return _version("linear", x)(x, weight)


def head_losses(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Negative log-likelihood in nats of each target under softmax(hidden @ weight^T), the softmax in fp32 at least.

    hidden (N, h), weight (V, h), targets (N,) int64 -> (N,) fp32 (fp64 of fp64).
    """
    return _version("head", hidden)(hidden, weight, targets)
