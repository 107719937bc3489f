"""What every experiment's command line understands, and where its log and figures go.

Only a whole run, with the seeds and checkpoints that the experiment names, replaces what is published under
data/results/ and figures/; anything else is kept in data/run/rehearsal/.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from kimi_mini.base.command import above_zero, folder, natural, positive
from kimi_mini.base.paths import FIGURES, RESULTS, RUNS

REHEARSAL = RUNS / "rehearsal"


def parser(description: str, seeds: Sequence[int] = (0, 1, 2),
           **checkpoints: Path) -> argparse.ArgumentParser:  # fmt: skip
    """The options that all share. checkpoints: option -> folder to start from, such as base=BASE."""
    words = argparse.ArgumentParser(description=description)
    words.add_argument("--seeds", type=natural, nargs="+", default=list(seeds))
    words.add_argument("--scale", type=above_zero, default=1.0, help="of all budgets and task counts")
    words.add_argument("--folder", type=folder, default=None, help="where log and figures go")
    words.add_argument("--threads", type=positive, default=1)
    for name, start in checkpoints.items():
        words.add_argument(f"--{name}", type=Path, default=start, help="checkpoint folder to start from")
    return words


def read(words: argparse.ArgumentParser) -> argparse.Namespace:
    """The command line. `folder` is where the log goes; the number of threads is set."""
    args = words.parse_args()
    if len(set(args.seeds)) < len(args.seeds):
        words.error("--seeds: a seed that is run twice is still one seed")
    torch.set_num_threads(args.threads)
    decisive = {name: value for name, value in vars(args).items() if name not in ("folder", "threads")}
    whole = all(value == words.get_default(name) for name, value in decisive.items())
    args.folder = Path(args.folder) if args.folder else RESULTS if whole else REHEARSAL
    return args


def arguments(description: str, **options) -> argparse.Namespace:
    """`parser` and `read` for an experiment that has no options of its own."""
    return read(parser(description, **options))


def figures(folder: Path) -> Path:
    """Where the figures of a log in `folder` go: figures/ for a published one, else beside it."""
    return FIGURES if folder == RESULTS else folder
