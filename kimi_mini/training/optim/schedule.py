"""Learning-rate schedules: warm-up, stable, decay (WSD) and cosine, as plain functions of the step.

A schedule here is a number between 0 and 1 that multiplies the base learning rate of EVERY parameter group,
so that the Muon half and the AdamW half of an optimizer always move together. Two ways to use one:

    for step in range(total):
        scale_lr(optimizer, wsd(step, total, warmup=20, decay_fraction=0.65))
        ...
    # or, with PyTorch's own scheduler
    LambdaLR(optimizer, lambda step: wsd(step, total, warmup=20, decay_fraction=0.65))

Sources: Kimi K2 technical report (arXiv 2507.20534) section 2.5; Moonlight (arXiv 2502.16982) section 3.3.
"""

import math

import torch


def wsd(
    step: int,
    total: int,
    warmup: int = 0,
    decay_fraction: float | None = None,
    decay_start: int | None = None,
    floor: float = 0.0,
    shape: str = "linear",
) -> float:
    """Warm-up, stable, decay: the factor for update number `step`, counted from 0.

    warmup            updates that climb linearly; the first has factor 1/warmup, the last of them 1
    decay_start       first update of the decay; or give decay_fraction, the share of `total` that decays
                      (neither: no decay at all)
    floor             factor at `total` and after it
    shape             "linear" or "cosine" way down

    K2's pre-training as published: 500 warm-up steps, constant 2e-4 for 10T tokens, then a cosine to 2e-5
    over 5.5T, with 67M tokens a step (16,384 sequences of 4096), which makes about 149k + 82k steps:

    >>> k2 = dict(total=230_968, warmup=500, decay_start=149_012, floor=0.1, shape="cosine")
    >>> [round(2e-4 * wsd(step, **k2), 7) for step in (0, 499, 100_000, 149_012, 189_990, 230_968)]
    [4e-07, 0.0002, 0.0002, 0.0002, 0.00011, 2e-05]

    Raises ValueError when the phases do not fit into `total`, or for an unknown shape.
    """
    if decay_fraction is not None and decay_start is not None:
        raise ValueError("give decay_fraction or decay_start, not both")
    if decay_fraction is not None:
        decay_start = total - round(decay_fraction * total)
    start = total if decay_start is None else decay_start
    _check(step, total, warmup, start, floor)
    if shape not in ("linear", "cosine"):
        raise ValueError(f"shape must be 'linear' or 'cosine', got {shape!r}")
    if step < warmup:
        return (step + 1) / warmup
    if step < start or start == total:
        return 1.0
    progress = min(1.0, (step - start) / (total - start))
    left = 1 - progress if shape == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
    return floor + (1 - floor) * left


def cosine(step: int, total: int, warmup: int = 0, floor: float = 0.0) -> float:
    """Warm-up, then one half cosine from 1 down to `floor` at `total`: WSD without its stable phase.

    >>> [round(cosine(step, total=100, warmup=0, floor=0.1), 3) for step in (0, 50, 100)]
    [1.0, 0.55, 0.1]
    """
    return wsd(step, total, warmup, decay_start=warmup, floor=floor, shape="cosine")


def scale_lr(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set each group's "lr" to its own base rate times `factor`, for all groups.

    The base rate is kept under PyTorch's name for it, "initial_lr", hence also in the optimizer's state_dict:
    a resumed run needs nothing but the step number.
    """
    for group in optimizer.param_groups:
        group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor


def _check(step: int, total: int, warmup: int, start: int, floor: float) -> None:
    if step < 0:
        raise ValueError(f"step counts from 0, got {step}")
    if not 0 <= warmup <= start <= total:
        raise ValueError(
            f"the phases must be in order: 0 <= warmup ({warmup}) <= decay start ({start}) <= total ({total})"
        )
    if not 0.0 <= floor <= 1.0:
        raise ValueError(f"floor is a share of the base learning rate, between 0 and 1, got {floor}")
