"""Intervals that cover what they say they cover."""

import numpy as np
import pytest

from kimi_mini.base.intervals import bootstrap, difference, over_seeds, wilson


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_equals_the_published_examples(successes, n, low, high):
    """Newcombe 1998 (two-sided intervals for the single proportion), table I, method 3."""
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


def coverage(interval, p: float, n: int) -> float:
    """How often the interval holds the true rate, over all outcomes of n tries."""
    logs = [np.sum(np.log(np.arange(1, k + 1))) for k in range(n + 1)]  # log k!
    total = 0.0
    for k in range(n + 1):
        low, high = interval(k, n)
        chance = np.exp(logs[n] - logs[k] - logs[n - k] + k * np.log(p) + (n - k) * np.log1p(-p))
        total += chance * (low <= p <= high)
    return float(total)


def wald(k: int, n: int) -> tuple[float, float]:
    """p +- 2 sigma, the interval that says 1.0 +- 0 after 200 of 200."""
    p = k / n
    half = 1.96 * np.sqrt(p * (1 - p) / n)
    return p - half, p + half


@pytest.mark.parametrize("p", [0.5, 0.9, 0.97, 0.985])
def test_wilson_covers_and_the_naive_interval_does_not(p):
    assert coverage(wilson, p, 200) > 0.935
    if p > 0.95:
        assert coverage(wald, p, 200) < 0.935


@pytest.mark.parametrize("n", [1, 7, 200])
def test_wilson_is_its_closed_form(n):
    for k in range(n + 1):
        p, z = k / n, 1.959963984540054
        middle, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        ends = ((middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n))
        assert wilson(k, n) == pytest.approx(ends, abs=1e-12)


@pytest.mark.parametrize("n", [1, 2, 7, 200, 999])
def test_wilson_stays_inside_and_holds_the_rate(n):
    for successes in range(n + 1):
        low, high = wilson(successes, n)
        assert 0 <= low <= successes / n <= high <= 1
        assert low < high


@pytest.mark.parametrize("bad", [(1, 0), (-1, 5), (6, 5)])
def test_impossible_counts_are_refused(bad):
    with pytest.raises(ValueError, match="successes of"):
        wilson(*bad)


def test_difference_equals_the_published_example():
    """Newcombe 1998 (difference between independent proportions), table II, example (a), method 10."""
    assert difference((56, 70), (48, 80)) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)
    gap, low, high = difference((48, 80), (56, 70))
    assert (gap, low, high) == pytest.approx((-0.2, -0.3339, -0.0524), abs=5e-5)


@pytest.mark.parametrize(("seeds", "quantile"), [(2, 12.7062), (3, 4.30265), (11, 2.22814), (121, 1.97993)])
def test_seeds_get_the_interval_of_student(seeds, quantile):
    """The tables of t; its wrong versions take 1.96 for any number of seeds, or one degree of freedom too many."""
    values = np.random.default_rng(0).normal(size=seeds)
    mean, low, high = over_seeds(values)
    error = np.std(values, ddof=1) / np.sqrt(seeds)
    assert ((mean - low) / error, (high - mean) / error) == pytest.approx((quantile, quantile), rel=3e-6)


def test_three_seeds_get_the_wide_interval_that_three_seeds_deserve():
    mean, low, high = over_seeds([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert high - mean == pytest.approx(4.30265 / np.sqrt(3), abs=1e-4)  # not 1.96 / sqrt(3)
    assert mean - low == pytest.approx(high - mean)
    with pytest.raises(ValueError, match="two"):
        over_seeds([1.0])


def test_bootstrap_is_repeatable_and_near_the_t_interval():
    values = np.random.default_rng(0).normal(5.0, 1.0, 200)
    assert bootstrap(values) == bootstrap(values)
    assert bootstrap(values) == pytest.approx(over_seeds(values), abs=0.05)
    assert bootstrap(values, np.median)[0] == np.median(values)


def test_the_bootstrap_takes_percentiles_of_what_it_drew():
    """Of skewed values they lie farther out on the long side; the basic bootstrap turns that round."""
    value, low, high = bootstrap([0.0] * 18 + [1.0] * 2)
    assert value == 0.1 and low >= 0 and high - value > value - low


def of_ninety(values, statistic=np.mean):
    """The wrong interval: it covers nine times in ten."""
    means = statistic(np.random.default_rng(0).choice(values, (2000, len(values))), axis=-1)
    return float(statistic(values)), *np.quantile(means, (0.05, 0.95))


@pytest.mark.parametrize(("interval", "right"), [(bootstrap, True), (of_ninety, False)])
def test_a_bootstrap_of_ninety_per_cent_is_seen(interval, right):
    """Half-width over the standard error of the mean: 1.96, where 90% would have 1.64."""
    values = np.random.default_rng(1).normal(size=500)
    _, low, high = interval(values)
    wide = (high - low) / 2 / (np.std(values) / np.sqrt(len(values)))
    assert (abs(wide - 1.96) < 0.1) == right
