"""The claims ledger and the scoreboard in README, written from data/results/ and never typed.

`python -m kimi_mini ledger` reads every log and replaces the text between the markers; with --check it only
says whether README is up to date. A claim that did not hold keeps its row, with the floor it missed.
"""

import argparse
import ast
import re
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kimi_mini.base.errors import KimiError
from kimi_mini.base.evidence import CLAIM_KEYS, FAILS
from kimi_mini.base.files import read_json, write_atomic
from kimi_mini.base.paths import RESULTS, ROOT

README = ROOT / "README.md"
RUN = "run.json"  # the log of `make run`: its `scoreboard` maps a row to {value, low, high, n, seeds}


def main(args: argparse.Namespace) -> None:
    """Bring README up to date, or with args.check raise KimiError when it is not."""
    if args.check and not is_current():
        raise KimiError("README is behind data/results/: run `python -m kimi_mini ledger`")
    print("README rewritten from data/results/" if update() else "README is up to date with data/results/")


def is_current() -> bool:
    """Whether README says what the logs say."""
    text = README.read_text(encoding="utf-8")
    return render(text, RESULTS) == text


def update() -> bool:
    """Write both tables into README; whether anything changed."""
    if is_current():
        return False
    write_atomic(README, render(README.read_text(encoding="utf-8"), RESULTS))
    return True


def render(readme: str, folder: Path = RESULTS) -> str:
    """README text with both tables, and the tree if it shows one, made anew. Raises KimiError on a missing marker or a
    bad log."""
    text = replace_between(
        replace_between(readme, "scoreboard", scoreboard(folder)), "claims", claims(folder)
    )
    return replace_between(text, "tree", tree()) if "<!-- tree:begin -->" in text else text


# --------------------------------------------------------------------------------------------------- tree
PLACES = {
    "notebooks/": "the course, in order; solutions/ beside it",
    "data/": "text/, tokenizer/, checkpoints/ (base, tuned, final), results/: the log of every measured run",
    "tests/": "unit, parity, mutant, agent, command-line, notebook and browser tests",
    "figures/": "every figure of this page and the notebooks, written by code",
}


def tree(root: Path = README.parent) -> str:
    """Every module with the first sentence of its docstring."""
    lines = [f"{name:16s} {text}" for name, text in PLACES.items()]
    for path in sorted((root / "kimi_mini").rglob("*.py"), key=lambda path: (len(path.parts), path)):
        if path.name == "__init__.py":
            lines += ["", f"{path.parent.relative_to(root).as_posix()}/"]
            continue
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        words = " ".join(docstring.split("\n\n")[0].split())
        sentence = re.split(r"(?<=\w)\. ", words)[0]
        lines.append(f"    {path.name:22s} {textwrap.shorten(sentence, 120, placeholder=' ...')}")
    return "```\n" + "\n".join(lines) + "\n```"


def replace_between(text: str, name: str, body: str) -> str:
    """Put `body` between <!-- name:begin --> and <!-- name:end -->. Raises KimiError without the pair."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise KimiError(f"README needs one {begin} and, after it, one {end}")
    head, rest = text.split(begin)
    return f"{head}{begin}\n{body}\n{end}{rest.split(end)[1]}"


# ------------------------------------------------------------------------------------------- claims table
def claims(folder: Path = RESULTS) -> str:
    """All claims of all logs as one table, ordered by notebook and name."""
    found = sorted(collect(folder), key=lambda claim: (claim["notebook"] or "~", claim["name"]))
    if not found:
        return "No measured claim yet: the experiments under `kimi_mini/experiments/` write them."
    head = ("what is claimed", "where", "measured", "floor", "verdict", "seeds", "evidence")
    return table(head, (_claim_row(claim) for claim in found))


def collect(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """The claims of every log, each with its log's name under "log". Raises KimiError on a bad entry."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("*.json")):
        for claim in read_json(path).get("claims", []):
            missing = [key for key in CLAIM_KEYS if key not in claim]
            if missing:
                raise KimiError(f"{path.name}: claim {claim.get('name')!r} lacks {', '.join(missing)}")
            if claim["name"] in found:
                logs = f"{found[claim['name']]['log']} and {path.name}"
                raise KimiError(f"claim {claim['name']!r} stands in two logs: {logs}")
            found[claim["name"]] = claim | {"log": path.name}
    return list(found.values())


def _claim_row(claim: dict[str, Any]) -> tuple[str, ...]:
    evidence = [f"[log](data/results/{claim['log']})"]
    places = {kind: _place(kind, claim[kind]) for kind in ("figure", "notebook") if claim[kind]}
    evidence += [f"[{kind}]({place})" for kind, place in places.items() if (README.parent / place).exists()]
    narrowly = claim["verdict"] == FAILS and number(claim["value"]) == number(
        claim["floor"]
    )  # 1.0501 of 1.05
    return (
        claim["claim"],
        claim["source"],
        with_interval(claim, 5 if narrowly else 3),
        number(claim["floor"]),
        said(claim),
        _seeds(claim["seeds"]),
        ", ".join(evidence),
    )


def said(claim: dict[str, Any]) -> str:
    """The verdict in words; bold where it does not hold, and with a remark where there is no interval."""
    bare = claim["low"] is None or claim["high"] is None
    text = f"**{FAILS}**" if claim["verdict"] == FAILS else claim["verdict"]
    return f"{text} (no interval)" if bare else text


def _place(kind: str, path: str) -> str:
    """Path from README; a bare file name is one of figures/ or notebooks/."""
    return path if "/" in path else f"{kind}s/{path}"


# --------------------------------------------------------------------------------------------- scoreboard
GAPS = (
    "filter/gap",
    "filter/broken_verifier_gap",
    "quota/gap",
    "rejection/gap",
    "rejection/filter_gap",
    "rl/gap",
    "rl/greedy_gap",
    "rl/pass@8_gap",
)


def is_main(name: str) -> bool:
    """Whether a row of the scoreboard is for the first look: no single lengths, and main differences only."""
    if name.startswith(("filter/", "quota/", "rejection/", "rl/")):
        return name in GAPS
    return not name[-1].isdigit() or name.startswith("repair")


def scoreboard(folder: Path = RESULTS) -> str:
    """The table of held-out success from the log of `make run`; single lengths and the like are folded away."""
    path = folder / RUN
    if not path.exists():
        return "Not measured yet: `make run` writes it."
    board = read_json(path).get("scoreboard", {})
    main, rest = (
        {name: row for name, row in board.items() if is_main(name) is first} for first in (True, False)
    )
    if not rest:
        return _board_table(main)
    fold = f"<details><summary>{len(rest)} more rows: single lengths, before RL, arms of the experiments</summary>"
    return f"{_board_table(main)}\n\n{fold}\n\n{_board_table(rest)}\n\n</details>"


def _board_table(board: dict[str, dict[str, Any]]) -> str:
    head = ("held-out tasks", "value [95% interval]", "tasks", "seeds")
    rows = [
        (f"`{name}`", with_interval(row), str(row["n"]), _seeds(row["seeds"])) for name, row in board.items()
    ]
    return table(head, rows)


# ------------------------------------------------------------------------------------------------ writing
def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table; bars and line breaks inside cells are made harmless."""
    head = list(head)
    lines = [head, ["---"] * len(head), *([_cell(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def with_interval(row: dict[str, Any], digits: int = 3) -> str:
    """`0.975 [0.94, 0.99]`, or the bare value where no interval was measured."""
    value, low, high = (number(row[key], digits) for key in ("value", "low", "high"))
    return value if row["low"] is None or row["high"] is None else f"{value} [{low}, {high}]"


def number(value: float | None, digits: int = 3) -> str:
    """Three significant digits (or so many) for people: 0.975, 1.21, 15.3, 1,026; a dash for None."""
    if value is None:
        return "-"
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}" if abs(value) >= 1e-4 or value == 0 else f"{value:.1e}"


def _seeds(seeds: int | list[int]) -> str:
    """How many seeds; a log may give their list or their count."""
    return str(seeds if isinstance(seeds, int) else len(seeds))
