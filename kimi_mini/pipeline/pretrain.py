"""Pre-training on real text: a stage of `make run`, and a command of its own on one CPU, one GPU, or several.

    python -m kimi_mini pretrain --tokens 500000                                  this machine, all its cores
    python -m kimi_mini pretrain --preset mini --tokens 100000000 --hub NAME      a GPU, text from the hub
    torchrun --nproc-per-node 8 -m kimi_mini pretrain --preset mini --tokens 100000000 --hub NAME    8 GPUs

Device, number format and micro-batch choose themselves. The run saves itself and goes on when it is started again, with
any number of processes: a step is the same step however it is shared out. A folder keeps to the plan it was begun with
(plan.json). What it leaves there: state.pt, pretrain.json (every step), and checkpoint/, which transformers loads too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from kimi_mini.agent.folder import save_agent
from kimi_mini.base import processes, ranks
from kimi_mini.base.errors import KimiError
from kimi_mini.base.evidence import check_plan
from kimi_mini.base.files import locked, write_json
from kimi_mini.inference.generation import generate
from kimi_mini.model.config import KimiConfig
from kimi_mini.model.kimi import KimiMini, evaluating
from kimi_mini.pipeline.options import Options
from kimi_mini.pipeline.plan import Plan
from kimi_mini.pipeline.shared import drills_kept_up, new_model, text_windows, trained
from kimi_mini.text import corpus
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training.batch import Batch, in_turn, shared_batches, text_batch
from kimi_mini.training.loop import History, evaluate_loss
from kimi_mini.training.machine import distributed
from kimi_mini.training.machine.choice import choose
from kimi_mini.training.machine.placement import (
    DTYPES,
    Placement,
    choose_device,
    matmul_rate,
    memory_of,
    peak_memory,
    training_flops,
)

PROMPT = "def read("


# ---- the training, for both ----------------------------------------------------------------------------------


def steps_of(plan: Plan) -> int:
    """Steps of the whole."""
    return max(1, plan.pretrain.tokens // (plan.rows * plan.text.window))


def tokens_to_read(plan: Plan) -> int:
    """Tokens of all steps together."""
    return steps_of(plan) * plan.rows * plan.text.window


def step_data(windows: np.ndarray, rows: int, seed: int) -> Callable[[int], list[Batch]]:
    """data(step): this rank's share of the step's `rows` windows. The order is a function of the seed alone."""
    chosen = in_turn(windows, rows, [seed, 2])
    return lambda step: own_share(chosen(step))


def own_share(windows: np.ndarray) -> list[Batch]:
    """This rank's share of `windows`; no batch where they are fewer than the ranks and it has none."""
    own = ranks.share(windows)
    return [text_batch(own)] if len(own) else []


def with_drills(
    data: Callable[[int], list[Batch]], plan: Plan, micro_tokens: int
) -> Callable[[int], list[Batch]]:
    """The same with the drills that the plan keeps up in every step."""
    if not plan.drill.kept:
        return data
    drills = drills_kept_up(plan)
    return lambda step: [*data(step), *shared_batches(drills(step), micro_tokens)]


def held_out_windows(validation: np.ndarray, plan: Plan) -> np.ndarray:
    """Those of the validation windows (N, T) that the loss is measured on."""
    return validation[:: max(1, len(validation) // plan.text.held_out)]


def read_text(
    model: KimiMini,
    windows: Sequence[np.ndarray],
    plan: Plan,
    place: Placement,
    progress: Callable[[int, History], None],
    state_file: Path,
    optimizer=None,
) -> tuple[History, dict[str, float]]:
    """Next-token prediction on `windows` (training, validation), each (N, T); the history, and the loss in nats a token
    on documents held out, before and after."""
    training, validation = windows
    held_out = own_share(held_out_windows(validation, plan))
    before = evaluate_loss(model, held_out, place)
    history = trained(
        model,
        plan,
        with_drills(step_data(training, plan.rows, plan.seed), plan, place.micro_tokens),
        steps_of(plan),
        plan.pretrain.schedule,
        place=place,
        optimizer=optimizer,
        state_file=state_file,
        progress=progress,
    )
    return history, {"validation_before": before, "validation_loss": evaluate_loss(model, held_out, place)}


# ---- the command ---------------------------------------------------------------------------------------------


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
    with evaluating(model):
        written = generate(model, ids, tokens, temperature, generator=generator)
    return tokenizer.decode(written[0].tolist())


class Report:
    """Says how it goes every few seconds: loss, speed, share of the matmul rate (MFU), the largest logit, the fullest
    expert, and now and then a sample."""

    def __init__(
        self, model: KimiMini, place: Placement, steps: int, window: int, every: float, samples: int
    ):
        self.model, self.tokenizer, self.steps, self.every = model, Tokenizer.load(), steps, every
        self.flops = training_flops(model.config, window)
        self.most = matmul_rate(place.device, place.dtype) * ranks.world_size()  # FLOP/s
        self.sample_steps = {steps * k // samples for k in range(1, samples)} if samples else set()
        self.said = 0.0

    def __call__(self, step: int, history: History) -> None:
        if ranks.rank():
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


def documents(options: Options) -> list[corpus.Document]:
    """The local text, or as much of the data set as the run can read."""
    if not options.hub:
        return corpus.default_documents(options.bytes)
    most = max(options.bytes, corpus.CHARACTERS * options.tokens)
    named = {"name": options.hub_config} if options.hub_config else {}
    found = corpus.load_hub(
        options.hub,
        text_column=options.text_column,
        max_documents=options.documents,
        max_characters=most,
        **named,
    )
    return corpus.without_copies(found)


def begin(folder: Path, options: Options) -> None:
    """A new folder gets its plan and its text; one of another plan is refused. Options that cannot be followed leave no
    plan behind: it would refuse the right ones."""
    new = check_plan(folder, options.decisive())
    try:
        training, _ = text_windows(folder / "text.npz", lambda: documents(options), options.window)
        most = 100  # readings of the whole text in one step
        if options.step_tokens > most * training.size:
            raise KimiError(
                f"a step of {options.step_tokens:,} tokens reads the text, {training.size:,} tokens, more than "
                f"{most} times: take a smaller --step-tokens"
            )
    except KimiError:
        if new:
            (folder / "plan.json").unlink()
        raise


def pretrain(options: Options) -> History:
    """Train, measure, save. Every rank returns the same history."""
    options, chosen = fitted(options)
    place = Placement.choose(options.device, options.dtype, options.micro_tokens)
    folder, first = Path(options.folder), ranks.rank() == 0
    plan = options.plan().shared_by(ranks.world_size())
    model = new_model(plan.preset, place.device, plan.seed)
    with ExitStack() as held:
        ranks.first_rank(lambda: held.enter_context(locked(folder)))
        ranks.first_rank(lambda: begin(folder, options))
        distributed.same_weights(model)
        windows = text_windows(folder / "text.npz", lambda: documents(options), plan.text.window)
        if first:
            print(chosen, end="\n" if chosen else "", flush=True)
            count = model.config.count_parameters()
            print(
                f"{place}; {ranks.world_size()} process(es); {count.total:,} parameters, "
                f"{count.activated:,} active; {windows[0].size:,} tokens of text, {steps_of(plan)} steps of "
                f"{tokens_to_read(plan) // steps_of(plan):,}",
                flush=True,
            )
        optimizer = plan.optimizer.build(model)
        for group in optimizer.param_groups:
            group["ns_dtype"] = DTYPES.get(options.ns_dtype)  # None: the faster one
        report = Report(model, place, steps_of(plan), plan.text.window, options.every, options.samples)
        history, measured = read_text(model, windows, plan, place, report, folder / "state.pt", optimizer)
        if first:
            leave(folder, model, place, history, measured)
    return history


def leave(folder: Path, model: KimiMini, place: Placement, history: History, measured: dict) -> None:
    """The checkpoint, pretrain.json, and a last line."""
    save_agent(model, folder / "checkpoint")
    more = {"processes": ranks.world_size(), "peak_bytes": peak_memory(place.device), "placement": str(place)}
    write_json(folder / "pretrain.json", measured | more | asdict(history))
    print(
        f"validation loss {measured['validation_before']:.3f} -> {measured['validation_loss']:.3f} nats a token; "
        f"peak memory {more['peak_bytes'] / 2**20:,.0f} MiB; {folder / 'checkpoint'}"
    )


def fitted(options: Options) -> tuple[Options, str]:
    """The options with what was left open chosen for device and preset, and what to say about it. KimiError for a
    preset that is not known, and for a window that it cannot learn from or that is too long for it."""
    of_the_hub = [options.hub_config, options.documents, None if options.text_column == "text" else "given"]
    if not options.hub and any(of_the_hub):
        raise KimiError(
            "--hub-config, --text-column and --documents are of a data set, which --hub NAME names"
        )
    device = choose_device(options.device)
    try:
        config = KimiConfig.preset(options.preset)
    except ValueError as error:
        raise KimiError(str(error)) from None
    choice = choose(config, device.type, memory_of(device))
    left_open = {
        name: getattr(choice, name)
        for name in ("window", "step_tokens", "micro_tokens")
        if getattr(options, name) is None
    }
    what = ", ".join(
        f"{name.replace('_', ' ')} {value:,}" if value else f"{name.replace('_', ' ')} whole"
        for name, value in left_open.items()
    )
    options = replace(options, **left_open)
    most = config.max_position_embeddings
    if options.window < 2:
        raise KimiError("a window of one token has nothing to learn from: take --window 2 or more")
    if options.window > most:
        raise KimiError(f"{options.preset} has positions for {most:,} tokens: take a shorter --window")
    return options, f"chosen: {what} ({choice.reason})" if left_open else ""


def count_processes(options: Options) -> int:
    """How many processes the command starts: as asked for; one on a GPU (torchrun starts more); on a CPU one a core.
    KimiError for more than find work."""
    if options.processes:
        return fitted(options)[0].plan().shared_by(options.processes).processes
    on_cpu = choose_device(options.device).type == "cpu"
    return min(processes.default_count(), fitted(options)[0].plan().rows) if on_cpu else 1


def main(options: Options) -> None:
    """`python -m kimi_mini pretrain`."""
    with distributed.joined(options.device):
        pretrain(options)
