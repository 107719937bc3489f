"""Where the parts run and how large they are: one GPU at the sizes of the presets, or a rehearsal on a CPU at toy size.

A rehearsal takes the same paths: the kernels for a GPU, layers compiled (traced, and run as they are), bf16.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from kimi_mini.base.errors import KimiError
from kimi_mini.base.files import read_arrays, save_arrays
from kimi_mini.base.paths import FIGURES, GPU_RESULTS, RUNS
from kimi_mini.experiments.harness import REHEARSAL
from kimi_mini.model import kernels
from kimi_mini.model.config import KimiConfig
from kimi_mini.text import corpus, packages
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training.machine.choice import Choice, choose
from kimi_mini.training.machine.placement import Placement, matmul_rate, memory_of

T = TypeVar("T")
MINUTES = 25  # of the whole command
MOST_BYTES = 120_000_000  # of text
TINY = dict(
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=2,
    qk_nope_head_dim=8,
    qk_rope_head_dim=8,
    v_head_dim=8,
    q_lora_rank=16,
    kv_lora_rank=16,
    intermediate_size=48,  # as wide as the experts that a token sees: (2 + 1) * 16
    moe_intermediate_size=16,
    n_routed_experts=4,
    num_experts_per_tok=2,
)


class OutOfTime(KimiError):
    """The minutes of the command are over: what is done is saved, and the same command goes on behind it."""


@dataclass(frozen=True)
class Site:
    """A device, the folder of the logs, and one for text and saved states; `deadline`: on `clock`, when nothing new is
    begun."""

    rehearsal: bool
    device: torch.device
    folder: Path
    work: Path
    deadline: float = math.inf
    clock: Callable[[], float] = time.perf_counter

    def in_time(self) -> None:
        """Raises OutOfTime behind the deadline."""
        if self.clock() > self.deadline:
            raise OutOfTime(f"the {MINUTES} minutes are over: the same command goes on from here")

    @classmethod
    def choose(cls, rehearsal: bool, folder: str | Path | None = None) -> Site:
        """The GPU, or a CPU for a rehearsal. KimiError where there is no GPU."""
        if not rehearsal and not torch.cuda.is_available():
            raise KimiError(
                "a GPU is needed, and torch finds none here: `python -m kimi_mini gpu --rehearsal` "
                "tries every part on a CPU"
            )
        usual = REHEARSAL / "gpu" if rehearsal else GPU_RESULTS
        home = Path(folder) if folder else usual
        home = GPU_RESULTS if home.resolve() == GPU_RESULTS.resolve() else home
        work = RUNS / "gpu" if home == GPU_RESULTS else home / "work"
        return cls(rehearsal, torch.device("cpu" if rehearsal else "cuda"), home, work)

    def pick(self, whole: T, small: T) -> T:
        """A number of the GPU, or that of a rehearsal."""
        return small if self.rehearsal else whole

    def config(self, preset: str) -> KimiConfig:
        """The preset; in a rehearsal its toy."""
        return KimiConfig.preset(preset, **(TINY if self.rehearsal else {}))

    def choice(self, config: KimiConfig) -> Choice:
        """Window, step and micro-batch that `pretrain` would choose here."""
        if self.rehearsal:
            return Choice(128, 256, None, "a rehearsal")
        return choose(config, self.device.type, memory_of(self.device))

    def place(self, micro_tokens: int | None = None) -> Placement:
        """As `pretrain` would place the work."""
        if self.rehearsal:
            return Placement(self.device, torch.bfloat16, micro_tokens, compiled=True, backend="aot_eager")
        return Placement.choose(str(self.device), micro_tokens=micro_tokens)

    def kernels(self) -> AbstractContextManager:
        """Context: those for a GPU."""
        return kernels.using("cuda") if self.rehearsal else nullcontext()

    def rate(self) -> float:
        """FLOP/s of square products in bf16, of which MFU is a share."""
        return matmul_rate(self.device, torch.bfloat16, size=self.pick(None, 128))

    def wait(self) -> None:
        """Until the device has done all that it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def clear(self) -> None:
        """Give back the memory of what is no longer used; the peak starts anew."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    def text(self) -> dict[str, np.ndarray]:
        """Token streams `training` and `validation` of this machine's Python packages, and how many `bytes` of how many
        `files` they came from; made once."""
        file = self.work / "text.npz"
        if not file.is_file():
            found, most, tokenizer = packages.files(), self.pick(MOST_BYTES, 300_000), Tokenizer.load()
            if self.rehearsal:
                found = [pair for pair in found if pair[0].startswith("stdlib")][:60]
            texts = packages.documents(found, most)
            training, validation = (packages.stream(tokenizer, part) for part in corpus.split(texts))
            size = sum(len(document.text.encode("utf-8")) for document in texts)
            save_arrays(file, training=training, validation=validation, bytes=size, files=len(texts))
        return read_arrays(file)

    def windows(self, length: int) -> tuple[np.ndarray, np.ndarray]:
        """(training, validation) windows (N, length) of that text."""
        text = self.text()
        return corpus.pack(text["training"], length), corpus.pack(text["validation"], length)

    @property
    def figures(self) -> Path:
        """Where the figures go: to the published ones, or beside their logs."""
        return FIGURES if self.folder == GPU_RESULTS else self.folder
