"""The training runs behind `logit_growth`: two model sizes, one loop, everything that attention did written down.

A run is named by what decides it: size, optimizer, both learning rates, decay, tau, seed, steps. Its record is kept
under data/run/logit_growth/, so that an experiment of a hundred and fifty runs that was stopped goes on where it was.

Spikes are counted by one rule: the loss of a step lies more than `SIGMAS` robust standard deviations (1.4826 times
the median absolute deviation) above the median of the `WINDOW` steps before it. Neighbouring steps are one spike.
"""

from __future__ import annotations

import functools
import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from kimi_mini.base.errors import KimiError
from kimi_mini.base.files import read_json, write_json
from kimi_mini.base.paths import RUNS
from kimi_mini.evaluation.attention import attention_logits, head_maxima
from kimi_mini.model.config import KimiConfig
from kimi_mini.model.kimi import KimiMini
from kimi_mini.pipeline.plan import Plan
from kimi_mini.text import corpus
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training.batch import Batch, in_turn, text_batch
from kimi_mini.training.loop import History, evaluate_loss, train
from kimi_mini.training.optim.muonclip import MuonClip, split_parameters
from kimi_mini.training.optim.schedule import wsd

KEPT = RUNS / "logit_growth"
WINDOW_TOKENS, STEP_WINDOWS = 256, 4  # 1024 tokens a step
TEXT_BYTES = 2_000_000
SIZES = {
    "dense": KimiConfig(
        vocab_size=256,
        hidden_size=128,
        intermediate_size=320,
        num_hidden_layers=4,
        num_attention_heads=4,
        first_k_dense_replace=4,
    ),
    "moe": KimiConfig.preset("nano"),
}
WINDOW, SIGMAS = 25, 6.0
POINTS = 100  # of a curve in the log
LOOK_AGAIN = (
    4  # every so many steps the clipped heads are measured once more on the tokens that triggered the clip
)
EDGES = np.sinh(np.linspace(-np.arcsinh(1500), np.arcsinh(1500), 102))  # of the histogram: fine around 0


class Setting(NamedTuple):
    """What decides a run. `optimizer`, of the hidden matrices, is "muon" or "adamw"; tau = inf switches QK-Clip off.

    `table_lr` is AdamW's rate for embedding, head and norms, whoever moves the rest; `falls` says whether the rates
    fall over the last third of the run.
    """

    size: str
    optimizer: str
    lr: float
    table_lr: float
    decay: float
    tau: float
    seed: int
    steps: int
    falls: bool = True

    def file(self) -> Path:
        """Where the record of this run is kept."""
        name = hashlib.sha256(json.dumps([str(value) for value in self]).encode()).hexdigest()[:16]
        return KEPT / f"{self.size}-{self.optimizer}-{name}.json"


@functools.cache
def windows(size: str) -> tuple[np.ndarray, np.ndarray]:
    """(training, validation) windows (N, 256) of Python's standard library, split by document.

    The dense model reads bytes, the mixture of experts the tokens of the shipped tokenizer.
    """
    documents = corpus.stdlib_documents(TEXT_BYTES)
    if SIZES[size].vocab_size != 256:
        return corpus.windows(Tokenizer.load(), documents, WINDOW_TOKENS)
    texts = ("\0".join(document.text for document in part) for part in corpus.split(documents))
    training, validation = (np.frombuffer(text.encode(), np.uint8) for text in texts)
    return corpus.pack(training, WINDOW_TOKENS), corpus.pack(validation, WINDOW_TOKENS)


def build(size: str, seed: int) -> KimiMini:
    """A model of that size with the weights of that seed."""
    torch.manual_seed(seed)
    return KimiMini(SIZES[size])


def optimizer_for(model: KimiMini, setting: Setting) -> MuonClip:
    """Muon or AdamW for the hidden matrices, AdamW for the rest; QK-Clip does not mind which."""
    hidden, rest = split_parameters(model)
    groups = [
        dict(params=hidden, algorithm=setting.optimizer, lr=setting.lr),
        dict(params=rest, algorithm="adamw", lr=setting.table_lr),
    ]
    return MuonClip(groups, weight_decay=setting.decay, tau=setting.tau, model=model)


class Recorder:
    """Hears of every step: maxima (L, H), clips, and now and then the histogram of all logits on one batch."""

    def __init__(self, model: KimiMini, optimizer: MuonClip, probe: Tensor | None, every: int):
        self.model, self.optimizer, self.probe, self.every = model, optimizer, probe, every
        self.maxima: list[Tensor] = []
        self.clips: list[list] = []
        self.again: list[float] = []
        self.histograms: list[list[int]] = []
        self.at: list[int] = []

    def __call__(self, step: int, ids: Tensor) -> None:
        self.maxima.append(self.optimizer.last_max_logits)
        self.clips.append(self.optimizer.last_clip)
        if self.clips[-1] and step % LOOK_AGAIN == 0:
            after = head_maxima(attention_logits(self.model, ids))
            self.again += [
                after[clip.layer, clip.head].item() / self.optimizer.tau for clip in self.clips[-1]
            ]
        if self.probe is not None and (step + 1) % self.every == 0:
            self.at.append(step + 1)
            self.histograms.append(histogram(self.model, self.probe))

    def after_clips(self, start: int = 0) -> list[float]:
        """S of the next step over tau, for every clip from step `start` on of a head that has a next step."""
        tau = self.optimizer.tau
        return [
            self.maxima[step + 1][clip.layer, clip.head].item() / tau
            for step, clips in enumerate(self.clips[:-1])
            for clip in clips
            if step >= start
        ]


def histogram(model: KimiMini, ids: Tensor) -> list[int]:
    """How many attention logits of all layers and heads on ids (B, T) fall between neighbouring EDGES."""
    table = attention_logits(model, ids)
    return np.histogram(table[table.isfinite()].numpy(), EDGES)[0].tolist()


def train_one(setting: Setting) -> dict:
    """The record of one run, trained now or read back. A run that diverges ends early and says so."""
    if setting.file().is_file():
        return read_json(setting.file())
    began = time.perf_counter()
    training, validation = windows(setting.size)
    chosen = in_turn(training, STEP_WINDOWS, setting.seed)
    model = build(setting.size, setting.seed)
    optimizer = optimizer_for(model, setting)
    probe = text_batch(validation[:4]).ids if setting.seed == 0 else None
    recorder = Recorder(model, optimizer, probe, max(1, setting.steps // 12))
    history, stopped = History(), None
    bar = tqdm(total=setting.steps, unit="step", leave=False, dynamic_ncols=True)

    def data(step: int) -> list[Batch]:
        return [text_batch(chosen(step))]

    def note(step: int, so_far: History) -> None:
        nonlocal history
        history = so_far
        bar.update()
        recorder(step, data(step)[0].ids)

    try:
        train(
            model,
            optimizer,
            data,
            setting.steps,
            lambda step: factor(step, setting.steps, setting.falls),
            bias_rate=Plan().bias_rate,
            progress=note,
        )
        held_out = evaluate_loss(model, [text_batch(part) for part in np.array_split(validation[:64], 4)])
    except (KimiError, FloatingPointError) as error:
        held_out, stopped = None, str(error)
    bar.close()
    record = summary(setting, history, recorder) | {"validation": held_out, "stopped": stopped}
    record["seconds"] = round(time.perf_counter() - began, 1)
    write_json(setting.file(), record)
    return record


def factor(step: int, steps: int, falls: bool = True) -> float:
    """Warm-up over 20 steps, constant, and, when it falls, linear decay over the last third."""
    return wsd(step, steps, min(20, steps // 4), decay_fraction=1 / 3 if falls else 0.0)


def summary(setting: Setting, history: History, recorder: Recorder) -> dict:
    """What of a run goes into the log: numbers of all steps, curves of POINTS points, one head's curve for seed 0."""
    maxima = torch.stack(recorder.maxima)  # (steps, L, H)
    group = max(1, len(maxima) // POINTS)
    top, clipped = maxima.amax((1, 2)).numpy(), np.array(history.clipped_heads)
    firing = np.flatnonzero(clipped)
    record = {
        **setting._asdict(),
        "tau": None if np.isinf(setting.tau) else setting.tau,
        "peak": top.max(),
        "last": top[-1],
        "passed_100": next((int(s) + 1 for s in np.flatnonzero(top > 100)), None),
        "spikes": spikes(history.loss),
        "train_end": float(np.mean(history.loss[-20:])),
        "clips": int(clipped.sum()),
        "last_clip_step": int(firing[-1]) + 1 if len(firing) else None,
        "heads_ever_clipped": len({(c.layer, c.head) for clips in recorder.clips for c in clips}),
        "after_clip": ratios(recorder.after_clips()),
        "same_tokens": ratios(recorder.again),
        "late": ratios(recorder.after_clips(5 * len(maxima) // 6)),  # the rate has fallen below half
        "group": group,
        "loss": thin(history.loss, group, np.mean),
        "max_logit": thin(top, group, np.max),
        "clipped_heads": thin(clipped, group, np.mean),
    }
    if recorder.probe is not None:
        record["heads"] = np.round(maxima[group - 1 :: group].flatten(1).numpy().astype(float), 1).tolist()
        record["histogram"] = {"at": recorder.at, "counts": recorder.histograms}
    return record


def ratios(values: Sequence[float]) -> dict:
    """Of S / tau after clips: how many, the largest, and the share up to 1.05."""
    within = float(np.mean(np.asarray(values) <= 1.05)) if values else None
    return {"n": len(values), "worst": max(values, default=None), "within": within}


def thin(values: Sequence[float], group: int, how) -> list[float]:
    """Neighbouring values, `group` at a time, as one: their mean or maximum; a rest shorter than that is left out."""
    values = np.asarray(values, float)[: len(values) // group * group]
    return np.round(how(values.reshape(-1, group), axis=1), 4).tolist()


def spikes(loss: Sequence[float], window: int = WINDOW, sigmas: float = SIGMAS) -> int:
    """How often a loss curve jumps, by the rule in this module's docstring."""
    count, inside = 0, False
    for step in range(window, len(loss)):
        before = np.asarray(loss[step - window : step])
        middle = np.median(before)
        jump = loss[step] - middle > sigmas * 1.4826 * np.median(np.abs(before - middle))
        count, inside = count + (jump and not inside), jump
    return int(count)
