"""Logs of measured runs, as a notebook replays them.

gap = logs.read("filter_gap")        # data/results/filter_gap.json
logs.board()["shop/buy"]             # one scoreboard row, from whichever log has it
print(logs.origin(gap))              # what made it
logs.claims(gap)["filter/gap"]       # one claim: value, low, high, floor, verdict, ...
logs.line(claim)                     # the same in a line, with its bar
logs.table(gap)                      # all of them, as a table
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from IPython.display import Markdown

from kimi_mini.base import ledger, markdown
from kimi_mini.base.files import read_json
from kimi_mini.base.paths import RESULTS


def read(name: str) -> dict[str, Any]:
    """The committed log of that name. Raises KimiError when there is none or when it is damaged."""
    return read_json(RESULTS / f"{name}.json")


def board() -> dict[str, dict[str, Any]]:
    """The scoreboard rows of all committed logs, those of `make run` first. Raises KimiError on a damaged log."""
    return ledger.join(ledger.read_logs(RESULTS))


def on_gpu() -> dict[str, dict[str, Any]]:
    """The logs of `python -m kimi_mini gpu` by their parts; none where no GPU has run it."""
    found = ledger.read_logs(RESULTS)
    return {
        name.removeprefix("gpu/").removesuffix(".json"): log
        for name, log in found.items()
        if ledger.of_gpu(name)
    }


def origin(log: Mapping[str, Any]) -> str:
    """Where a log's numbers come from, in a line: command, seeds, processor, threads and seconds."""
    threads = f"{log['threads']} thread{'s' * (log['threads'] > 1)} of {log['versions']['processor']}"
    return f"{log['command']}: seeds {log['seeds']}, {threads}, {log['seconds']:,.0f} s"


def claims(log: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The claims of a log by their names."""
    return {claim["name"]: claim for claim in log["claims"]}


def interval(measured: Mapping[str, Any], digits: int = 2, scale: float = 1.0) -> str:
    """A measured value with its 95% interval, where it has one: 0.52 [0.48, 0.56]."""
    value, low, high = (
        None if measured[key] is None else f"{measured[key] * scale:.{digits}f}"
        for key in ("value", "low", "high")
    )
    return f"{value} [{low}, {high}]" if low is not None and high is not None else value or "-"


def bar(claim: Mapping[str, Any]) -> str:
    """What was to be reached: "at least 0.1"."""
    return f"{'at most' if claim['at_most'] else 'at least'} {claim['floor']:g}"


def line(claim: Mapping[str, Any], digits: int = 3) -> str:
    """A claim in a line: what was measured, the verdict with its bar, what is claimed."""
    return f"{interval(claim, digits):>23s}  {said(claim)} ({bar(claim)}): {claim['claim']}"


def said(claim: Mapping[str, Any]) -> str:
    """The verdict, or that nobody has measured it yet."""
    return ledger.NOBODY if claim.get("waits") else claim["verdict"]


def table(log: Mapping[str, Any], *names: str, digits: int = 3) -> Markdown:
    """Claims as a table: what was measured, the bar set beforehand, the verdict. All of them, or those named."""
    rows = [
        (claim["claim"], interval(claim, digits), bar(claim), said(claim))
        for claim in log["claims"]
        if not names or claim["name"] in names
    ]
    return Markdown(markdown.table(("claim", "measured, 95% interval", "bar", "verdict"), rows))
