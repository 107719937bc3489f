"""Muon: momentum, orthogonalised. An update is the momentum matrix with every singular value brought near 1.

An Adam step is dominated by the few directions in which the gradient is large. Muon replaces the momentum
M = U S V^T by (roughly) U V^T: every direction that the gradient has seen moves equally far. The singular
value decomposition is never computed; five Newton-Schulz iterations, matrix products only, come close enough.

    M <- mu M + G                                      momentum (a plain sum, not an average)
    X <- G + mu M                                      Nesterov's look-ahead
    O <- newton_schulz(X) * 0.2 sqrt(max(out, in))     as large as a usual AdamW update
    W <- W - lr (O + weight_decay W)                   decoupled decay, with the plain lr

What is easy to get wrong, and is tested: each LOGICAL matrix is orthogonalised and scaled by itself. A
parameter of shape (E, out, in), the experts of one layer, is E matrices; gate_proj and up_proj are two
parameters.

Sources: Moonlight, "Muon is Scalable for LLM Training" (arXiv 2502.16982) section 2; K. Jordan's Muon post;
Kimi K2 technical report (arXiv 2507.20534) Algorithm 1.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import cache

import torch
from torch import Tensor

from kimi_mini.training.machine.distributed import each_its_share

# The quintic a x + b x^3 + c x^5 that each round applies to every singular value. It is steep at 0 and does
# not converge: after five rounds the values lie scattered over 0.7 to 1.2, which trains as well as exactly 1.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ADAMW_RMS = 0.2  # the root mean square of a usual AdamW update (Moonlight section 2.2)
SMALLEST_BF16_SIDE = 32  # narrower matrices are not faster in bf16
WIDE_ENOUGH = 2  # columns a row from which two rounds at once on the Gram matrix are faster than one and one
STACK_ELEMENTS = {
    "cpu": 2**20,
    "cuda": 2**24,
}  # numbers in a batch of matrices: as many as a core's cache holds


def newton_schulz(X: Tensor, steps: int = 5, dtype: torch.dtype | None = None) -> Tensor:
    """Push every singular value of each matrix towards 1.

    X        (..., rows, cols): all leading dimensions are a batch, each matrix is treated by itself
    dtype    what to compute in; None asks `matmul_dtype`
    returns  (..., rows, cols) in the dtype of X; an all-zero matrix stays zero

    Raises ValueError for a tensor with fewer than two dimensions.
    """
    if X.ndim < 2:
        raise ValueError(f"newton_schulz needs matrices (..., rows, cols), got shape {tuple(X.shape)}")
    return orthogonalize([X], steps, dtype)[0]


def _iterate(X: Tensor, steps: int) -> Tensor:
    """The rounds themselves, on matrices (n, rows, cols) with rows <= cols: the Gram matrix A = X X^T is the small one.

    A round takes X to P X with P = a + b A + c A^2, and hence A to P A P. So two rounds may run on the Gram matrix
    alone, with one product with X after them: less work where X is wide enough. Not more than two, for in bf16 an error
    in A grows with every round on it; then the Gram matrix of the new X is taken.
    """
    a, b, c = COEFFICIENTS
    X = X / (X.norm(dim=(-2, -1), keepdim=True) + 1e-7)  # Frobenius >= spectral norm: all values at most 1
    wide = X.shape[2] >= WIDE_ENOUGH * X.shape[1]
    while steps > 0:
        gram = X @ X.mT  # (n, rows, rows)
        if wide and steps > 1:
            first = _quintic(gram)
            X = _quintic(first @ gram @ first) @ first @ X
            steps -= 2
        else:
            poly = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)  # b A + c A^2
            X = torch.baddbmm(X, poly, X, beta=a)  # a X + (b A + c A^2) X
            steps -= 1
    return X


def _quintic(gram: Tensor) -> Tensor:
    """P = a + b A + c A^2 for each Gram matrix A (n, rows, rows)."""
    a, b, c = COEFFICIENTS
    poly = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
    poly.diagonal(dim1=-2, dim2=-1).add_(a)
    return poly


def matmul_dtype(X: Tensor) -> torch.dtype:
    """The dtype in which Newton-Schulz runs fastest for X (..., rows, cols).

    bf16 when the processor multiplies bf16 in hardware (a CUDA GPU of Ampere or later, a CPU with AVX512-BF16
    or AMX) and the smaller side is at least 32; otherwise fp32, because emulated bf16 is slower. fp64 stays.
    Measured on one core of an AMD EPYC with AVX512-BF16: 102 matrices of 60 x 96, the miniature's experts,
    take 3.7 ms in bf16 and 16 ms in fp32, but one of 16 x 96 takes 0.21 and 0.05 ms. The results differ by
    about one percent, two to four for wide matrices, far less than the scatter of the singular values.
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


def update_scale(shape: tuple[int, ...]) -> float:
    """0.2 sqrt(max(out, in)) for a parameter (..., out, in): the matrix's own sizes, never a leading one.

    An orthogonal (out, in) matrix has root mean square 1/sqrt(max(out, in)), so the scaled update has 0.2,
    like AdamW's, and AdamW's learning rate and weight decay can be used as they are (Moonlight section 2.2).
    """
    return ADAMW_RMS * max(shape[-2:]) ** 0.5


def orthogonalize(tensors: list[Tensor], steps: int = 5, dtype: torch.dtype | None = None) -> list[Tensor]:
    """newton_schulz for many parameters (..., out, in) of any shapes, in calls of one size.

    A small model would spend its time launching small products, a larger one waiting for memory. So all matrices of
    one size are stacked into batches that stay in the cache, across layers, experts and orientation: a tall matrix
    joins the wide ones as its transpose. Each is still treated by itself. Returns new tensors, with the shapes and
    dtypes of the given ones.
    """
    results = [torch.empty_like(X, memory_format=torch.contiguous_format) for X in tensors]
    for stack in _stacks(tensors, results):
        given, wanted = zip(*stack)
        X = torch.cat(given) if len(given) > 1 else given[0]
        done = _iterate(X.to(dtype or matmul_dtype(X)), steps)
        for result, part in zip(wanted, done.split([len(part) for part in given]), strict=True):
            result.copy_(part)
    return results


def _wide(X: Tensor) -> Tensor:
    """(..., out, in) as (n, rows, cols), rows <= cols."""
    X = X.reshape(-1, *X.shape[-2:])
    return X.mT if X.shape[-2] > X.shape[-1] else X


def _stacks(tensors: list[Tensor], results: list[Tensor]) -> list[list[tuple[Tensor, Tensor]]]:
    """Batches of pairs (matrices, where their results belong), both (n, rows, cols) views: of one size, dtype and
    device, about STACK_ELEMENTS numbers a batch. A larger parameter is cut between its matrices."""
    stacks: dict[tuple, list] = defaultdict(list)
    filled: dict[tuple, int] = defaultdict(int)
    for X, result in zip(tensors, results, strict=True):
        X, result = _wide(X), _wide(result)
        most = max(1, STACK_ELEMENTS.get(X.device.type, 2**24) // max(1, X.shape[1] * X.shape[2]))
        for given, wanted in zip(X.split(most), result.split(most), strict=True):
            kind = (*X.shape[1:], X.dtype, X.device)
            stacks[kind, filled[kind] // most].append((given, wanted))
            filled[kind] += len(given)
    return list(stacks.values())


class Muon(torch.optim.Optimizer):
    """Muon for hidden weight matrices; embeddings, head and norms belong to AdamW (MuonClip does both).

    params     matrices (out, in) or stacks of them (..., out, in), or parameter groups
    lr         on AdamW's scale (2e-4 for K2, about 1e-2 for a miniature), not the 0.02 of the first Muon
    ns_dtype   what Newton-Schulz computes in; None: bf16 where that is faster, see `matmul_dtype`

    A parameter whose grad is None is skipped: no momentum, no decay. A gradient of zeros is NOT skipped: an
    expert that saw no token still takes a full-size step along its old momentum, because an update does not
    depend on the size of the gradient. For the same reason clip raw gradients if you must, never the update.
    Several ranks, whose gradients are summed already, share the orthogonalising (`distributed`).

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
        settings = dict(momentum=momentum, nesterov=nesterov, ns_steps=ns_steps, ns_dtype=ns_dtype)
        super().__init__(params, dict(lr=lr, weight_decay=weight_decay, **settings))

    def add_param_group(self, param_group: dict) -> None:
        super().add_param_group(param_group)
        try:
            self._check_group(self.param_groups[-1])
        except ValueError:
            self.param_groups.pop()
            raise

    def _check_group(self, group: dict) -> None:
        check_rates(group)
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
        """Update every parameter that has a gradient. `closure` recomputes the loss, which is returned."""
        loss = loss_of(closure)
        for group in self.param_groups:
            self._update_with_muon(group)
        return loss

    def _update_with_muon(self, group: dict) -> None:
        params = [p for p in group["params"] if p.grad is not None]
        if not params:
            return
        for p in params:
            if not self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        grads, mu, lr = [p.grad for p in params], group["momentum"], group["lr"]
        momenta = [self.state[p]["momentum_buffer"] for p in params]

        torch._foreach_mul_(momenta, mu)
        torch._foreach_add_(momenta, grads)
        ahead = torch._foreach_add(grads, momenta, alpha=mu) if group["nesterov"] else momenta
        updates = each_its_share(ahead, lambda own: orthogonalize(own, group["ns_steps"], group["ns_dtype"]))
        torch._foreach_mul_(params, 1 - lr * group["weight_decay"])
        for p, update in zip(params, updates, strict=True):
            p.add_(update, alpha=-lr * update_scale(p.shape))


def check_rates(group: dict) -> None:
    """Raise ValueError for a learning rate or weight decay that is negative or not a number."""
    for name in ("lr", "weight_decay"):
        if not group[name] >= 0:
            raise ValueError(f"{name} must not be negative, got {group[name]}")


def loss_of(closure: Callable[[], Tensor] | None) -> Tensor | None:
    """The loss that an optimizer's closure returns, computed with gradients switched on; None without one."""
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()
