"""Command line: python -m kimi_mini run, chat, serve, eval, conformance, pretrain, bench, gpu, publish, ledger.

Each command imports its own modules, so that --help answers at once.
"""
# ruff: noqa: E402 - Ctrl-C is answered before the imports, which take a while

import os
import signal
import sys

NOTHING = "stopped; nothing was changed"
AGAIN = [sys.executable, "-m", "kimi_mini"]  # how a command starts processes that do the same


def _stop_at_once(number: int, frame: object) -> None:
    """Ctrl-C or SIGTERM while modules are still being imported."""
    os.write(2, f"kimi_mini: {NOTHING}\n".encode())
    os._exit(128 + number)


if __name__ == "__main__":  # before the imports, which take a while
    signal.signal(signal.SIGINT, _stop_at_once)
    signal.signal(signal.SIGTERM, _stop_at_once)

import argparse
from collections.abc import Callable

from kimi_mini.base import options
from kimi_mini.base.command import SAVED, add_options, in_one_line, natural, read_options, threads
from kimi_mini.base.paths import RUNS
from kimi_mini.pipeline.options import Options


def main(words: list[str] | None = None) -> int:
    """Run one command and return its exit status."""
    args = build_parser().parse_args(words)
    args.again = [*AGAIN, *(sys.argv[1:] if words is None else words)]

    def command() -> int | None:
        if getattr(args, "threads", None):
            _set_threads(args.threads)
        return args.function(args)

    saves = args.command in ("run", "pretrain", "gpu") or getattr(args, "endpoint", None)
    return in_one_line(command, SAVED if saves else NOTHING)


# ------------------------------------------------------------------------------------------------ commands
def run(args: argparse.Namespace) -> int | None:
    from kimi_mini.pipeline import main as pipeline

    return pipeline.main(args)


def pretrain(args: argparse.Namespace) -> int | None:
    from kimi_mini.pipeline import pretrain

    options = read_options(args, Options)
    count = pretrain.count_processes(options)
    return _shared(args, count, lambda: pretrain.main(options))


def publish(args: argparse.Namespace) -> None:
    from pathlib import Path

    from kimi_mini.pipeline import publish

    if args.reader:
        publish.publish_reader(Path(args.folder or RUNS / publish.READER))
    else:
        publish.publish(Path(args.folder or RUNS))


def chat(args: argparse.Namespace) -> int | None:
    from kimi_mini.agent import terminal
    from kimi_mini.base.paths import CHECKPOINTS

    if args.tools and args.checkpoint is None:
        args.checkpoint = str(CHECKPOINTS / "reader")  # the other agent knows its own tools alone
    _choose_agent(args)
    return terminal.main(args)


def serve(args: argparse.Namespace) -> int | None:
    from kimi_mini.agent import serve

    _choose_agent(args)
    return serve.main(args)


def evaluate(args: argparse.Namespace) -> int | None:
    from kimi_mini.base.processes import default_count

    options.check_evaluation(args)
    if args.endpoint:
        from kimi_mini.evaluation import by_endpoint
        from kimi_mini.evaluation.benchmarks import suite

        return suite.by_address(args) if args.suite else by_endpoint.main(args)

    def work() -> None:
        from kimi_mini.evaluation import scoreboard
        from kimi_mini.evaluation.benchmarks import suite
        from kimi_mini.training.machine.distributed import joined

        _choose_agent(args)
        with joined("cpu"):
            suite.main(args) if args.suite else scoreboard.main(args)

    return _shared(args, args.processes or default_count(), work)


def conformance(args: argparse.Namespace) -> None:
    options.check_conformance(args)
    from kimi_mini.evaluation import conformance

    conformance.main(args)


def bench(args: argparse.Namespace) -> int | None:
    from kimi_mini.experiments.deployment import speed as bench

    return bench.main(args)


def gpu(args: argparse.Namespace) -> None:
    from kimi_mini.experiments.gpu import main as on_gpu

    on_gpu.main(args)


def ledger(args: argparse.Namespace) -> int | None:
    from kimi_mini.base import ledger

    return ledger.main(args)


def _choose_agent(args: argparse.Namespace) -> None:
    """Without --checkpoint: one's own agent, or the shipped one; says which."""
    from kimi_mini.agent.folder import newest_agent, whose

    if args.checkpoint is None:
        args.checkpoint = newest_agent()
        print(whose(args.checkpoint))


def _shared(args: argparse.Namespace, count: int, work: Callable[[], int | None]) -> int | None:
    """Do the work here, or start `count` processes that do it together."""
    from kimi_mini.base import processes

    if count == 1 or "WORLD_SIZE" in os.environ:
        return work()
    return processes.start(args.again, count, args.threads or 1)


def _set_threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


# -------------------------------------------------------------------------------------------------- parser
def build_parser() -> argparse.ArgumentParser:
    """All commands with their options; needs nothing but the standard library."""
    threaded = argparse.ArgumentParser(add_help=False)
    threaded.add_argument(
        "--threads", type=threads, default=None, help="processor threads (default: torch's own)"
    )
    common = argparse.ArgumentParser(add_help=False, parents=[threaded])
    common.add_argument(
        "--seed", type=natural, default=0, help="seed of everything that is drawn (default 0)"
    )
    agent = argparse.ArgumentParser(add_help=False)
    agent.add_argument(
        "--checkpoint",
        help="folder of the agent (default: the one that ended last in data/run, else the shipped one)",
    )

    parser = argparse.ArgumentParser(prog="python -m kimi_mini", description="Kimi K2 Thinking in miniature.")
    commands = parser.add_subparsers(required=True, metavar="command", dest="command")

    def add(name: str, function, parents: list, says: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, parents=parents, help=says)
        command.set_defaults(function=function)
        return command

    options.run(add("run", run, [common], "train from random weights to a checked agent"))

    talk = add("chat", chat, [common, agent], "talk to the agent, with its tools")
    talk.add_argument("--reflex", action="store_true", help="answer without thinking first")
    talk.add_argument(
        "--tools", metavar="FILE.py", help="a Python file whose functions the agent gets as tools"
    )

    options.serve(add("serve", serve, [threaded, agent], "an OpenAI-compatible endpoint, and a page"))

    remote = options.remote()
    options.evaluate(add("eval", evaluate, [common, agent, remote], "measure the scoreboard again"))
    says = "does an endpoint call tools as its model would"
    options.conformance(add("conformance", conformance, [common, agent, remote], says))

    alone = add("pretrain", pretrain, [threaded], "pre-training alone: CPU, GPU, or under torchrun")
    add_options(alone, Options)

    add("bench", bench, [threaded], "measure the speed against transformers")
    options.gpu(add("gpu", gpu, [threaded], "measure every row that wants a GPU"))

    options.publish(add("publish", publish, [], "for maintainers: ship a finished run"))

    book = add("ledger", ledger, [], "write README's tables and data/results/README.md from the logs")
    book.add_argument("--check", action="store_true", help="only say whether they are up to date")
    return parser


if __name__ == "__main__":
    sys.exit(main())
