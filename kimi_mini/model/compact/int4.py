"""INT4 as in Kimi K2 Thinking: the weights of routed experts, 32 of them to a scale; everything else as it was.

A row of a matrix is cut into groups of 32 columns. Each has a scale s, and each weight becomes a whole number q:

    s = max |w| / 7.5        q = clamp(round(w / s), -8, 7)        w ~ s q

That is compressed-tensors' rule; whether K2 divides by 7.5 or by 7 is not published. Symmetric: no zero point. 4 bits
a weight and a scale in bf16 are 4.5 bits, 0.28 of bf16's.

Quantisation-aware training computes with s q and learns w: rounding has no slope, so the gradient passes it by as if it
were not there (a straight-through estimator). Rounding a model that never saw it is the cheaper, coarser way.

On disk it is the packed layout of compressed-tensors ("pack-quantized"): eight weights in an int32, the first in the
lowest bits, each 8 above its value; weight_packed, weight_scale and weight_shape in the place of weight.

Source: K2 Thinking's model card and config.json (format, group, what is left out); compressed-tensors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kimi_mini.base.errors import BadFile
from kimi_mini.model.moe import Experts

GROUP, LOWEST, HIGHEST = 32, -8, 7
TO_WORD = 8  # weights in an int32
SHIFTS = tuple(range(0, 32, 4))


def grouped(weight: Tensor) -> Tensor:
    """weight (..., out, in) -> (..., out, G, 32); a last group that is shorter is filled up with zeros."""
    columns = weight.shape[-1]
    return F.pad(weight, (0, -columns % GROUP)).unflatten(-1, (-1, GROUP))


def quantise(weight: Tensor, bits: int = 4) -> tuple[Tensor, Tensor]:
    """weight (..., out, in) -> codes (..., out, in) int8 from -8 to 7, and scales (..., out, G) bf16. Of another number
    of bits, 2 to 8: codes from -2^(bits - 1) on, and no layout on disk."""
    groups, lowest, highest = grouped(weight), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    scale = (groups.abs().amax(-1) / ((highest - lowest) / 2)).to(torch.bfloat16)  # (..., out, G)
    divisor = torch.where(scale > 0, scale, 1).to(weight.dtype)  # 1 for a group of zeros
    codes = (groups / divisor[..., None]).round().clamp(lowest, highest)
    return codes.flatten(-2)[..., : weight.shape[-1]].to(torch.int8), scale


def dequantise(codes: Tensor, scale: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """codes (..., out, in), scales (..., out, G) -> weights (..., out, in)."""
    each = scale.to(dtype).repeat_interleave(GROUP, -1)[..., : codes.shape[-1]]
    return codes.to(dtype) * each


def straight_through(weight: Tensor, kept: Tensor) -> Tensor:
    """`kept` in value; the gradient goes to `weight` as if it was that."""
    return weight + (kept - weight).detach()


def rounded(weight: Tensor, bits: int = 4) -> Tensor:
    """The weights that INT4 keeps of these; the gradient passes through unchanged."""
    return straight_through(weight, dequantise(*quantise(weight.detach(), bits), weight.dtype))


# ---- a model -----------------------------------------------------------------------------------------------


def experts_of(model: nn.Module) -> list[Experts]:
    """The routed experts of all layers: all that is quantised."""
    return [module for module in model.modules() if isinstance(module, Experts)]


Format = Callable[[Tensor], Tensor]  # weights -> what it keeps of them, such as `rounded` and `mxfp4.rounded`


@contextmanager
def aware(model: nn.Module, kept: Format = rounded) -> Iterator[None]:
    """Context: the model computes with rounded experts, in decoding too, and learns those that are not."""
    for experts in experts_of(model):
        experts.reads = kept
    try:
        yield
    finally:
        for experts in experts_of(model):
            del experts.reads


@torch.no_grad()
def round_experts(model: nn.Module, kept: Format = rounded) -> None:
    """Put what a format keeps of them in the place of a model's experts."""
    for experts in experts_of(model):
        for weight in experts.parameters():
            weight.copy_(kept(weight))


# ---- on disk -----------------------------------------------------------------------------------------------

EXPERT = re.compile(r".*\.mlp\.experts\.[0-9]{1,9}\.(?:gate_proj|up_proj|down_proj)")
PACKED, SCALE, SHAPE = ".weight_packed", ".weight_scale", ".weight_shape"
CONFIG = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "quantization_status": "compressed",
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {
                "num_bits": 4,
                "type": "int",
                "symmetric": True,
                "strategy": "group",
                "group_size": GROUP,
            },
            "input_activations": None,
            "output_activations": None,
        }
    },
    "ignore": [
        "lm_head",
        "re:.*self_attn.*",
        "re:.*shared_experts.*",
        "re:.*mlp\\.(gate|up|gate_up|down)_proj.*",
    ],
}  # config.json's "quantization_config": what K2 Thinking leaves out is attention, shared experts, dense layers, head


def is_packed(key: str, kind: str) -> bool:
    """Whether a tensor of this name and type, as safetensors spells it, is a part of a packed expert."""
    for part, kinds in ((PACKED, ("I32",)), (SCALE, ("BF16", "F16", "F32")), (SHAPE, ("I64", "I32"))):
        if key.endswith(part):
            return kind in kinds and EXPERT.fullmatch(key.removesuffix(part)) is not None
    return False


def weights_in(key: str) -> int:
    """How many weights an element of this tensor stands for."""
    return TO_WORD if key.endswith(PACKED) else 0 if key.endswith((SCALE, SHAPE)) else 1


def to_packed(disk: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights by their names on disk -> the same with every routed expert's packed."""
    packed: dict[str, Tensor] = {}
    for key, value in disk.items():
        name = key.removesuffix(".weight")
        if not EXPERT.fullmatch(name):
            packed[key] = value
            continue
        codes, scale = quantise(value)
        packed |= {name + PACKED: pack(codes), name + SCALE: scale, name + SHAPE: torch.tensor(value.shape)}
    return packed


def from_packed(disk: dict[str, Tensor], dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """The other way round. BadFile for packed weights without scale or shape, or of another size than these say, and
    for a weight that is there twice."""
    whole = {key: value for key, value in disk.items() if not key.endswith((PACKED, SCALE, SHAPE))}
    for key, words in disk.items():
        if not key.endswith(PACKED):
            continue
        name = key.removesuffix(PACKED)
        scale, shape = disk.get(name + SCALE), disk.get(name + SHAPE)
        if scale is None or shape is None:
            raise BadFile(f"{key} has no {(SCALE if scale is None else SHAPE)[1:]} beside it")
        if shape.shape != (2,):
            raise BadFile(
                f"{key} is a matrix, and its weight_shape holds {shape.numel()} numbers, not two in a row"
            )
        if f"{name}.weight" in whole:
            raise BadFile(f"{name}.weight is there twice: as it is, and as weight_packed")
        rows, columns = shape.tolist()
        expected = (rows, -(-columns // TO_WORD)), (rows, -(-columns // GROUP))
        if (tuple(words.shape), tuple(scale.shape)) != expected:
            raise BadFile(f"{key} and its scales are not those of a matrix of {rows} x {columns}")
        whole[f"{name}.weight"] = dequantise(unpack(words, columns), scale, dtype)
    return whole


def pack(codes: Tensor) -> Tensor:
    """codes (..., out, in) int8 -> (..., out, ceil(in / 8)) int32; what is missing in the last one is 0 there."""
    filled = F.pad(codes.to(torch.int64) - LOWEST, (0, -codes.shape[-1] % TO_WORD))
    words = (filled.unflatten(-1, (-1, TO_WORD)) << torch.tensor(SHIFTS)).sum(
        -1
    )  # (..., out, W), 32 bits each
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)


def unpack(words: Tensor, columns: int) -> Tensor:
    """words (..., out, W) int32 -> codes (..., out, columns) int8."""
    nibbles = (words[..., None].to(torch.int64) >> torch.tensor(SHIFTS)) & 15  # (..., out, W, 8)
    return (nibbles.flatten(-2)[..., :columns] + LOWEST).to(torch.int8)
