"""What the stages share: their models, checkpoints, windows and examples, and one training with its bar."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import torch
from tqdm import tqdm

from kimi_mini.agent import folder
from kimi_mini.base import files, ranks
from kimi_mini.base.errors import KimiError
from kimi_mini.model.config import KimiConfig
from kimi_mini.model.kimi import KimiMini
from kimi_mini.pipeline.plan import Plan, Run, Schedule
from kimi_mini.text import corpus, drills
from kimi_mini.text.habits import DESCRIBED, LISTED, Habits
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training import sft, synthesis
from kimi_mini.training.batch import Example
from kimi_mini.training.loop import History, train
from kimi_mini.training.machine.placement import Placement, choose_device, is_out_of_memory
from kimi_mini.worlds.base import SYSTEM


def new_model(preset: str, device: torch.device, seed: int) -> KimiMini:
    """A preset with random weights. KimiError for one that is not known, or that this machine cannot hold."""
    torch.manual_seed(seed)
    try:
        config = KimiConfig.preset(preset)
    except ValueError as error:
        raise KimiError(str(error)) from None
    _refuse_too_large(preset, config, device)
    try:
        return KimiMini(config).to(device)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        total = config.count_parameters().total
        raise KimiError(
            f"{preset} has {total:,} parameters, more than fit here: take a smaller --preset"
        ) from None


def _refuse_too_large(preset: str, config: KimiConfig, device: torch.device) -> None:
    """Raises KimiError, before a tensor is made, when weights, gradients and momentum are more than the free memory."""
    total = config.count_parameters().total
    wanted = 4 * 3 * total * ranks.world_size()  # bytes of fp32: weights, gradients, momentum
    on_gpu = device.type == "cuda"
    free = torch.cuda.mem_get_info(device)[0] if on_gpu else psutil.virtual_memory().available
    if wanted > free:
        raise KimiError(
            f"{preset} has {total:,} parameters and wants {wanted / 1e9:,.1f} GB to be trained; "
            f"{free / 1e9:.1f} GB are free here: take a smaller --preset"
        )


def first_model(plan: Plan) -> KimiMini:
    """The model that a run begins with."""
    return new_model(plan.preset, choose_device(plan.device), plan.seed)


def save_checkpoint(run: Run, model: KimiMini, name: str) -> None:
    """A Hugging Face folder with the tokenizer and the chat template in it."""
    place, habits = run.folder / "checkpoints" / name, habits_of(run.plan)
    ranks.first_rank(lambda: folder.save_agent(model, place, habits))


def habits_of(plan: Plan) -> Habits:
    """What the agent of a plan is used to: our worlds' system text, and the order in which the worlds that it learns
    declare their tools."""
    return Habits(SYSTEM, LISTED if plan.finetune.plain == 1.0 else DESCRIBED)


def load_checkpoint(run: Run, name: str) -> KimiMini:
    """The model that an earlier stage saved."""
    place = run.folder / "checkpoints" / name
    if not (place / "config.json").is_file():
        raise KimiError(
            f"the checkpoint {name!r} is gone from {run.folder}: delete that folder to train again"
        )
    return folder.load_agent(place)[0].to(choose_device(run.plan.device))


def text_windows(file: Path, documents: Callable[[], list[corpus.Document]], length: int) -> list[np.ndarray]:
    """Training and validation windows (N, length) of the documents; cut once and kept in `file`."""
    if not file.is_file():
        training, validation = corpus.windows(Tokenizer.load(), documents(), length)
        files.save_arrays(file, training=training, validation=validation)
    arrays = files.read_arrays(file)
    return [arrays["training"], arrays["validation"]]


def windows_of(run: Run) -> list[np.ndarray]:
    """Training and validation windows of the run's real text."""
    text, file = run.plan.text, run.folder / "text.npz"
    documents = lambda: corpus.default_documents(text.stdlib_bytes)
    ranks.first_rank(lambda: text_windows(file, documents, text.window) and None)  # cut once, read by all
    return text_windows(file, documents, text.window)


def training_pools(run: Run) -> sft.Pools:
    """The examples that passed, by source and level."""
    return sft.pools_of(synthesis.load(run.folder / "training.npz"))


def drill_alphabet(plan: Plan) -> np.ndarray:
    """The symbols that the plan's drills are made of in the end."""
    tokenizer = Tokenizer.load()
    if plan.drill.whole:
        return synthesis.whole_alphabet(tokenizer, plan.seed)
    return synthesis.drill_alphabet(tokenizer)


def drills_kept_up(plan: Plan) -> Callable[[int], list[Example]]:
    """step -> the drills that stay in every step after the first stage."""
    alphabet, kinds = drill_alphabet(plan), drills.KINDS if plan.drill.whole else drills.FIRST

    def made(step: int) -> list[Example]:
        rng = np.random.default_rng([plan.seed, 4, step])
        return [Example(*pair) for pair in drills.drills(rng, plan.drill.kept, alphabet, kinds)]

    return made


# ---- training ----------------------------------------------------------------------------------------------


def place_of(plan: Plan, micro_tokens: int | None = None) -> Placement:
    """The plan's device, and its micro-batches or some of another size."""
    return Placement(choose_device(plan.device), micro_tokens=micro_tokens or plan.micro_tokens)


def trained(
    model: KimiMini,
    plan: Plan,
    data: Callable,
    steps: int,
    schedule: Schedule,
    *,
    place: Placement | None = None,
    optimizer=None,
    **options,
) -> History:
    """One training of `steps` steps by the rules of the plan; options of `train`."""
    return train(
        model,
        optimizer or plan.optimizer.build(model),
        data,
        steps,
        schedule.over(steps),
        bias_rate=plan.bias_rate,
        place=place or place_of(plan),
        **options,
    )


class Bar:
    """A progress bar over tokens that also shows the loss and the largest attention logit. It ends full: a training
    that stops early is done, too."""

    def __init__(self, total: int, title: str = ""):
        self.bar = tqdm(total=total, desc=title, unit="tok", unit_scale=True, dynamic_ncols=True, leave=False)

    def __enter__(self) -> Bar:
        return self

    def __call__(self, step: int, history: History) -> None:
        self.bar.update(sum(history.tokens) - self.bar.n)
        if step % 10 == 0:
            self.bar.set_postfix(
                loss=f"{np.mean(history.loss[-20:]):.3f}", max_logit=f"{history.max_logit[-1]:.0f}"
            )

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            self.bar.total = self.bar.n
        self.bar.close()


def late_loss(history: History, steps: int = 50) -> float:
    """Mean loss of the last `steps` steps."""
    return float(np.mean(history.loss[-steps:]))


def note_of(history: History, **more) -> dict:
    """What every training stage notes."""
    return {
        "seconds": round(history.seconds, 2),
        "tokens": sum(history.tokens),
        "curve": curve(history),
        **more,
    }


def curve(history: History, points: int = 200) -> dict[str, list[float]]:
    """A history thinned to `points` means, for figures."""
    size = max(1, len(history.loss) // points)
    cut = len(history.loss) // size * size
    thin = {"tokens": np.asarray(history.tokens)[:cut].reshape(-1, size).sum(1).tolist()}
    for name in ("loss", "max_logit", "max_violation", "clipped_heads"):
        thin[name] = np.asarray(getattr(history, name))[:cut].reshape(-1, size).mean(1).round(4).tolist()
    return thin
