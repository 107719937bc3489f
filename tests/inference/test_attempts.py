"""Several attempts: pass@k, choices that never see a verdict, and equal tokens; each against its well-known wrong versions."""

import dataclasses
import random
from itertools import combinations
from math import comb
from statistics import fmean

import pytest

from kimi_mini.inference import attempts
from kimi_mini.inference.attempts import (
    Attempt,
    Chosen,
    compare,
    matched,
    pass_at,
    pass_at_k,
    per_task,
    score,
    spent,
)
from kimi_mini.inference.attempts.heavy import LONGEST, request


# ---- pass@k ------------------------------------------------------------------------------------------------
def enumerated(n: int, c: int, k: int) -> float:
    """The share of all sets of k among n attempts that hold one of the first c."""
    return fmean(any(i < c for i in chosen) for chosen in combinations(range(n), k))


def check_pass_at_k(function):
    """Every n up to 7; where numbers are huge; and where the chance is too small for 1 - (1 - x)."""
    for n in range(1, 8):
        for c in range(n + 1):
            for k in range(1, n + 1):
                assert function(n, c, k) == pytest.approx(enumerated(n, c, k), abs=1e-12), (n, c, k)
    assert function(20_000, 3, 10_000) == pytest.approx(0.875, abs=1e-3)
    assert function(10**17, 1, 1) == pytest.approx(1e-17, rel=1e-9, abs=0)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda n, c, k: 1 - (1 - c / n) ** k,  # with putting back: biased
        lambda n, c, k: c / n,
        lambda n, c, k: float(c > 0),
        lambda n, c, k: 1 - comb(n - c, k) / comb(n, k),  # rounds what is small away
    ],
)
def test_pass_at_k_is_the_share_of_all_sets_of_k(wrong):
    check_pass_at_k(pass_at_k)
    with pytest.raises((AssertionError, ValueError)):
        check_pass_at_k(wrong)


def test_pass_at_k_over_tasks():
    groups = [[True, False, False, True, False], [False] * 5, [True] * 5]
    assert pass_at(2, groups) == pytest.approx((enumerated(5, 2, 2) + 0 + 1) / 3)
    uneven = [[True, False], [False, False, True]]
    assert pass_at(2, uneven) == pytest.approx((1 + enumerated(3, 1, 2)) / 2)


@pytest.mark.parametrize(("n", "c", "k"), [(2, 1, 3), (2, 1, 0), (2, 3, 1), (2, -1, 1)])
def test_pass_at_k_wants_k_attempts_and_no_more_right_ones_than_there_are(n, c, k):
    with pytest.raises(ValueError, match="at least 3|at least 0|cannot have passed"):
        pass_at_k(n, c, k)


# ---- choices, equal tokens ---------------------------------------------------------------------------------
def group(*rows):
    return [Attempt(answer, tokens, accepted, passed) for answer, tokens, accepted, passed in rows]


GROUPS = [
    group(("a", 10, False, False), ("a", 12, False, False), ("b", 14, True, True), ("a", 8, False, False)),
    group(("c", 10, True, True), ("d", 10, False, False), ("d", 10, False, False), ("e", 10, True, False)),
]


def check_choices(choices):
    """What each choice picks and pays, worked out by hand."""
    names = ("single", "lucky", "majority", "best_of", "stop_at_first")
    found = {name: score(getattr(choices, name), GROUPS) for name in names}
    assert {name: one.value for name, one in found.items()} == {
        "single": 0.5,
        "lucky": 0.25,
        "majority": 0.0,
        "best_of": 1.0,
        "stop_at_first": 1.0,
    }
    assert {name: one.tokens for name, one in found.items()} == {
        "single": 10,
        "lucky": 42,
        "majority": 42,
        "best_of": 42,
        "stop_at_first": 23,
    }
    assert choices.compare(found["best_of"], found["majority"]) == 1.0
    for cheap in ("single", "stop_at_first"):
        with pytest.raises(ValueError, match="give both the same"):
            choices.compare(found["best_of"], found[cheap])
    eight = score(choices.majority, [[*g, *g] for g in GROUPS])
    with pytest.raises(ValueError, match="give both the same"):
        choices.compare(eight, found["best_of"])


class Choices:
    single, lucky = staticmethod(attempts.single), staticmethod(attempts.lucky)
    majority, best_of = staticmethod(attempts.majority), staticmethod(attempts.best_of)
    stop_at_first = staticmethod(attempts.stop_at_first)
    compare = staticmethod(compare)


def test_choices_pay_for_every_attempt():
    check_choices(Choices)


def pays_for_the_winner_only(found):
    chosen = attempts.majority(found)
    winner = next(attempt for attempt in found if attempt.passed == chosen.passed)
    return attempts.Chosen(chosen.passed, winner.tokens)


def looks_at_the_verdict(found):
    return attempts.Chosen(float(any(attempt.passed for attempt in found)), attempts.spent(found))


def last_of_a_tie(found):
    answers = [attempt.answer for attempt in reversed(found)]
    winner = max(dict.fromkeys(answers), key=answers.count)
    return attempts.Chosen(float(any(a.passed for a in found if a.answer == winner)), attempts.spent(found))


@pytest.mark.parametrize(
    "mutant",
    [
        {"compare": lambda first, second: first.value - second.value},  # unequal tokens go through
        {"majority": pays_for_the_winner_only},
        {"majority": looks_at_the_verdict},
        {"best_of": attempts.stop_at_first},  # the same choice, at the price of fewer attempts
        {"stop_at_first": attempts.best_of},
        {"lucky": attempts.single},
    ],
)
def test_choices_that_pay_too_little_or_see_too_much_are_caught(mutant):
    wrong = type("Wrong", (Choices,), {name: staticmethod(choice) for name, choice in mutant.items()})
    with pytest.raises((AssertionError, ValueError, pytest.fail.Exception)):
        check_choices(wrong)


def test_no_choice_looks_at_the_verdict():
    """Turn all verdicts round: the same attempts are chosen, so the outcome turns round with them."""
    turned = [[dataclasses.replace(a, passed=not a.passed) for a in g] for g in GROUPS]
    for choose in (attempts.single, attempts.majority, attempts.best_of, attempts.stop_at_first):
        assert [choose(g).passed for g in GROUPS] == [1 - choose(g).passed for g in turned]


def test_a_tie_goes_to_the_first_answer():
    tied = group(("a", 1, False, True), ("b", 1, False, False))
    assert attempts.majority(tied).passed == 1.0
    assert last_of_a_tie(tied).passed == 0.0
    with pytest.raises(ValueError):
        score(attempts.majority, [[]])


def test_a_tie_goes_to_the_answer_that_came_first():
    """The verdict has no vote: neither the right answer nor the wrong one may win by it."""
    wrong, right = ("a", 10, False, False), ("b", 10, False, True)
    assert attempts.majority(group(wrong, right)).passed == 0.0
    assert attempts.majority(group(right, wrong)).passed == 1.0


def test_tokens_are_matched_where_the_next_attempt_is_a_long_one():
    """Nine tasks are solved at once; of two that are not the one's second attempt never ends, the other's are short."""
    solved, short, long = ("a", 10, True, True), ("b", 10, False, False), ("c", 100, False, False)
    groups = [*[group(solved) * 4] * 9, group(short, long, long, long), group(short, short, short, short)]
    some = matched(attempts.stop_at_first, groups, 140 / 11)
    assert score(attempts.stop_at_first, some).tokens == pytest.approx(140 / 11, rel=0.01)
    assert [len(one) for one in some[-2:]] == [1, 4]


def test_who_gives_no_answer_has_no_vote():
    """Two that ended in nothing are no majority against one that ended in something; nor are they left unpaid."""
    silent, right = ("", 10, False, False), ("b", 10, False, True)
    assert attempts.majority(group(silent, silent, right)) == Chosen(1.0, 30)
    assert attempts.majority(group(silent, (None, 10, False, False))) == Chosen(0.0, 20)


def test_the_surest_is_chosen_by_its_probability_alone():
    found = [
        Attempt("a", 10, False, True, -0.3),
        Attempt("b", 10, True, False, -0.1),
        Attempt("c", 10, True, True, -0.1),
    ]
    assert attempts.surest(found) == Chosen(0.0, 30), (
        "the first of two that are equally sure, whatever passed"
    )
    assert attempts.surest(found[::2]) == Chosen(1.0, 20)


def test_a_task_is_given_more_attempts_until_the_tokens_are_the_same():
    groups = [[Attempt("a", 10 + i % 3, False, i % 2 == 0) for i in range(6)] for _ in range(40)]
    for tokens in (11.0, 25.3, 38.7, 66.0):
        some = matched(attempts.majority, groups, tokens)
        assert abs(score(attempts.majority, some).tokens - tokens) < 0.01 * tokens
        sizes = {len(group) for group in some}
        assert max(sizes) - min(sizes) <= 1, "one attempt more at some tasks, never a second one"
        assert all(list(group[: len(cut)]) == cut for group, cut in zip(groups, some))
    with pytest.raises(ValueError, match="make more attempts"):
        matched(attempts.majority, groups, 80.0)


def test_a_few_very_long_attempts_do_no_harm():
    """Mutant: the next attempt is taken where half of it is paid for."""
    for seed in range(20):
        dice = random.Random(seed)
        groups = [
            [Attempt("a", dice.choice([40] * 15 + [1000]), False, True) for _ in range(4)] for _ in range(60)
        ]
        tokens = score(attempts.majority, [group[:2] for group in groups]).tokens + 20
        some = matched(attempts.majority, groups, tokens)
        assert abs(score(attempts.majority, some).tokens - tokens) < 0.01 * tokens


def test_who_gets_one_more_is_decided_without_the_verdicts():
    """Mutant: the extra attempts where they help."""
    groups = [[Attempt(i, 10, (i + j) % 3 == 0, (i * j) % 2 == 0) for i in range(4)] for j in range(30)]
    turned = [[dataclasses.replace(a, passed=not a.passed) for a in group] for group in groups]
    for choose, tokens in (
        (attempts.majority, 25.0),
        (attempts.stop_at_first, 17.0),
        (attempts.surest, 33.0),
    ):
        sizes = [[len(group) for group in matched(choose, some, tokens)] for some in (groups, turned)]
        assert sizes[0] == sizes[1]


def test_a_choice_that_stops_by_itself_is_matched_too():
    groups = [[Attempt(i, 10, i == j % 5, i == j % 5) for i in range(5)] for j in range(50)]
    some = matched(attempts.stop_at_first, groups, 24.0)
    assert abs(score(attempts.stop_at_first, some).tokens - 24.0) < 0.24
    assert sum(map(spent, some)) > 24.0 * 50, "attempts behind the accepted one are not paid for"


def test_outcomes_that_are_known_already_are_compared_as_strictly():
    heavy, vote = (
        per_task("heavy", [Chosen(1.0, 40), Chosen(0.0, 44)]),
        per_task("vote", [Chosen(0.0, 42)] * 2),
    )
    assert compare(heavy, vote) == 0.5
    with pytest.raises(ValueError, match="heavy spent 42 tokens a task and vote 45"):
        compare(heavy, per_task("vote", [Chosen(0.0, 45)]))
    with pytest.raises(ValueError, match="no task"):
        per_task("heavy", [])


# ---- heavy mode --------------------------------------------------------------------------------------------
def shown(*rows):
    return [Attempt(answer, 10, False, False, shown=text) for answer, text in rows]


def test_the_request_shows_every_answer_once_the_most_frequent_first():
    some = shown(("b", "first b"), ("a", "first a"), ("a", "second a"), ("c", "c" * 500), ("a", "third a"))
    want = f"Which?\n5 attempts\n3 first a\n1 first b\n1 {'c' * LONGEST}\nend"
    assert request("Which?", some) == want
    assert request("Which?", some, most=1) == "Which?\n5 attempts\n3 first a\nend"


def test_the_request_knows_no_verdict():
    """Mutants: the right attempts first, only those that passed the tests, a mark beside the right one."""
    some = shown(("b", "x"), ("a", "y"), ("c", "z"), ("a", "w"))
    told = {
        request(
            "Which?", [dataclasses.replace(a, passed=p == i, accepted=q == i) for i, a in enumerate(some)]
        )
        for p in range(5)
        for q in range(5)
    }
    assert len(told) == 1
