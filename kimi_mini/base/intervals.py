"""95% intervals: Wilson for shares, t over seeds, a bootstrap for differences; all but Newcombe's by scipy."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy  # its parts load on first use


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Interval of a success rate (Wilson 1927): sensible at 0 and at n too, unlike p +- 2 sigma.

    Raises ValueError unless 0 <= successes <= n and n > 0.
    """
    if not 0 <= successes <= n or n <= 0:
        raise ValueError(f"{successes} successes of {n} tries")
    low, high = scipy.stats.binomtest(successes, n).proportion_ci(method="wilson")
    return float(low), float(high)


def difference(first: tuple[int, int], second: tuple[int, int]) -> tuple[float, float, float]:
    """Difference of two success rates, first - second, with its interval (Newcombe 1998, method 10).

    Each argument is (successes, n) of tasks that were drawn independently of the other's.
    """
    (a, n), (b, m) = first, second
    p, q = a / n, b / m
    (p_low, p_high), (q_low, q_high) = wilson(a, n), wilson(b, m)
    low = p - q - math.hypot(p - p_low, q_high - q)
    return p - q, low, p - q + math.hypot(p_high - p, q - q_low)


def over_seeds(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean over seeds with its t interval -> (mean, low, high). Raises ValueError below two seeds."""
    n = len(values)
    if n < 2:
        raise ValueError("an interval over seeds takes at least two of them")
    mean, error = float(np.mean(values)), float(np.std(values, ddof=1)) / math.sqrt(n)
    half = float(scipy.stats.t.ppf(0.975, n - 1)) * error
    return mean, mean - half, mean + half


def bootstrap(
    values: Sequence[float], statistic: Callable[..., Any] = np.mean, draws: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """Any statistic with its percentile interval -> (value, low, high); `statistic` takes axis=-1."""
    data = np.asarray(values, dtype=float)  # (n,)
    found = scipy.stats.bootstrap((data,), statistic, n_resamples=draws, method="percentile", rng=seed)
    return float(statistic(data, axis=-1)), *map(float, found.confidence_interval)
