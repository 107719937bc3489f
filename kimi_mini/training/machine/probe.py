"""What pays on this processor is tried, not read off the processor's name.

`settle_engine` chooses the engine of the products at the start of a run (see kimi_mini.model.kernels.engine) and keeps
it with the run, for its last bits depend on it. `bf16_pays` times a training step in both number formats: a report,
which `bench` prints. Nothing is switched by it: `Placement.choose` takes fp32 on every CPU.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch

from kimi_mini.base import ranks
from kimi_mini.base.files import write_atomic
from kimi_mini.model.config import KimiConfig
from kimi_mini.model.kernels import engine
from kimi_mini.model.kimi import KimiMini
from kimi_mini.training.batch import text_batch, token_losses
from kimi_mini.training.machine.placement import CPU_MICRO_TOKENS, Placement

GAIN = 1.2  # times as fast a step must be: bf16 is less exact
LAYERS = 2  # a dense one and one with experts stand for all
WINDOW = 256


def bf16_pays(
    config: KimiConfig, window: int = WINDOW, clock: Callable[[], float] = time.perf_counter
) -> bool:
    """Whether a training step on this CPU is at least GAIN times as fast in bf16, tried on two layers of the model: a
    report only, see above.

    Without bf16 in the processor (AVX512-BF16 or AMX) the answer is no, untried. Takes a second or two; draws no random
    number that a run would miss.
    """
    if not (torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        return False
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = min(LAYERS, config.num_hidden_layers)
        model = KimiMini(config.replace(num_hidden_layers=layers)).train()
        rows = max(1, CPU_MICRO_TOKENS // window)
        ids = torch.randint(0, config.vocab_size, (rows, window)).numpy()
    batch = text_batch(ids)

    def step(dtype: torch.dtype) -> Callable[[], None]:
        place = Placement(dtype=dtype)

        def action() -> None:
            model.zero_grad(set_to_none=True)
            place.run(token_losses, model, batch).mean().backward()

        return action

    actions = {"fp32": step(torch.float32), "bf16": step(torch.bfloat16)}
    return engine.fastest(actions, GAIN, rounds=5, seconds=2.0, clock=clock) == "bf16"


def settle_engine(folder: Path, named: str = "probe") -> None:
    """All ranks of the run in `folder` multiply by the engine that its file `engine` names. A new run gets the one that
    is `named`, or that a probe finds the faster. KimiError for a file that names none."""

    def settled() -> str:
        file = folder / "engine"
        if file.is_file():
            engine.choose(file.read_text(encoding="utf-8").strip())
        else:
            engine.choose(engine.probe() if named == "probe" else named)
            write_atomic(file, engine.chosen() + "\n")
        return engine.chosen()

    engine.choose(ranks.first_rank(settled))
