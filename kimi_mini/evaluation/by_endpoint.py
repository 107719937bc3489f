"""`python -m kimi_mini eval --endpoint URL --model NAME`: the scoreboard of a model that somebody serves.

Tasks, tools, verifiers and rows are those of every other agent here. Each answer is kept in a file as it comes: the
same command, begun again, asks only for what is missing. When the exam is over its answers go and the board
stays.

In some worlds an answer is a bare value, and a sentence around it is wrong. Our agents learn that in training; no task
says it. `--form` says it to the endpoint, in the system message, and the board notes it. Without it the tasks are
word for word those of the other boards, and so is what answers are kept under.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import time
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from kimi_mini.agent.endpoint import Endpoint, read_key
from kimi_mini.base.files import locked, write_json
from kimi_mini.base.paths import RUNS, short
from kimi_mini.evaluation import scoreboard


def endpoint_of(args: argparse.Namespace, kept: Path | None = None) -> Endpoint:
    """The endpoint that a command line names. KimiError for an address or a key file that is none."""
    names = ("parallel", "timeout", "extra", "thinking_off")
    own = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    return Endpoint(
        args.endpoint,
        args.model,
        key=read_key(args.key_file),
        stream=not args.no_stream,
        temperature=args.temperature,
        max_tokens=args.max_tokens,
        kept=kept,
        form=getattr(args, "form", False),
        **own,
    )


def main(args: argparse.Namespace) -> None:
    """Measure, show, and write the board to --out."""
    rows = scoreboard.chosen_rows(args.rows)

    def exam(endpoint: Endpoint) -> dict:
        with tqdm(total=sum(len(row.parts) for row in rows), unit="row", desc=endpoint.model) as bar:
            endpoint.on_answer = lambda: bar.set_postfix(endpoint.counts, refresh=True)
            update = lambda *_: bar.update()
            return scoreboard.scoreboard(endpoint, None, args.tasks, args.seed, rows, on_row=update)

    board, said = examined(args, "scoreboard", exam)
    scoreboard.print_board(board)
    print(said)


def examined(
    args: argparse.Namespace,
    kind: str,
    exam: Callable[[Endpoint], dict[str, dict]],
    thinking: bool | None = None,
) -> tuple[dict[str, dict], str]:
    """The board that `exam` makes of the endpoint that a command line names, written to --out under the name of its
    kind, and a word about it. While it lasts every answer is kept; those of another exam, which was stopped, stay. The
    board says what was asked for, and None where every row says it for itself; thinking: of all rows."""
    folder = folder_of(args, "" if kind == "scoreboard" else f"_{kind}")
    out = Path(args.out or folder / ("board_reflex.json" if thinking is False else "board.json"))
    with locked(folder):
        endpoint = endpoint_of(args, folder / "answers.jsonl")
        if before := endpoint.counts.pop("before"):
            print(
                f"{before:,} answers are kept in {short(endpoint.kept)}: this exam asks for none of them again"
            )
        began = time.perf_counter()
        board = exam(endpoint)
        seconds = round(time.perf_counter() - began, 1)
        said = {"endpoint": endpoint.url, "model": endpoint.model, "seed": args.seed, "seconds": seconds}
        asked = {"temperature": args.temperature, "max_tokens": args.max_tokens, "thinking": thinking}
        asked["form"] = endpoint.form
        write_json(out, {**said, **asked, "counts": dict(endpoint.counts), kind: board})
        endpoint.forget()
    words = f"{len(board)} rows in {seconds} s: {counted(endpoint)}; written to {short(out)}"
    if cut := endpoint.counts["length"]:
        words += f"\n{cut} turns were cut off by their token limit: --max-tokens allows more"
    return board, words


def folder_of(args: argparse.Namespace, kind: str = "") -> Path:
    """Where the answers of an endpoint's model are kept; two names that differ in signs alone have two folders."""
    name = f"{args.endpoint} {args.model}"
    readable, number = re.sub(r"\W+", "_", name), hashlib.sha256(name.encode()).hexdigest()[:8]
    return RUNS / "endpoint" / f"{readable}_{number}{kind}"


def counted(endpoint: Endpoint) -> str:
    """Answers, tokens and troubles in words."""
    return ", ".join(
        f"{count:,} {name.replace('_', ' ')}" for name, count in endpoint.counts.items() if count
    )
