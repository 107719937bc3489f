"""`python -m kimi_mini eval --suite NAME ...`: a model, here or behind an endpoint, works on the benchmarks.

Every part is a row, and so is a benchmark of several parts as a whole: success with its Wilson interval, tokens written
a task, seconds. What a model cannot do reads 0.0 and stays.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from kimi_mini.agent.conversation import Conversation
from kimi_mini.agent.endpoint import Endpoint
from kimi_mini.agent.folder import load_agent
from kimi_mini.base import ranks
from kimi_mini.base.files import write_json
from kimi_mini.base.intervals import wilson
from kimi_mini.base.paths import short
from kimi_mini.evaluation import by_endpoint, scoreboard
from kimi_mini.evaluation.benchmarks.store import Item, items, parts
from kimi_mini.evaluation.benchmarks.table import Benchmark, chosen
from kimi_mini.model.kimi import KimiMini
from kimi_mini.text.tokenizer import Tokenizer

Chooser = Callable[[Sequence[Conversation]], Conversation]
OnPart = Callable[[str], None]


class Outcome(NamedTuple):
    """What has come of a task: `tokens` written in all attempts, how the judged one ended."""

    key: str
    passed: bool
    tokens: int
    finish: str | None


class Way(NamedTuple):
    """How tasks are worked on: greedily unless there are several attempts, of which `choose` takes one."""

    thinking: bool = True
    attempts: int = 1
    choose: Chooser = lambda group: group[0]
    temperature: float | None = None
    seed: int = 0


GREEDY = Way()


def attempted(
    model: KimiMini | Endpoint,
    tokenizer: Tokenizer | None,
    own: Sequence[tuple[int, Item]],
    way: Way = GREEDY,
) -> list[list[Conversation]]:
    """The attempts at each of the numbered tasks, whose limits are all the same."""
    each = range(way.attempts)
    copies = [item.task for _, item in own for _ in each]
    numbers = [number * way.attempts + attempt for number, _ in own for attempt in each]
    warm = scoreboard.SAMPLING_TEMPERATURE if way.attempts > 1 else 0.0
    temperature = warm if way.temperature is None else way.temperature
    if not copies:
        return []
    limits = own[0][1].limits
    done = scoreboard.solve(model, tokenizer, copies, limits, way.thinking, temperature, way.seed, numbers)
    return [done[start : start + way.attempts] for start in range(0, len(done), way.attempts)]


def outcomes(
    model: KimiMini | Endpoint, tokenizer: Tokenizer | None, part: Sequence[Item], way: Way = GREEDY
) -> list[Outcome]:
    """What has come of each task of one part, shared out to all ranks; in order."""

    def judged(own: Sequence[tuple[int, Item]]) -> list[Outcome]:
        groups = attempted(model, tokenizer, own, way)
        found = []
        for (_, item), group in zip(own, groups):
            one = way.choose(group)
            tokens = sum(conversation.written for conversation in group)
            found.append(Outcome(item.task.key, one.verdict().passed, tokens, one.finish))
            for conversation in group:
                conversation.environment.close()
        return found

    return ranks.in_order(list(enumerate(part)), judged)


def score(done: Sequence[Outcome], seconds: float) -> dict:
    """An entry of a board: {value, low, high, n, tokens (a task), seconds}."""
    passed = sum(one.passed for one in done)
    low, high = wilson(passed, len(done))
    tokens = round(sum(one.tokens for one in done) / len(done), 1)
    entry = {"value": passed / len(done), "low": low, "high": high, "n": len(done)}
    return entry | {"tokens": tokens, "seconds": round(seconds, 2)}


def measured(
    model: KimiMini | Endpoint,
    tokenizer: Tokenizer | None,
    benchmark: Benchmark,
    most: int | None = None,
    way: Way = GREEDY,
    only: Sequence[str] | None = None,
    on_part: OnPart = lambda name: None,
) -> dict[str, dict]:
    """A board of one benchmark: name/part -> entry, and the whole before its parts where there are several. Entries
    of parts keep the outcome of every task. `most` tasks of each part; `only` parts of these names."""
    board, whole, began = {}, [], time.perf_counter()
    found = items(benchmark, most)
    for part in parts(found):
        if only is not None and part not in only:
            continue
        start = time.perf_counter()
        done = outcomes(model, tokenizer, [item for item in found if item.part == part], way)
        listed = [list(one) for one in done]
        board[f"{benchmark.name}/{part}"] = score(done, time.perf_counter() - start) | {"tasks": listed}
        whole += done
        on_part(part)
    if len(board) > 1:
        board = {benchmark.name: score(whole, time.perf_counter() - began), **board}
    return board


def boards(
    model: KimiMini | Endpoint,
    tokenizer: Tokenizer | None,
    benchmarks: Sequence[Benchmark],
    most: int | None = None,
    thinking: bool = True,
    on_part: OnPart = lambda name: None,
    seed: int = 0,
) -> dict[str, dict]:
    """The board of several benchmarks. seed: sent to an endpoint where something is sampled."""
    way = Way(thinking=thinking, seed=seed)
    return {
        name: entry
        for benchmark in benchmarks
        for name, entry in measured(model, tokenizer, benchmark, most, way, on_part=on_part).items()
    }


def print_board(board: Mapping[str, Mapping]) -> None:
    """As a table."""
    print(f"{'':36s} solved  [95% interval]   tasks  tokens  seconds")
    for name, entry in board.items():
        interval = f"[{entry['low']:.3f}, {entry['high']:.3f}]"
        costs = f"{entry['tokens']:7.0f} {entry['seconds']:8.1f}"
        print(f"{name:36s} {entry['value']:6.3f}  {interval}  {entry['n']:5d} {costs}")


# ---- the command -------------------------------------------------------------------------------------------


def main(args: argparse.Namespace) -> None:
    """Measure a checkpoint, show the board, and write it to --out."""
    benchmarks = chosen(args.suite)
    model, tokenizer = load_agent(args.checkpoint)
    began = time.perf_counter()
    with _bar(benchmarks, "suite") as bar:
        board = boards(
            model, tokenizer, benchmarks, args.tasks, not args.reflex, on_part=lambda _: bar.update()
        )
    if ranks.rank():
        return
    seconds = round(time.perf_counter() - began, 1)
    print_board(board)
    said = f"{len(benchmarks)} benchmarks in {seconds} s"
    if args.out:
        about = {"agent": short(Path(args.checkpoint)), "thinking": not args.reflex}
        write_json(args.out, {**about, "seconds": seconds, "suite": board})
        said += f"; written to {args.out}"
    print(said)


def by_address(args: argparse.Namespace) -> None:
    """The same for a model behind an endpoint; goes on where it was stopped."""
    benchmarks = chosen(args.suite)

    def exam(endpoint: Endpoint) -> dict:
        with _bar(benchmarks, endpoint.model) as bar:
            endpoint.on_answer = lambda: bar.set_postfix(endpoint.counts, refresh=True)
            update = lambda _: bar.update()
            thinking = not args.reflex
            return boards(endpoint, None, benchmarks, args.tasks, thinking, on_part=update, seed=args.seed)

    board, said = by_endpoint.examined(args, "suite", exam, thinking=not args.reflex)
    print_board(board)
    print(said)


def _bar(benchmarks: Sequence[Benchmark], title: str) -> tqdm:
    return tqdm(total=sum(len(one.parts) for one in benchmarks), unit="part", desc=title, leave=False)
