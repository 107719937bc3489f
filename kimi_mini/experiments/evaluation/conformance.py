"""Do the shipped agents decide behind our endpoint as they do in a process of their own?

    python -m kimi_mini.experiments.evaluation.conformance

The two figures of the vendor verifier (`evaluation.conformance`) of two agents: `final` on requests cut from the fixed
worlds, `reader` on requests cut from the desk, which it was made for. The truth is what `inference.api` writes here,
many rows at a time. The endpoint writes the same requests one by one as they come, with a cache that others have filled
and with calls held to their schemas, which the truth is not. Both are greedy, so another decision is
a fault of the endpoint, a last bit, or a call that the agent alone would have written wrongly.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from kimi_mini.agent.endpoint import Endpoint
from kimi_mini.agent.serve import serving
from kimi_mini.base.command import in_one_line
from kimi_mini.base.evidence import Log
from kimi_mini.base.paths import CHECKPOINTS
from kimi_mini.evaluation import conformance as suite
from kimi_mini.evaluation.scoreboard import ROWS, VARIED
from kimi_mini.experiments import harness
from kimi_mini.worlds import Row

AGENTS = {"final": ROWS, "reader": VARIED}  # a folder of data/checkpoints, and where its requests are from
TASKS, PLACES = 100, 16  # tasks an agent, rows at a time
SAME, VALID = 1.0, 1.0  # both greedy, and held to schemas: chosen before the first run


def main() -> None:
    """Ask both agents both ways; write data/results/conformance.json."""
    args = harness.arguments(__doc__.splitlines()[0], seeds=(0,))
    log = Log("conformance", seeds=args.seeds, folder=args.folder)
    for name, rows in AGENTS.items():
        folder = CHECKPOINTS / name
        found = measured(folder, rows, max(2, int(TASKS * args.scale)), args.seeds[0])
        log.row(agent=name, weights=harness.fingerprint(folder), **found)
        print(name, f"{found['seconds']:.0f} s")
        suite.print_report(found)
    report(log)
    harness.finish(log)


def measured(folder: Path, rows: Sequence[Row], tasks: int, seed: int) -> dict:
    """What `suite.report` says of our endpoint on the agent of a folder, with the seconds of the endpoint."""
    asked = suite.prompts(tasks, seed, rows)
    truth = {prompt.name: outcome.finish for prompt, outcome in zip(asked, suite.decided_here(folder, asked))}
    with serving(folder, places=PLACES) as url:
        began = time.perf_counter()
        outcomes = suite.decided_there(Endpoint(url, folder.name, parallel=PLACES), asked)
        seconds = time.perf_counter() - began
    return suite.report(asked, outcomes, truth) | {"seconds": round(seconds, 1)}


def report(log: Log) -> None:
    """The claims: the smaller of both agents' figures. They are counts, without intervals."""
    names = " and ".join(row["agent"] for row in log.rows)

    def claim(name: str, says: str, values: list[float | None], floor: float) -> None:
        least = None if None in values else min(values)
        more = {"source": "K2 Vendor Verifier", "notebook": "10_deployment.ipynb"}
        log.claim(f"conformance/{name}", claim=says, value=least, floor=floor, **more)

    count = sum(row["requests"] for row in log.rows)
    says = f"trigger similarity (F1) of our endpoint to the agent alone, {names}, {count} requests: the smaller one"
    claim("trigger", says, [row["trigger_similarity"]["f1"] for row in log.rows], SAME)
    calling = sum(row["schema_accuracy"]["calling"] for row in log.rows)
    says = f"schema accuracy of our endpoint, {names}, {calling} answers that call: the smaller one"
    claim("schema", says, [row["schema_accuracy"]["value"] for row in log.rows], VALID)


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
