"""Pre-training as a command of its own: on one CPU, one GPU, or several processes under torchrun.

    python -m kimi_mini.pipeline.pretrain --tokens 500000                                  this machine, as it is
    python -m kimi_mini.pipeline.pretrain --preset mini --tokens 100000000 --hub NAME      a GPU, text from the hub
    torchrun --nproc-per-node 8 -m kimi_mini.pipeline.pretrain --preset mini --tokens 100000000 --hub NAME    8 GPUs

Device, number format and micro-batch choose themselves. The run saves itself and goes on when it is started again, with
any number of processes: a step is the same step however it is shared out. A folder keeps to the plan it was begun with
(plan.json). What it leaves there: state.pt, pretrain.json (every step), and checkpoint/, which transformers loads too.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kimi_mini.agent import folder as folder_
from kimi_mini.base import files
from kimi_mini.base.command import above_zero, folder, in_one_line, natural, positive
from kimi_mini.base.errors import KimiError
from kimi_mini.base.evidence import check_plan
from kimi_mini.base.files import read_arrays, write_json
from kimi_mini.inference.generation import generate
from kimi_mini.model.kimi import KimiMini
from kimi_mini.text import corpus
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training.batch import Batch, Example, collate
from kimi_mini.training.loop import History, evaluate_loss, train
from kimi_mini.training.machine import distributed
from kimi_mini.training.machine.placement import DTYPES, Placement, matmul_rate, peak_memory, training_flops
from kimi_mini.training.optim.schedule import wsd
from kimi_mini.training.recipe import ADAMW_LR, BIAS_RATE, MUON_LR, STEP_TOKENS, new_model, optimizer_for

HELD_OUT = 64  # validation windows that are measured
CHARACTERS = 4  # of a token, at most, in long text (2.4 in Python's standard library)
PLAN = (
    "preset",
    "tokens",
    "window",
    "step_tokens",
    "lr",
    "adamw_lr",
    "hub",
    "hub_config",
    "text_column",
    "documents",
    "bytes",
    "seed",
)
PROMPT = "def read("


def make_windows(file: Path, documents: list[corpus.Document], window: int) -> None:
    """Training and validation windows (N, window) int32 in `file`, split by document."""
    tokenizer = Tokenizer.load()
    packed = [corpus.pack(corpus.token_stream(tokenizer, part), window) for part in corpus.split(documents)]
    if not all(map(len, packed)):
        raise KimiError(
            f"{len(packed[0])} windows of {window} tokens to train on and {len(packed[1])} to measure: "
            "take more text or a shorter window"
        )
    files.save_arrays(file, training=packed[0], validation=packed[1])


def begin(folder: Path, args: argparse.Namespace) -> None:
    """A new folder gets its plan and its text; one of another plan is refused. A word that cannot be followed leaves
    no plan behind, so that the right one can."""
    new = check_plan(folder, {name: getattr(args, name) for name in PLAN})
    try:
        if not (folder / "text.npz").is_file():
            make_windows(folder / "text.npz", documents(args), args.window)
    except KimiError:
        if new:
            (folder / "plan.json").unlink()
        raise


def as_batch(windows: np.ndarray) -> Batch:
    """Windows (B, T) as one batch; every token is learned."""
    return collate([Example(row, np.ones(len(row), bool)) for row in windows])


def step_data(windows: np.ndarray, rows: int, seed: int) -> Callable[[int], list[Batch]]:
    """data(step): this rank's share of the step's `rows` windows. The order is a function of the seed alone."""
    if rows < distributed.world_size():
        raise KimiError(f"a step of {rows} windows cannot be shared by {distributed.world_size()} processes")
    order = np.random.default_rng([seed, 2]).permutation(len(windows))

    def data(step: int) -> list[Batch]:
        chosen = np.take(order, np.arange(step * rows, (step + 1) * rows), mode="wrap")
        return [as_batch(windows[distributed.share(chosen)])]

    return data


@torch.no_grad()
def sample(
    model: KimiMini,
    tokenizer: Tokenizer,
    prompt: str = PROMPT,
    tokens: int = 60,
    temperature: float = 0.7,
    seed: int = 0,
) -> str:
    """What the model makes of a prompt."""
    ids = torch.tensor([tokenizer.encode(prompt)], device=model.lm_head.weight.device)
    generator = torch.Generator(ids.device).manual_seed(seed)
    was_training = model.training
    model.eval()
    written: Tensor = generate(model, ids, tokens, temperature, generator=generator)
    model.train(was_training)
    return tokenizer.decode(written[0].tolist())


class Report:
    """Says how it goes every few seconds: loss, speed, share of the matmul rate (MFU), the largest logit, the fullest
    expert, and now and then a sample."""

    def __init__(
        self,
        model: KimiMini,
        tokenizer: Tokenizer,
        place: Placement,
        steps: int,
        window: int,
        every: float,
        samples: int,
    ):
        self.model, self.tokenizer, self.steps, self.every = model, tokenizer, steps, every
        self.flops = training_flops(model.config, window)
        self.most = matmul_rate(place.device, place.dtype) * distributed.world_size()  # FLOP/s
        self.sample_steps = {steps * k // samples for k in range(1, samples)} if samples else set()
        self.said = 0.0

    def __call__(self, step: int, history: History) -> None:
        if distributed.rank():
            return
        if time.perf_counter() - self.said > self.every or step == self.steps - 1:
            self.said = time.perf_counter()
            rate = sum(history.tokens) / max(history.seconds, 1e-9)
            print(
                f"step {step + 1:>5}/{self.steps}  loss {np.mean(history.loss[-10:]):.3f}  {rate:>9,.0f} tokens/s "
                f"({rate * self.flops / 1e9:,.0f} GFLOP/s, MFU {rate * self.flops / self.most:.0%})  largest logit "
                f"{history.max_logit[-1]:.1f}  MaxVio {history.max_violation[-1]:.2f}",
                flush=True,
            )
        if step in self.sample_steps:
            print("    " + repr(sample(self.model, self.tokenizer)), flush=True)


def pretrain(args: argparse.Namespace) -> History:
    """Train, measure, save. Every rank returns the same history."""
    if args.window < 2:
        raise KimiError("a window of one token has nothing to learn from: take --window 2 or more")
    place = Placement.choose(args.device, args.dtype, args.micro_tokens)
    tokenizer, folder = Tokenizer.load(), Path(args.folder)
    first = distributed.rank() == 0
    model = new_model(args.preset, place.device, args.seed)
    distributed.first_rank(lambda: begin(folder, args))
    distributed.same_weights(model)
    text = read_arrays(folder / "text.npz")
    training, validation = text["training"], text["validation"]
    rows = max(1, args.step_tokens // args.window)
    steps = max(1, args.tokens // (rows * args.window))
    held_out = [as_batch(validation[:: max(1, len(validation) // HELD_OUT)])]
    before = evaluate_loss(model, held_out, place)
    if first:
        count = model.config.count_parameters()
        print(
            f"{place}; {distributed.world_size()} process(es); {count.total:,} parameters, {count.activated:,} "
            f"active; {len(training) * args.window:,} tokens of text, {steps} steps of {rows * args.window:,}",
            flush=True,
        )
    optimizer = optimizer_for(model, args.lr, args.adamw_lr)
    for group in optimizer.param_groups:
        group["ns_dtype"] = DTYPES.get(args.ns_dtype)  # None: the faster one
    history = train(
        model,
        optimizer,
        step_data(training, rows, args.seed),
        steps,
        lambda step: wsd(step, steps, min(20, steps // 4), decay_fraction=0.3, floor=0.1),
        bias_rate=BIAS_RATE,
        state_file=folder / "state.pt",
        place=place,
        progress=Report(model, tokenizer, place, steps, args.window, args.every, args.samples),
    )
    if first:
        folder_.save_agent(model, folder / "checkpoint")
    after = evaluate_loss(model, held_out, place)
    if first:
        measured = {
            "validation_before": before,
            "validation_loss": after,
            "processes": distributed.world_size(),
            "peak_bytes": peak_memory(place.device),
            "placement": str(place),
        }
        write_json(folder / "pretrain.json", measured | asdict(history))
        print(
            f"validation loss {before:.3f} -> {after:.3f} nats a token; peak memory "
            f"{measured['peak_bytes'] / 2**20:,.0f} MiB; {folder / 'checkpoint'}"
        )
    return history


def documents(args: argparse.Namespace) -> list[corpus.Document]:
    """The local text, or as much of the data set as the run can read."""
    if args.hub:
        most = max(args.bytes, CHARACTERS * args.tokens)
        return corpus.without_copies(
            corpus.load_hub(
                args.hub,
                text_column=args.text_column,
                max_documents=args.documents,
                max_characters=most,
                **({"name": args.hub_config} if args.hub_config else {}),
            )
        )
    return corpus.default_documents(args.bytes)


def parser() -> argparse.ArgumentParser:
    """All options; the defaults are the pipeline's."""
    words = argparse.ArgumentParser(
        prog="python -m kimi_mini.pipeline.pretrain", description=__doc__.splitlines()[0]
    )
    add = words.add_argument
    add("--preset", default="nano", help="size of the model: nano (CPU), mini (GPU)")
    add("--tokens", type=positive, default=1_300_000, help="how many to train on")
    add("--folder", type=folder, default="data/run/pretrain-alone", help="where the run is kept")
    add("--window", type=positive, default=256, help="tokens of a window")
    add(
        "--step-tokens",
        type=positive,
        default=STEP_TOKENS,
        help="tokens of one optimizer step, over all processes",
    )
    add("--micro-tokens", type=positive, default=None, help="tokens at once (default: as many as fit)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    add("--dtype", default="auto", help="auto, fp32, bf16")
    add(
        "--ns-dtype",
        default="auto",
        choices=("auto", *DTYPES),
        help="of the orthogonalising: bf16 turns differences of 1e-7 (another number of processes) into 1e-4",
    )
    add("--lr", type=above_zero, default=MUON_LR, help="of the matrices (Muon)")
    add("--adamw-lr", type=above_zero, default=ADAMW_LR, help="of embedding, head and norms")
    add("--hub", default=None, help="a data set of the Hugging Face hub in place of the local text")
    add("--hub-config", default=None, help="the configuration of that data set, where it has several")
    add("--text-column", default="text", help="its column of text")
    add("--documents", type=positive, default=None, help="at most so many documents of it")
    add(
        "--bytes",
        type=positive,
        default=5_000_000,
        help="of Python's standard library, beside Moby-Dick; of the hub at least so many",
    )
    add("--seed", type=natural, default=0)
    add("--samples", type=natural, default=4, help="how often to show what it writes")
    add("--every", type=float, default=5.0, help="seconds between lines")
    return words


def main(words: list[str] | None = None) -> int:
    """Run; what the user can put right ends in one line and exit status 2."""
    args = parser().parse_args(words)

    def command() -> None:
        with distributed.joined(args.device):
            pretrain(args)

    return in_one_line(command)


if __name__ == "__main__":
    sys.exit(main())
