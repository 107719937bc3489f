"""Where a training step's time goes, kernel by kernel, and how near each comes to the machine's own matmul rate.

    python -m kimi_mini.experiments.deployment.profile          data/results/profile.json, figures/profile.png

Every call of a kernel is timed forward and backward, inside a whole step of MuonClip: what is not a kernel's is the
rest (embedding, router, rotation, residual sums, loss). Nano and the bench's middle size, one thread, 4,096 tokens a
step in micro-batches of 2,048; seconds are the processor's, so that a busy machine counts less. Nothing is claimed: it
says what to make faster next.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager

import torch
from matplotlib.figure import Figure
from torch import Tensor

from kimi_mini.base.command import in_one_line
from kimi_mini.base.evidence import Log
from kimi_mini.course.figures import style
from kimi_mini.experiments.deployment.compared import MID, NANO, STEP_TOKENS, batch, build
from kimi_mini.experiments.harness import arguments, finish
from kimi_mini.model import KimiConfig, kernels
from kimi_mini.model.kernels import engine
from kimi_mini.training.batch import Batch, text_batch, token_losses
from kimi_mini.training.machine.placement import (
    CPU_MICRO_TOKENS,
    DTYPES,
    Placement,
    keep_freed_memory,
    matmul_rate,
)
from kimi_mini.training.optim.muonclip import MuonClip

ROUNDS = 7
SIZES = (("nano", NANO, 256), ("mid", MID, 512))


class _Timed(torch.autograd.Function):
    """A kernel whose calls and backward passes are added up in `spent` under its name."""

    @staticmethod
    def forward(ctx, kernel, name, spent, *given):
        leaves = [x.detach().requires_grad_(x.requires_grad) if isinstance(x, Tensor) else x for x in given]
        began = time.process_time()
        with torch.enable_grad():
            results = kernel(*leaves)
        spent[name] += time.process_time() - began
        out, *more = results if isinstance(results, tuple) else (results,)
        ctx.of = name, spent, leaves, out
        more = [x if x is None else x.detach() for x in more]
        ctx.mark_non_differentiable(*(x for x in more if x is not None))
        return (out.detach(), *more) if more else out.detach()

    @staticmethod
    def backward(ctx, grad, *_):
        name, spent, leaves, out = ctx.of
        learned = [i for i, x in enumerate(leaves) if isinstance(x, Tensor) and x.requires_grad]
        began = time.process_time()
        found = torch.autograd.grad(out, [leaves[i] for i in learned], grad)
        spent[name] += time.process_time() - began
        ctx.of = None
        grads = [None] * len(leaves)
        for i, value in zip(learned, found):
            grads[i] = value
        return None, None, None, *grads


def flops(name: str, given: tuple) -> float:
    """Multiplications and additions of one call, forward and backward, that no version of it could leave out."""
    if name == "linear":
        x, weight = given
        return 6 * x.numel() * weight.shape[0]
    if name == "experts":
        _, indices, _, gate_proj, *_ = given
        return 6 * indices.numel() * 3 * gate_proj[0].numel()
    if name == "attention":
        (b, h, t, d_qk), d_v = given[0].shape, given[2].shape[-1]
        return 6 * b * h * t * (t + 1) / 2 * (d_qk + d_v)
    return 0.0


@contextmanager
def timed(spent: Counter, work: Counter):
    """Context: seconds of each kernel are added to `spent`, its FLOPs to `work`."""

    def watch(name: str, kernel: Callable) -> Callable:
        def call(*given):
            work[name] += flops(name, given)
            return _Timed.apply(kernel, name, spent, *given)

        return call

    with kernels.using(**{name: watch(name, versions.cpu) for name, versions in kernels.TABLE.items()}):
        yield


def profile(config: KimiConfig, length: int, tokens: int, dtype: torch.dtype) -> dict[str, dict[str, float]]:
    """Seconds and FLOPs by kernel, optimizer and rest of one step: the second of two, the first warms up."""
    model = build(config).train()
    optimizer, place = MuonClip(model, lr=1e-4), Placement(dtype=dtype, micro_tokens=CPU_MICRO_TOKENS)
    data: Batch = text_batch(batch(config, tokens, length).numpy())
    rounds = []
    for _ in range(ROUNDS + 1):
        spent, work = Counter(), Counter()
        began = time.process_time()
        with timed(spent, work):
            for part in place.cut([data]):
                place.run(token_losses, model, part).mean().backward()
        passed = time.process_time()
        optimizer.step()
        ended = time.process_time()
        rest = passed - began - sum(spent.values())
        rounds.append({**spent, "optimizer": ended - passed, "rest": rest})
        model.zero_grad(set_to_none=True)
        model.statistics.forget()
    seconds = {name: statistics.median(r[name] for r in rounds[1:]) for name in rounds[0]}
    return {name: {"seconds": value, "flops": work[name]} for name, value in seconds.items()}


def main() -> int:
    """Measure, write the log, draw."""
    args = arguments(__doc__.splitlines()[0])
    torch.set_num_threads(1)
    keep_freed_memory()
    with_bf16 = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    log = Log("profile", seeds=[], folder=args.folder, engine=engine.chosen())
    for label in DTYPES if with_bf16 else ["fp32"]:
        dtype = DTYPES[label]
        most = max(matmul_rate(dtype=dtype, rounds=20) for _ in range(3))
        for size, config, length in SIZES:
            parts = profile(config, length, STEP_TOKENS, dtype)
            whole = sum(part["seconds"] for part in parts.values())
            for name, part in parts.items():
                counted = bool(part["flops"])  # the others' are not what they spend their time on
                rate = part["flops"] / part["seconds"] if counted else None
                share, ms = part["seconds"] / whole, 1e3 * part["seconds"]
                log.row(
                    model=size,
                    dtype=label,
                    part=name,
                    ms=ms,
                    share=share,
                    gflops=rate and rate / 1e9,
                    of_matmul_rate=rate and rate / most,
                    matmul_gflops=most / 1e9,
                )
                speed = f"{rate / 1e9:>7.0f} GFLOP/s{rate / most:>6.0%} of the matmul rate" if counted else ""
                print(f"{size:<5}{label:<6}{name:<10}{ms:>9.1f} ms{share:>6.0%}{speed}", flush=True)
    finish(log, profile=draw)
    return 0


def draw(log: dict) -> Figure:
    """One bar for each size and number format: the shares of the step."""
    parts: dict[str, dict[str, float]] = {}
    for row in log["rows"]:
        parts.setdefault(f"{row['model']}, {row['dtype']}", {})[row["part"]] = row["ms"]
    order = ("attention", "experts", "linear", "head", "norm", "rest", "optimizer")
    ordered = {
        whole: {name: values[name] for name in order if name in values} for whole, values in parts.items()
    }
    title = f"Where a training step's time goes ({log['versions']['processor']}, one thread)"
    return style.shares(ordered, title, of="the step's time")


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
