"""MXFP4, in which Kimi K3 has its experts: 32 weights to a power of two, each one of sixteen floating-point numbers.

A group of 32 columns has a scale 2^e (E8M0: a byte that holds e + 127), and each weight becomes a number of E2M1: a
sign, two bits of exponent, one of mantissa.

    e = floor(log2 max |w|) - 2        w ~ 2^e v,   v in 0, 0.5, 1, 1.5, 2, 3, 4, 6 or minus that

4.25 bits a weight, INT4 has 4.5. Its numbers lie close where most weights are; but the largest weight of a group is
anywhere from 4 to 8 times 2^e, and what is above 6 becomes 6.

To train with: `int4.aware(model, mxfp4.rounded)`. Nothing is packed on disk.

Source: OCP Microscaling Formats 1.0, sections 5.3.3 (E2M1), 6.3 (scale); the Kimi K3 report (group, where it is used).
"""

from __future__ import annotations

import torch
from torch import Tensor

from kimi_mini.model.compact.int4 import grouped, straight_through

LARGEST = 6.0  # of E2M1
EXPONENT = 0x7F800000  # its bits in an fp32
LEAST = 2.0**-126  # fp32 has less only with fewer digits


def power_below(x: Tensor) -> Tensor:
    """2^floor(log2 x) of x > 0 (fp32)."""
    return (x.view(torch.int32) & EXPONENT).view(torch.float32)


def scales(weight: Tensor) -> Tensor:
    """weight (..., out, in) -> scales (..., out, G) fp32, powers of two."""
    return (power_below(grouped(weight.float()).abs().amax(-1)) / 4).clamp(min=LEAST)


def nearest(x: Tensor) -> Tensor:
    """The numbers of E2M1 nearest to x (fp32); between two of them the one with mantissa 0."""
    step = power_below(x.abs().clamp(min=1)) / 2  # 0.5 below 2, 1 below 4, 2 from there on
    return (torch.round(x / step) * step).clamp(-LARGEST, LARGEST)


def rounded(weight: Tensor) -> Tensor:
    """The weights that MXFP4 keeps of these; the gradient passes through unchanged."""
    exact = weight.detach().float()
    scale = scales(exact)[..., None]
    kept = (nearest(grouped(exact) / scale) * scale).flatten(-2)[..., : weight.shape[-1]]
    return straight_through(weight, kept.to(weight.dtype))
