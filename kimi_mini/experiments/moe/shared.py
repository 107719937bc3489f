"""What the experiments on routing share: a small model, four kinds of text, and one training run with its loads."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import NamedTuple

import numpy as np
import torch

from kimi_mini.base.evidence import Log
from kimi_mini.evaluation.routing import LoadMeter
from kimi_mini.experiments import harness
from kimi_mini.experiments.moe import domains
from kimi_mini.model.config import KimiConfig
from kimi_mini.model.kimi import KimiMini
from kimi_mini.model.moe import gate_factor
from kimi_mini.pipeline.plan import Optimizer
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training.balance import balanced_by_loss
from kimi_mini.training.loop import History, train
from kimi_mini.training.optim.schedule import wsd

NOTEBOOK = "01_mixture_of_experts.ipynb"
LENGTH, ROWS = 128, 16  # tokens of a window; windows of a step
SHAPE = dict(
    hidden_size=64,
    num_hidden_layers=3,
    num_attention_heads=2,
    intermediate_size=160,
    moe_intermediate_size=40,
    kv_lora_rank=32,
    qk_nope_head_dim=16,
    qk_rope_head_dim=16,
    v_head_dim=32,
    max_position_embeddings=512,
)


def shape(experts: int = 16, chosen: int = 3, **changes) -> KimiConfig:
    """A small model: one dense layer, two with experts, the gate factor of its own numbers."""
    routed = dict(
        n_routed_experts=experts,
        num_experts_per_tok=chosen,
        routed_scaling_factor=round(gate_factor(experts, chosen), 3),
    )
    return KimiConfig.preset("nano", **{**SHAPE, **routed, **changes})


class Fit(NamedTuple):
    """A trained model, its history, and loads (steps, MoE layers, experts)."""

    model: KimiMini
    history: History
    loads: np.ndarray


def texts(
    tokens: int, seed: int, kinds: Sequence[str] = domains.DOMAINS, held_out: int = 48
) -> tuple[dict, dict]:
    """Windows to train on for `tokens` tokens, and `held_out` windows a domain that training never sees."""
    tokenizer, count = Tokenizer.load(), -(-tokens // (LENGTH * len(kinds)))
    return (
        domains.windows(tokenizer, count, LENGTH, seed=seed, domains=kinds),
        domains.windows(tokenizer, held_out, LENGTH, held_out=True, domains=kinds),
    )


def fit(
    config: KimiConfig,
    windows: dict[str, np.ndarray],
    steps: int,
    seed: int,
    rate: float = 0.01,
    rule: str = "sign",
    alpha: float = 0.0,
    decay_fraction: float = 0.5,
    progress: Callable[[int, History], None] | None = None,
    learned: np.ndarray | None = None,
) -> Fit:
    """Train from random weights. rate 0 leaves the bias alone; alpha is the weight of the sequence-wise loss.

    learned (LENGTH,) bool: the places of a window that carry loss; all without it.
    """
    torch.manual_seed(seed)
    model = KimiMini(config)
    meter = LoadMeter(model)

    def after(step: int, history: History) -> None:
        meter(step, history)
        if progress is not None:
            progress(step, history)

    with balanced_by_loss(model, alpha) if alpha else nullcontext():
        history = train(
            model,
            Optimizer().build(model),
            lambda step: domains.batches(windows, step, ROWS // len(windows), learned),
            steps,
            lambda step: wsd(step, steps, min(20, steps // 4), decay_fraction=decay_fraction),
            bias_rate=rate,
            bias_rule=rule,
            progress=after,
        )
    return Fit(model, history, meter.steps)


def last_fifth(values: Sequence[float]) -> float:
    """Mean over the last fifth of a run."""
    return float(np.mean(values[-max(1, len(values) // 5) :]))


def thinned(values: Sequence[float], points: int = 60) -> list[float]:
    """Means over equal stretches, for figures."""
    parts = np.array_split(np.asarray(values, float), min(points, len(values)))
    return [round(float(part.mean()), 4) for part in parts]


def above_zero(values: Sequence[float]) -> dict:
    """A difference that is claimed to lie above zero."""
    return harness.across(values) | {"floor": 0.0}


def begin(name: str, args: argparse.Namespace, **more) -> Log:
    """A log of that name."""
    return Log(name, seeds=args.seeds, folder=args.folder, **more)
