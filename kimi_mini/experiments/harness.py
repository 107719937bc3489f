"""What every experiment shares: its command line, its log, its rows and figures."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import active_children, get_context
from pathlib import Path
from time import perf_counter
from typing import Protocol

import torch
from matplotlib.figure import Figure
from tqdm import tqdm

from kimi_mini.agent.folder import fingerprint as fingerprint
from kimi_mini.agent.folder import load_agent
from kimi_mini.base.command import above_zero, folder, natural, positive
from kimi_mini.base.evidence import TOOK, Log
from kimi_mini.base.files import read_json, write_json
from kimi_mini.base.intervals import difference, over_seeds, wilson
from kimi_mini.base.paths import FIGURES, RESULTS, RUNS
from kimi_mini.model.kimi import KimiMini
from kimi_mini.text.tokenizer import Tokenizer

REHEARSAL = RUNS / "rehearsal"
DECIDE_NOTHING = ("folder", "threads", "processes", "log")  # options: a run is as whole with any value
SEEN = "; seen afterwards"  # behind a claim that was added when the rows were known


def common_parser(
    description: str, seeds: Sequence[int] = (0, 1, 2), **checkpoints: Path
) -> argparse.ArgumentParser:
    """The options that all share. checkpoints: option -> folder to start from, such as base=BASE."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seeds", type=natural, nargs="+", default=list(seeds))
    parser.add_argument("--scale", type=above_zero, default=1.0, help="of all budgets and task counts")
    parser.add_argument("--folder", type=folder, default=None, help="where log and figures go")
    parser.add_argument("--threads", type=positive, default=1)
    for name, start in checkpoints.items():
        parser.add_argument(f"--{name}", type=Path, default=start, help="checkpoint folder to start from")
    return parser


def read(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The command line. `folder` is where the log goes; the number of threads is set."""
    args = parser.parse_args()
    if len(set(args.seeds)) < len(args.seeds):
        parser.error("--seeds: a seed that is run twice is still one seed")
    torch.set_num_threads(args.threads)
    decisive = {name: value for name, value in vars(args).items() if name not in DECIDE_NOTHING}
    whole = all(value == parser.get_default(name) for name, value in decisive.items())
    place = Path(args.folder) if args.folder else RESULTS if whole else REHEARSAL
    args.folder = RESULTS if place.resolve() == RESULTS.resolve() else place  # by any path
    return args


def arguments(description: str, **options) -> argparse.Namespace:
    """`common_parser` and `read` for an experiment that has no options of its own."""
    return read(common_parser(description, **options))


def figures(folder: Path) -> Path:
    """Where the figures of a log in `folder` go: figures/ for a published one, else beside it."""
    return FIGURES if folder == RESULTS else folder


def mean(outcomes: Sequence[Sequence[bool]]) -> float:
    """Share of all attempts that passed."""
    return sum(map(sum, outcomes)) / sum(map(len, outcomes))


def row(rates: Sequence[float], seeds: Sequence[int], count: int, says: str, main: bool = False) -> dict:
    """A scoreboard entry of success rates, one a seed: mean, 95% interval (t, within 0 and 1; none of one seed), tasks
    a seed; what it says, and whether it is for the first look."""
    return entry(*share_across(rates).values(), count, seeds, says, main)


def gap(values: Sequence[float], seeds: Sequence[int], count: int, says: str, main: bool = False) -> dict:
    """A scoreboard entry of differences, one a seed: mean, 95% interval (t; none of one seed), tasks a seed."""
    return entry(*across(values).values(), count, seeds, says, main) | {"gap": True}


def entry(
    value: float,
    low: float | None,
    high: float | None,
    count: int,
    seeds: Sequence[int],
    says: str,
    main: bool = False,
) -> dict:
    """A scoreboard entry as `evaluation.scoreboard` writes it; what has a floor in an experiment is a claim."""
    measured = {"value": value, "low": low, "high": high, "n": count, "seeds": list(seeds)}
    return measured | {"main": main, "floor": None, "says": says}


def begin(name: str, args: argparse.Namespace) -> tuple[KimiMini, Tokenizer, Log]:
    """The agent, and a log that names its weights."""
    model, tokenizer = load_agent(args.checkpoint)
    log = Log(name, seeds=args.seeds, folder=args.folder, weights=fingerprint(args.checkpoint))
    return model, tokenizer, log


def finish(log: Log, **draws: Callable[[dict], Figure]) -> None:
    """Save the log and draw its figures NAME.png: into figures/ when the log is the published one, else beside it."""
    path = log.save()
    for name, draw in draws.items():
        draw(read_json(path)).savefig(figures(path.parent) / f"{name}.png", dpi=110, bbox_inches="tight")
    print(path)


def rate(successes: int, count: int, tasks: int | None = None) -> dict:
    """A success rate over the tasks of all seeds (one model, so only the tasks differ): {value, low, high}, Wilson.
    tasks: where each task was tried several times, how many different ones there are; the interval is theirs."""
    value, independent = successes / count, tasks or count
    low, high = wilson(round(value * independent), independent)
    return {"value": value, "low": min(low, value), "high": max(high, value)}


def across(values: Sequence[float]) -> dict:
    """A difference between arms on the same tasks: mean over seeds, t interval; {value, low, high}."""
    if len(values) < 2:
        return {"value": values[0], "low": None, "high": None}
    return dict(zip(("value", "low", "high"), over_seeds(values)))


def share_across(values: Sequence[float]) -> dict:
    """`across` for shares: the interval ends at 0 and at 1."""
    found = across(values)
    return {key: value if value is None else min(max(value, 0.0), 1.0) for key, value in found.items()}


def ratio_across(values: Sequence[float]) -> dict:
    """A ratio of arms, one a seed: geometric mean, and the t interval of the logarithms, which no ratio below 0 is in;
    {value, low, high}."""
    found = across([math.log(value) for value in values])
    return {key: None if value is None else math.exp(value) for key, value in found.items()}


def wider(*found: dict) -> dict:
    """The value of the first, and the widest interval of all: {value, low, high}. For where two kinds may be meant."""
    ends = [one for one in found if one["low"] is not None]
    return found[0] | max(
        ({key: one[key] for key in ("low", "high")} for one in ends),
        key=lambda one: one["high"] - one["low"],
        default={},
    )


def on_same_tasks(gaps: Sequence[float], first: tuple[int, int], second: tuple[int, int]) -> dict:
    """A difference of two arms of one model, of which counts are known and no pairs: the wider of the t interval over
    sets of tasks (gaps: one a seed) and Newcombe's over all of them, as if each arm had tasks of its own. first,
    second: (right, tasks) of all sets. {value, low, high}."""
    return wider(across(gaps), dict(zip(("value", "low", "high"), difference(first, second))))


class Job(Protocol):
    """A run that `side_by_side` makes."""

    def said(self) -> dict:
        """All that decides its numbers, as JSON."""


def side_by_side(
    jobs: Sequence[Job], kept: Path, processes: int, work: Callable[[Job], dict], log: Log | None = None
) -> list[dict]:
    """The rows of all jobs, in their order, worked on by so many processes. Each is kept in the file `kept` as soon as
    it is there, and a job that is found in it is not run again: the seconds that it took an earlier start count in the
    log."""
    done = read_json(kept, list) if kept.is_file() else []
    asked = [job.said() for job in jobs]
    rows = {i: entry["row"] for i, told in enumerate(asked) for entry in done if entry["job"] == told}
    left = [i for i in range(len(jobs)) if i not in rows]
    if log is not None:
        log.earlier += sum(entry.get(TOOK, 0.0) for entry in done if entry["job"] in asked)
    last = perf_counter()

    def keep(index: int, row: dict) -> None:
        nonlocal last
        if index in rows:
            return
        now = perf_counter()  # the seconds of two processes count once
        entry = {"job": asked[index], "row": row, TOOK: round(now - last, 3)}
        write_json(kept, [*done, entry])
        done.append(entry)
        rows[index], last = row, now
        bar.update()

    with tqdm(total=len(jobs), initial=len(rows), unit="run", leave=False, dynamic_ncols=True) as bar:
        _work_on({i: jobs[i] for i in left}, processes, work, keep)
    return [rows[i] for i in range(len(jobs))]


def _work_on(
    jobs: dict[int, Job], processes: int, work: Callable[[Job], dict], keep: Callable[[int, dict], None]
) -> None:
    """keep(number, row) of each job as it is done, by so many processes; one works here. What stops one of them, or us,
    ends those that are still at work, at once; the rows of those that are done are kept."""
    if processes == 1:
        for number, job in jobs.items():
            keep(number, work(job))
        return
    pool, waiting = ProcessPoolExecutor(processes, mp_context=get_context("spawn")), {}
    try:
        waiting |= {pool.submit(work, job): number for number, job in jobs.items()}
        for future in as_completed(waiting):
            keep(waiting[future], future.result())
    except BaseException:
        for process in active_children():  # the pool's, which would be waited for
            process.terminate()
        pool.shutdown(cancel_futures=True)
        for future, number in waiting.items():
            if not (future.cancelled() or future.exception()):
                keep(number, future.result())
        raise
    pool.shutdown()
