"""What large models score on the real benchmarks, as their reports say; every number with its source.

Typed from the reports into data/benchmarks/real.json, not measured here. Settings differ from report to report, and so
numbers of two sources are not to be subtracted.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from kimi_mini.base.errors import BadFile
from kimi_mini.base.files import read_json
from kimi_mini.evaluation.benchmarks.store import FOLDER

FILE = FOLDER / "real.json"


class Score(NamedTuple):
    """A number of a report, in per cent. mini: the benchmark here that is a miniature of that one, if there is."""

    benchmark: str
    setting: str
    model: str
    value: float
    source: str
    mini: str | None = None


def scores(file: Path = FILE) -> list[Score]:
    """All numbers. BadFile for one without a source, with a source that is not described, or that is no percentage."""
    said, found = read_json(file), []
    known = {
        name: source
        for name, source in said["sources"].items()
        if source.get("title") and source.get("address")
    }
    for entry in said["scores"]:
        try:
            score = Score(**entry)
        except TypeError as error:
            raise BadFile(f"{file}: {entry} is no score with its source ({error})") from None
        if score.source not in known:
            raise BadFile(f"{file}: {score.model} on {score.benchmark} has no source that is described")
        if (
            isinstance(score.value, bool)
            or not isinstance(score.value, int | float)
            or not 0 <= score.value <= 100
        ):
            raise BadFile(f"{file}: {score.model} on {score.benchmark} has {score.value!r} per cent")
        found.append(score)
    return found


def imitated(benchmark: str, file: Path = FILE) -> list[Score]:
    """What large models score on the one that `benchmark` is a miniature of."""
    return [score for score in scores(file) if score.mini == benchmark]
