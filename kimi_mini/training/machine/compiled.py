"""Layers compiled one by one: a step of a GPU is then few large kernels and not many small ones.

A compiled function may only return things. So a layer keeps its statistics (`statistics.Seen`), hands them out beside
its result, and the model's own are written here, outside. Layers of a kind share one compiled function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial

import torch
from torch import Tensor

from kimi_mini.model import kernels
from kimi_mini.model.kernels.cuda.attention import WHOLE
from kimi_mini.model.kimi import KimiMini, Layer
from kimi_mini.model.statistics import Seen, Tally

VARIANTS = 64  # compiled versions of a layer: dense or routed, training or not, each shape of a micro-batch


def one_layer(
    layer: Layer, x: Tensor, rotation: Tensor, valid: Tensor | None, track: bool
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """x (B, T, h), rotation (1 or B, T, d_r/2, 2) -> x of the next layer, and [largest logits (H,)], [loads (E,)]:
    empty when not `track`, the latter in a dense layer, too."""
    seen = Seen(len(layer.mlp.gate.weight) if layer.routed else None)
    x = Layer.forward(layer, x, rotation, valid, None, seen if track else None)
    return x, seen.max_logits, seen.loads


@cache
def compiled(backend: str) -> Callable:
    """`one_layer` compiled as one graph for each kind of layer and each shape."""
    torch._dynamo.config.recompile_limit = max(VARIANTS, torch._dynamo.config.recompile_limit)
    return torch.compile(one_layer, fullgraph=True, dynamic=False, backend=backend)


def _forward(
    layer: Layer,
    backend: str,
    x: Tensor,
    rotation: Tensor,
    valid: Tensor | None = None,
    cache=None,
    tally: Tally | None = None,
) -> Tensor:
    """In place of Layer.forward: compiled for whole blocks of attention; as ever for other lengths, and decoding."""
    if cache is not None or x.shape[1] % WHOLE:
        return Layer.forward(layer, x, rotation, valid, cache, tally)
    kernels.prepare(x)
    track = tally is not None
    x, maxima, loads = compiled(backend)(layer, x, torch.view_as_real(rotation), valid, track)
    for max_logits in maxima:
        tally.see(max_logits)
    for load in loads:
        tally.load.add_(load)
    return x


@contextmanager
def compiled_layers(model: KimiMini, backend: str = "inductor") -> Iterator[None]:
    """Context: the layers of the model run compiled."""
    for layer in model.model.layers:
        layer.forward = partial(_forward, layer, backend)
    try:
        yield
    finally:
        for layer in model.model.layers:
            del layer.forward
