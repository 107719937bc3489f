"""The runs of `deployment.int4`: a fine-tuning in each format, what is left of the plain one when it is rounded, and
their measures."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from safetensors.torch import load_file

from kimi_mini.agent.conversation import Conversation, training_rows
from kimi_mini.agent.folder import load_agent
from kimi_mini.base.paths import CHECKPOINTS, short
from kimi_mini.evaluation import scoreboard
from kimi_mini.experiments.harness import fingerprint
from kimi_mini.experiments.rl.shared import close
from kimi_mini.experiments.verifiers import generality
from kimi_mini.experiments.verifiers.shared import pools
from kimi_mini.model.compact import int4, mxfp4
from kimi_mini.model.kimi import KimiMini, evaluating
from kimi_mini.pipeline import finetune
from kimi_mini.pipeline.plan import Finetune, Plan, Schedule
from kimi_mini.text import corpus
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training import sft
from kimi_mini.training.batch import Example, collate, text_batch
from kimi_mini.training.loop import evaluate_loss
from kimi_mini.training.rl.objective import token_distributions
from kimi_mini.training.synthesis import SOURCES
from kimi_mini.worlds.registry import held_out_tasks
from kimi_mini.worlds.rows import MANAGED

FORMATS: dict[str, int4.Format] = {
    "int4": int4.rounded,
    "mxfp4": mxfp4.rounded,
    "int3": partial(int4.rounded, bits=3),
    "int2": partial(int4.rounded, bits=2),
}
AWARE = ("int4", "mxfp4", "int2")
TOKENS, TASKS = 300_000, 100
SCHEDULE = Schedule(peak=0.25, decay_start=0.25)
ROWS = (
    *(
        "chain/thinking",
        "chain/add",
        "chain/times",
        "shop/follow",
        "shop/condition",
        "shop/cheapest",
        "shop/buy",
    ),
    *("shop/follow_practised/8", "repair/pass@1"),
)
CALLS, LONG_TASKS, PARTS = 100, 10, 10  # calls in a row, tasks, parts of a decode
READER, READER_TASKS = CHECKPOINTS / "reader", 25


@dataclass(frozen=True)
class Job:
    """One process: all trainings of a seed with their measures ("trained"), or the reader in a format ("reader")."""

    kind: str
    seed: int
    scale: float
    start: Path
    name: str = ""

    def said(self) -> dict:
        """All that decides its numbers, as JSON reads it back."""
        told = asdict(self) | {"start": short(self.start), "weights": fingerprint(self.start)}
        told |= {"tokens": TOKENS, "tasks": TASKS, "schedule": asdict(SCHEDULE), "rows": ROWS}
        return json.loads(json.dumps(told))

    def count(self, whole: int) -> int:
        """A number of tasks at this scale."""
        return max(4, int(whole * self.scale))


def work(job: Job) -> dict:
    """What a job has found, a list of rows."""
    torch.set_num_threads(1)
    return {"found": trained(job) if job.kind == "trained" else [read_by(job)]}


# ---- training ----------------------------------------------------------------------------------------------


@cache
def text() -> list[np.ndarray]:
    """Windows of the plan's text, for training and held out."""
    settings = Plan().text
    return corpus.windows(Tokenizer.load(), corpus.default_documents(settings.stdlib_bytes), settings.window)


def tuned(start: KimiMini, examples: sft.Pools, job: Job, name: str | None) -> KimiMini:
    """A copy of `start`, fine-tuned on; with the experts read in a format, if it is named."""
    model, tokens = copy.deepcopy(start), max(32_000, int(TOKENS * job.scale))
    settings = Finetune(tokens=tokens, ramp=sft.AT_ONCE, reflex_after=0.0, schedule=SCHEDULE)
    plan = Plan(seed=job.seed, finetune=settings)
    windows = text()[0].reshape(-1, settings.text_tokens)
    with int4.aware(model, FORMATS[name] if name else lambda weight: weight):
        finetune.tune(model, examples, plan, windows, title=f"seed {job.seed}, {name or 'plain'}")
    return model


def rounded(model: KimiMini, name: str) -> KimiMini:
    """A copy with experts in this format."""
    other = copy.deepcopy(model)
    int4.round_experts(other, FORMATS[name])
    return other


def trained(job: Job) -> list[dict]:
    """A row for each training and each format of one seed."""
    start, tokenizer = load_agent(job.start)
    examples = pools(tokenizer, SOURCES, max(32_000, int(TOKENS * job.scale)), 100 + job.seed, mistakes=0.15)
    plain = tuned(start, examples, job, None)
    models = {("fp32", "plain"): plain} | {(name, "plain"): rounded(plain, name) for name in FORMATS}
    models |= {(name, "aware"): rounded(tuned(start, examples, job, name), name) for name in AWARE}
    tasks = held_out_tasks("follow", [CALLS], job.count(LONG_TASKS), job.seed)
    walked = scoreboard.solve(plain, tokenizer, tasks, MANAGED)
    found = []
    for (name, training), model in models.items():
        row = {"kind": "trained", "seed": job.seed, "format": name, "training": training}
        row |= measured(model, plain, tokenizer, job) | {"drift": drift(model, plain, walked)}
        found.append(row)
        print({key: value for key, value in row.items() if key != "drift"}, row["drift"]["kl"], flush=True)
    close([walked])
    return found


# ---- measures ----------------------------------------------------------------------------------------------


def measured(model: KimiMini, plain: KimiMini, tokenizer: Tokenizer, job: Job) -> dict:
    """Success on held-out rows, and nats a token on held-out text. Each seed has tasks of its own."""
    rows = {row.name: row for row in scoreboard.ROWS if row.name in ROWS}
    success = {
        name: scoreboard.measure(
            model, tokenizer, replace(rows[name], by_level=False), job.count(TASKS), job.seed
        )
        for name in ROWS
    }
    long = scoreboard.solve(
        model, tokenizer, held_out_tasks("follow", [CALLS], job.count(LONG_TASKS), job.seed), MANAGED
    )
    passed = [conversation.verdict().passed for conversation in long]
    close([long])
    held_out = text()[1]
    chosen = held_out[:: max(1, len(held_out) // Plan().text.held_out)]
    values = {name: entry["value"] for name, entry in success.items()} | {f"{CALLS} calls": fmean(passed)}
    return {"success": values, "text": evaluate_loss(model, [text_batch(chosen)])}


@torch.no_grad()
def drift(model: KimiMini, plain: KimiMini, walked: Sequence[Conversation]) -> dict:
    """Along what `plain` has written, greedily: KL from it to `model` in nats, and the share of tokens of which the
    greedy one is another, means of each tenth of the way."""
    apart: list[list[tuple[float, float]]] = [[] for _ in range(PARTS)]
    with evaluating(model), evaluating(plain):
        for conversation in walked:
            rows = [
                Example(np.asarray(ids, np.int32), np.asarray(own, bool))
                for ids, own, _ in training_rows(conversation)
            ]
            pairs = []
            for batch in (collate(rows[i : i + 16]) for i in range(0, len(rows), 16)):
                was, now = (token_distributions(one, batch, 1.0)[0] for one in (plain, model))  # (M, V)
                kl = (was.exp() * (was - now)).sum(-1)
                pairs.append(torch.stack([kl, (was.argmax(-1) != now.argmax(-1)).float()], -1))
            for part, values in zip(apart, torch.cat(pairs).tensor_split(PARTS)):
                part.append(tuple(values.mean(0).tolist()))
    kl, flips = zip(*(np.mean(part, 0).tolist() for part in apart))
    return {"kl": list(kl), "flips": list(flips)}


def read_by(job: Job) -> dict:
    """The agent that reads in one format, rounded and never trained with it: rows that were held out in kind."""
    model, tokenizer = load_agent(job.start)
    if job.name != "fp32":
        model = rounded(model, job.name)
    found = {
        row.name: scoreboard.measure(model, tokenizer, row, job.count(READER_TASKS))
        for row in generality.ROWS
    }
    success = {name: entry["value"] for name, entry in found.items()}
    print(job.name, success, flush=True)
    return {
        "kind": "reader",
        "format": job.name,
        "training": "plain",
        "success": success,
        "n": job.count(READER_TASKS),
    }


def sizes(model: KimiMini) -> dict[str, int]:
    """Bytes of the weights' file, and of routed experts in it: in fp32, in bf16, and with experts packed."""
    found = {}
    with tempfile.TemporaryDirectory() as place:
        kinds = {"fp32": model, "bf16": copy.deepcopy(model).bfloat16(), "int4": model}
        for name, one in kinds.items():
            folder = Path(place) / name
            one.save_pretrained(folder, packed=name == "int4")
            file = folder / "model.safetensors"
            found[name] = file.stat().st_size
            parts = load_file(file).items()
            found[f"{name} experts"] = sum(value.nbytes for key, value in parts if ".mlp.experts." in key)
    return found
