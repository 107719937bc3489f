"""The stages of `make run`, one function each: take the run, do the work, return what to note about it.

Every function can be stopped anywhere and called again. What it has finished it reads from the run's folder.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from kimi_mini.agent import folder as folder_
from kimi_mini.base import files
from kimi_mini.base.errors import KimiError
from kimi_mini.base.files import read_arrays
from kimi_mini.model.kimi import KimiMini
from kimi_mini.pipeline.plan import Run
from kimi_mini.text import corpus
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training import recipe, sft, synthesis
from kimi_mini.training.loop import History, train
from kimi_mini.training.machine.placement import choose_device
from kimi_mini.training.recipe import BIAS_RATE, Bar, curve, optimizer_for

WINDOW = 256  # tokens of a window of real text


def tokenizer_of(run: Run) -> Tokenizer:
    """The shipped tokenizer."""
    return Tokenizer.load()


def new_model(run: Run) -> KimiMini:
    """The preset with random weights from the run's seed."""
    return recipe.new_model(run.plan.preset, choose_device(run.plan.device), run.plan.seed)


def save_checkpoint(run: Run, model: KimiMini, name: str) -> Path:
    """A Hugging Face folder with the tokenizer and the chat template in it."""
    folder = run.folder / "checkpoints" / name
    folder_.save_agent(model, folder)
    return folder


def load_checkpoint(run: Run, name: str) -> KimiMini:
    """The model that an earlier stage saved."""
    if not (run.folder / "checkpoints" / name / "config.json").is_file():
        raise KimiError(
            f"the checkpoint {name!r} is gone from {run.folder}: delete that folder to train again"
        )
    return folder_.load_agent(run.folder / "checkpoints" / name)[0].to(run.plan.device)


def trained(
    run: Run, stage: str, model: KimiMini, data: Callable, steps: int, tokens: int, **options
) -> History:
    """One training stage with its bar, resumable from data/run/STAGE.pt."""
    bar = Bar(tokens)
    options.setdefault("schedule", lambda step: 1.0)
    history = train(
        model,
        optimizer_for(model),
        data,
        steps,
        bias_rate=BIAS_RATE,
        state_file=run.folder / f"{stage}.pt",
        progress=bar,
        **options,
    )
    bar.close()
    return history


def note_of(history: History, **more) -> dict:
    """What every training stage notes."""
    return {
        "seconds": round(history.seconds, 2),
        "tokens": sum(history.tokens),
        "curve": curve(history),
        **more,
    }


def text_windows(run: Run, tokenizer: Tokenizer) -> tuple[np.ndarray, np.ndarray]:
    """Training and validation windows (N, 256) of real text, split by document; cached in the run's folder."""
    file = run.folder / "text.npz"
    if not file.is_file():
        parts = corpus.split(corpus.default_documents(5_000_000))
        windows = [corpus.pack(corpus.token_stream(tokenizer, part), WINDOW) for part in parts]
        files.save_arrays(file, training=windows[0], validation=windows[1])
    arrays = read_arrays(file)
    return arrays["training"], arrays["validation"]


def training_pools(run: Run) -> sft.Pools:
    """The examples that passed, by source and level."""
    return sft.pools_of(synthesis.load(run.folder / "training.npz"))
