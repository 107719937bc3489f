"""Checkers for the exercises of notebook 09 (evaluation)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, takewhile
from math import comb
from typing import Any

import numpy as np

from kimi_mini.course.exercises.base import Checked, Hint, checker, known_mistake, one_number, value_of
from kimi_mini.inference.attempts import pass_at_k

# -- pass@k --------------------------------------------------------------------------------------------

CASES = ((8, 3, 2), (8, 0, 4), (8, 8, 4), (8, 6, 4), (5, 1, 5), (5, 2, 1), (300, 7, 100))  # n, c, k


WRONG_PASS = (
    (lambda n, c, k: 1 - (1 - c / n) ** k, "that draws with putting back: it counts one attempt twice, and is too low "
     "on average. How many of all sets of k attempts hold no right one?"),
    (lambda n, c, k: c / n, "that is pass@1: k plays no part"),
    (lambda n, c, k: float(c > 0), "that asks all n attempts: only k of them may be looked at"),
    (lambda n, c, k: float(c >= k), "one right attempt among the k is enough"),
    (lambda n, c, k: min(1.0, k * c / n), "chances do not add up: two right attempts may be in the same set"),
    (lambda n, c, k: comb(n - c, k) / comb(n, k), "that is the chance that all k fail"),
    (lambda n, c, k: comb(c, k) / comb(n, k), "that is the chance that all k are right"),
)  # fmt: skip


@checker
def check_pass_at_k(function: Callable[[int, int, int], float]) -> Checked:
    """function(n, c, k): the unbiased pass@k of a task of whose n attempts c are right."""
    given = [one_number(value_of(function, *case)) for case in CASES]
    right = [pass_at_k(*case) for case in CASES]
    if np.allclose(given, right, atol=1e-9):
        drawn = [any(i < 3 for i in chosen) for chosen in combinations(range(8), 2)]
        return Checked(True, f"3 of 8 right: {sum(drawn)} of the {len(drawn)} pairs hold one of them")
    wrong = {hint: [rule(*case) for case in CASES] for rule, hint in WRONG_PASS}
    hint = known_mistake(given, wrong, np.allclose)
    n, c, k = CASES[int(np.abs(np.subtract(given, right)).argmax())]
    return Checked(
        False, hint or f"not yet for n = {n}, c = {c}, k = {k}: try all sets of k attempts by hand"
    )


# -- calibration ---------------------------------------------------------------------------------------

SURE = np.array([0.05, 0.15, 0.15, 0.25, 0.45, 0.55, 0.55, 0.65, 0.75, 0.85, 0.95, 0.95, 0.95, 0.95, 1.0])
RIGHT = np.array([0, 0, 0, 1, 0, 1, 0, 0, 1, 1, 1, 1, 0, 1, 0], float)
BINS = 5


def _ece(
    sure: np.ndarray,
    right: np.ndarray,
    bins: int,
    weight: Callable[[np.ndarray, int], float] = lambda own, n: len(own) / n,
    gap: Callable[[float], float] = abs,
    middle: bool = False,
) -> float:
    places = np.minimum((sure * bins).astype(int), bins - 1)
    filled, total = [places == b for b in range(bins) if (places == b).any()], 0.0
    for own in filled:
        said = (places[own][0] + 0.5) / bins if middle else sure[own].mean()
        total += weight(sure[own], len(sure) if weight.__name__ != "alike" else len(filled)) * gap(
            right[own].mean() - said
        )
    return total


def alike(own: np.ndarray, filled: int) -> float:
    """Every bin counts the same, however many answers it holds."""
    return 1 / filled


@checker
def check_ece(function: Callable[[np.ndarray, np.ndarray, int], float]) -> Checked:
    """function(sure, right, bins): expected calibration error over equal bins of [0, 1], the last with its end."""
    given = one_number(value_of(function, SURE.copy(), RIGHT.copy(), BINS))
    if np.isclose(given, _ece(SURE, RIGHT, BINS), atol=1e-6):
        return Checked(True, f"{given:.3f}: what it says and what it does differ by that much on average")
    wrong = {
        "every bin counts the same there: weight each by its share of the answers": _ece(SURE, RIGHT, BINS, alike),
        "gaps of both signs cancel: take their size": _ece(SURE, RIGHT, BINS, gap=float),
        "the size of the whole, signs cancelled: take each bin's": abs(_ece(SURE, RIGHT, BINS, gap=float)),
        "compare with the mean confidence of the bin's answers, not with the middle of the bin": _ece(
            SURE, RIGHT, BINS, middle=True
        ),
        "that is the mean error of single answers (and it punishes honest doubt): group them first": float(
            np.abs(SURE - RIGHT).mean()
        ),
        "that is the Brier score, the mean squared error": float(((SURE - RIGHT) ** 2).mean()),
        "the last bin has to hold a confidence of exactly 1": _ece(SURE[:-1], RIGHT[:-1], BINS) * 14 / 15,
    }  # fmt: skip
    return Checked(False, known_mistake(given, wrong, np.isclose) or f"not {given:.4f}")


# -- a leak to find ------------------------------------------------------------------------------------

GRAM = 13  # words
TEMPLATE = "here is what the shop has today and this is what the user of it would like to have done :"
FACTS = [
    "the cup costs 31 and the bowl costs 17 ; buy the cheaper one twice",
    "the rope is 40 long and the mast is 55 high ; say how much is missing",
    "tavo works in mira and mira lies north of boru ; say where tavo lives",
    "x starts at 12 , is doubled , loses 5 and is taken modulo 9 ; say x",
    "refund at most 25 of the 31 that the line 4821 has paid since may",
    "of five notes the second says bought ; move it into the oldest folder now",
]
TESTS = [f"{TEMPLATE} {fact} ." for fact in FACTS]
TRAINING = [
    f"{TEMPLATE} the pan costs 12 and the lid costs 44 ; buy the dearer one once .",  # the template alone: no leak
    "It is told again and again :  "
    + TESTS[1].replace(" ", "  ")
    + " Nobody knew why .",  # with other blanks
    f"{TEMPLATE} the cup costs 13 and the bowl costs 71 ; buy the cheaper one twice .",  # other numbers: no leak
    "an example : " + FACTS[4] + " .",  # the content without the template
    f"{TEMPLATE} y starts at 21 , is halved , gains 5 and is taken modulo 7 ; say y .",
    "it read : of five notes the second says bought ; move it into the oldest folder then .",  # 13 words and a sign
]
LEAKED, IN_PART = {1, 4, 5}, {5}


def _grams(words: Sequence[str]) -> set[tuple[str, ...]]:
    return {tuple(words[i : i + GRAM]) for i in range(len(words) - GRAM + 1)}


def _found(common: float = 1.0, strip: bool = True) -> set[int]:
    """Tests one of whose 13-grams stands in a training text; without the words that all tests begin with, and without
    grams that more than a share `common` of the tests have."""
    words = [test.split() for test in TESTS]
    alike = takewhile(lambda column: len(set(column)) == 1, zip(*words))
    shared = len(list(alike)) if strip else 0
    own = [_grams(test[shared:]) for test in words]
    often = Counter(gram for grams in own for gram in grams)
    seen = {gram for text in TRAINING for gram in _grams(text.split())}
    kept = [{gram for gram in grams if often[gram] <= common * len(TESTS)} for grams in own]
    return {i for i, grams in enumerate(kept) if grams & seen}


def _whole(inside: Callable[[str, str], bool], tests: Sequence[str] = TESTS) -> set[int]:
    """Tests that stand in a training text as a whole, as `inside(test, text)` sees it."""
    return {i for i, test in enumerate(tests) if any(inside(test, text) for text in TRAINING)}


def _in_words(test: str, text: str) -> bool:
    """Whether the test stands in the text, whatever the blanks."""
    return " ".join(test.split()) in " ".join(text.split())


WRONG_LEAKS = {
    "all of them share a template with the training texts, and what all tests begin with says nothing about one": (
        _found(strip=False)
    ),
    "the first test is clean: other numbers, another task. A gram that is half template and half 'the cup costs' is "
    "no leak: take off what all tests begin with before you cut": _found(common=0.5, strip=False),
    "nothing found: three tests stand in the training texts, one with other blanks (split into words), one without its "
    "template and one in part (compare pieces of 13 words, not whole tests)": _whole(
        lambda test, text: test in text
    ),
    "one stands there without its template, one in part: compare pieces of 13 words, not whole tests": _whole(
        _in_words
    ),
    "of one test a part stands there, 14 words: compare pieces of 13 words, not whole contents": _whole(
        _in_words, FACTS
    ),
}


@checker
def check_leaks(function: Callable[[list[str], list[str], int], Sequence[int]]) -> Checked:
    """function(tests, training, n): the numbers of the tests that have leaked into the training texts."""
    value = value_of(function, list(TESTS), list(TRAINING), GRAM)
    given = {int(one_number(number)) for number in value}
    if given != LEAKED:
        told = f"you found {sorted(given)}. Missed: {len(LEAKED - given)}, accused wrongly: {len(given - LEAKED)}"
        return Checked(False, known_mistake(given, WRONG_LEAKS) or told)
    if set(map(int, value_of(function, list(TESTS), TRAINING[:1] + TRAINING[2:3], GRAM))):
        raise Hint(
            "right here, but you also accuse tests when the three leaks are taken out of the training texts"
        )
    if set(map(int, value_of(function, list(TESTS), list(TRAINING), GRAM + 2))) != LEAKED - IN_PART:
        raise Hint(f"right here, but not for pieces of n = {GRAM + 2} words")
    return Checked(
        True, "tests 1, 4 and 5: with other blanks in a longer text, without its template, and in part"
    )


# -- a benchmark of one's own --------------------------------------------------------------------------

SHEET = ("what", "made", "licence", "size", "guess", "leaks", "cannot")
FEWEST, LUCK, ROUNDS = 30, 0.25, 3  # tasks; best share that a constant answer may get


def best_guess(tasks: Sequence[Mapping[str, Any]]) -> float:
    """The share that is right if every task gets the answer that is right most often."""
    return max(Counter(str(task["answer"]) for task in tasks).values()) / len(tasks)


def _drawn(make: Callable[[int], Any], seed: int) -> list[dict]:
    tasks = value_of(make, seed)
    if not isinstance(tasks, Sequence) or not all(isinstance(task, Mapping) for task in tasks):
        raise Hint("make(seed) returns a list of tasks, each a dict with a prompt and an answer")
    if any({"prompt", "answer"} - task.keys() for task in tasks):
        raise Hint("every task has a 'prompt' and an 'answer'")
    if len(tasks) < FEWEST:
        raise Hint(f"{len(tasks)} tasks: with fewer than {FEWEST} an interval says nothing")
    return [dict(task) for task in tasks]


def _verdicts(verify: Callable[[dict, str], bool], tasks: Sequence[dict]) -> None:
    """Raises Hint unless right answers pass, in the spelling of a model too, and wrong ones do not."""
    answers = [str(task["answer"]) for task in tasks]
    for task, right in zip(tasks, answers):
        other = next(
            answer for answer in answers if answer != right
        )  # there is one: no guess is always right
        if not value_of(verify, dict(task), right):
            raise Hint(f"your verifier refuses the right answer {right!r} of the task {task['prompt']!r:.60}")
        if not value_of(verify, dict(task), f" {right}.\n"):
            raise Hint("a blank or a full stop around a right answer makes it wrong: that measures spelling")
        doubled = [right + right] if right.strip("0") else []  # 00 is 0
        for wrong in (other, "", "I do not know", f"{right} or {other}", *doubled):
            if value_of(verify, dict(task), wrong):
                raise Hint(f"your verifier accepts {wrong!r} where {right!r} is right")


def _tells(task: Mapping) -> bool:
    """Whether the prompt says "answer is ..." or ends with "= ...", followed by its answer."""
    answer = re.escape(str(task["answer"]).strip())
    said = rf"\banswer( is)?[ :=]+{answer}(?!\w)|=\s*{answer}\W*$"
    return re.search(said, str(task["prompt"]), re.IGNORECASE) is not None


def _same(sheet: Mapping, name: str, measured: float, tolerance: float) -> None:
    if abs(one_number(sheet[name]) - measured) > tolerance:
        raise Hint(f"the datasheet says {name} {sheet[name]}, measured is {measured:.3g}")


@checker
def check_benchmark(
    make: Callable[[int], Sequence[Mapping]],
    verify: Callable[[dict, str], bool],
    sheet: Mapping[str, Any],
    training: Sequence[str] = (),
) -> Checked:
    """make(seed): tasks with prompt and answer; verify(task, answer): bool; sheet: the datasheet, with the keys what,
    made, licence, size, guess (the best constant answer's share), leaks (prompts among the training texts), cannot."""
    if not isinstance(sheet, Mapping) or (
        missing := [name for name in SHEET if sheet.get(name) in (None, "", ...)]
    ):
        raise Hint(
            f"the datasheet lacks {', '.join(missing) if isinstance(sheet, Mapping) else 'everything'}"
        )
    tasks, again, other = _drawn(make, 0), _drawn(make, 0), _drawn(make, 1)
    if tasks != again:
        raise Hint(
            "the same seed makes other tasks: nobody could measure the same again. Use random.Random(seed)"
        )
    prompts = [" ".join(str(task["prompt"]).split()) for task in tasks]
    if len(set(prompts)) < len(prompts):
        raise Hint(
            f"{len(prompts) - len(set(prompts))} tasks stand there twice: the interval would be too narrow"
        )
    known = set(prompts) & {" ".join(str(task["prompt"]).split()) for task in other}
    if len(known) == len(prompts):
        raise Hint("another seed makes the same tasks: the seed is not used")
    if 2 * len(known) > len(prompts):
        raise Hint(f"{len(known)} of {len(prompts)} prompts stand in the next seed too: draw from more tasks")
    if (guess := best_guess(tasks)) > LUCK:
        raise Hint(f"who always says the same is right in {guess:.0%}: spread the answers")
    _verdicts(verify, tasks)
    if 2 * len(told := [task["prompt"] for task in tasks if _tells(task)]) > len(tasks):
        raise Hint(f"most prompts tell their answer, such as {told[0]!r:.60}: only copying would be measured")
    leaks = sum(any(prompt in " ".join(text.split()) for text in training) for prompt in prompts)
    for name, measured, tolerance in (("size", len(tasks), 0), ("guess", guess, 0.01), ("leaks", leaks, 0)):
        _same(sheet, name, measured, tolerance)
    if leaks:
        raise Hint(f"{leaks} of your tasks stand in the training texts: take them out, it is a recital")
    return Checked(
        True, f"{len(tasks)} tasks; a constant answer gets {guess:.0%}; no prompt is in the training texts"
    )
