"""The options of the commands that have many; what they mean is said where the command is."""

from __future__ import annotations

import argparse

from kimi_mini.base.command import (
    above_zero,
    folder,
    from_zero,
    json_object,
    natural,
    new_file,
    port,
    positive,
    threads,
    warmth,
)
from kimi_mini.base.errors import KimiError

REMOTE = ("model", "key_file", "parallel", "timeout", "no_stream", "temperature", "max_tokens", "extra")
REMOTE += ("thinking_off",)  # what is of an endpoint alone; None where it is not given


def serve(server: argparse.ArgumentParser) -> None:
    """Of the endpoint (see agent.serve)."""
    server.add_argument(
        "--host", default="127.0.0.1", help="address to listen at (default: this machine alone)"
    )
    server.add_argument("--port", type=port, default=8000, help="default 8000; 0: any that is free")
    server.add_argument("--places", type=positive, default=16, help="answers written at a time (default 16)")
    server.add_argument("--queue", type=natural, default=64, help="requests that may wait (default 64)")
    server.add_argument("--timeout", type=above_zero, default=120.0, help="seconds a request may take (120)")
    server.add_argument(
        "--temperature",
        type=warmth,
        default=0.0,
        help="of requests that name none (0 to 2; default 0, as the scoreboard)",
    )
    server.add_argument(
        "--max-tokens",
        type=positive,
        default=1024,
        help="of answers to requests that name none (default 1024)",
    )
    server.add_argument(
        "--api-key-file", metavar="FILE", help="holds the key; or KIMI_MINI_API_KEY (default: none)"
    )
    server.add_argument(
        "--adapter",
        action="append",
        default=[],
        metavar="NAME=FOLDER",
        help="serve an adapter under this name",
    )
    server.add_argument(
        "--unconstrained", action="store_true", help="calls are not held to their schemas (to compare)"
    )
    server.add_argument(
        "--strict-reasoning", action="store_true", help="refuse calls that come back without their thought"
    )


def run(train: argparse.ArgumentParser) -> None:
    """Of a run (see pipeline.plan)."""
    train.add_argument("--preset", help="size of the model (default nano; micro for a reader)")
    train.add_argument("--device", default="cpu", help="torch device (default cpu)")
    train.add_argument("--folder", type=folder, help="where the run is kept (default data/run)")
    train.add_argument("--scale", type=above_zero, default=1.0, help="of all budgets (default 1)")
    train.add_argument(
        "--processes", type=threads, help="one a core (default: the physical cores, at most 8)"
    )
    kind = train.add_mutually_exclusive_group()
    kind.add_argument(
        "--rehearsal", action="store_true", help="every stage in a minute (default folder data/run/rehearsal)"
    )
    kind.add_argument(
        "--reader",
        action="store_true",
        help="an agent that reads: about an hour and a half (default folder data/run/reader)",
    )
    kind.add_argument(
        "--further",
        metavar="AGENT",
        type=folder,
        help="a further course for an agent that reads, from its folder on: three quarters of an hour (default folder "
        "data/run/further); with a --seed of its own, or it reads again what the last course read",
    )
    train.add_argument(
        "--mean",
        metavar="END",
        nargs="+",
        type=folder,
        help="with --further: ends in the mean of its own weights and those of these agents, the ends of other courses",
    )


def remote() -> argparse.ArgumentParser:
    """Where a model is served, and how it is asked (see agent.endpoint)."""
    parser = argparse.ArgumentParser(add_help=False)
    far = parser.add_argument_group("a model behind an OpenAI-compatible endpoint")
    far.add_argument("--endpoint", metavar="URL", help="up to and with /v1")
    far.add_argument("--model", metavar="NAME", help="the endpoint's name for its model")
    far.add_argument("--key-file", metavar="FILE", help="holds the API key (default: $KIMI_MINI_API_KEY)")
    far.add_argument("--parallel", type=threads, help="requests at a time, at most (default 8)")
    far.add_argument("--timeout", type=above_zero, help="seconds for an answer (default 600)")
    far.add_argument("--no-stream", action="store_true", default=None, help="ask for answers in one piece")
    far.add_argument("--temperature", type=from_zero, help="in place of the exam's own")
    far.add_argument(
        "--max-tokens", type=positive, help="of a turn, in place of the exam's own; K2 Thinking: 16000"
    )
    far.add_argument("--extra", type=json_object, metavar="JSON", help="more fields for every request")
    off = 'asks for no thought (default {"chat_template_kwargs": {"thinking": false}})'
    far.add_argument("--thinking-off", type=json_object, metavar="JSON", help=off)
    far.add_argument("--out", type=new_file, metavar="FILE.json", help="where the result is written")
    return parser


def evaluate(test: argparse.ArgumentParser) -> None:
    """Of the scoreboard and of the benchmarks."""
    test.add_argument(
        "--processes", type=threads, help="tasks are shared out to so many (default: one a core)"
    )
    test.add_argument(
        "--tasks",
        type=positive,
        default=200,
        help="held-out tasks per row, or part of a benchmark (default 200)",
    )
    test.add_argument("--rows", nargs="+", metavar="NAME", help="only these rows, or those of a world")
    test.add_argument(
        "--suite",
        nargs="+",
        metavar="NAME",
        help="the mini benchmarks of these names in place of the rows; or all",
    )
    form = (
        "say to a model behind an endpoint that an answer is a bare value, where a sentence counts as wrong"
    )
    form += " (chain, algebra, shop, data, search); without it such rows may read 0 for right sentences"
    test.add_argument("--form", action="store_true", help=form)
    test.add_argument("--reflex", action="store_true", help="of the suite: answers without a thought")


def check_evaluation(args: argparse.Namespace) -> None:
    """KimiError for an option that this exam would pass over, before any of it is done."""
    if args.rows and args.suite:
        raise KimiError("--suite comes in place of the rows: leave it out, or --rows")
    if args.reflex and not args.suite:
        raise KimiError("--reflex is of the suite: name its benchmarks with --suite, or leave it out")
    if args.suite and args.seed and not args.endpoint:
        raise KimiError("--seed draws the tasks of the rows; those of the suite stand in files: leave it out")
    if args.form and not args.endpoint:
        raise KimiError(
            "--form is of an endpoint, which --endpoint URL names: an agent of ours knows the form"
        )
    _check_remote(args)
    if args.endpoint and args.processes:
        raise KimiError(
            "--processes is of an agent on this machine; --parallel says how many requests at a time"
        )


def check_conformance(args: argparse.Namespace) -> None:
    """The same for the vendor verifier's two figures."""
    if not (args.endpoint or args.record):
        raise KimiError(
            "conformance wants --endpoint URL, or --record FILE to write an agent's decisions down"
        )
    for name in ("reference", "out"):
        if args.record and getattr(args, name) is not None:
            raise KimiError(f"--record writes decisions down and compares nothing: leave --{name} out")
    _check_remote(args)


def _check_remote(args: argparse.Namespace) -> None:
    """What is of an endpoint wants one; an endpoint wants the name of a model, and no other model beside it."""
    if args.endpoint and args.checkpoint:
        raise KimiError("--endpoint and --checkpoint are two models: leave one of them out")
    if args.endpoint and not args.model:
        raise KimiError("--endpoint wants --model NAME: the name that the endpoint knows its model by")
    for name in REMOTE:
        if not args.endpoint and getattr(args, name) is not None:
            raise KimiError(f"--{name.replace('_', '-')} is of an endpoint, which --endpoint URL names")


def conformance(check: argparse.ArgumentParser) -> None:
    """Of the vendor verifier's two figures."""
    check.add_argument("--tasks", type=positive, default=100, help="held-out tasks to ask from (default 100)")
    check.add_argument("--reference", metavar="FILE", help="decisions to compare with (default: our agent's)")
    check.add_argument(
        "--record", type=new_file, metavar="FILE", help="write the decisions down, as a reference for others"
    )


def publish(ship: argparse.ArgumentParser) -> None:
    """Of what maintainers ship."""
    ship.add_argument("--folder", type=folder, help="the run's folder (default data/run, or data/run/reader)")
    ship.add_argument("--reader", action="store_true", help="ship the agent that reads, beside the other")


def gpu(card: argparse.ArgumentParser) -> None:
    """Of the rows that want a GPU."""
    card.add_argument("--rehearsal", action="store_true", help="every part at toy size on a CPU")
    card.add_argument("--parts", nargs="+", metavar="NAME", help="only these (default: all)")
    card.add_argument("--folder", type=folder, help="where the logs go (default data/results/gpu)")
