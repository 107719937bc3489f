"""Where a model is trained: device, number format, and how many tokens go through it at once.

All three are chosen by themselves unless one says otherwise. The device is a CUDA GPU if there is one. The format is
bf16 on a GPU that multiplies it in hardware, and fp32 elsewhere. The micro-batch starts as large as it may, and a
device that runs out of memory is answered by half of it: gradients add up to the same step however it is cut.

    place = Placement.choose()                # or Placement.choose("cuda:1", "bf16", micro_tokens=8192)
    train(model.to(place.device), ..., place=place)

bf16 here means: the weights that the optimizer keeps stay fp32, every forward pass works on rounded copies of the
matrices, made once a step, and the gradients are added up in fp32. Norms, and the router that must tell close scores
apart, stay fp32.
"""

from __future__ import annotations

import ctypes
import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import psutil
import torch
from torch import Tensor, nn
from torch.utils._triton import has_triton

from kimi_mini.base.errors import KimiError
from kimi_mini.model.config import KimiConfig
from kimi_mini.model.layers import Linear
from kimi_mini.training.machine.compiled import compiled_layers

log = logging.getLogger(__name__)

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
CPU_MICRO_TOKENS = 2048  # the fastest on a CPU: what is larger falls out of its caches


@dataclass
class Placement:
    """A device, a dtype for the forward pass, the most padded tokens of a micro-batch (None: no limit), and whether
    layers are compiled, and by which backend of torch.compile."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32
    micro_tokens: int | None = None
    compiled: bool = False
    backend: str = "inductor"
    _copies: dict[str, Tensor] | None = field(default=None, init=False, repr=False, compare=False)

    @classmethod
    def choose(cls, device: str = "auto", dtype: str = "auto", micro_tokens: int | None = None) -> Placement:
        """The best there is on this machine, or what is asked for; on a CPU "auto" is fp32, whatever the processor has
        for bf16 (`probe.bf16_pays` reports it). KimiError for what it does not have."""
        where = choose_device(device)
        if dtype not in ("auto", *DTYPES):
            raise KimiError(f"unknown dtype {dtype!r}; choose one of: auto, {', '.join(DTYPES)}")
        native = where.type == "cuda" and torch.cuda.get_device_capability(where) >= (8, 0)
        what = DTYPES["bf16" if native else "fp32"] if dtype == "auto" else DTYPES[dtype]
        if micro_tokens is None and where.type == "cpu":
            micro_tokens = CPU_MICRO_TOKENS
        compiled = native and what == torch.bfloat16 and has_triton()
        return cls(where, what, micro_tokens, compiled)

    def __str__(self) -> str:
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"
        size = "whole" if self.micro_tokens is None else f"{self.micro_tokens:,} tokens"
        how = ", layers compiled" if self.compiled else ""
        return f"{name}, {str(self.dtype).removeprefix('torch.')}, micro-batches: {size}{how}"

    # ---- numbers ---------------------------------------------------------------------------------------

    @contextmanager
    def step(self, model: nn.Module) -> Iterator[None]:
        """Context of a step: `run` finds the rounded copies ready, and does not make them for each micro-batch."""
        self._copies = self._rounded(model)
        try:
            yield
        finally:
            self._copies = None

    def run(self, work: Callable[..., Tensor], model: nn.Module, *arguments: Any) -> Tensor:
        """work(model, *arguments) with the model's matrices in our dtype; gradients reach the fp32 weights."""
        with compiled_layers(model, self.backend) if self.compiled else nullcontext():
            if self.dtype == torch.float32:
                return work(model, *arguments)
            copies = self._rounded(model) if self._copies is None else self._copies
            return torch.func.functional_call(_Work(model, work), copies, arguments)

    def _rounded(self, model: nn.Module) -> dict[str, Tensor] | None:
        if self.dtype == torch.float32:
            return None
        return {f"model.{name}": rounded(name, param, self.dtype) for name, param in model.named_parameters()}

    # ---- memory ----------------------------------------------------------------------------------------

    def cut(self, batches: Sequence) -> list:
        """The same rows in micro-batches of at most `micro_tokens` padded tokens; those that fit are left as they are.

        A batch is anything with `ids` (B, T) and `rows(start, stop)`.
        """
        if self.micro_tokens is None:
            return list(batches)
        parts = []
        for batch in batches:
            rows, length = batch.ids.shape
            most = max(1, self.micro_tokens // length)
            parts += [batch] if rows <= most else [batch.rows(i, i + most) for i in range(0, rows, most)]
        return parts

    def in_parts(
        self, work: Callable[[list], Any], batches: Sequence, forget: Callable[[], Any] | None = None
    ) -> Any:
        """work(micro-batches); when the device is full, `forget()` what was begun and again with smaller ones."""
        while True:
            try:
                return work(self.cut(batches))
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            if forget is not None:
                forget()
            self.shrink(batches)

    def shrink(self, batches: Sequence) -> None:
        """The device is full: from now on half as many tokens at once. KimiError when a single row is too much."""
        largest = max(self.cut(batches), key=lambda batch: batch.ids.numel()).ids
        if len(largest) == 1:
            raise KimiError(
                f"out of memory with a single row of {largest.numel():,} tokens: take a shorter window, "
                "a smaller preset or a larger device"
            )
        self.micro_tokens = largest.shape[1] * (len(largest) // 2)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        log.warning(
            "out of memory at %s tokens at once: going on with micro-batches of %s (the step stays the same)",
            f"{largest.numel():,}",
            f"{self.micro_tokens:,}",
        )


class _Work(nn.Module):
    """A function of a model as a module, as functional_call wants it."""

    def __init__(self, model: nn.Module, work: Callable[..., Tensor]):
        super().__init__()
        self.model, self.work = model, work

    def forward(self, *arguments: Any) -> Tensor:
        return self.work(self.model, *arguments)


def rounded(name: str, param: Tensor, dtype: torch.dtype) -> Tensor:
    """A matrix in `dtype` whose gradients are added to the matrix's own as they come; vectors and the router's gate as
    they are."""
    if param.ndim < 2 or name.endswith("mlp.gate.weight"):
        return param
    copy = param.detach().to(dtype)
    if param.requires_grad and torch.is_grad_enabled():
        copy.requires_grad_().register_post_accumulate_grad_hook(partial(_hand_on, param))
    return copy


def _hand_on(param: Tensor, copy: Tensor) -> None:
    """The gradient of a copy, to the matrix that it is a copy of: sums over micro-batches are fp32."""
    grad, copy.grad = copy.grad, None
    if param.grad is None:
        param.grad = grad.to(param.dtype)
    else:
        param.grad += grad


def choose_device(name: str = "auto") -> torch.device:
    """A device by name; "auto" is the first GPU, or under torchrun this rank's, or the CPU. KimiError without it."""
    if name == "auto":
        name = f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device).item()  # "meta" has shapes and no numbers
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise KimiError(
            f"no device {name!r} here ({str(error).splitlines()[0][:80]}); try --device cpu"
        ) from None
    return device


def is_out_of_memory(error: Exception) -> bool:
    """Whether a GPU, the CPU's allocator, or Python and numpy were refused memory."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def memory_of(device: torch.device) -> int:
    """All bytes of a GPU; elsewhere those of the machine, which MPS shares."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return psutil.virtual_memory().total


def peak_memory(device: torch.device | str = "cpu") -> int:
    """Most bytes in use so far: of tensors on a GPU, of this whole process on a CPU (0 where that is not told)."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


# ---- how well the machine is used --------------------------------------------------------------------------


@torch.no_grad()
def matmul_rate(
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    size: int | None = None,
    rounds: int = 7,
) -> float:
    """FLOP/s of square products (size, size) x (size, size), on the engine that the model uses; best of `rounds`.

    A GPU multiplies 8192 rows, several products a measurement: with small ones most of the time goes into launching
    kernels, and the rate would come out too low. A CPU multiplies 1024 rows."""
    on_gpu = torch.device(device).type == "cuda"
    size, repeats = size or (8192 if on_gpu else 1024), 4 if on_gpu else 1
    x = torch.randn(size, size, device=device, dtype=dtype)
    layer = Linear(size, size).to(x)
    times = []
    for _ in range(rounds + 1):  # the first is the warm-up
        began = time.perf_counter()
        for _ in range(repeats):
            layer(x)
        if on_gpu:
            torch.cuda.synchronize(x.device)
        times.append(time.perf_counter() - began)
    return 2 * size**3 * repeats / min(times[1:])


def training_flops(config: KimiConfig, window: int) -> float:
    """FLOPs to train on one token of a window: forward, and twice that backward; on average half the keys are seen."""
    return 3 * config.flops_per_token((window + 1) / 2)


def keep_freed_memory(threshold: int = 1 << 30) -> None:
    """Ask glibc to keep freed blocks up to `threshold` bytes instead of handing them back to the system.

    Activations of a step are freed and asked for again every time; without this each costs a page fault.
    Measured on a step of the nano: 4% faster with one thread, 13% with two. Does nothing on other systems.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(-1, threshold)  # M_TRIM_THRESHOLD
        mallopt(-3, threshold)  # M_MMAP_THRESHOLD
