"""Intervals: Wilson for shares, t over seeds, a bootstrap for differences."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


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


def bootstrap(
    values: Sequence[float], statistic: Callable[..., Any] = np.mean, draws: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """Any statistic with its 95% percentile interval -> (value, low, high); `statistic` takes axis=-1."""
    data = np.asarray(values, dtype=float)  # (n,)
    picks = np.random.default_rng(seed).integers(0, len(data), (draws, len(data)))  # (draws, n)
    low, high = np.quantile(statistic(data[picks], axis=-1), [0.025, 0.975])
    return float(statistic(data, axis=-1)), float(low), float(high)
