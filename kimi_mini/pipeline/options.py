"""The options of `python -m kimi_mini pretrain`. Needs no torch, so that --help answers at once."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from kimi_mini.base.command import above_zero, folder, natural, option, positive
from kimi_mini.base.paths import RUNS
from kimi_mini.pipeline.plan import Optimizer, Plan, Pretrain, Text

RECIPE = Plan()  # the defaults are those of `make run`


@dataclass(frozen=True)
class Options:
    """What is trained, on what, and how it is shown."""

    preset: str = option(RECIPE.preset, "size of the model: nano (CPU), mini, midi (GPU)")
    tokens: int = option(RECIPE.pretrain.tokens, "how many to train on", positive)
    window: int | None = option(None, "tokens of a window (default: by device and preset)", positive)
    step_tokens: int | None = option(
        None, "tokens of one optimizer step, over all processes (default: by device and preset)", positive
    )
    lr: float = option(RECIPE.optimizer.lr, "of the matrices (Muon)", above_zero)
    adamw_lr: float = option(RECIPE.optimizer.adamw_lr, "of embedding, head and norms", above_zero)
    hub: str | None = option(None, "a data set of the Hugging Face hub in place of the local text")
    hub_config: str | None = option(None, "the configuration of that data set, where it has several")
    text_column: str = option("text", "its column of text")
    documents: int | None = option(None, "at most so many documents of it", positive)
    bytes: int = option(
        RECIPE.text.stdlib_bytes,
        "of Python's standard library, beside Moby-Dick; of the hub at least so many",
        positive,
    )
    seed: int = option(RECIPE.seed, "of weights and order", natural)
    # what follows decides no number of the run
    folder: str = option(RUNS / "pretrain-alone", "where the run is kept", folder)
    micro_tokens: int | None = option(None, "tokens at once (default: as many as fit)", positive)
    processes: int | None = option(
        None, "that share the steps (default: one a core, or one on a GPU)", positive
    )
    device: str = option("auto", "auto, cpu, cuda, cuda:1")
    dtype: str = option("auto", "auto, fp32, bf16")
    ns_dtype: str = option(
        "auto",
        "of the orthogonalising: bf16 turns differences of 1e-7 (another number of processes) into 1e-4",
        choices=("auto", "fp32", "bf16"),
    )
    samples: int = option(4, "how often to show what it writes", natural)
    every: float = option(5.0, "seconds between lines", float)

    def decisive(self) -> dict:
        """The options that decide numbers: plan.json of the folder."""
        others = ("folder", "micro_tokens", "processes", "device", "dtype", "ns_dtype", "samples", "every")
        return {name: value for name, value in asdict(self).items() if name not in others}

    def plan(self) -> Plan:
        """The part of them that a whole run has, too; the rest as in `make run`."""
        return Plan(
            preset=self.preset,
            seed=self.seed,
            step_tokens=self.step_tokens or RECIPE.step_tokens,
            optimizer=Optimizer(self.lr, self.adamw_lr),
            text=Text(self.window or RECIPE.text.window, self.bytes),
            pretrain=Pretrain(self.tokens),
        )
