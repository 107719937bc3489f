"""What the experiments of thinking mode share: no training, one shipped agent, task sets of several seeds."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from kimi_mini.agent import conversation
from kimi_mini.agent.folder import load_agent
from kimi_mini.base.evidence import Log
from kimi_mini.base.files import read_json
from kimi_mini.base.intervals import over_seeds, wilson
from kimi_mini.base.paths import CHECKPOINTS, RUNS
from kimi_mini.experiments.options import figures
from kimi_mini.inference.thinking import Turn, write
from kimi_mini.model.kimi import KimiMini
from kimi_mini.text import chat
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.worlds import Task

NOTEBOOK = "08_thinking_mode.ipynb"
BATCH = 192


def shipped() -> Path:
    """The final agent: the one in data/checkpoints, or that of a run of one's own."""
    folders = [CHECKPOINTS / "final", RUNS / "checkpoints" / "final"]
    return next((folder for folder in folders if (folder / "config.json").is_file()), folders[0])


def begin(name: str, args: argparse.Namespace) -> tuple[KimiMini, Tokenizer, Log]:
    """The agent, and a log that names its weights."""
    model, tokenizer = load_agent(args.checkpoint)
    log = Log(name, seeds=args.seeds, folder=args.folder, weights=fingerprint(args.checkpoint))
    return model, tokenizer, log


def finish(log: Log, **draws: Callable[[dict], Figure]) -> None:
    """Save the log and draw its figures NAME.png: into figures/ when the log is the published one, else beside it."""
    path = log.save()
    for name, draw in draws.items():
        draw(read_json(path)).savefig(figures(path.parent) / f"{name}.png", dpi=110, bbox_inches="tight")
    print(path)


def fingerprint(folder: Path) -> str:
    """Twelve hexadecimal digits that tell the weights of a checkpoint folder apart."""
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()[:12]


def prompt_ids(tokenizer: Tokenizer, task: Task, thinking: bool = True) -> list[int]:
    """The opening of a task without tools, up to where the assistant takes over."""
    messages = [{"role": "system", "content": conversation.SYSTEM}, {"role": "user", "content": task.prompt}]
    return chat.encode(tokenizer, messages, add_generation_prompt=True, thinking=thinking)[0]


def write_in_batches(model: KimiMini, tokenizer: Tokenizer, prompts: Sequence[list[int]], **options) -> list[Turn]:
    """`thinking.write`, BATCH prompts at a time; `prefixes` and a list of budgets are cut along."""
    turns: list[Turn] = []
    for start in range(0, len(prompts), BATCH):
        part = slice(start, start + BATCH)
        cut = {key: value[part] if isinstance(value, list) else value for key, value in options.items()}
        turns += write(model, tokenizer, prompts[part], **cut)
    return turns


def number(turn: Turn, tokenizer: Tokenizer) -> int | None:
    """The answer as a number; None when there is none."""
    text = (chat.parse_ids(tokenizer, turn.ids)["content"] or "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 9 else None


def rate(successes: int, count: int) -> dict:
    """A success rate over the tasks of all seeds (one model, so only the tasks differ): {value, low, high}, Wilson."""
    low, high = wilson(successes, count)
    return {"value": successes / count, "low": low, "high": high}


def across(values: Sequence[float]) -> dict:
    """A difference between arms on the same tasks: mean over seeds, t interval; {value, low, high}."""
    if len(values) < 2:
        return {"value": values[0], "low": None, "high": None}
    return dict(zip(("value", "low", "high"), over_seeds(values)))


def share_across(values: Sequence[float]) -> dict:
    """`across` for shares: the interval ends at 0 and at 1."""
    found = across(values)
    return {key: value if value is None else min(max(value, 0.0), 1.0) for key, value in found.items()}
