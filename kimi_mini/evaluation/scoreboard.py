"""Evaluation on held-out tasks: the scoreboard, with 95% intervals (Wilson).

Every row is a number of tasks that no training stream contains (told apart by content, see worlds.base), worked on by
the model in the real formats, greedily unless the row says otherwise, and judged by the world's verifier. The rows
stand in the files of their worlds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm import tqdm

from kimi_mini.agent import loop
from kimi_mini.agent.conversation import Conversation
from kimi_mini.agent.endpoint import Endpoint
from kimi_mini.agent.folder import load_agent
from kimi_mini.agent.policy import LocalPolicy
from kimi_mini.agent.remote import RemotePolicy
from kimi_mini.base import ranks
from kimi_mini.base.errors import KimiError
from kimi_mini.base.files import write_json
from kimi_mini.base.intervals import wilson
from kimi_mini.base.paths import short
from kimi_mini.model.kimi import KimiMini
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.worlds import WORLDS, Limits, Row, Task
from kimi_mini.worlds.registry import held_out_tasks

BATCH = 256  # tasks worked on at a time
SAMPLING_TEMPERATURE = 1.0


def rows_of(varied: bool) -> tuple[Row, ...]:
    """The rows of all trained worlds whose surface is always the same, or of those that are varied."""
    trained = (world for world in WORLDS.values() if world.trained and world.varied is varied)
    return tuple(row for world in trained for row in world.rows)


ROWS, VARIED = rows_of(False), rows_of(True)


def chosen_rows(names: Sequence[str] | None) -> tuple[Row, ...]:
    """Rows by their names or their worlds' names, varied worlds included; without names those of the fixed worlds."""
    known, found = ROWS + VARIED, []
    for name in names or ():
        found += (rows := [row for row in known if f"{row.name}/".startswith(f"{name}/")])
        if not rows:
            raise KimiError(f"no row or world is {name!r}; there are {', '.join(row.name for row in known)}")
    return tuple(found) if names else ROWS


def solve(
    model: KimiMini | Endpoint,
    tokenizer: Tokenizer | None,
    tasks: Sequence[Task],
    limits: Limits,
    thinking: bool = True,
    temperature: float = 0.0,
    seed: int = 0,
    numbers: Sequence[int] | None = None,
) -> list[Conversation]:
    """Work on `tasks` in batches; conversations in the order of the tasks. `numbers`: theirs in a longer list of which
    these are a part, for the dice (see LocalPolicy). A model behind an endpoint needs no tokenizer."""
    numbers, done = range(len(tasks)) if numbers is None else numbers, []
    for start in range(0, len(tasks), BATCH):
        part = slice(start, start + BATCH)
        if isinstance(model, Endpoint):
            policy = RemotePolicy(model, temperature, seed, numbers[part])
        else:
            policy = LocalPolicy(model, tokenizer, temperature, seed, numbers=numbers[part])
        done += loop.run(policy, tokenizer, tasks[part], limits, thinking)
    return done


def best_of(groups: Sequence[Sequence[Conversation]]) -> list[Conversation]:
    """Of each group the first attempt whose public tests pass, else the first: chosen without the hidden tests."""
    return [next((c for c in group if c.environment.state.public_tests_pass), group[0]) for group in groups]


def measure(
    model: KimiMini | Endpoint, tokenizer: Tokenizer | None, row: Row, count: int, seed: int = 0
) -> dict:
    """One scoreboard entry {value, low, high, n, seeds, seconds, main, floor, says, thinking}."""
    began = time.perf_counter()
    tasks = held_out_tasks(row.family, row.levels, max(1, round(count * row.share)), seed)
    passed = ranks.in_order(list(enumerate(tasks)), lambda own: passes(model, tokenizer, row, own, seed))
    return _entry(row, sum(passed), len(passed), [seed], time.perf_counter() - began)


def passes(
    model: KimiMini | Endpoint,
    tokenizer: Tokenizer | None,
    row: Row,
    tasks: Sequence[tuple[int, Task]],
    seed: int,
) -> list[bool]:
    """Whether each of the numbered tasks is done right, by one greedy attempt or the best of several sampled ones."""
    each = range(row.attempts)
    copies = [task for _, task in tasks for _ in each]
    numbers = [number * row.attempts + attempt for number, _ in tasks for attempt in each]
    temperature = SAMPLING_TEMPERATURE if row.attempts > 1 else 0.0
    chosen = done = solve(model, tokenizer, copies, row.limits, row.thinking, temperature, seed, numbers)
    if row.attempts > 1:
        chosen = best_of([done[i : i + row.attempts] for i in range(0, len(done), row.attempts)])
    passed = [conversation.verdict().passed for conversation in chosen]
    for conversation in done:
        conversation.environment.close()
    return passed


def _entry(row: Row, passed: int, count: int, seeds: list[int], seconds: float) -> dict:
    low, high = wilson(passed, count)
    measured = {"value": passed / count, "low": low, "high": high, "n": count}
    return measured | {"seeds": seeds, "seconds": round(seconds, 2)} | row.said()


def pooled(row: Row, entries: Sequence[dict]) -> dict:
    """The entries of a row's levels as one: the tasks of all of them together."""
    passed = round(sum(entry["value"] * entry["n"] for entry in entries))
    count, seconds = (sum(entry[key] for entry in entries) for key in ("n", "seconds"))
    return _entry(row, passed, count, entries[0]["seeds"], seconds)


def with_pools(board: dict[str, dict], rows: Sequence[Row] = ROWS) -> dict[str, dict]:
    """The board in order of its rows, with those that are measured level by level as a whole before their levels."""
    whole: dict[str, dict] = {}
    for row in rows:
        parts = {part.name: board[part.name] for part in row.parts if part.name in board}
        if row.by_level and parts:
            whole[row.name] = pooled(row, list(parts.values()))
        whole |= parts
    return whole


def scoreboard(
    model: KimiMini | Endpoint,
    tokenizer: Tokenizer | None,
    count: int = 200,
    seed: int = 0,
    rows: Sequence[Row] = ROWS,
    on_row: Callable[[str, dict], None] | None = None,
) -> dict[str, dict]:
    """Every row; those that ask for it level by level, too."""
    board: dict[str, dict] = {}
    for part in (part for row in rows for part in row.parts):
        board[part.name] = measure(model, tokenizer, part, count, seed)
        if on_row is not None:
            on_row(part.name, board[part.name])
    return with_pools(board, rows)


def print_board(board: dict[str, dict]) -> None:
    """The scoreboard as a table."""
    for name, entry in board.items():
        print(f"{name:28s} {entry['value']:6.3f}  [{entry['low']:.3f}, {entry['high']:.3f}]  n={entry['n']}")


def main(args: argparse.Namespace) -> None:
    """`python -m kimi_mini eval`: measure a checkpoint, show its scoreboard, and write it to --out."""
    rows = chosen_rows(args.rows)
    model, tokenizer = load_agent(args.checkpoint)
    began = time.perf_counter()
    with tqdm(total=sum(len(row.parts) for row in rows), unit="row", desc="evaluating", leave=False) as bar:
        board = scoreboard(model, tokenizer, args.tasks, args.seed, rows, on_row=lambda *_: bar.update())
    if ranks.rank():
        return
    seconds = round(time.perf_counter() - began, 1)
    print_board(board)
    said = f"{len(board)} rows in {seconds} s"
    if args.out:
        about = {"agent": short(Path(args.checkpoint)), "seed": args.seed, "seconds": seconds}
        write_json(args.out, {**about, "scoreboard": board})
        said += f"; written to {args.out}"
    print(said)
