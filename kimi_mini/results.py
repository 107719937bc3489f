"""Evidence: one JSON file per measured run under data/results/, and the intervals that belong to its numbers.

A file says what made it (command, device, threads, versions, seeds, seconds) beside what came out (rows,
claims), so that every number in README can be made again. `python -m kimi_mini ledger` writes the claims of
all files into README.

    with Log("qk_clip", seeds=[0, 1, 2]) as log:
        log.row(seed=0, tau=100, largest_logit=103.2)
        log.claim("qk-clip/largest", claim="QK-Clip holds the logits at tau", source="K2 report 2.1",
                  value=101.0, low=100.1, high=101.9, floor=110, at_most=True)
"""

import json
import math
import os
import platform
import sys
import zipfile
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from kimi_mini.errors import KimiError, explain_os_error
from kimi_mini.paths import RESULTS

CLAIM_KEYS = ("name", "claim", "source", "value", "low", "high", "seeds", "floor", "holds", "figure", "notebook")
VERSIONS = ("torch", "numpy", "tokenizers", "transformers", "pydantic-monty")


# ------------------------------------------------------------------------------------------------- log
class Log:
    """What one run leaves behind: data/results/NAME.json. Written by `save`, or by leaving a `with` block.

    name    file name without .json
    seeds   the seeds that were run
    device  torch device ("cpu", "cuda"); the name of the processor stands under versions
    folder  where the file goes (default data/results)
    more    further top-level entries, such as seed=0, stages=[...], scoreboard={...}

    Raises KimiError at once when the folder cannot be made.
    """

    def __init__(self, name: str, *, seeds: Sequence[int] = (0,), device: str = "cpu",
                 folder: str | Path = RESULTS, command: str | None = None, **more: Any):  # fmt: skip
        self.path = Path(folder) / f"{name}.json"
        self.seeds, self.device, self.command = list(seeds), device, command or this_command()
        self.rows: list[dict[str, Any]] = []
        self.claims: list[dict[str, Any]] = []
        self.more = more
        try:  # before the work, not after it
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise KimiError(explain_os_error(error, self.path.parent)) from error
        self._start = perf_counter()

    def row(self, **values: Any) -> None:
        """Keep one measurement, as a figure will want to read it."""
        self.rows.append(values)

    def claim(self, name: str, *, claim: str, source: str, value: float, low: float | None = None,
              high: float | None = None, floor: float | None = None, at_most: bool = False,
              holds: bool | None = None, seeds: Sequence[int] | None = None, figure: str | None = None,
              notebook: str | None = None) -> None:  # fmt: skip
        """Keep one line of the ledger.

        name, claim, source  "moe/balance"; what is claimed; who claims it and where
        value, low, high     what was measured, with the ends of its 95% interval
        floor                the value to reach (a ceiling with at_most=True)
        holds                by default: value on the right side of the floor. Raises ValueError without either.
        """
        if holds is None:
            if floor is None:
                raise ValueError(f"claim {name!r}: give a floor, or say whether it holds")
            holds = bool(value <= floor if at_most else value >= floor)
        seeds = self.seeds if seeds is None else list(seeds)
        values = (name, claim, source, value, low, high, seeds, floor, holds, figure, notebook)
        self.claims.append(dict(zip(CLAIM_KEYS, values, strict=True)))

    def as_dict(self) -> dict[str, Any]:
        """The whole log as it is written."""
        machine = environment(self.device)
        head = {"command": self.command, "device": self.device, "threads": machine.pop("threads"),
                "versions": machine, "seeds": self.seeds,
                "seconds": round(perf_counter() - self._start, 3)}  # fmt: skip
        return head | self.more | {"rows": self.rows, "claims": self.claims}

    def save(self) -> Path:
        """Write the file, whole or not at all. Raises KimiError when there is no room or no permission."""
        write_json(self.path, self.as_dict())
        return self.path

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:  # a run that failed leaves the last good log in place
            self.save()


# ------------------------------------------------------------------------------------------------ files
def write_json(path: str | Path, value: Any) -> None:
    """Write JSON atomically. Raises ValueError on NaN (a result is a number), KimiError on a full disk."""
    write_atomic(path, json.dumps(value, indent=1, allow_nan=False, default=_plain) + "\n")


def write_atomic(path: str | Path, text: str) -> None:
    """Put `text` at `path` so that a crash at any moment leaves either the old file or the new one.

    Raises KimiError with one line on a full disk or a missing permission; the old file stays as it was.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise KimiError(explain_os_error(error, path.parent)) from error
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise KimiError(explain_os_error(error, path)) from error
    finally:
        _remove(temporary)


def read_json(path: str | Path) -> Any:
    """Read a results file. Raises KimiError when it is missing, unreadable or cut short."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise KimiError(explain_os_error(error, path)) from error
    except ValueError as error:
        raise KimiError(f"{path} is not valid JSON ({error}); delete it and run the command that makes it") from error


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """All arrays of an npz file. Raises KimiError when it is missing or damaged."""
    try:
        with np.load(path) as arrays:
            return dict(arrays)
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise KimiError(f"{path} cannot be read ({error}); delete it and run the same command again") from error


def check_plan(folder: Path, plan: dict[str, Any]) -> bool:
    """Write plan.json, what decides the numbers of a run, into a new folder; returns whether it was new. KimiError for
    a folder of another plan."""
    file = folder / "plan.json"
    if not file.is_file():
        write_json(file, plan)
        return True
    before = read_json(file)
    changed = [name for name in plan if before.get(name) != plan[name]]
    if changed:
        raise KimiError(f"{folder} holds a run with another {', '.join(changed)}: use --folder for a new one, "
                        f"or delete {folder}")  # fmt: skip
    return False


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable, where the system lets a folder be opened."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    try:
        path.unlink()
    except OSError:
        pass  # renamed already, or in a folder that we may not write to


def _plain(value: Any) -> Any:
    """numpy and torch values as Python numbers and lists."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"cannot write a {type(value).__name__} as JSON")


# ---------------------------------------------------------------------------------------------- machine
def environment(device: str = "cpu") -> dict[str, Any]:
    """What the run ran on: versions, cores, threads, processor. No host name, no user, no path."""
    import torch  # takes a second; only wanted when a log is written

    found = {"python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    for package in VERSIONS:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    if device.startswith("cuda") and torch.cuda.is_available():
        processor = torch.cuda.get_device_name(device)
    else:
        processor = _processor_name()
    return found | {"processor": processor, "cores": os.cpu_count(), "threads": torch.get_num_threads()}


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def this_command() -> str:
    """The command line that is running, without the machine's paths: "python -m kimi_mini run"."""
    words = [word if not os.path.isabs(word) else os.path.basename(word) for word in sys.orig_argv[1:]]
    return " ".join(["python", *words])


# -------------------------------------------------------------------------------------------- intervals
def wilson(successes: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """95% interval of a success rate (Wilson 1927): sensible at 0 and at n too, unlike p +- 2 sigma.

    Raises ValueError unless 0 <= successes <= n and n > 0.
    """
    if not 0 <= successes <= n or n <= 0:
        raise ValueError(f"{successes} successes of {n} tries")
    p = successes / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return (0.0 if successes == 0 else middle - half), (1.0 if successes == n else middle + half)


def difference(first: tuple[int, int], second: tuple[int, int]) -> tuple[float, float, float]:
    """Difference of two success rates, first - second, with its 95% interval (Newcombe 1998, method 10).

    Each argument is (successes, n) of tasks that were drawn independently of the other's.
    """
    (a, n), (b, m) = first, second
    p, q = a / n, b / m
    (p_low, p_high), (q_low, q_high) = wilson(a, n), wilson(b, m)
    low = p - q - math.hypot(p - p_low, q_high - q)
    return p - q, low, p - q + math.hypot(p_high - p, q - q_low)


def over_seeds(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean over seeds with its 95% t interval -> (mean, low, high). Raises ValueError below two seeds."""
    n = len(values)
    if n < 2:
        raise ValueError("an interval over seeds takes at least two of them")
    mean, error = float(np.mean(values)), float(np.std(values, ddof=1)) / math.sqrt(n)
    half = t_quantile(n - 1) * error
    return mean, mean - half, mean + half


def t_quantile(freedom: int) -> float:
    """97.5% quantile of Student's t: tabled to 10 degrees, then the Cornish-Fisher expansion (error below 2e-5)."""
    table = (12.70620, 4.30265, 3.18245, 2.77645, 2.57058, 2.44691, 2.36462, 2.30600, 2.26216, 2.22814)
    if freedom <= len(table):
        return table[freedom - 1]
    z, v = 1.959964, float(freedom)
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    fourth = (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160
    return z + first / v + second / v**2 + third / v**3 + fourth / v**4


def bootstrap(values: Sequence[float], statistic: Callable[..., Any] = np.mean, draws: int = 2000,
              seed: int = 0) -> tuple[float, float, float]:  # fmt: skip
    """Any statistic with its 95% percentile interval -> (value, low, high); `statistic` takes axis=-1."""
    data = np.asarray(values, dtype=float)  # (n,)
    picks = np.random.default_rng(seed).integers(0, len(data), (draws, len(data)))  # (draws, n)
    low, high = np.quantile(statistic(data[picks], axis=-1), [0.025, 0.975])
    return float(statistic(data, axis=-1)), float(low), float(high)
