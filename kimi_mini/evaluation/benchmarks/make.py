"""Makes the folders of data/benchmarks/ again, bit for bit: `python -m kimi_mini.evaluation.benchmarks.make`.

Only held-out tasks, told apart from training by content (`worlds.registry`). The checksums of all files stand in
data/benchmarks/checksums.json; `--check` only says whether the files are those that would be made.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from kimi_mini.base.command import in_one_line
from kimi_mini.base.errors import KimiError
from kimi_mini.base.files import read_json, write_atomic, write_json
from kimi_mini.base.paths import short
from kimi_mini.evaluation.benchmarks import datasheet, store
from kimi_mini.evaluation.benchmarks.store import FOLDER, Item
from kimi_mini.evaluation.benchmarks.table import SEED, Benchmark, Part, chosen
from kimi_mini.worlds.registry import held_out_tasks

CHECKSUMS = "checksums.json"


def tasks_of(part: Part, seed: int = SEED) -> list[Item]:
    """The tasks of a part, families and levels in turn."""
    each, more = divmod(part.count, len(part.families))
    counts = [each + (place < more) for place in range(len(part.families))]
    made = [held_out_tasks(family, part.levels, n, seed) for family, n in zip(part.families, counts)]
    turns = [tasks[turn] for turn in range(max(counts)) for tasks in made if turn < len(tasks)]
    return [Item(part.name, part.limits, task) for task in turns]


def made(benchmark: Benchmark, seed: int = SEED) -> list[Item]:
    """All tasks of a benchmark."""
    return [item for part in benchmark.parts for item in tasks_of(part, seed)]


def check(benchmark: Benchmark, folder: Path = FOLDER) -> None:
    """KimiError unless the file, its checksum and what would be made are the same."""
    said = read_json(folder / CHECKSUMS)[benchmark.name]
    for where, text in (
        ("the file", store.read(folder / benchmark.name)),
        ("what the seed makes", store.text_of(made(benchmark))),
    ):
        if store.checksum(text) != said:
            raise KimiError(
                f"{benchmark.name}: {where} is not what {CHECKSUMS} names; make the benchmark again"
            )


def write(benchmark: Benchmark, folder: Path = FOLDER) -> str:
    """Tasks, checksum and datasheet; returns a line about them."""
    text, place = store.text_of(made(benchmark)), folder / benchmark.name
    store.write(place, text)
    items = store.items(benchmark, folder=folder)  # as whoever is measured gets them
    file = folder / CHECKSUMS
    sums = read_json(file) if file.is_file() else {}
    write_json(file, dict(sorted({**sums, benchmark.name: store.checksum(text)}.items())))
    write_atomic(place / "DATASHEET.md", datasheet.text(benchmark, items, store.checksum(text), folder))
    return f"{short(store.file_of(place))}: {len(items)} tasks, {len(text):,} bytes of text"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=["all"], metavar="NAME", help="benchmarks (default: all)")
    parser.add_argument(
        "--check", action="store_true", help="only say whether the files are as they would be made"
    )
    args = parser.parse_args()
    for benchmark in chosen(args.names or ["all"]):
        if args.check:
            check(benchmark)
        print(f"{benchmark.name}: as it would be made" if args.check else write(benchmark), flush=True)


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
