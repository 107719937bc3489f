"""The log of one part: each row is measured once, and saved at once; a part that was stopped goes on behind its last
row. What is claimed, and the floors, stand in data/results/gpu/floors.json; the ledger shows what no log has measured.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from kimi_mini.base.evidence import Log
from kimi_mini.base.files import read_json
from kimi_mini.base.paths import GPU_FLOORS
from kimi_mini.experiments.gpu.site import OutOfTime, Site

Row = dict[str, Any]
SHOWN = (
    "tokens_per_second",
    "mfu",
    "peak_bytes",
    "ratio",
    "worst",
    "validation",
    "peak",
    "seconds",
    "steps",
    "flops",
)


@cache
def floors() -> dict[str, Row]:
    """What is claimed of a GPU: name -> claim, source, floor, at_most, figure, and the part that measures it."""
    return {row["name"]: row for row in read_json(GPU_FLOORS, list)}


def finished(file: Path) -> bool:
    """Whether the log is there and whole."""
    return file.is_file() and read_json(file).get("complete") is True


class Sheet:
    """A log in the site's folder. Rows of another machine or another torch are left out: they would not compare."""

    def __init__(self, site: Site, part: str, seeds: tuple[int, ...] = (0,)):
        self.site = site
        self.log = Log(part, seeds=seeds, device=site.device.type, folder=site.folder, complete=False)
        if self.log.path.is_file():
            saved = read_json(self.log.path)
            if saved["versions"] == self.log.as_dict()["versions"]:
                self.log.rows, self.log.earlier = saved["rows"], saved["seconds"]

    def once(self, name: str, measure: Callable[[], Row]) -> Row:
        """The row of that name: as it was saved, or measured now. OutOfTime where the time is over before it is whole;
        then the log says so."""
        for row in self.log.rows:
            if row["name"] == name:
                return row
        try:
            self.site.in_time()
            found = measure()
        except OutOfTime as error:
            self.log.more["stopped"] = f"{name}: {error}"
            self.log.save()
            raise
        self.log.row(name=name, **found)
        self.log.save()
        row = self.log.rows[-1]
        numbers = [f"{key} {row[key]:.4g}" for key in SHOWN if isinstance(row.get(key), int | float)]
        print(f"  {name}: {row.get('failed') or ', '.join(numbers)}", flush=True)
        return row

    def claim(
        self, name: str, value: float | None, low: float | None = None, high: float | None = None
    ) -> None:
        """A claim of the list, with what was measured."""
        about = {key: entry for key, entry in floors()[name].items() if key != "part"}
        self.log.claim(**about, value=value, low=low, high=high)

    def close(self) -> None:
        """The part is done."""
        self.log.more["complete"] = True
        self.log.save()
