"""Processes of one thread against threads of one process: on a quiet machine, and beside a busy program.

    python -m kimi_mini.experiments.deployment.sharing [--log sharing_amd]

Each round runs the same command both ways, one after the other: pre-training (quiet and busy), evaluation, and a
small `run` (busy against quiet). A row is the median of the rounds' ratios. Nobody else should work on the machine.
Makes of processor differ, so each has a log of its own, and a claim names the one it was measured on.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from tqdm import tqdm

from kimi_mini.base.command import in_one_line
from kimi_mini.base.errors import KimiError
from kimi_mini.base.evidence import Log, environment
from kimi_mini.base.files import read_json
from kimi_mini.base.processes import default_count
from kimi_mini.experiments import harness

ROUNDS = 3
TOKENS, TASKS, SCALE = 100_000, 60, 0.04
BUSY = "while True: pass"


@contextmanager
def busy_program() -> Iterator[None]:
    """Context: another program computes all the time."""
    program = subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        yield
    finally:
        program.kill()
        program.wait()


def command(*words: object) -> str:
    """What a command of the package says. Raises KimiError with its last line when it fails."""
    line = [sys.executable, "-m", "kimi_mini", *map(str, words)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode:
        raise KimiError(f"{' '.join(line[1:])}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
    return done.stdout


def pretraining(processes: int, threads: int, scale: float) -> float:
    """Seconds of pre-training on so many tokens, without starting and measuring."""
    with tempfile.TemporaryDirectory() as folder:
        options = ("--dtype", "fp32", "--device", "cpu", "--samples", 0, "--folder", folder)
        shared = ("--processes", processes, "--threads", threads)
        command("pretrain", "--tokens", int(TOKENS * scale), *shared, *options)
        return read_json(Path(folder) / "pretrain.json")["seconds"]


def evaluation(processes: int, threads: int, scale: float) -> float:
    """Seconds of the scoreboard of the shipped agent, few tasks a row."""
    tasks = max(2, int(TASKS * scale))
    shared = ("--processes", processes, "--threads", threads)
    said = command("eval", "--checkpoint", "data/checkpoints/final", "--tasks", tasks, *shared)
    return float(re.search(r"rows in ([\d.]+) s", said)[1])


def whole_run(processes: int, threads: int, scale: float) -> float:
    """Seconds of all stages of a small `run`."""
    with tempfile.TemporaryDirectory() as folder:
        shared = ("--processes", processes, "--threads", threads)
        command("run", "--scale", SCALE * scale, *shared, "--folder", folder)
        return read_json(Path(folder) / "run.json")["total_seconds"]


def ratios(first: Callable[[], float], second: Callable[[], float], rounds: int) -> list[float]:
    """first / second in seconds, timed in turn."""
    return sorted(first() / second() for _ in range(rounds))


def main() -> None:
    """Time everything both ways; write data/results/sharing.json, or the log that is named."""
    parser = harness.common_parser(__doc__.splitlines()[0])
    parser.add_argument("--log", default="sharing", help="its name: one for each make of processor")
    args = harness.read(parser)
    cores, scale, rounds = default_count(), args.scale, ROUNDS if args.scale == 1 else 1
    threaded, shared = (1, cores), (cores, 1)
    log, make = Log(args.log, seeds=[0], folder=args.folder, processes=cores), environment()["processor"]
    rows = (
        ("pre-training, quiet", pretraining, threaded, shared, False, False, 1.3, False),
        ("pre-training, beside a busy program", pretraining, threaded, shared, True, True, 5.0, False),
        ("evaluation, quiet", evaluation, threaded, shared, False, False, 1.8, False),
        ("a small run, busy / quiet", whole_run, shared, shared, True, False, 2.2, True),
    )
    for name, work, first, second, first_busy, second_busy, floor, at_most in tqdm(rows, desc="rows"):

        def timed(how: tuple[int, int], busy: bool, work=work) -> Callable[[], float]:
            def seconds() -> float:
                with busy_program() if busy else nullcontext():
                    return work(*how, scale)

            return seconds

        found = ratios(timed(first, first_busy), timed(second, second_busy), rounds)
        ratio = statistics.median(found)
        log.row(name=name, ratio=ratio, ratios=found, rounds=rounds)
        log.claim(
            f"{args.log}/{name}",
            claim=f"{name}: {'time beside a busy program' if at_most else 'processes against threads'}, {make}",
            source="this project",
            value=ratio,
            low=found[0],
            high=found[-1],
            floor=floor,
            at_most=at_most,
        )
        tqdm.write(f"{name:40s} {ratio:5.2f}x  [{found[0]:.2f}, {found[-1]:.2f}]  floor {floor}")
        log.save()


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
