"""Pre-training as a command of its own: on one CPU, one GPU, or several processes under torchrun.

    python -m kimi_mini.pretrain --tokens 500000                                   this machine, as it is
    python -m kimi_mini.pretrain --preset mini --tokens 100000000 --hub NAME       a GPU, text from the hub
    torchrun --nproc-per-node 8 -m kimi_mini.pretrain --preset mini ...            eight GPUs, the same numbers

Device, number format and micro-batch choose themselves. The run saves itself and goes on when it is started again, with
any number of processes: a step is the same step however it is shared out. What it leaves in its folder: state.pt,
pretrain.json (every step), and checkpoint/, which transformers loads too.
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

from kimi_mini import corpus, distributed, publishing
from kimi_mini.config import KimiConfig
from kimi_mini.errors import KimiError
from kimi_mini.model import KimiMini
from kimi_mini.placement import DTYPES, Placement, peak_memory, training_flops
from kimi_mini.recipe import ADAMW_LR, BIAS_RATE, MUON_LR, STEP_TOKENS, optimizer_for
from kimi_mini.results import write_json
from kimi_mini.schedule import wsd
from kimi_mini.tokenizer import Tokenizer
from kimi_mini.train import Batch, Example, History, collate, evaluate_loss, train

HELD_OUT = 64  # validation windows that are measured
PROMPT = "def read("


def text_windows(file: Path, tokenizer: Tokenizer, documents: Callable[[], list[corpus.Document]],
                 window: int) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Training and validation windows (N, window) uint16, split by document; made once, then read from `file`."""
    if not file.is_file() and distributed.rank() == 0:
        training, validation = corpus.split(documents())
        corpus.refuse_leak(training, validation)
        packed = [corpus.pack(corpus.token_stream(tokenizer, part), window) for part in (training, validation)]
        publishing.save_arrays(file, training=packed[0], validation=packed[1])
    distributed.wait()
    with np.load(file) as arrays:
        windows = arrays["training"], arrays["validation"]
    if windows[0].shape[1] != window or not len(windows[1]):
        raise KimiError(f"{file} holds {len(windows[1])} validation windows of {windows[0].shape[1]} tokens: take more "
                        "text, or another --folder for another --window")  # fmt: skip
    return windows


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
def sample(model: KimiMini, tokenizer: Tokenizer, prompt: str = PROMPT, tokens: int = 60, temperature: float = 0.7,
           seed: int = 0) -> str:  # fmt: skip
    """What the model makes of a prompt."""
    ids = torch.tensor([tokenizer.encode(prompt)], device=model.lm_head.weight.device)
    generator = torch.Generator(ids.device).manual_seed(seed)
    was_training = model.training
    model.eval()
    written: Tensor = model.generate(ids, tokens, temperature, generator=generator)
    model.train(was_training)
    return tokenizer.decode(written[0].tolist())


class Report:
    """Says how it goes every few seconds: loss, speed, share of the matmul rate, and now and then a sample."""

    def __init__(self, model: KimiMini, tokenizer: Tokenizer, steps: int, window: int, every: float, samples: int):
        self.model, self.tokenizer, self.steps, self.every = model, tokenizer, steps, every
        self.flops = training_flops(model.config, window)
        self.sample_steps = {steps * k // samples for k in range(1, samples)} if samples else set()
        self.said = 0.0

    def __call__(self, step: int, history: History) -> None:
        if distributed.rank():
            return
        if time.perf_counter() - self.said > self.every or step == self.steps - 1:
            self.said = time.perf_counter()
            rate = sum(history.tokens) / max(history.seconds, 1e-9)
            print(f"step {step + 1:>5}/{self.steps}  loss {np.mean(history.loss[-10:]):.3f}  {rate:>9,.0f} tokens/s "
                  f"({rate * self.flops / 1e9:,.0f} GFLOP/s)  largest logit {history.max_logit[-1]:.1f}", flush=True)
        if step in self.sample_steps:
            print("    " + repr(sample(self.model, self.tokenizer)), flush=True)


def pretrain(args: argparse.Namespace) -> History:
    """Train, measure, save. Every rank returns the same history."""
    place = Placement.choose(args.device, args.dtype, args.micro_tokens)
    tokenizer, folder = Tokenizer.load(), Path(args.folder)
    folder.mkdir(parents=True, exist_ok=True)
    first = distributed.rank() == 0
    torch.manual_seed(args.seed)
    model = KimiMini(preset(args.preset)).to(place.device)
    distributed.same_weights(model)
    training, validation = text_windows(folder / "text.npz", tokenizer, lambda: documents(args), args.window)
    rows = max(1, args.step_tokens // args.window)
    steps = max(1, args.tokens // (rows * args.window))
    held_out = place.cut([as_batch(validation[:: max(1, len(validation) // HELD_OUT)])])
    before = evaluate_loss(model, held_out, place)
    if first:
        count = model.config.count_parameters()
        print(f"{place}; {distributed.world_size()} process(es); {count.total:,} parameters, {count.activated:,} "
              f"active; {len(training) * args.window:,} tokens of text, {steps} steps of {rows * args.window:,}",
              flush=True)  # fmt: skip
    optimizer = optimizer_for(model, args.lr, args.adamw_lr)
    for group in optimizer.param_groups:
        group["ns_dtype"] = DTYPES.get(args.ns_dtype)  # None: the faster one
    history = train(
        model, optimizer, step_data(training, rows, args.seed), steps,
        lambda step: wsd(step, steps, min(20, steps // 4), decay_fraction=0.3, floor=0.1),
        bias_rate=BIAS_RATE, state_file=folder / "state.pt", place=place,
        progress=Report(model, tokenizer, steps, args.window, args.every, args.samples),
    )  # fmt: skip
    after = evaluate_loss(model, held_out, place)
    if first:
        publishing.save_agent(model, folder / "checkpoint")
        measured = {"validation_before": before, "validation_loss": after, "processes": distributed.world_size(),
                    "peak_bytes": peak_memory(place.device), "placement": str(place)}  # fmt: skip
        write_json(folder / "pretrain.json", measured | asdict(history))
        print(f"validation loss {before:.3f} -> {after:.3f} nats a token; peak memory "
              f"{measured['peak_bytes'] / 2**20:,.0f} MiB; {folder / 'checkpoint'}")  # fmt: skip
    return history


def preset(name: str) -> KimiConfig:
    """A preset by name; KimiError lists them for any other."""
    try:
        return KimiConfig.preset(name)
    except ValueError as error:
        raise KimiError(str(error)) from None


def documents(args: argparse.Namespace) -> list[corpus.Document]:
    """The local text, or the data set that was asked for."""
    if args.hub:
        return corpus.without_copies(corpus.load_hub(args.hub, max_documents=args.documents))
    return corpus.default_documents(args.bytes)


def parser() -> argparse.ArgumentParser:
    """All options; the defaults are the pipeline's."""
    words = argparse.ArgumentParser(prog="python -m kimi_mini.pretrain", description=__doc__.splitlines()[0])
    add = words.add_argument
    add("--preset", default="nano", help="size of the model: nano (CPU), mini (GPU)")
    add("--tokens", type=int, default=1_300_000, help="how many to train on")
    add("--folder", default="data/run/pretrain-alone", help="where the run is kept")
    add("--window", type=int, default=256, help="tokens of a window")
    add("--step-tokens", type=int, default=STEP_TOKENS, help="tokens of one optimizer step, over all processes")
    add("--micro-tokens", type=int, default=None, help="tokens at once (default: as many as fit)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    add("--dtype", default="auto", help="auto, fp32, bf16")
    add("--ns-dtype", default="auto", choices=("auto", *DTYPES),
        help="of the orthogonalising: bf16 turns differences of 1e-7 (another number of processes) into 1e-4")
    add("--lr", type=float, default=MUON_LR, help="of the matrices (Muon)")
    add("--adamw-lr", type=float, default=ADAMW_LR, help="of embedding, head and norms")
    add("--hub", default=None, help="a data set of the Hugging Face hub in place of the local text")
    add("--documents", type=int, default=None, help="at most so many documents of it")
    add("--bytes", type=int, default=5_000_000, help="of Python's standard library, beside Moby-Dick")
    add("--seed", type=int, default=0)
    add("--samples", type=int, default=4, help="how often to show what it writes")
    add("--every", type=float, default=5.0, help="seconds between lines")
    return words


def main(words: list[str] | None = None) -> int:
    """Run; what the user can put right ends in one line and exit status 2."""
    args = parser().parse_args(words)
    try:
        with distributed.joined():
            pretrain(args)
    except KimiError as error:
        print(f"kimi_mini: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
