"""Window, step and micro-batch for a model on a device, and the reason in one line. Pure functions of sizes.

Two cores learn fastest from many small steps. A GPU has nothing to do in a small one: of the steps that were tried on
an H100 (4,096 to 131,072 tokens at preset mini) the largest was the fastest for each token. How many tokens fit at
once follows from what was measured there, layers compiled: about 60 bytes for each token, layer and unit of width, at
mini as at midi.
"""

from __future__ import annotations

from typing import NamedTuple

from kimi_mini.model.config import KimiConfig

SMALL = 256  # widths below this leave a GPU idle whatever the step
BYTES = 60  # of a token, layer and unit of width: what a compiled layer keeps for its backward pass
WEIGHT_BYTES = 14  # of a parameter: fp32 weight, gradient and momentum, and the bf16 copy
SHARE = 0.85  # of a device's memory; the rest is for what comes and goes
ON_CPU = (256, 4096, 2048)  # window, step, micro-batch: found on two cores


class Choice(NamedTuple):
    """Tokens of a window, of a step, and at once (None: the whole step); and why."""

    window: int
    step_tokens: int
    micro_tokens: int | None
    reason: str


def choose(config: KimiConfig, device: str, memory: int) -> Choice:
    """For a model on a device of the kind "cpu", "cuda" or "mps" with so many bytes of memory."""
    window, step, micro = ON_CPU
    if device == "cpu":
        return Choice(
            window, step, micro, "a CPU learns fastest in small steps, and caches hold 2,048 tokens"
        )
    if config.hidden_size < SMALL:
        return Choice(
            window, step, None, f"a width of {config.hidden_size} fills no GPU: the steps of a CPU, whole"
        )
    window, step = 1024 if config.hidden_size < 1024 else 2048, 131_072
    free = SHARE * memory - WEIGHT_BYTES * config.count_parameters().total
    fits = free / (BYTES * config.num_hidden_layers * config.hidden_size)
    micro = window
    while 2 * micro <= min(fits, step):
        micro *= 2
    how = "at once" if micro == step else f"in {step // micro} parts"
    return Choice(
        window,
        step,
        micro,
        f"{step:,} tokens a step keep a GPU busy, and {memory / 1e9:.0f} GB hold them {how}",
    )
