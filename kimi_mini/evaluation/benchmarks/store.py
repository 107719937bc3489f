"""Tasks on disk: a line of JSON each, with everything that the environment and the verifier need."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from kimi_mini.base.errors import BadFile, MissingFile
from kimi_mini.base.files import AGAIN, replacing
from kimi_mini.base.paths import ROOT, in_clone
from kimi_mini.evaluation.benchmarks.table import Benchmark
from kimi_mini.worlds import Task
from kimi_mini.worlds.rows import Limits

FOLDER = ROOT / "data" / "benchmarks"
FILE = "tasks.jsonl"
PACKED = FILE + ".gz"  # of more than so many bytes
MOST = 2_000_000


@dataclass(frozen=True)
class Item:
    """A task of a benchmark: the part that it belongs to, and the limits it is worked on with."""

    part: str
    limits: Limits
    task: Task

    def line(self) -> str:
        """As one line of a file; of the limits those that are not the usual ones."""
        own = {key: value for key, value in asdict(self.limits).items() if value != getattr(Limits, key)}
        entry = {"part": self.part, "limits": own, "task": asdict(self.task)}
        return json.dumps(entry, sort_keys=True, separators=(",", ":")) + "\n"

    @classmethod
    def of(cls, line: str) -> Item:
        """What `line` wrote. Raises ValueError, TypeError or KeyError for a line of another kind."""
        entry = json.loads(line)
        return cls(entry["part"], Limits(**entry["limits"]), Task(**entry["task"]))


def text_of(items: Iterable[Item]) -> str:
    """The whole file."""
    return "".join(item.line() for item in items)


def checksum(text: str) -> str:
    """SHA-256 of the lines, before they are packed: packed bytes differ between versions of zlib."""
    return hashlib.sha256(text.encode()).hexdigest()


def write(folder: Path, text: str) -> None:
    """The lines, packed where they are many; whole or not at all."""
    data = text.encode()
    name, other = (PACKED, FILE) if len(data) > MOST else (FILE, PACKED)
    with replacing(folder / name) as part:
        part.write_bytes(gzip.compress(data, mtime=0) if name == PACKED else data)
    (folder / other).unlink(missing_ok=True)


def file_of(folder: Path) -> Path:
    """The file of a benchmark's folder, packed or not. KimiError where there is none."""
    for file in (folder / FILE, folder / PACKED):
        if file.is_file():
            return file
    advice = in_clone("`python -m kimi_mini.evaluation.benchmarks.make` makes it")
    raise MissingFile(f"{folder / FILE} is missing; {advice}")


def read(folder: Path) -> str:
    """The lines. KimiError for a file that is missing or damaged."""
    file = file_of(folder)
    try:
        data = file.read_bytes()
        return (gzip.decompress(data) if file.name == PACKED else data).decode()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise BadFile(f"{file} cannot be read ({error}); {AGAIN}") from error


def items(benchmark: Benchmark, most: int | None = None, folder: Path = FOLDER) -> list[Item]:
    """The tasks of a benchmark; of each part the first `most`. KimiError for a file that holds something else."""
    place = folder / benchmark.name
    try:
        found = [Item.of(line) for line in read(place).splitlines()]
    except (ValueError, TypeError, KeyError) as error:
        raise BadFile(f"{file_of(place)} holds a line that is no task ({error}); {AGAIN}") from error
    return [one for part in parts(found) for one in [i for i in found if i.part == part][:most]]


def parts(found: Sequence[Item]) -> list[str]:
    """The names of their parts, in order."""
    return list(dict.fromkeys(item.part for item in found))
