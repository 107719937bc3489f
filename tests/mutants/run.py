"""`make mutants`: small wrong edits of the package, one at a time; the tests of what was edited must notice each.

    python tests/mutants/run.py                 all of them; data/results/mutants.json says which were caught
    python tests/mutants/run.py muonclip yarn   those whose name contains one of the words

A mutant (see edits.py) names a file, the text to replace, its replacement, and the tests that should fail. The edit is made
in a copy of the repository. A mutant whose text is no longer there, or whose tests fail without it, is an error: the
list has to be kept up with the code.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from edits import MUTANTS, Mutant
from tqdm import tqdm

from kimi_mini.base.command import in_one_line
from kimi_mini.base.errors import KimiError
from kimi_mini.base.evidence import Log
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
    """Whether pytest finds a failure in these tests, and how long it took."""
    began = time.perf_counter()
    environment = {
        **os.environ,
        "PYTHONPATH": str(root),
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", "not slow", *tests]
    try:
        done = subprocess.run(
            command, cwd=root, env=environment, capture_output=True, text=True, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        return True, time.perf_counter() - began
    if done.returncode not in (0, 1, 2):
        raise KimiError(f"pytest could not run {' '.join(tests)}: {done.stdout[-300:]}")
    return done.returncode != 0, time.perf_counter() - began


def main() -> None:
    """Run the chosen mutants; say which survive, and keep the log of a whole run."""
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("names", nargs="*", help="run only mutants whose name contains one of these")
    names = words.parse_args().names
    chosen = [m for m in MUTANTS if not names or any(word in m.name for word in names)]
    log = Log("mutants", seeds=[], folder=RESULTS if not names else RUNS / "rehearsal")
    with tempfile.TemporaryDirectory() as folder:
        root = copy_of_the_repository(Path(folder))
        for mutant in tqdm(chosen, desc="mutants"):
            file = root / mutant.file
            right = file.read_text(encoding="utf-8")
            file.write_text(edited(right, mutant), encoding="utf-8")
            caught, seconds = tests_fail(root, mutant.tests)
            file.write_text(right, encoding="utf-8")
            log.row(name=mutant.name, file=mutant.file, caught=caught, seconds=round(seconds, 1))
            if not caught:
                tqdm.write(f"survives: {mutant.name} ({mutant.file})")
            log.save()  # Ctrl-C keeps what is done
        for tests in tqdm(sorted({m.tests for m in chosen}), desc="tests as they are"):
            if tests_fail(root, tests)[0]:
                raise KimiError(f"{' '.join(tests)} fail without any mutant")
    caught = sum(row["caught"] for row in log.rows)
    print(f"{caught} of {len(chosen)} mutants caught")
    log.claim(
        "mutants/caught",
        claim="share of small wrong edits of the package that its tests notice",
        source="this project",
        value=caught / len(chosen),
        floor=LEAST,
    )
    print(log.save())


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
