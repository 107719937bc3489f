"""The training loop: one for text, for fine-tuning and for the experiments.

A step sees several micro-batches of right-padded examples; every one of them is a pair (ids, mask), where the mask
says which tokens are to be learned. The loss is the mean over all learned tokens of the step, so that padding and
the split into micro-batches change nothing:

    L = - sum_(learned t) log p(token_t | tokens before t) / number of learned tokens

Of several ranks each has as `data` its share of the step, and the mean is over all of them (see `distributed`).
After the optimizer's step the router biases move by rule, not by gradient (DeepSeek-V3 report, section 2.1.2).
Everything that the next step depends on is in the saved state; the data come from a plan that is a pure function of
its seed. So a run that is killed and started again ends with the same numbers as one that was not.
"""

from __future__ import annotations

import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from kimi_mini.base import ranks
from kimi_mini.base.errors import KimiError
from kimi_mini.base.files import replacing
from kimi_mini.evaluation.routing import max_vio
from kimi_mini.model.kernels import engine
from kimi_mini.model.kimi import KimiMini, evaluating
from kimi_mini.training.batch import Batch, token_losses
from kimi_mini.training.machine import distributed
from kimi_mini.training.machine.placement import Placement, is_out_of_memory, keep_freed_memory

Kept = TypeVar("Kept")


@torch.no_grad()
def evaluate_loss(model: KimiMini, batches: Sequence[Batch], place: Placement | None = None) -> float:
    """Mean loss in nats a token over `batches`, this rank's and all others', without training statistics."""
    place = place or Placement()
    with evaluating(model), place.step(model):
        losses = place.in_parts(
            lambda parts: [place.run(token_losses, model, part) for part in parts], batches
        )
    (loss, count) = ranks.total(*(sum(f(part) for part in losses) for f in (lambda x: x.sum().item(), len)))
    return loss / count


@dataclass
class History:
    """What a run leaves behind for plots: one entry a step; and the time it took in all its starts, by the clock and of
    this process's processors."""

    loss: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    max_logit: list[float] = field(default_factory=list)
    clipped_heads: list[int] = field(default_factory=list)
    max_violation: list[float] = field(default_factory=list)
    gradient_norm: list[float] = field(default_factory=list)
    seconds: float = 0.0
    processor_seconds: float = 0.0


Losses = Callable[[KimiMini, Batch], Tensor]  # of the tokens of a batch, those that are learned


def backward(
    model: KimiMini, batches: Sequence[Batch], learned: int, place: Placement, losses: Losses = token_losses
) -> float:
    """Add up the gradients of the step's micro-batches; returns their part of the loss, a sum over `learned`.

    A device that runs out of memory gets smaller micro-batches, from the beginning: what was added up is forgotten.
    """

    def add_up(parts: Sequence[Batch]) -> float:
        total = 0.0
        for part in parts:
            loss = place.run(losses, model, part).sum() / learned
            loss.backward()
            total += loss.item()
        return total

    def forget() -> None:
        model.zero_grad(set_to_none=True)
        model.statistics.forget()

    with place.step(model):
        return place.in_parts(add_up, batches, forget)


def train_step(
    model: KimiMini,
    optimizer,
    batches: Sequence[Batch],
    bias_rate: float,
    history: History,
    bias_rule: str = "sign",
    place: Placement | None = None,
    losses: Losses = token_losses,
) -> None:
    """One optimizer step over `batches`, recorded in `history`. Raw gradients are clipped, never updates.

    Raises KimiError when no token is to be learned, or when loss or gradient is not finite; the weights are then
    still those of the step before.
    """
    learned, seen = sum(b.learned for b in batches), sum(int(b.valid.sum()) for b in batches)
    learned, seen = map(int, ranks.total(learned, seen))
    if not learned:
        raise KimiError(
            f"step {len(history.loss)} has no token to learn from: the masks of its data are empty"
        )
    (loss,) = ranks.total(backward(model, batches, learned, place or Placement(), losses))
    distributed.join_step(model)
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0).item()
    for what, value in (("loss", loss), ("gradient's norm", norm)):
        if not np.isfinite(value):
            raise KimiError(f"the {what} is {value} at step {len(history.loss)}: lower the learning rate")
    history.loss.append(loss)
    history.tokens.append(seen)
    history.gradient_norm.append(norm)
    history.max_logit.append(distributed.largest(model.statistics.max_logits).max().item())
    history.max_violation.append(max(max_vio(model.statistics.loads.cpu()).tolist(), default=0.0))
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
    losses: Losses = token_losses,
) -> History:
    """Train for `steps` steps on `data(step)`, with learning rates times `schedule(step)`.

    `bias_rate` (times the schedule, 0 for none) and `bias_rule` balance the routers: see Router.update_bias.
    With a `state_file` the run saves itself every `save_seconds` and, if the file is there, goes on from it.
    `losses`: of the tokens of a batch; what is minimised is their mean over the learned ones.
    `stop_when` ends the run early on what was measured (never on the clock, which would not repeat).
    A loss that is not finite ends it with a KimiError that names the last good state.
    The model trains in train mode; the mode that it came in is restored.
    """
    base_rates = [group["lr"] for group in optimizer.param_groups]
    resumed = state_file is not None and state_file.exists()
    history = load_state(state_file, model, optimizer) if resumed else History()
    keep_freed_memory()
    update_seconds = stopwatch(history)
    saved, saved_steps = history.seconds, len(history.loss)
    with in_training(model):
        for step in range(len(history.loss), steps):
            if stop_when is not None and stop_when(history):
                break
            factor = schedule(step)
            set_rates(optimizer, [rate * factor for rate in base_rates])
            with explained(step, state_file, saved_steps):
                batches, rate = data(step), bias_rate * factor
                train_step(model, optimizer, batches, rate, history, bias_rule, place, losses)
            update_seconds()
            if progress is not None:
                progress(step, history)
            if state_file is not None and history.seconds - saved > save_seconds:
                save_state(state_file, model, optimizer, history)
                saved, saved_steps = history.seconds, len(history.loss)
    if state_file is not None:
        save_state(state_file, model, optimizer, history)
    return history


def stopwatch(history: History) -> Callable[[], None]:
    """Started by this call; what it returns writes into the history the seconds since then, and of earlier starts."""
    began = time.perf_counter() - history.seconds
    work_began = time.process_time() - history.processor_seconds

    def update() -> None:
        history.seconds = time.perf_counter() - began
        history.processor_seconds = time.process_time() - work_began

    return update


def set_rates(optimizer, rates: Sequence[float]) -> None:
    """One learning rate for each of the optimizer's groups."""
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


@contextmanager
def in_training(model: KimiMini) -> Iterator[None]:
    """Context: the model in train mode, its former mode restored afterwards."""
    was_training = model.training
    model.train()
    try:
        yield
    finally:
        model.train(was_training)


@contextmanager
def explained(step: int, file: Path | None, saved_steps: int) -> Iterator[None]:
    """Context of a step: what ends it becomes a KimiError that also says what is left."""
    left = f"the last good state is {file}, after {saved_steps} steps"
    left = left if file and saved_steps else "nothing was saved yet"
    try:
        yield
    except (KimiError, FloatingPointError) as error:  # the latter: an attention logit
        raise KimiError(f"{error}; {left}") from None
    except (RuntimeError, MemoryError) as error:  # in the data or the optimizer's step, which cannot be cut
        if not is_out_of_memory(error):
            raise
        line = f"out of memory at step {step}: take a smaller step or preset, or a larger device"
        raise KimiError(f"{line}; {left}") from None


def save_state(file: Path, model: KimiMini, optimizer, history) -> None:
    """Everything that the next step depends on, written whole or not at all, by the first rank.

    history   a dataclass of plain numbers and lists: a History, or what a run of another kind keeps
    """
    if ranks.rank():
        return
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "generator": torch.get_rng_state(),
        "engine": engine.chosen(),
        "history": vars(history),
    }
    with replacing(file) as part:
        torch.save(state, part)


def load_state(file: Path, model: KimiMini, optimizer, kind: type[Kept] = History) -> Kept:
    """Put a saved state back, whatever device it was saved on; its history, of the `kind` that was saved, says how
    far the run has come. Raises KimiError for a file that is damaged or of another model."""
    try:
        with zipfile.ZipFile(file) as parts:
            broken = parts.testzip()  # torch.load compares no checksum
        if broken is not None:
            raise ValueError(f"the checksum of {broken} is another one")
        state = torch.load(file, weights_only=True, map_location="cpu")
        history = kind(**state["history"])
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["generator"])
        engine.choose(state.get("engine", engine.chosen()))
    except Exception as error:  # zip, pickle and load_state_dict have a dozen kinds for a wrong byte
        if is_out_of_memory(error):
            raise KimiError(f"out of memory while {file} is read: take a larger device") from None
        # the first sentence; torch adds advice about its versions
        reason = (str(error) or type(error).__name__).splitlines()[0][:80]
        raise KimiError(f"{file} cannot be read ({reason}); delete it to start this stage again") from error
    return history
