"""Evidence: one JSON file per measured run under data/results/, and the verdict on each of its claims.

A file says what made it (command, device, threads, versions, seeds, seconds) beside what came out (rows,
claims), so that every number in README can be made again. `python -m kimi_mini ledger` writes the claims of
all files into data/results/README.md.

    with Log("qk_clip", seeds=[0, 1, 2]) as log:
        log.row(seed=0, tau=100, largest_logit=103.2)
        log.claim("qk-clip/largest", claim="QK-Clip holds the logits at tau", source="K2 report 2.1",
                  value=101.0, low=100.1, high=101.9, floor=110, at_most=True)
"""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from time import perf_counter
from typing import Any

from kimi_mini.base.errors import KimiError, explain_os_error
from kimi_mini.base.files import read_json, write_json
from kimi_mini.base.paths import GPU_RESULTS, RESULTS

CLAIM_KEYS = (
    "name",
    "claim",
    "source",
    "value",
    "low",
    "high",
    "floor",
    "at_most",
    "verdict",
    "seeds",
    "figure",
    "notebook",
    "headline",
)
HOLDS, OPEN, FAILS = VERDICTS = ("holds", "open", "does not hold")
TOOK = "took"  # the seconds of a kept part, in its file
VERSIONS = ("torch", "numpy", "tokenizers", "transformers", "pydantic-monty")


# --------------------------------------------------------------------------------------------- verdict
def verdict(
    *,
    value: float | None,
    low: float | None,
    high: float | None,
    floor: float,
    at_most: bool = False,
    **_: Any,
) -> str:
    """ "holds": the whole interval lies on the right side of the floor (a ceiling with at_most); "open": it contains
    the floor; "does not hold". Without an interval the value alone decides; a value of None was never measured
    and does not hold. Called as verdict(**claim)."""
    if value is None:
        return FAILS
    if low is not None and high is not None and low <= floor <= high:
        return OPEN
    return HOLDS if (value <= floor if at_most else value >= floor) else FAILS


# ------------------------------------------------------------------------------------------------- log
class Log:
    """What one run leaves behind: data/results/NAME.json. Written by `save`, or by leaving a `with` block.

    name    file name without .json
    seeds   the seeds that were run
    device  torch device ("cpu", "cuda"); the name of the processor stands under versions
    folder  where the file goes (default data/results)
    more    further top-level entries, such as seed=0, stages=[...], scoreboard={...}

    Raises KimiError at once when the folder cannot be made, and where a GPU's row would be written without a GPU.
    """

    def __init__(
        self,
        name: str,
        *,
        seeds: Sequence[int] = (0,),
        device: str = "cpu",
        folder: str | Path = RESULTS,
        command: str | None = None,
        **more: Any,
    ):
        self.path = Path(folder) / f"{name}.json"
        self.seeds, self.device, self.command = list(seeds), device, command or this_command()
        self.rows: list[dict[str, Any]] = []
        self.claims: list[dict[str, Any]] = []
        self.more = more
        if self.path.parent.resolve() == GPU_RESULTS.resolve() and not device.startswith("cuda"):
            raise KimiError(f"{name}.json would be a log of a GPU, and the work is done on {device!r}")
        try:  # before the work, not after it
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise KimiError(explain_os_error(error, self.path.parent)) from error
        self.earlier = 0.0  # seconds of earlier starts whose work is taken over
        self._start = perf_counter()

    def part(self, file: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What `file` keeps of an earlier start, whose seconds then count in this log; where there is no such file,
        what `make` makes now, kept with the seconds that it took."""
        made = not file.is_file()
        if made:
            began = perf_counter()
            write_json(file, make() | {TOOK: round(perf_counter() - began, 3)})
        found = read_json(file)
        took = found.pop(TOOK, 0.0)
        self.earlier += 0.0 if made else took
        return found

    def row(self, **values: Any) -> None:
        """Keep one measurement, as a figure will want to read it."""
        self.rows.append(values)

    def claim(
        self,
        name: str,
        *,
        claim: str,
        source: str,
        value: float | None,
        low: float | None = None,
        high: float | None = None,
        floor: float,
        at_most: bool = False,
        seeds: Sequence[int] | None = None,
        figure: str | None = None,
        notebook: str | None = None,
        headline: bool = False,
    ) -> None:
        """Keep one line of the ledger, with its `verdict`.

        name, claim, source  "moe/balance"; what is claimed; who claims it and where
        value, low, high     what was measured, with the ends of its 95% interval; None: the run could not show it
        floor                the value to reach (a ceiling with at_most=True)
        headline             the one number that README shows of its notebook
        """
        measured = dict(value=value, low=low, high=high, floor=floor, at_most=at_most)
        said = verdict(**measured)
        seeds = self.seeds if seeds is None else list(seeds)
        about = dict(seeds=seeds, figure=figure, notebook=notebook, headline=headline)
        self.claims.append(dict(name=name, claim=claim, source=source) | measured | {"verdict": said} | about)

    def later(self, name: str, **about: Any) -> None:
        """Keep a claim that nobody has measured yet, by `claim`'s arguments but value, low and high: the ledger says
        so, and does not count it."""
        self.claim(name, value=None, **about)
        self.claims[-1]["waits"] = True

    def as_dict(self) -> dict[str, Any]:
        """The whole log as it is written."""
        machine = environment(self.device)
        head = {
            "command": self.command,
            "device": self.device,
            "threads": machine.pop("threads"),
            "versions": machine,
            "seeds": self.seeds,
            "seconds": round(self.earlier + perf_counter() - self._start, 3),
        }
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


def check_plan(folder: Path, plan: dict[str, Any]) -> bool:
    """Write plan.json, what decides the numbers of a run, into a new folder; returns whether it was new. KimiError for
    a folder that was begun with another plan; it names the fields that differ, such as rl.limits.turns. Entries of
    plan.json that `plan` does not speak of at all are left out of the comparison."""
    file = folder / "plan.json"
    if not file.is_file():
        write_json(file, plan)
        return True
    now, before = flat(json.loads(json.dumps(plan))), read_json(file)
    if not isinstance(before, dict):
        raise KimiError(f"{file} holds no plan: delete {folder} to begin again")
    before = flat({name: entry for name, entry in before.items() if name in plan})
    changed = [name for name in now | before if now.get(name, ...) != before.get(name, ...)]
    if changed:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise KimiError(
            f"{folder} holds a run with another {', '.join(changed[:3])}{more}: use --folder for a new one, "
            f"or delete {folder}"
        )
    return False


def flat(entries: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, with dotted names."""
    found: dict[str, Any] = {}
    for name, entry in entries.items():
        inner = flat(entry, f"{prefix}{name}.") if isinstance(entry, dict) and entry else {}
        found |= inner or {f"{prefix}{name}": entry}
    return found


# ---------------------------------------------------------------------------------------------- machine
def environment(device: str = "cpu") -> dict[str, Any]:
    """What the run ran on: versions, cores, threads, processor, and the GPU if it was one. No host name, no user, no
    path. KimiError for a GPU that is not there."""
    import torch  # takes a second; only wanted when a log is written

    found = {"python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    for package in VERSIONS:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    if device.startswith("cuda"):
        if not torch.cuda.is_available():
            raise KimiError("a log of a GPU can only be written where there is one")
        processor = found["gpu"] = torch.cuda.get_device_name(device)
    else:
        processor = _processor()
    return found | {"processor": processor, "cores": os.cpu_count(), "threads": torch.get_num_threads()}


MAKES = {"AuthenticAMD": "AMD", "GenuineIntel": "Intel"}


def _processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Make and model, such as "Intel Xeon Processor (SapphireRapids)": speeds differ by make, and some virtual
    machines leave it out of the model's name."""
    try:
        lines = [line.partition(":") for line in cpuinfo.read_text(encoding="utf-8").splitlines()]
    except OSError:
        lines = []
    said = {key.strip(): value.strip() for key, _, value in reversed(lines)}
    make = MAKES.get(said.get("vendor_id", ""), said.get("vendor_id", ""))
    model = said.get("model name") or _apple() or platform.processor() or "unknown"
    return model if make.lower() in model.lower() else f"{make} {model}"


def _apple() -> str:
    """macOS: "Apple M2"; elsewhere nothing."""
    command = ["sysctl", "-n", "machdep.cpu.brand_string"]
    if sys.platform != "darwin":
        return ""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def this_command() -> str:
    """The command line that is running, without the machine's paths: "python -m kimi_mini run"."""
    words = [word if not os.path.isabs(word) else os.path.basename(word) for word in sys.orig_argv[1:]]
    return " ".join(["python", *words])
