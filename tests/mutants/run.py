"""`make mutants`: small wrong edits of the package, one at a time; the tests of what was edited must notice each.

    python tests/mutants/run.py                 data/results/mutants.json says which are caught
    python tests/mutants/run.py muonclip yarn   those whose name contains one of the words, for a look

What the log says is kept where neither the edit, nor its file, nor its tests have changed since; the rest is tried.

A mutant (see edits.py) names a file, the text to replace, its replacement, and the tests that should fail. The edit is made
in a copy of the repository, one copy a core (or `--at-once 1`). A mutant whose text is no longer there, or whose tests fail without it, is an error: the
list has to be kept up with the code.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from edits import MUTANTS, Mutant
from tqdm import tqdm

from kimi_mini.base.command import in_one_line
from kimi_mini.base.errors import KimiError
from kimi_mini.base.evidence import Log
from kimi_mini.base.files import read_json
from kimi_mini.base.paths import RESULTS, ROOT, RUNS

NEEDED = (
    "kimi_mini",
    "tests",
    "data",
    "figures",
    "notebooks",
    "pyproject.toml",
    "setup.py",
    "LICENSE",
    "README.md",
    "requirements.txt",
    "Makefile",
)
CLAIM = "share of small wrong edits of the package that its tests notice, of those tried"
LEAST = 0.95  # share that has to be caught
SECONDS = 300  # a mutant that hangs its tests is caught


def copy_of_the_repository(folder: Path) -> Path:
    """Everything that tests read, in `folder`; runs of one's own stay behind."""
    for name in NEEDED:
        source, target = ROOT / name, folder / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "run"))
        else:
            shutil.copy(source, target)
    return folder


def edited(text: str, mutant: Mutant) -> str:
    """The source with the edit made. Raises KimiError unless the text to replace stands there exactly once."""
    if text.count(mutant.old) != 1:
        raise KimiError(
            f"mutant {mutant.name!r}: {text.count(mutant.old)} places in {mutant.file} read {mutant.old!r}"
        )
    return text.replace(mutant.old, mutant.new)


def tests_fail(root: Path, tests: tuple[str, ...]) -> tuple[bool, float]:
    """Whether pytest finds a failure in these tests, the quick ones first, and how long it took."""
    caught, seconds = pytest_fails(root, tests, "not slow")
    if caught:
        return caught, seconds
    caught, more = pytest_fails(root, tests, "slow")
    return caught, seconds + more


def pytest_fails(root: Path, tests: tuple[str, ...], marked: str) -> tuple[bool, float]:
    """Whether a test of that mark fails, and how long it took; none of that mark, none fails."""
    began = time.perf_counter()
    environment = {
        **os.environ,
        "PYTHONPATH": str(root),
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", marked, *tests]
    try:
        done = subprocess.run(
            command, cwd=root, env=environment, capture_output=True, text=True, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        return True, time.perf_counter() - began
    if done.returncode not in (0, 1, 2, 5):
        raise KimiError(f"pytest could not run {' '.join(tests)}: {done.stdout[-300:]}")
    return done.returncode in (1, 2), time.perf_counter() - began


def tried(mutant: Mutant, copies: queue.Queue[Path]) -> tuple[bool, float]:
    """Make the edit in a copy that nobody uses just now, run its tests, and put the source back."""
    root = copies.get()
    file = root / mutant.file
    right = file.read_text(encoding="utf-8")
    try:
        file.write_text(edited(right, mutant), encoding="utf-8")
        return tests_fail(root, mutant.tests)
    finally:
        file.write_text(right, encoding="utf-8")
        copies.put(root)


def fail_as_they_are(tests: tuple[str, ...], copies: queue.Queue[Path]) -> bool:
    """Whether tests fail in a copy without an edit."""
    root = copies.get()
    try:
        return tests_fail(root, tests)[0]
    finally:
        copies.put(root)


def fingerprint(mutant: Mutant) -> str:
    """What the verdict on a mutant rests on: the edit, its file, its tests."""
    parts = [mutant.old, mutant.new, (ROOT / mutant.file).read_text(encoding="utf-8")]
    for place in (ROOT / test for test in mutant.tests):
        files = sorted(place.rglob("*.py")) if place.is_dir() else [place]
        parts += [file.read_text(encoding="utf-8") for file in files]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def known(chosen: list[Mutant], log: Log) -> dict[int, dict]:
    """The rows of an earlier log that still hold, by number in the list."""
    before = {row["name"]: row for row in read_json(log.path)["rows"]} if log.path.is_file() else {}
    found = {number: before[mutant.name] for number, mutant in enumerate(chosen) if mutant.name in before}
    return {n: row for n, row in found.items() if row["caught"] and row.get("of") == fingerprint(chosen[n])}


def run_all(chosen: list[Mutant], folder: Path, log: Log, at_once: int) -> None:
    """A row of the log for each mutant, in the order of the list. Raises KimiError where tests fail without a mutant."""
    copies: queue.Queue[Path] = queue.Queue()
    for number in range(at_once):
        (folder / str(number)).mkdir()
        copies.put(copy_of_the_repository(folder / str(number)))
    for mutant in chosen:  # a list that was not kept up says so before anything runs
        edited((ROOT / mutant.file).read_text(encoding="utf-8"), mutant)
    rows = known(chosen, log)
    log.rows = list(rows.values())
    new = [number for number in range(len(chosen)) if number not in rows]
    pool = ThreadPoolExecutor(copies.qsize())
    try:
        jobs = {pool.submit(tried, chosen[number], copies): number for number in new}
        for job in tqdm(as_completed(jobs), desc="mutants", total=len(jobs)):
            mutant, (caught, seconds) = chosen[jobs[job]], job.result()
            of = fingerprint(mutant)
            row = dict(name=mutant.name, file=mutant.file, caught=caught, seconds=round(seconds, 1), of=of)
            rows[jobs[job]] = row
            log.rows = [rows[number] for number in sorted(rows)]
            log.save()  # Ctrl-C keeps what is done
            if not caught:
                tqdm.write(f"survives: {mutant.name} ({mutant.file})")
        groups = sorted({chosen[number].tests for number in new})
        fails = pool.map(lambda tests: fail_as_they_are(tests, copies), groups)
        for tests, failed in tqdm(zip(groups, fails), desc="tests as they are", total=len(groups)):
            if failed:
                raise KimiError(f"{' '.join(tests)} fail without any mutant")
    finally:
        pool.shutdown(cancel_futures=True)


def main() -> None:
    """Run the chosen mutants; say which survive, and keep the log of a whole run."""
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("names", nargs="*", help="run only mutants whose name contains one of these")
    words.add_argument(
        "--at-once", type=int, default=os.cpu_count() or 1, help="how many at a time: one a core"
    )
    said = words.parse_args()
    names = said.names
    chosen = [m for m in MUTANTS if not names or any(word in m.name for word in names)]
    log = Log("mutants", seeds=[], folder=RESULTS if not names else RUNS / "rehearsal")
    with tempfile.TemporaryDirectory() as folder:
        run_all(chosen, Path(folder), log, said.at_once)
    caught = sum(row["caught"] for row in log.rows)
    print(f"{caught} of {len(chosen)} mutants caught")
    log.claim(
        "mutants/caught",
        claim=f"{CLAIM}: {len(log.rows)} of {len(MUTANTS)}",
        source="this project",
        value=caught / len(chosen),
        floor=LEAST,
    )
    print(log.save())


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
