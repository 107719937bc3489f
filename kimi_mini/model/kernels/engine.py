"""Which library multiplies fp32 matrices on this processor: MKL, PyTorch's own choice, or oneDNN, which it carries too.

On an AMD EPYC oneDNN was a fifth faster, on an Intel Xeon it was slower by as much. So with
KIMI_MINI_ENGINE=probe both are timed once a process, on the shapes of the nano and for a fraction of a second, before
the first large product. The two differ in the last bits of their sums: the choice is handed down to processes that this
one starts, ranks take the first one's, and a saved state names it for whoever goes on from there.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from kimi_mini.base.errors import KimiError

ENGINES = ("mkl", "onednn")
DEFAULT = "mkl"  # what is always there
VARIABLE = "KIMI_MINI_ENGINE"  # environment variable: an engine, or "probe"
AVAILABLE = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
# unless the variable says otherwise; the shipped weights were trained by this rule
USUAL = "onednn" if AVAILABLE and torch.backends.cpu.get_cpu_capability() == "AVX512" else DEFAULT
MARGIN = (
    1.05  # times as fast as the default, or the default stays: a probe is short and machines are restless
)
SHAPES = ((96, 144), (96, 240), (240, 96), (96, 60), (60, 96), (96, 1024))  # (in, out) of the nano's products
ROWS = 2048  # tokens of a micro-batch
_chosen: str | None = None


def chosen() -> str:
    """The engine of this process: as `choose` or the environment said; a probe, if it said so, is made once."""
    if _chosen is None:
        said = os.environ.get(VARIABLE) or USUAL
        choose(probe() if said == "probe" else said)
    return _chosen


def choose(engine: str) -> None:
    """Use this engine from now on, here and in processes started from here. KimiError for one that there is not."""
    global _chosen
    if engine not in ENGINES:
        raise KimiError(f"no engine {engine!r} multiplies matrices: there are {', '.join(ENGINES)}")
    _chosen = engine if AVAILABLE else DEFAULT
    os.environ[VARIABLE] = _chosen


def onednn(x: Tensor, weight: Tensor) -> Tensor:
    """x (M, K) times weight (N, K) transposed -> (M, N) by oneDNN; both may be transposed views."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")


@torch.no_grad()
def probe() -> str:
    """The faster engine, on products as a layer and its backward pass make them."""
    if not AVAILABLE:
        return DEFAULT
    work = [(torch.ones(ROWS, k), torch.ones(n, k), torch.ones(ROWS, n)) for k, n in SHAPES]

    def through(product: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], None]:
        def action() -> None:
            for x, weight, grad in work:
                product(x, weight), product(grad, weight.t()), product(grad.t(), x.t())

        return action

    return fastest({"mkl": through(F.linear), "onednn": through(onednn)})


def fastest(
    actions: Mapping[str, Callable[[], object]],
    margin: float = MARGIN,
    rounds: int = 7,
    seconds: float = 1.0,
    clock: Callable[[], float] = time.perf_counter,
) -> str:
    """The name of the action that takes the least time; the first one unless another is `margin` times as fast.

    Each runs once to warm up, then all in turn for `rounds`, or until `seconds` are over: what slows the machine down
    slows all of them. Compared by the median of the ratios within a round.
    """
    for action in actions.values():
        action()
    times: list[list[float]] = []
    began = clock()
    while not times or (len(times) < rounds and clock() - began < seconds):
        times.append([_seconds(action, clock) for action in actions.values()])
    gains = {
        name: statistics.median(row[0] / max(row[i], 1e-12) for row in times)
        for i, name in enumerate(actions)
    }
    best = max(gains, key=gains.get)
    return best if gains[best] >= margin else next(iter(actions))


def _seconds(action: Callable[[], object], clock: Callable[[], float]) -> float:
    began = clock()
    action()
    return clock() - began
