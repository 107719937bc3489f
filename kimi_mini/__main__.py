"""Command line: python -m kimi_mini run | chat | eval | bench | ledger.

Each command imports its own modules, so that --help answers at once.
"""

import argparse
import sys

from kimi_mini.base.command import SAVED, above_zero, folder, in_one_line, natural, positive, threads
from kimi_mini.base.errors import KimiError

CHECKPOINT = "data/checkpoints/final"


def main(words: list[str] | None = None) -> int:
    """Run one command and return its exit status."""
    args = build_parser().parse_args(words)

    def command() -> int | None:
        if args.threads:
            _set_threads(args.threads)
        return args.function(args)

    return in_one_line(command, SAVED if args.command == "run" else "stopped; nothing was changed")


# ------------------------------------------------------------------------------------------------ commands
def run(args: argparse.Namespace) -> int | None:
    _check_preset(args.preset)
    from kimi_mini.pipeline import main as pipeline

    return pipeline.main(args)


def chat(args: argparse.Namespace) -> int | None:
    from kimi_mini.agent import terminal

    return terminal.main(args)


def evaluate(args: argparse.Namespace) -> int | None:
    from kimi_mini.evaluation import scoreboard

    return scoreboard.main(args)


def bench(args: argparse.Namespace) -> int | None:
    from kimi_mini.experiments.deployment import speed as bench

    return bench.main(args)


def ledger(args: argparse.Namespace) -> int | None:
    from kimi_mini.base import ledger

    return ledger.main(args)


def _check_preset(name: str) -> None:
    """Raises KimiError that lists the presets when there is none of this name."""
    from kimi_mini.model.config import KimiConfig

    try:
        KimiConfig.preset(name)
    except ValueError as error:
        raise KimiError(str(error)) from None


def _set_threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


# -------------------------------------------------------------------------------------------------- parser
def build_parser() -> argparse.ArgumentParser:
    """All commands with their options; needs nothing but the standard library."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--threads", type=threads, default=None, help="processor threads (default: torch's own)"
    )
    common.add_argument(
        "--seed", type=natural, default=0, help="seed of everything that is drawn (default 0)"
    )
    shipped = argparse.ArgumentParser(add_help=False)
    shipped.add_argument("--checkpoint", default=CHECKPOINT, help=f"checkpoint folder (default {CHECKPOINT})")

    parser = argparse.ArgumentParser(prog="python -m kimi_mini", description="Kimi K2 Thinking in miniature.")
    commands = parser.add_subparsers(required=True, metavar="command", dest="command")

    train = commands.add_parser("run", parents=[common], help="train from random weights to a checked agent")
    train.add_argument("--preset", default="nano", help="size of the model (default nano)")
    train.add_argument("--device", default="cpu", help="torch device (default cpu)")
    train.add_argument(
        "--folder", type=folder, default="data/run", help="where the run is kept (default data/run)"
    )
    train.add_argument(
        "--scale", type=above_zero, default=1.0, help="of all budgets: 0.01 is a rehearsal of a minute"
    )
    train.set_defaults(function=run)

    talk = commands.add_parser("chat", parents=[common, shipped], help="talk to the agent, with its tools")
    talk.add_argument("--reflex", action="store_true", help="answer without thinking first")
    talk.set_defaults(function=chat)

    test = commands.add_parser("eval", parents=[common, shipped], help="measure the scoreboard again")
    test.add_argument("--tasks", type=positive, default=200, help="held-out tasks per row (default 200)")
    test.set_defaults(function=evaluate)

    speed = commands.add_parser("bench", parents=[common], help="measure the speed against transformers")
    speed.set_defaults(function=bench)

    book = commands.add_parser(
        "ledger", parents=[common], help="write README's tables and data/results/README.md from the logs"
    )
    book.add_argument("--check", action="store_true", help="only say whether they are up to date")
    book.set_defaults(function=ledger)
    return parser


if __name__ == "__main__":
    sys.exit(main())
