"""pass@k: the chance that one of k attempts passes, from n >= k of them, without bias.

Of n attempts c passed. The k that somebody makes are any k of the n, drawn without putting back:

    pass@k = 1 - C(n - c, k) / C(n, k)

The plug-in 1 - (1 - c/n)^k draws with putting back. It may take one attempt twice, so it is too low wherever some
attempts pass and some do not (and equal at k = 1). Whole numbers of any size are exact here, so nothing is rounded
before the last division.

Source: arXiv 2107.03374 (Codex), Eq. 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from statistics import fmean


def pass_at_k(n: int, c: int, k: int) -> float:
    """pass@k of one task, c of whose n attempts passed. Raises ValueError unless 0 <= c <= n and 1 <= k <= n."""
    if not 0 <= c <= n:
        raise ValueError(f"{c} of {n} attempts cannot have passed")
    if not 1 <= k <= n:
        raise ValueError(f"pass@{k} takes at least {k} attempts at every task, and there are {n}")
    return (comb(n, k) - comb(n - c, k)) / comb(n, k)


def pass_at(k: int, passed: Sequence[Sequence[bool]]) -> float:
    """pass@k, mean over tasks; passed: of each task, which of its attempts did. Raises ValueError for fewer than k."""
    return fmean(pass_at_k(len(attempts), sum(attempts), k) for attempts in passed)
