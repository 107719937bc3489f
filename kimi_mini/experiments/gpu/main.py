"""`python -m kimi_mini gpu`: every row that wants a GPU, in parts that save. A part whose log is whole is not measured
again; one that was stopped goes on behind its last row. A part that fails leaves the others their turn. After MINUTES
nothing new is begun, and the parts that are not whole are named."""

from __future__ import annotations

import argparse
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace

from kimi_mini.base.errors import KimiError
from kimi_mini.base.files import locked, read_json
from kimi_mini.base.paths import short
from kimi_mini.experiments.gpu import dense, exactness, generation, logits, pretraining, speed
from kimi_mini.experiments.gpu.drawings import DRAWINGS
from kimi_mini.experiments.gpu.sheet import Sheet, finished
from kimi_mini.experiments.gpu.site import MINUTES, OutOfTime, Site

Part = Callable[[Site], Sheet]
PARTS: dict[str, Part] = {
    "exactness": exactness.measure,
    "speed": speed.measure,
    "generation": generation.measure,
    "logits": logits.measure,
    "dense": dense.measure,
    "pretraining": pretraining.measure,
}


def main(args: argparse.Namespace) -> None:
    """Run the parts. KimiError without a GPU, for a part that is not there, and when parts have failed."""
    unknown = [name for name in args.parts or () if name not in PARTS]
    if unknown:
        raise KimiError(f"no part {', '.join(unknown)}; choose from: {', '.join(PARTS)}")
    site = Site.choose(args.rehearsal, args.folder)
    site = replace(site, deadline=site.clock() + 60 * MINUTES)
    with locked(site.work), site.kernels():
        failed, late = run(site, args.parts or list(PARTS))
    if late:
        also = f"; {', '.join(failed)} failed" if failed else ""
        raise KimiError(f"{MINUTES} minutes are over: the same command goes on with {', '.join(late)}{also}")
    if failed:
        raise KimiError(f"{', '.join(failed)} failed; the other parts are saved")


def run(site: Site, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Each part in turn; returns those that failed, and those that there was no time for, or not enough."""
    failed, late = [], []
    for name in names:
        file = site.folder / f"{name}.json"
        if finished(file):
            print(f"{name}: {short(file)} is whole; delete it to measure again", flush=True)
            continue
        print(f"{name}:", flush=True)
        began = time.perf_counter()
        try:
            site.in_time()
            PARTS[name](site).close()
            draw(site, name)
        except OutOfTime as error:
            print(f"kimi_mini: {error}", flush=True)
            late.append(name)
        except Exception as error:  # noqa: BLE001 - an hour of a GPU is not lost for one part
            print(
                f"kimi_mini: {error}" if isinstance(error, KimiError) else traceback.format_exc(), flush=True
            )
            failed.append(name)
        site.clear()
        print(f"{name}: {time.perf_counter() - began:.0f} s, {short(file)}", flush=True)
    return failed, late


def draw(site: Site, part: str) -> None:
    """The part's figure, if it has one."""
    if part in DRAWINGS:
        figure = DRAWINGS[part](read_json(site.folder / f"{part}.json"))
        figure.savefig(site.figures / f"gpu_{part}.png", dpi=110, bbox_inches="tight")
