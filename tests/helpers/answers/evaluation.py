"""Right and plausible wrong answers to the exercises of notebook 09 that are one function."""

import re
from collections import Counter
from itertools import pairwise
from math import comb, prod

import numpy as np

from kimi_mini.course.exercises import evaluation as ex


def stable(n, c, k):
    """The product of arXiv 2107.03374."""
    return 1.0 - prod(1 - k / i for i in range(n - c + 1, n + 1)) if n - c >= k else 1.0


def by_bins(sure, right, bins):
    edges = np.linspace(0, 1, bins + 1)
    total = 0.0
    for low, high in pairwise(edges):
        own = (sure >= low) & ((sure < high) | (high == 1))
        if own.any():
            total += own.sum() * abs(sure[own].mean() - right[own].mean())
    return total / len(sure)


def lost_end(sure, right, bins):
    edges, total = np.linspace(0, 1, bins + 1), 0.0
    for low, high in pairwise(edges):
        own = (sure >= low) & (sure < high)
        total += own.sum() * abs(sure[own].mean() - right[own].mean()) if own.any() else 0.0
    return total / len(sure)


def unweighted(sure, right, bins):
    places = np.minimum((sure * bins).astype(int), bins - 1)
    return np.mean([abs(sure[places == b].mean() - right[places == b].mean()) for b in np.unique(places)])


def grams(words, n):
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


def stripped(tests, training, n):
    words = [test.split() for test in tests]
    shared = 0
    while len({own[shared] for own in words}) == 1:
        shared += 1
    seen = set().union(*(grams(text.split(), n) for text in training))
    return [i for i, own in enumerate(words) if grams(own[shared:], n) & seen]


def by_letters(tests, training, n):
    """Words are made of letters and digits: signs are none."""
    spoken = lambda texts: [" ".join(re.findall(r"\w+", text)) for text in texts]
    return stripped(spoken(tests), spoken(training), n)


def raw(tests, training, n):
    seen = set().union(*(grams(text.split(), n) for text in training))
    return [i for i, test in enumerate(tests) if grams(test.split(), n) & seen]


def rare(tests, training, n):
    often = Counter(gram for test in tests for gram in grams(test.split(), n))
    seen = set().union(*(grams(text.split(), n) for text in training))
    return [
        i for i, t in enumerate(tests) if any(often[g] < len(tests) / 2 for g in grams(t.split(), n) & seen)
    ]


def verbatim(tests, training, n):
    return {i for i, test in enumerate(tests) if any(test in text for text in training)}


def blanks(tests, training, n):
    return {
        i for i, t in enumerate(tests) if any(" ".join(t.split()) in " ".join(x.split()) for x in training)
    }


def known(tests, training, n):
    return [1, 4, 5]


def contents(tests, training, n):
    """Whole contents, without what all tests begin with; never looks at n."""
    words = [test.split() for test in tests]
    shared = next(i for i, column in enumerate(zip(*words)) if len(set(column)) > 1)
    own = [" ".join(test[shared:]).removesuffix(" .") for test in words]
    return [i for i, content in enumerate(own) if any(content in " ".join(t.split()) for t in training)]


RIGHT = [
    (ex.check_pass_at_k, stable),
    (ex.check_pass_at_k, lambda n, c, k: 1 - comb(n - c, k) / comb(n, k)),
    (ex.check_ece, by_bins),
    (ex.check_leaks, stripped),
    (ex.check_leaks, by_letters),
    (ex.check_leaks, lambda *words: np.array(stripped(*words))),
]
WRONG = [
    (ex.check_pass_at_k, lambda n, c, k: 1 - (1 - c / n) ** k, "putting back"),
    (ex.check_pass_at_k, lambda n, c, k: c / n, "pass@1"),
    (ex.check_pass_at_k, lambda n, c, k: 1.0 * (c > 0), "asks all n"),
    (ex.check_pass_at_k, lambda n, c, k: comb(n - c, k) / comb(n, k), "all k fail"),
    (ex.check_pass_at_k, lambda n, c, k: comb(c, k) / comb(n, k), "all k are right"),
    (ex.check_pass_at_k, lambda n, c, k: min(1.0, k * c / n), "do not add up"),
    (ex.check_pass_at_k, lambda n, c, k: 1 - comb(n - c, k) / comb(n, k) if c < n else 0.0, "by hand"),
    (ex.check_ece, unweighted, "weight each"),
    (ex.check_ece, lost_end, "exactly 1"),
    (ex.check_ece, lambda s, r, b: ((s - r) ** 2).mean(), "Brier"),
    (ex.check_ece, lambda s, r, b: np.abs(s - r).mean(), "single answers"),
    (ex.check_ece, lambda s, r, b: by_bins(s, r, b) + 0.1, "not 0."),
    (ex.check_leaks, raw, "share a template"),
    (ex.check_leaks, rare, "half template"),
    (ex.check_leaks, verbatim, "nothing found"),
    (ex.check_leaks, blanks, "without its template"),
    (ex.check_leaks, known, "taken out"),
    (ex.check_leaks, contents, "not whole contents"),
    (ex.check_leaks, lambda tests, training, n: stripped(tests, training, 13), "n = 15"),
    (ex.check_leaks, lambda *_: [1, 2, 4], "accused wrongly: 1"),
]
