"""A stopwatch for two things in turn: each round times both, and the row is the median of their ratios."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from kimi_mini.base.evidence import verdict

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}

Row = dict[str, object]
Action = Callable[[], object]


class Bench:
    """Collects rows. rounds: timed rounds a row; scale: shrinks batches and lengths, for a test; clock:
    "wall", or "cpu" (seconds of processor time) for a machine that others use at the same time."""

    def __init__(self, threads: int, rounds: int = 7, scale: float = 1.0, clock: str = "wall"):
        self.threads, self.rounds, self.scale, self.clock = threads, rounds, scale, CLOCKS[clock]
        self.rows: list[Row] = []

    def size(self, number: int) -> int:
        return max(1, round(number * self.scale))

    def seconds(self, action: Action) -> float:
        start = self.clock()
        action()
        return self.clock() - start

    def compare(self, name: str, ours: Action, reference: Action, floor: float | None = None) -> Row:
        """Time both `rounds` times in turn after one warm-up; median times in ms, median ratio and its
        quartiles."""
        ours(), reference()
        pairs = [(self.seconds(ours), self.seconds(reference)) for _ in range(self.rounds)]
        ratios = sorted(theirs / max(mine, 1e-9) for mine, theirs in pairs)
        mine, theirs = (statistics.median(column) * 1e3 for column in zip(*pairs))
        ratio = statistics.median(ratios)
        row = dict(
            name=name,
            threads=self.threads,
            ours_ms=mine,
            reference_ms=theirs,
            ratio=ratio,
            low=ratios[len(ratios) // 4],
            high=ratios[-1 - len(ratios) // 4],
            rounds=self.rounds,
            floor=floor,
        )
        row["verdict"] = None if floor is None else verdict(value=ratio, **row)
        self.rows.append(row)
        print(format_row(row), flush=True)
        return row


def format_row(row: Row) -> str:
    """One line of the table."""
    floor = "" if row["floor"] is None else f"  floor {row['floor']:.2f} {row['verdict']}"
    times = f"{row['ours_ms']:>9.2f} ms {row['reference_ms']:>9.2f} ms"
    ratio = f"{row['ratio']:>6.2f}x [{row['low']:.2f}, {row['high']:.2f}]"
    return f"{row['name']:<46} {row['threads']} thr {times} {ratio}{floor}"
