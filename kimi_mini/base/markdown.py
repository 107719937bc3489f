"""Tables and numbers for Markdown pages, and the parts of a page that are generated."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from kimi_mini.base.errors import KimiError


def replace_between(text: str, name: str, body: Callable[[str], str]) -> str:
    """Put body(WORDS) between <!-- name:begin WORDS --> and <!-- name:end -->. Raises KimiError without the pair."""
    pattern = rf"(<!-- {name}:begin\b([^>]*?)-->)(.*?)(<!-- {name}:end -->)"
    if len(re.findall(pattern, text, re.DOTALL)) != 1:
        raise KimiError(f"README needs one <!-- {name}:begin --> and, after it, one <!-- {name}:end -->")
    return re.sub(pattern, lambda found: f"{found[1]}\n{body(found[2])}\n{found[4]}", text, flags=re.DOTALL)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table; bars and line breaks inside cells are made harmless."""
    head = list(head)
    lines = [head, ["---"] * len(head), *([_cell(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def with_interval(row: Mapping[str, Any], digits: int = 3) -> str:
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


def how_many(seeds: int | list[int]) -> str:
    """How many seeds or other things; a log may give their list or their count."""
    return str(seeds if isinstance(seeds, int) else len(seeds))
