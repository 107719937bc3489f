"""Evaluation on held-out tasks: the scoreboard, with 95% intervals (Wilson).

Every row is a number of tasks that no training stream contains (told apart by content, see worlds.base), worked on by
the model in the real formats, greedily unless the row says otherwise, and judged by the world's verifier.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

from tqdm import tqdm

from kimi_mini.agent import loop
from kimi_mini.agent.conversation import Conversation
from kimi_mini.agent.folder import load_agent
from kimi_mini.agent.policy import LocalPolicy
from kimi_mini.base.intervals import wilson
from kimi_mini.model.kimi import KimiMini
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.worlds import Task
from kimi_mini.worlds.held_out import held_out_tasks, measured_levels, trained_levels
from kimi_mini.worlds.rows import MANAGED, Limits, Row

BATCH = 256  # tasks worked on at a time
SAMPLING_TEMPERATURE = 1.0


def _row(name: str, family: str, levels: Sequence[int] | None = None, **options) -> Row:
    return Row(name, family, tuple(levels or measured_levels(family)), **options)


FULL = Limits(turn_tokens=48, turns=104, context=4600)  # a right answer takes 4,200 tokens
ROWS = (
    *(_row(f"chain/thinking/{level}", "chain", [level]) for level in trained_levels("chain")),
    *(_row(f"chain/reflex/{level}", "chain", [level], thinking=False) for level in trained_levels("chain")),
    _row("chain/add", "add"),
    _row("chain/times", "times"),
    _row("shop/follow", "follow"),
    _row("shop/condition", "condition"),
    _row("shop/cheapest", "cheapest"),
    _row("shop/buy", "buy"),
    _row("repair/pass@1", "repair"),
    _row("repair/best_of_4", "repair", attempts=4),
    _row("shop/follow_100_managed", "follow", [100], limits=MANAGED),
    _row("shop/follow_100_full", "follow", [100], limits=FULL),
    _row("shop/follow_300_managed", "follow", [300], limits=MANAGED, share=0.1),
    *(_row(f"chain/beyond/{level}", "chain", [level]) for level in (9, 10, 12)),
    _row(
        "shop/follow_practised/8", "follow", [8]
    ),  # shown one to five in fine-tuning, tried six to eight in RL
    _row("shop/follow_beyond/12", "follow", [12]),
    _row("shop/cheapest_beyond/6", "cheapest", [6]),
    _row("shop/buy_beyond/5", "buy", [5]),
)
# measured before RL as well
BEFORE_RL = ("shop/follow_practised/8", "shop/follow_beyond/12", "repair/pass@1", "repair/best_of_4")


def solve(
    model: KimiMini,
    tokenizer: Tokenizer,
    tasks: Sequence[Task],
    limits: Limits,
    thinking: bool = True,
    temperature: float = 0.0,
    seed: int = 0,
) -> list[Conversation]:
    """Work on ``tasks`` in batches; conversations in the order of the tasks."""
    policy = LocalPolicy(model, tokenizer, temperature, seed)
    done = []
    for start in range(0, len(tasks), BATCH):
        done += loop.run(policy, tokenizer, tasks[start : start + BATCH], limits, thinking)
    return done


def best_of(groups: Sequence[Sequence[Conversation]]) -> list[Conversation]:
    """Of each group the first attempt whose public tests pass, else the first: chosen without the hidden tests."""
    return [next((c for c in group if c.environment.state.public_tests_pass), group[0]) for group in groups]


def measure(model: KimiMini, tokenizer: Tokenizer, row: Row, count: int, seed: int = 0) -> dict:
    """One scoreboard entry {value, low, high, n, seconds}."""
    began = time.perf_counter()
    tasks = held_out_tasks(row.family, row.levels, max(1, round(count * row.share)), seed)
    if row.attempts > 1:
        copies = [task for task in tasks for _ in range(row.attempts)]
        done = solve(model, tokenizer, copies, row.limits, row.thinking, SAMPLING_TEMPERATURE, seed)
        done = best_of([done[i : i + row.attempts] for i in range(0, len(done), row.attempts)])
    else:
        done = solve(model, tokenizer, tasks, row.limits, row.thinking, seed=seed)
    passed = sum(conversation.verdict().passed for conversation in done)
    low, high = wilson(passed, len(done))
    return {
        "value": passed / len(done),
        "low": low,
        "high": high,
        "n": len(done),
        "seeds": [seed],
        "seconds": round(time.perf_counter() - began, 2),
    }


def pooled(entries: Sequence[dict]) -> dict:
    """Several rows as one: the tasks of all of them together."""
    count = sum(entry["n"] for entry in entries)
    passed = round(sum(entry["value"] * entry["n"] for entry in entries))
    low, high = wilson(passed, count)
    seconds = sum(entry["seconds"] for entry in entries)
    return {
        "value": passed / count,
        "low": low,
        "high": high,
        "n": count,
        "seeds": entries[0]["seeds"],
        "seconds": round(seconds, 2),
    }


def with_pools(board: dict[str, dict]) -> dict[str, dict]:
    """The board with ``chain/thinking`` and ``chain/reflex`` over all trained lengths added."""
    board = dict(board)
    for mode in ("thinking", "reflex"):
        lengths = [entry for name, entry in board.items() if name.startswith(f"chain/{mode}/")]
        if lengths:
            board[f"chain/{mode}"] = pooled(lengths)
    return board


def scoreboard(
    model: KimiMini,
    tokenizer: Tokenizer,
    count: int = 200,
    seed: int = 0,
    rows: Sequence[Row] = ROWS,
    on_row: Callable[[str, dict], None] | None = None,
) -> dict[str, dict]:
    """Every row, and the chains of all lengths pooled."""
    board: dict[str, dict] = {}
    for row in rows:
        board[row.name] = measure(model, tokenizer, row, count, seed)
        if on_row is not None:
            on_row(row.name, board[row.name])
    return with_pools(board)


def print_board(board: dict[str, dict]) -> None:
    """The scoreboard as a table."""
    for name, entry in board.items():
        print(f"{name:28s} {entry['value']:6.3f}  [{entry['low']:.3f}, {entry['high']:.3f}]  n={entry['n']}")


def main(args: argparse.Namespace) -> None:
    """`python -m kimi_mini eval`: the scoreboard of a checkpoint."""
    model, tokenizer = load_agent(args.checkpoint)
    with tqdm(total=len(ROWS), unit="row", desc="evaluating", leave=False) as bar:
        board = scoreboard(model, tokenizer, args.tasks, args.seed, on_row=lambda *_: bar.update())
    print_board(board)
