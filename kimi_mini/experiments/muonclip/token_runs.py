"""Training runs of `token_efficiency`, each decided by way, learning rates, budget and seed; and how rates are tuned.

From the same weights, on the same windows of real text in the same order:

    MuonClip        this project: one rate for matrices, one for what AdamW trains (embedding, head, norms: "tables")
    AdamW           this project's model, fused AdamW with one rate for everything
    TWO_RATES       the same with a rate of its own for the tables, as MuonClip has
    transformers    DeepseekV3ForCausalLM of transformers with fused AdamW, as it comes: what one would run otherwise

Ours balance their routers by the bias rule after every step; transformers has no such rule. UNBALANCED is our AdamW
without it, at the rates of transformers: what is left between these two is the code.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kimi_mini.base.files import read_json, write_json
from kimi_mini.experiments.deployment.compared import same_in_transformers
from kimi_mini.model.config import KimiConfig
from kimi_mini.model.kimi import KimiMini, evaluating
from kimi_mini.pipeline.plan import Plan
from kimi_mini.text import corpus
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training.batch import in_turn, text_batch, token_losses
from kimi_mini.training.optim.muonclip import MuonClip, split_parameters
from kimi_mini.training.optim.schedule import wsd

Rates = tuple[float, float]  # of the matrices; of embedding, head and norms

PLAN = Plan()
STEP_TOKENS = PLAN.step_tokens
WINDOW, HELD_OUT = 256, 128
DECAY, BETAS, TUNING_SEED = 0.1, (0.9, 0.95), 100
MUONCLIP, ADAMW, TWO_RATES, TRANSFORMERS = "MuonClip", "AdamW", "AdamW, two rates", "transformers"
UNBALANCED = "AdamW, no bias rule"


def windows() -> tuple[np.ndarray, Tensor]:
    """Training windows (N, 256) int32 and held-out ones (128, 256) long, split by document."""
    training, held_out = corpus.windows(Tokenizer.load(), corpus.default_documents(5_000_000), WINDOW)
    held_out = held_out[:: len(held_out) // HELD_OUT][:HELD_OUT]
    return training, torch.from_numpy(held_out.astype(np.int64))


def model_and_optimizer(
    way: str, lr: float, tables: float, seed: int
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """The nano with the seed's weights, in this project's or transformers' code; rates of matrices and tables."""
    torch.manual_seed(seed)
    model = KimiMini(KimiConfig.preset("nano"))
    if way == MUONCLIP:
        return model, MuonClip(
            model, lr=lr, adamw_lr=tables, weight_decay=DECAY, betas=BETAS, tau=PLAN.optimizer.tau
        )
    if way == TRANSFORMERS:
        model = same_in_transformers(model)
        groups = [{"params": list(model.parameters())}]
    else:
        groups = [{"params": part, "lr": rate} for part, rate in zip(split_parameters(model), (lr, tables))]
    return model, torch.optim.AdamW(groups, lr=lr, weight_decay=DECAY, betas=BETAS, fused=True)


def mean_loss(model: nn.Module, ids: Tensor) -> Tensor:
    """Mean loss of windows (B, T) long, in nats a token."""
    if isinstance(model, KimiMini):
        return token_losses(model, text_batch(ids.numpy())).mean()
    logits = model(ids, use_cache=False).logits[:, :-1]
    return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())


def step_seconds(model: nn.Module, optimizer, ids: Tensor, micro: int, bias_rate: float) -> float:
    """One step over the windows ids (B, T), `micro` windows at a time; how long it took."""
    began = time.perf_counter()
    parts = ids.split(micro)
    for part in parts:
        (mean_loss(model, part) / len(parts)).backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    if isinstance(model, KimiMini):
        model.update_router_bias(bias_rate)
        model.statistics.forget()
    return time.perf_counter() - began


def run(way: str, lr: float, tables: float, tokens: int, seed: int, data: tuple[np.ndarray, Tensor]) -> dict:
    """One whole training: its validation loss, its tokens, and what a step took (median, in seconds)."""
    training, held_out = data
    model, optimizer = model_and_optimizer(way, lr, tables, seed)
    model.train()
    rows, bias_rate = STEP_TOKENS // WINDOW, 0.0 if way == UNBALANCED else PLAN.bias_rate
    steps = max(1, round(tokens / STEP_TOKENS))
    chosen = in_turn(training, rows, [seed, 2])
    rates, times, cuts = (
        [group["lr"] for group in optimizer.param_groups],
        {rows: [], rows // 2: []},
        [rows, rows // 2],
    )
    for step in range(steps):
        factor = wsd(step, steps, min(20, steps // 4), decay_fraction=0.65)
        for group, rate in zip(optimizer.param_groups, rates):
            group["lr"] = rate * factor
        ids = torch.from_numpy(chosen(step).astype(np.int64))
        micro = cuts[step // 3 % 2] if step < 6 else min(cuts, key=lambda cut: np.median(times[cut][:3]))
        times[micro].append(step_seconds(model, optimizer, ids, micro, bias_rate * factor))
    with evaluating(model), torch.no_grad():
        loss = float(np.mean([mean_loss(model, part).item() for part in held_out.split(8)]))
    return dict(
        way=way,
        lr=lr,
        tables=tables,
        seed=seed,
        tokens=steps * STEP_TOKENS,
        loss=loss,
        at_once=micro * WINDOW,
        step_seconds=float(np.median(times[micro])),
    )


class Runs:
    """Runs by their settings, kept in a file so that a command that was stopped goes on."""

    def __init__(self, file: Path):
        self.file, self.data = file, None
        self.done = read_json(file, list) if file.is_file() else []

    def get(self, way: str, rates: Rates, tokens: int, seed: int) -> dict:
        """The run of these settings: read, or made."""
        asked = dict(way=way, lr=rates[0], tables=rates[1], asked=tokens, seed=seed)
        found = next((entry for entry in self.done if entry.items() >= asked.items()), None)
        if found is None:
            self.data = self.data or windows()
            found = run(way, *rates, tokens, seed, self.data) | asked
            self.done.append(found)
            write_json(self.file, self.done)
            print(
                f"{way:20s} rates {rates[0]:.4f} {rates[1]:.4f}  seed {seed:3d}  {found['tokens']:>9,} tokens  "
                f"loss {found['loss']:.4f}  {1e3 * found['step_seconds']:.0f} ms a step",
                flush=True,
            )
        return found


def neighbours(way: str, rates: Rates) -> list[Rates]:
    """Rates twice and half as large: of matrices and tables apart where a way has two, else of both together."""
    lr, tables = rates
    if way in (MUONCLIP, TWO_RATES):
        return [(lr * 2, tables), (lr / 2, tables), (lr, tables * 2), (lr, tables / 2)]
    return [(lr * 2, tables * 2), (lr / 2, tables / 2)]


def tuned(way: str, tokens: int, runs: Runs, start: Rates) -> tuple[Rates, list[dict]]:
    """The rates whose neighbours are all worse, and all that was tried."""
    tried: dict[Rates, dict] = {}

    def loss(rates: Rates) -> float:
        if rates not in tried:
            tried[rates] = runs.get(way, rates, tokens, TUNING_SEED)
        return tried[rates]["loss"]

    best = start
    while True:
        better = min((best, *neighbours(way, best)), key=loss)
        if better == best:
            return best, list(tried.values())
        best = better
