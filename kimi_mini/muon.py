"""Muon: momentum, orthogonalised. The update of a weight matrix is its momentum with every singular value near 1.

An Adam step is dominated by the few directions in which the gradient is large. Muon replaces the momentum
M = U S V^T by (roughly) U V^T: every direction that the gradient has seen moves equally far. The singular value
decomposition is never computed; five Newton-Schulz iterations, matrix products only, come close enough.

    M <- mu M + G                                      momentum (a plain sum, not an average)
    X <- G + mu M                                      Nesterov's look-ahead
    O <- newton_schulz(X) * 0.2 sqrt(max(out, in))     as large as a usual AdamW update
    W <- W - lr (O + weight_decay W)                   decoupled decay, with the plain lr

What is easy to get wrong, and is tested: each LOGICAL matrix is orthogonalised and scaled by itself. A parameter
of shape (E, out, in), the experts of one layer, is E matrices; gate_proj and up_proj are two parameters.

Sources: Moonlight, "Muon is Scalable for LLM Training" (arXiv 2502.16982) section 2; K. Jordan's Muon post;
Kimi K2 technical report (arXiv 2507.20534) Algorithm 1.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import cache

import torch
from torch import Tensor

# The quintic a x + b x^3 + c x^5, applied to every singular value. Chosen for its slope at 0, not to converge:
# after five rounds the singular values lie scattered between about 0.7 and 1.2, which trains as well as 1.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ADAMW_RMS = 0.2  # the root mean square of a usual AdamW update (Moonlight section 2.2)
SMALLEST_BF16_SIDE = 32  # narrower matrices are not faster in bf16
STACK_ELEMENTS = 2**24  # stack at most this many numbers into one batch of matrices (64 MB in fp32)


def newton_schulz(X: Tensor, steps: int = 5, dtype: torch.dtype | None = None) -> Tensor:
    """Push every singular value of each matrix towards 1.

    X       (..., rows, cols): a batch of matrices over all leading dimensions, each treated by itself
    dtype   what to compute in; None takes `matmul_dtype(X)`
    returns (..., rows, cols) in the dtype of X; an all-zero matrix stays zero

    Raises ValueError for a tensor with fewer than two dimensions.
    """
    if X.ndim < 2:
        raise ValueError(f"newton_schulz needs matrices (..., rows, cols), got shape {tuple(X.shape)}")
    a, b, c = COEFFICIENTS
    tall = X.shape[-2] > X.shape[-1]
    Y = X.mT if tall else X
    Y = Y.reshape(-1, *Y.shape[-2:]).to(dtype or matmul_dtype(X))  # (n, r, c) with r <= c: the small Gram side
    Y = Y / (Y.norm(dim=(-2, -1), keepdim=True) + 1e-7)  # Frobenius norm >= spectral norm, so all values <= 1
    for _ in range(steps):
        gram = Y @ Y.mT  # (n, r, r)
        poly = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)  # b A + c A^2
        Y = torch.baddbmm(Y, poly, Y, beta=a)  # a X + (b A + c A^2) X
    Y = (Y.mT if tall else Y).to(X.dtype)
    return Y.reshape(X.shape)


def matmul_dtype(X: Tensor) -> torch.dtype:
    """The dtype in which Newton-Schulz runs fastest for X (..., rows, cols).

    bf16 when the processor multiplies bf16 in hardware (a CUDA GPU of Ampere or later, a CPU with AVX512-BF16
    or AMX) and the smaller side is at least 32; otherwise fp32, which older CPUs run several times faster than
    emulated bf16. fp64 stays fp64. Measured on one core of an AMD EPYC with AVX512-BF16: 102 matrices of 60 x 96
    take 3.7 ms in bf16 and 16.6 ms in fp32; one of 16 x 96 takes 0.21 and 0.05 ms. The results differ by about
    one percent, far less than the scatter of the singular values.
    """
    if X.dtype == torch.float64:
        return torch.float64
    if min(X.shape[-2:]) >= SMALLEST_BF16_SIDE and _has_fast_bf16(X.device.type):
        return torch.bfloat16
    return torch.float32


@cache
def _has_fast_bf16(device_type: str) -> bool:
    if device_type == "cuda":
        return torch.cuda.get_device_capability() >= (8, 0)
    if device_type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return False


def update_scale(shape: Iterable[int]) -> float:
    """0.2 sqrt(max(out, in)) for a parameter (..., out, in), from the LOGICAL matrix: leading sizes do not count.

    An orthogonal (out, in) matrix has root mean square 1/sqrt(max(out, in)), so the scaled update has 0.2, like
    AdamW's, and AdamW's learning rate and weight decay can be used as they are (Moonlight section 2.2).
    """
    *_, rows, cols = shape
    return ADAMW_RMS * max(rows, cols) ** 0.5


def orthogonalize(tensors: list[Tensor], steps: int = 5, dtype: torch.dtype | None = None) -> list[Tensor]:
    """newton_schulz for many parameters (..., out, in) of any shapes, with few large calls.

    A small model spends its time launching small products, so all matrices of one size are stacked into one batch,
    across layers, experts and orientation: a tall matrix joins the wide ones as its transpose. Each matrix is still
    treated by itself. Returns new tensors with the shapes and dtypes of the given ones.
    """
    results: list[Tensor] = [None] * len(tensors)
    for (rows, cols, _, _), members in _stacks(tensors).items():
        counts = [tensors[i].numel() // (rows * cols) for i in members]  # logical matrices in each parameter
        batch = torch.cat([_wide(tensors[i]).reshape(-1, rows, cols) for i in members])
        batch = newton_schulz(batch, steps, dtype)
        for i, part in zip(members, batch.split(counts), strict=True):
            wide = part.view(_wide(tensors[i]).shape)
            results[i] = wide if wide.shape == tensors[i].shape else wide.mT
    return results


def _wide(X: Tensor) -> Tensor:
    return X.mT if X.shape[-2] > X.shape[-1] else X


def _stacks(tensors: list[Tensor]) -> dict[tuple, list[int]]:
    """Positions of the tensors that go into one batch, keyed by (rows, cols, kind, chunk)."""
    stacks: dict[tuple, list[int]] = defaultdict(list)
    filled: dict[tuple, int] = defaultdict(int)
    for i, X in enumerate(tensors):
        kind = (*sorted(X.shape[-2:]), (X.dtype, X.device))
        stacks[*kind, filled[kind] // STACK_ELEMENTS].append(i)
        filled[kind] += X.numel()
    return stacks


def muon_update_(params: list[Tensor], grads: list[Tensor], momenta: list[Tensor], *, lr: float, weight_decay: float,
                 momentum: float, nesterov: bool, ns_steps: int, ns_dtype: torch.dtype | None) -> None:  # fmt: skip
    """One Muon step in place on `params` and `momenta`; `grads` are only read. All lists hold (..., out, in)."""
    torch._foreach_mul_(momenta, momentum)
    torch._foreach_add_(momenta, grads)
    looked_ahead = torch._foreach_add(grads, momenta, alpha=momentum) if nesterov else momenta
    updates = orthogonalize(looked_ahead, ns_steps, ns_dtype)
    if weight_decay:
        torch._foreach_mul_(params, 1 - lr * weight_decay)
    for param, update in zip(params, updates, strict=True):
        param.add_(update, alpha=-lr * update_scale(param.shape))


class Muon(torch.optim.Optimizer):
    """Muon for hidden weight matrices; embeddings, head and norms belong to AdamW (see MuonClip for both in one).

    params     matrices (out, in) or stacks of them (..., out, in), or parameter groups
    lr         on AdamW's scale (2e-4 for K2, about 1e-2 for our miniature), not the 0.02 of Muon's first version
    ns_dtype   None: bf16 where that is faster, see `matmul_dtype`

    A parameter whose grad is None is skipped: no momentum, no decay. A gradient of zeros is NOT skipped: an expert
    that saw no token still takes a full-size step along its old momentum, since the update ignores the gradient's
    size. The same holds for clipping: clip gradients if you must, never the orthogonalised update.

    Raises ValueError for vectors and for settings out of range.
    """

    def __init__(
        self,
        params: Iterable,
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        ns_dtype: torch.dtype | None = None,
    ):
        defaults = dict(lr=lr, weight_decay=weight_decay, momentum=momentum, nesterov=nesterov, ns_steps=ns_steps)
        super().__init__(params, {**defaults, "ns_dtype": ns_dtype})

    def add_param_group(self, param_group: dict) -> None:
        super().add_param_group(param_group)
        try:
            self._check_group(self.param_groups[-1])
        except ValueError:
            self.param_groups.pop()
            raise

    def _check_group(self, group: dict) -> None:
        for name in ("lr", "weight_decay"):
            if not group[name] >= 0:
                raise ValueError(f"{name} must not be negative, got {group[name]}")
        if not 0 <= group["momentum"] < 1:
            raise ValueError(f"momentum must be in [0, 1), got {group['momentum']}")
        for param in group["params"]:
            if param.ndim < 2:
                raise ValueError(
                    f"Muon orthogonalises matrices, but got a parameter of shape {tuple(param.shape)}: "
                    "give vectors (norms, biases), embeddings and head to AdamW, or use MuonClip(model)"
                )

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """One update of every parameter that has a gradient. `closure` recomputes the loss, which is returned."""
        loss = _evaluate(closure)
        for group in self.param_groups:
            self._update_group(group)
        return loss

    def _update_group(self, group: dict) -> None:
        params = [p for p in group["params"] if p.grad is not None]
        for p in params:
            if not self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        if params:
            settings = {key: group[key] for key in ("lr", "weight_decay", "momentum", "nesterov", "ns_steps", "ns_dtype")}
            momenta = [self.state[p]["momentum_buffer"] for p in params]
            muon_update_(params, [p.grad for p in params], momenta, **settings)


def _evaluate(closure: Callable[[], Tensor] | None) -> Tensor | None:
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()
