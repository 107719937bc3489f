"""The claims ledger and the scoreboard, written from the logs in data/results/ and never typed.

`python -m kimi_mini ledger` writes data/results/README.md, all of it, and in README the parts between markers: the
course with a headline a notebook, the scoreboard's main rows, and how many claims hold. With --check it only says
whether both are up to date. Logs are read, never written. A claim that did not hold keeps its row and its floor; so
does one of a GPU that nobody has measured yet (gpu/floors.json).
"""

import argparse
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kimi_mini.base.errors import BadFile, KimiError
from kimi_mini.base.evidence import CLAIM_KEYS, FAILS, HOLDS, OPEN, VERDICTS, verdict
from kimi_mini.base.files import read_json, write_atomic
from kimi_mini.base.markdown import how_many, number, replace_between, table, with_interval
from kimi_mini.base.paths import GPU_FLOORS, GPU_RESULTS, RESULTS, ROOT

README = ROOT / "README.md"
NOTEBOOKS = ROOT / "notebooks"
RUN = "run.json"  # the log of `make run`
ROW_KEYS = ("value", "low", "high", "n", "seeds", "main", "floor", "says")  # of an entry of `scoreboard`
Claim = dict[str, Any]
GPU = GPU_RESULTS.relative_to(RESULTS).as_posix()
NOBODY = "not measured"
UNMEASURED = f"{NOBODY} on a GPU"


def main(args: argparse.Namespace) -> None:
    """Bring both pages up to date, or with args.check raise KimiError when they are not."""
    old = stale()
    names = " and ".join(path.relative_to(README.parent).as_posix() for path in old)
    if args.check and old:
        raise KimiError(f"{names}: behind the logs in data/results/: run `python -m kimi_mini ledger`")
    update()
    print(
        f"{names}: written from data/results/"
        if old
        else "README and data/results/README say what the logs say"
    )


def update() -> None:
    """Write the pages that are behind the logs. Raises KimiError on a bad log, before anything is written."""
    for path, text in stale().items():
        write_atomic(path, text)


def stale() -> dict[Path, str]:
    """The pages that do not say what the logs say, as they should be."""
    logs, notebooks = read_logs(RESULTS), course(NOTEBOOKS)
    waiting = unmeasured(RESULTS, collect(logs))
    readme = render(README.read_text(encoding="utf-8"), logs, notebooks, waiting)
    pages = {README: readme, RESULTS / "README.md": whole(logs, notebooks, waiting)}
    return {
        path: text
        for path, text in pages.items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    }


# -------------------------------------------------------------------------------------------------- logs
def read_logs(folder: Path) -> dict[str, dict[str, Any]]:
    """Every log of the folder and of its folder gpu/ by its path in there, that of `make run` first. Raises BadFile in
    one line that names the file on a log, claim or row that lacks a part, on a name that stands in two logs, and on a
    log in gpu/ that names no GPU."""
    paths = sorted(folder.glob("*.json"), key=lambda path: (path.name != RUN, path.name))
    paths += sorted(path for path in (folder / GPU).glob("*.json") if path.name != GPU_FLOORS.name)
    logs = {path.relative_to(folder).as_posix(): read_json(path, object) for path in paths}
    homes: dict[str, str] = {}
    for name, log in logs.items():
        _check_log(name, log)
        for claim in log.get("claims", []):
            if claim["name"] in homes:
                raise BadFile(
                    f"claim {claim['name']!r} stands in two logs: {homes[claim['name']]} and {name}"
                )
            homes[claim["name"]] = name
    return logs


def of_gpu(name: str) -> bool:
    """Whether a log of that name is of a GPU."""
    return name.startswith(f"{GPU}/")


def _check_log(name: str, log: Any) -> None:
    """Raises BadFile unless the log's claims and scoreboard rows are whole."""
    claims, board = (
        (log.get("claims", []), log.get("scoreboard", {})) if isinstance(log, dict) else (None, None)
    )
    if not isinstance(claims, list) or not isinstance(board, dict):
        raise BadFile(f"{name} is no log of a run: run the command again that makes it, or delete it")
    if of_gpu(name) and not (log.get("device") == "cuda" and log.get("versions", {}).get("gpu")):
        raise BadFile(f"{name} is to be of a GPU and names none: `python -m kimi_mini gpu` makes such logs")
    entries = [("claim", entry, CLAIM_KEYS) for entry in claims]
    entries += [(f"row {row!r}", entry, ROW_KEYS) for row, entry in board.items()]
    for kind, entry, keys in entries:
        missing = [key for key in keys if not isinstance(entry, dict) or key not in entry]
        if missing:
            kind = f"claim {entry['name']!r}" if kind == "claim" and "name" not in missing else kind
            raise BadFile(f"{name}: {kind} lacks {', '.join(missing)}")
        for key in ("value", "low", "high", "floor"):
            if not isinstance(entry.get(key), int | float | None):
                raise BadFile(f"{name}: {kind} has {entry[key]!r} where {key} should be a number")
    for claim in claims:
        if claim["verdict"] != verdict(**claim):
            raise BadFile(
                f"{name}: claim {claim['name']!r} says {claim['verdict']}, its numbers {verdict(**claim)}"
            )


def collect(logs: Mapping[str, dict]) -> list[Claim]:
    """The claims of all logs, each with its log's name under "log", in order of their names."""
    found = [claim | {"log": name} for name, log in logs.items() for claim in log.get("claims", [])]
    return sorted(found, key=lambda claim: claim["name"])


def unmeasured(folder: Path, claims: Iterable[Claim]) -> list[Claim]:
    """What is claimed of a GPU (gpu/floors.json in the folder) and stands in no log."""
    file, names = folder / GPU / GPU_FLOORS.name, {claim["name"] for claim in claims}
    return [row for row in (read_json(file, list) if file.is_file() else []) if row["name"] not in names]


def join(logs: Mapping[str, dict]) -> dict[str, dict[str, Any]]:
    """The scoreboard rows of all logs, those of `make run` first. Raises BadFile on two numbers for one row."""
    board: dict[str, dict[str, Any]] = {}
    for name, log in logs.items():
        for row, entry in log.get("scoreboard", {}).items():
            if board.setdefault(row, entry) != entry:
                raise BadFile(f"{name}: row {row!r} has other numbers in another log")
    return board


# ------------------------------------------------------------------------------------------------ course
class Notebook(NamedTuple):
    """What a notebook's first cell says of it: title, the question it asks, minutes on two cores."""

    file: str
    title: str
    question: str
    minutes: str


def course(folder: Path) -> list[Notebook]:
    """The notebooks in order. Raises BadFile for one whose first cell lacks title, question or cost."""
    found = []
    for path in sorted(folder.glob("*.ipynb")):
        text = "".join(read_json(path)["cells"][0]["source"])
        patterns = (r"^# (.+)", r"\*\*Question\*\*: ([^*]+?)\n\n", r"\*\*Cost\*\*: (.+?) on two")
        parts = [re.search(pattern, text, re.MULTILINE) for pattern in patterns]
        if not all(parts):
            raise BadFile(f"{path.name}: its first cell needs a title, a **Question** and a **Cost**")
        found.append(Notebook(path.name, *(" ".join(part[1].split()) for part in parts)))
    return found


def course_table(claims: Iterable[Claim], notebooks: Iterable[Notebook]) -> str:
    """A line a notebook: its question, one headline number, its verdicts, its minutes."""
    rows = []
    for page in notebooks:
        own = [claim for claim in claims if claim["notebook"] == page.file]
        headline = [f"{claim['claim']}: **{with_interval(claim)}**" for claim in own if claim["headline"]]
        rows.append(
            (
                f"[{page.title}](notebooks/{page.file})",
                page.question,
                headline[0] if headline else "all of it runs live",
                " / ".join(map(str, count(own).values())) if own else "-",
                page.minutes,
            )
        )
    return table(("notebook", "question", "one number", "hold / open / do not", "on two cores"), rows)


# ---------------------------------------------------------------------------------------------- verdicts
def count(claims: Iterable[Claim]) -> dict[str, int]:
    """How many hold, are open, do not hold; without those that wait."""
    found = Counter(claim["verdict"] for claim in claims if not claim.get("waits"))
    return {said: found[said] for said in VERDICTS}


def _more(count: int, are: str) -> str:
    """So many more claims are ...: a sentence, or nothing of none."""
    return f" {count} more {'is' if count == 1 else 'are'} {are}." if count else ""


def summary(claims: list[Claim], waiting: Sequence[Claim] = ()) -> str:
    """One line: how many were measured, and with which result; and how many wait, some of them for a GPU."""
    claims, whole = [claim for claim in claims if not claim.get("waits")], len(claims)
    found, speed = count(claims), count(claim for claim in claims if not claim["notebook"])
    of_speed = " / ".join(map(str, speed.values()))
    bare = sum(claim["low"] is None or claim["high"] is None for claim in claims)
    return (
        f"**{len(claims)} measured: {found[HOLDS]} hold, {found[OPEN]} open, {found[FAILS]} do not.** "
        f"{bare} have no interval. By notebook: the table above; speed: {of_speed}."
        + _more(whole - len(claims), NOBODY)
        + _more(len(waiting), UNMEASURED)
    )


def claims_table(claims: Iterable[Claim], root: Path = ROOT, waiting: Iterable[Claim] = ()) -> str:
    """The claims as a table, for a page that lies beside the logs; behind them those that wait for a GPU."""
    head = ("what is claimed", "where", "measured", "floor", "verdict", "seeds", "evidence")
    rows = [_claim_row(claim, root) for claim in claims]
    rows += [(row["claim"], row["source"], "-", _floor(row), UNMEASURED, "-", "-") for row in waiting]
    return table(head, rows)


def _floor(claim: Claim) -> str:
    return f"{'at most' if claim['at_most'] else 'at least'} {number(claim['floor'])}"


def _claim_row(claim: Claim, root: Path) -> tuple[str, ...]:
    links = [f"[log]({claim['log']})"]
    if claim["figure"] and (root / claim["figure"]).exists():
        links.append(f"[figure](../../{claim['figure']})")
    # 1.0501 of 1.05
    narrowly = claim["verdict"] == FAILS and number(claim["value"]) == number(claim["floor"])
    return (
        claim["claim"],
        claim["source"],
        with_interval(claim, 5 if narrowly else 3),
        _floor(claim),
        said(claim),
        how_many(claim["seeds"]),
        ", ".join(links),
    )


def said(claim: Claim) -> str:
    """The verdict in words; bold where it does not hold, and with a remark where there is no interval."""
    if claim.get("waits"):
        return NOBODY
    bare = claim["low"] is None or claim["high"] is None
    text = f"**{FAILS}**" if claim["verdict"] == FAILS else claim["verdict"]
    return f"{text} (no interval)" if bare else text


# --------------------------------------------------------------------------------------------- scoreboard
def board_table(board: Mapping[str, dict[str, Any]]) -> str:
    """Rows of the scoreboard as a table."""
    head = ("held-out tasks", "what is asked", "value [95% interval]", "tasks", "seeds")
    rows = [
        (f"`{name}`", row["says"], with_interval(row), str(row["n"]), how_many(row["seeds"]))
        for name, row in board.items()
    ]
    return table(head, rows)


# ------------------------------------------------------------------------------------------------- pages
HEAD = """# Every claim and every row

Written by `python -m kimi_mini ledger` from the logs beside this page; [NOTES.md](NOTES.md) is the diary.

A claim **holds** when the whole 95% interval lies on the right side of its floor, is **open** when the interval
contains the floor, and **does not hold** otherwise. Without an interval the value alone decides, and the row says so.
Intervals: Wilson over tasks for one run, t over seeds for experiments; for speed the quartiles of a run's rounds.
"""


def whole(logs: Mapping[str, dict], notebooks: Iterable[Notebook], waiting: Sequence[Claim] = ()) -> str:
    """data/results/README.md: the whole scoreboard, then the claims under one heading a notebook, of speed, and of a
    GPU, with those that wait for one."""
    claims, board = collect(logs), join(logs)
    main = {name: row for name, row in board.items() if row["main"]}
    rest = {name: row for name, row in board.items() if name not in main}
    parts = [HEAD, "## Scoreboard", board_table(main)]
    parts.append(f"<details><summary>{len(rest)} more rows</summary>\n\n{board_table(rest)}\n\n</details>")
    for page in notebooks:
        own = [claim for claim in claims if claim["notebook"] == page.file]
        if own:
            parts += [f"## [{page.title}](../../notebooks/{page.file})", claims_table(own)]
    rest = [claim for claim in claims if not claim["notebook"]]
    parts += ["## Speed", claims_table(claim for claim in rest if not of_gpu(claim["log"]))]
    measured = [claim for claim in rest if of_gpu(claim["log"])]
    if measured or waiting:
        parts += ["## On one GPU", "By `python -m kimi_mini gpu`.", claims_table(measured, waiting=waiting)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def render(
    readme: str, logs: Mapping[str, dict], notebooks: Iterable[Notebook], waiting: Sequence[Claim] = ()
) -> str:
    """README with its generated parts made anew. Raises KimiError on a missing marker or an unknown row."""
    claims, board = collect(logs), join(logs)
    readme = replace_between(readme, "course", lambda _: course_table(claims, notebooks))
    readme = replace_between(readme, "claims", lambda _: summary(claims, waiting))
    return replace_between(readme, "scoreboard", lambda names: board_table(chosen(board, names.split())))


def chosen(board: Mapping[str, dict], names: Iterable[str]) -> dict[str, dict]:
    """The rows of these names, in this order. Raises KimiError for a name that no log has."""
    missing = [name for name in names if name not in board]
    if missing:
        raise KimiError(f"README asks for {', '.join(missing)}, and no log has such a row")
    return {name: board[name] for name in names}
