"""The training loop: one for text, for fine-tuning and for the experiments.

A step sees several micro-batches of right-padded examples; every one of them is a pair (ids, mask), where the mask
says which tokens are to be learned. The loss is the mean over all learned tokens of the step, so that padding and
the split into micro-batches change nothing:

    L = - sum_(learned t) log p(token_t | tokens before t) / number of learned tokens

Under torchrun every rank's `data` is its share of the step, and the mean is over all of them (see `distributed`).
After the optimizer's step the router biases move by rule, not by gradient (facts: aux-loss-free balancing).
Everything that the next step depends on is in the saved state; the data come from a plan that is a pure function of
its seed. So a run that is killed and started again ends with the same numbers as one that was not.
"""

from __future__ import annotations

import ctypes
import pickle
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kimi_mini import distributed
from kimi_mini.base.errors import KimiError
from kimi_mini.base.files import replacing
from kimi_mini.model.kimi import KimiMini
from kimi_mini.placement import Placement, is_out_of_memory


def keep_freed_memory(threshold: int = 1 << 30) -> None:
    """Ask glibc to keep freed blocks up to ``threshold`` bytes instead of handing them back to the system.

    Activations of a step are freed and asked for again every time; without this each costs a page fault.
    Measured on a step of the nano: 4% faster with one thread, 13% with two. Does nothing on other systems.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(-1, threshold)  # M_TRIM_THRESHOLD
        mallopt(-3, threshold)  # M_MMAP_THRESHOLD


# what a damaged or foreign file makes torch.load and load_state_dict raise
UNREADABLE = (OSError, RuntimeError, ValueError, EOFError, KeyError, TypeError, pickle.UnpicklingError)


class Example(NamedTuple):
    """One sequence: ``ids`` (T,) uint16 and ``mask`` (T,) bool, True where the token is to be learned."""

    ids: np.ndarray
    mask: np.ndarray


@dataclass(frozen=True)
class Batch:
    """Right-padded examples: ``ids`` (B, T) long, ``mask`` and ``valid`` (B, T) bool."""

    ids: Tensor
    mask: Tensor
    valid: Tensor

    @property
    def learned(self) -> int:
        """How many tokens carry loss: the first token of a row has nothing before it and never does."""
        return int(self.mask[:, 1:].sum())

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on ``device``."""
        return Batch(self.ids.to(device), self.mask.to(device), self.valid.to(device))

    def rows(self, start: int, stop: int) -> Batch:
        """Some of its rows, as wide as before."""
        return Batch(self.ids[start:stop], self.mask[start:stop], self.valid[start:stop])


def collate(examples: Sequence[Example]) -> Batch:
    """Pad to the longest example. Causal order keeps the padding from touching anything real."""
    longest = max(len(example.ids) for example in examples)
    ids = np.zeros((len(examples), longest), np.int64)
    mask, valid = np.zeros(ids.shape, bool), np.zeros(ids.shape, bool)
    for row, example in enumerate(examples):
        size = len(example.ids)
        ids[row, :size], mask[row, :size], valid[row, :size] = example.ids, example.mask, True
    return Batch(torch.from_numpy(ids), torch.from_numpy(mask), torch.from_numpy(valid))


def micro_batches(examples: Sequence[Example], tokens: int) -> list[Batch]:
    """Cut a step's examples into batches of about ``tokens`` padded tokens, like lengths together."""
    ordered = sorted(examples, key=lambda example: len(example.ids))
    batches, rows = [], []
    for example in ordered:
        if rows and (len(rows) + 1) * len(example.ids) > tokens:
            batches.append(collate(rows))
            rows = []
        rows.append(example)
    return [*batches, collate(rows)]


def token_losses(model: KimiMini, batch: Batch) -> Tensor:
    """Negative log-likelihood in nats of every learned token, (number of learned tokens,).

    The head is applied to the learned positions alone: with a mask of one token in three that saves
    two thirds of the logits.
    """
    batch = batch.to(model.lm_head.weight.device)
    hidden = model.hidden_states(batch.ids, valid=batch.valid)  # (B, T, h)
    learned = batch.mask[:, 1:]
    logits = model.lm_head(hidden[:, :-1][learned])  # (N, V)
    return F.cross_entropy(logits.float(), batch.ids[:, 1:][learned], reduction="none")


@torch.no_grad()
def evaluate_loss(model: KimiMini, batches: Sequence[Batch], place: Placement | None = None) -> float:
    """Mean loss in nats a token over ``batches``, without training statistics."""
    place, was_training = place or Placement(), model.training
    model.eval()
    losses = place.in_parts(lambda parts: [place.run(token_losses, model, part) for part in parts], batches)
    model.train(was_training)
    return torch.cat(losses).mean().item()


@dataclass
class History:
    """What a run leaves behind for plots: one entry a step."""

    loss: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    max_logit: list[float] = field(default_factory=list)
    clipped_heads: list[int] = field(default_factory=list)
    max_violation: list[float] = field(default_factory=list)
    gradient_norm: list[float] = field(default_factory=list)
    seconds: float = 0.0


def max_violation(load: Tensor) -> float:
    """MaxVio: the fullest expert's load over the mean load, minus 1; worst layer. load (L, E)."""
    if load.numel() == 0:
        return 0.0
    load = load.float()
    return (load.amax(-1) / load.mean(-1).clamp_min(1e-9) - 1).max().item()


def backward(model: KimiMini, batches: Sequence[Batch], learned: int, place: Placement) -> float:
    """Add up the gradients of the step's micro-batches; returns their part of the loss, a sum over ``learned``.

    A device that runs out of memory gets smaller micro-batches, from the beginning: what was added up is forgotten.
    """

    def add_up(parts: Sequence[Batch]) -> float:
        total = 0.0
        for part in parts:
            loss = place.run(token_losses, model, part).sum() / learned
            loss.backward()
            total += loss.item()
        return total

    def forget() -> None:
        model.zero_grad(set_to_none=True)
        model.forget_statistics()

    return place.in_parts(add_up, batches, forget)


def train_step(
    model: KimiMini, optimizer, batches: Sequence[Batch], bias_rate: float, history: History,
    bias_rule: str = "sign", place: Placement | None = None,
) -> None:  # fmt: skip
    """One optimizer step over ``batches``, recorded in ``history``. Raw gradients are clipped, never updates.

    Raises KimiError when loss or gradient is not finite; the weights are then still those of the step before.
    """
    learned, seen = (sum(numbers) for numbers in zip(*((b.learned, int(b.valid.sum())) for b in batches)))
    learned, seen = map(int, distributed.total(learned, seen))
    (loss,) = distributed.total(backward(model, batches, learned, place or Placement()))
    distributed.join_step(model)
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0).item()
    for what, value in (("loss", loss), ("gradient's norm", norm)):
        if not np.isfinite(value):
            raise KimiError(f"the {what} is {value} at step {len(history.loss)}: lower the learning rate")
    history.loss.append(loss)
    history.tokens.append(seen)
    history.gradient_norm.append(norm)
    history.max_logit.append(distributed.largest(model.max_logits()).max().item())
    history.max_violation.append(max_violation(model.expert_load()))
    optimizer.step()
    history.clipped_heads.append(len(getattr(optimizer, "last_clip", ())))
    optimizer.zero_grad(set_to_none=True)
    model.update_router_bias(bias_rate, bias_rule)


def train(
    model: KimiMini,
    optimizer,
    data: Callable[[int], Sequence[Batch]],
    steps: int,
    schedule: Callable[[int], float],
    *,
    bias_rate: float = 0.005,
    bias_rule: str = "sign",
    state_file: Path | None = None,
    save_seconds: float = 30.0,
    stop_when: Callable[[History], bool] | None = None,
    progress: Callable[[int, History], None] | None = None,
    place: Placement | None = None,
) -> History:
    """Train for ``steps`` steps on ``data(step)``, with learning rates times ``schedule(step)``.

    ``bias_rate`` (times the schedule, 0 for none) and ``bias_rule`` balance the routers: see Router.update_bias.
    With a ``state_file`` the run saves itself every ``save_seconds`` and, if the file is there, goes on from it.
    ``stop_when`` ends the run early on what was measured (never on the clock, which would not repeat).
    A loss that is not finite ends it with a KimiError that names the last good state.
    """
    history, place = History(), place or Placement()
    base_rates = [group["lr"] for group in optimizer.param_groups]
    if state_file is not None and state_file.exists():
        history = load_state(state_file, model, optimizer)
    model.train()
    keep_freed_memory()
    began, spent = time.perf_counter(), history.seconds
    saved, saved_steps = began, len(history.loss)
    for step in range(len(history.loss), steps):
        if stop_when is not None and stop_when(history):
            break
        factor = schedule(step)
        for group, rate in zip(optimizer.param_groups, base_rates):
            group["lr"] = rate * factor
        try:
            train_step(model, optimizer, data(step), bias_rate * factor, history, bias_rule, place)
        except (KimiError, FloatingPointError) as error:  # the latter: an attention logit
            raise KimiError(f"{error}; {last_good(state_file, saved_steps)}") from None
        except RuntimeError as error:  # in the optimizer's step, which cannot be cut
            if not is_out_of_memory(error):
                raise
            line = f"out of memory at step {step}: take a smaller preset or a larger device"
            raise KimiError(f"{line}; {last_good(state_file, saved_steps)}") from None
        now = time.perf_counter()
        history.seconds = spent + now - began
        if progress is not None:
            progress(step, history)
        if state_file is not None and now - saved > save_seconds:
            save_state(state_file, model, optimizer, history)
            saved, saved_steps = now, len(history.loss)
    if state_file is not None:
        save_state(state_file, model, optimizer, history)
    return history


def last_good(file: Path | None, steps: int) -> str:
    """What is left after a step that failed."""
    return f"the last good state is {file}, after {steps} steps" if file and steps else "nothing was saved yet"


def save_state(file: Path, model: KimiMini, optimizer, history: History) -> None:
    """Everything that the next step depends on, written whole or not at all; under torchrun by the first rank."""
    if distributed.rank():
        return
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "generator": torch.get_rng_state(),
        "history": vars(history),
    }
    with replacing(file) as part:
        torch.save(state, part)


def load_state(file: Path, model: KimiMini, optimizer) -> History:
    """Put a saved state back; the history says how many steps are done. Raises KimiError for a file that is damaged or
    of another model."""
    try:
        state = torch.load(file, weights_only=True)
        history = History(**state["history"])
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["generator"])
    except UNREADABLE as error:
        reason = (str(error) or type(error).__name__).splitlines()[0][:80]  # torch goes on about its own versions
        raise KimiError(f"{file} cannot be read ({reason}); delete it to start this stage again") from None
    return history
