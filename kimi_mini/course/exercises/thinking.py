"""Checkers for the exercises of notebook 08 (thinking mode)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kimi_mini.course.exercises.base import Checked, checker, known_mistake, one_number, value_of
from kimi_mini.inference.attempts import Attempt, majority
from kimi_mini.worlds.chain import MODULUS, OPERATIONS

CLOSE = "</think>"
THOUGHT = "k 1 8 - 1 = 1 7 l 1 7 * 2 = 3 4 end".split()


@checker
def check_hard_stop(function: Callable[[list[str], int], list[str]]) -> Checked:
    """function(thought, budget) is what the answer gets to read: the thought, cut if need be, and </think>."""
    for budget in (5, 0, len(THOUGHT) - 1, len(THOUGHT), 100):
        right = [*THOUGHT[:budget], CLOSE]
        value = value_of(function, list(THOUGHT), budget)
        if not isinstance(value, (list, tuple)):
            return Checked(False, "return a list of tokens")
        value = list(value)
        if value == right:
            continue
        hints = {
            "a thought that fits is closed too, by the model itself": value == THOUGHT
            and budget >= len(THOUGHT),
            "nothing was cut": value == THOUGHT,
            "the thought stays open: without </think> the model goes on thinking": value == right[:-1],
            "</think> is ours and costs nothing: the budget is for the thought": value
            == [*THOUGHT[: max(0, budget - 1)], CLOSE],
            "one token too many got through": value == [*THOUGHT[: budget + 1], CLOSE],
            "a budget of 0 leaves nothing of the thought": budget == 0 and value == [*THOUGHT, CLOSE],
            "keep the beginning of the thought, not its end": budget > 0 and value[:-1] == THOUGHT[-budget:],
            "</think> goes behind the thought": value[:1] == [CLOSE] and budget > 0,
        }
        hint = next((text for text, found in hints.items() if found), None)
        return Checked(
            False, hint or f"with a budget of {budget} you return {' '.join(map(str, value))!r:.60}"
        )
    return Checked(True, "hard, and yet the model always gets to answer")


OPERATIONS_ASKED = ("+9", "*3", "-7", "*2", "+5")


@checker
def check_follow(function: Callable[[Sequence[str], int, int], int]) -> Checked:
    """function(operations, step, value) is where a chain ends when the result of step (from 0) is put to value."""
    for step, value in ((4, 10), (0, 52), (2, 99), (1, 3)):
        given = one_number(value_of(function, OPERATIONS_ASKED, step, value))
        right = _run(OPERATIONS_ASKED[step + 1 :], value)
        if given == right:
            continue
        hints = {
            "the value is the *result* of that step: do not apply the step itself once more": _run(
                OPERATIONS_ASKED[step:], value
            ),
            "start with the step behind the changed one": _run(OPERATIONS_ASKED, value),
            "modulo 100, after every step": _run(OPERATIONS_ASKED[step + 1 :], value, modulus=10**9),
            "that is only the next step; go on to the end": _run(
                OPERATIONS_ASKED[step + 1 : step + 2], value
            ),
        }
        hint = known_mistake(given, hints)
        return Checked(False, hint or f"for step {step} and value {value} you get {given!r}")
    return Checked(True, "what the answer must be if the thought is what it is computed with")


def _run(operations: Sequence[str], value: int, modulus: int = MODULUS) -> int:
    for operation in operations:
        value = OPERATIONS[operation[0]](value, int(operation[1:])) % modulus
    return value


VOTES = (  # (answers of the attempts at one task, by how much each costs more than the one before, hint)
    (["7", "3", "7", "9"], 7, "the most frequent answer is 7"),
    (["3", "7"], 7, "a tie goes to the answer that came first"),
    (["7", "3"], 7, "a tie goes to the answer that came first, not to the smallest"),
    (["3", "7"], -7, "a tie goes to the answer that came first, not to the cheapest"),
    (["5", "8", "2", "8", "5", "2"], 7, "a tie of three goes to the answer that came first"),
    (["10", "9", "9", "10", "10"], 7, "count answers as they are, do not take the largest or the shortest"),
    (["4"], 7, "one attempt is a vote too"),
)


@checker
def check_vote(function: Callable[[list[tuple[str, int]]], tuple[str, int]]) -> Checked:
    """function(attempts) is (the winning answer, the tokens spent), for attempts given as (answer, tokens)."""
    for answers, more, why in VOTES:
        attempts = [(answer, 40 + more * index) for index, answer in enumerate(answers)]
        value = value_of(function, list(attempts))
        if not isinstance(value, (tuple, list)) or len(value) != 2:
            return Checked(False, "return two things: the answer and the tokens")
        answer, tokens = value[0], one_number(value[1])
        group = [Attempt(given, cost, False, False) for given, cost in attempts]
        spent = majority(group).tokens
        winner = max(dict.fromkeys(answers), key=answers.count)
        if answer != winner:
            return Checked(False, f"{why}; you choose {answer!r} of {answers}")
        if tokens != spent:
            own = next(cost for given, cost in attempts if given == winner)
            hint = (
                "all attempts were paid for, not only the one that won"
                if tokens == own
                else f"they cost {spent}"
            )
            return Checked(False, hint)
    return Checked(
        True, "and so a vote over eight must never be compared with a single attempt as if it were free"
    )


@checker
def check_reliability(function: Callable[[int, float], float]) -> Checked:
    """function(calls, success): how reliable one call must be for `calls` in a row to succeed with chance `success`."""
    for calls, success in ((10, 0.5), (1, 0.9), (100, 0.97), (300, 0.97)):
        right = success ** (1 / calls)
        value = one_number(value_of(function, calls, success))
        if abs(value - right) < 1e-9:
            continue
        hints = {
            "the chance of the whole is a product, not a sum: no division": success / calls,
            "that is how often a run succeeds whose single calls succeed that often; asked is the way back": success
            ** calls,
            "close, but chances multiply: errors only add up while they are few": 1 - (1 - success) / calls,
            "every call takes its toll: the single one must be better than the whole": success,
        }
        hint = known_mistake(value, hints, lambda value, wrong: abs(wrong - value) < 1e-9)
        return Checked(False, hint or f"for {calls} calls and {success:.0%} you get {value:.6g}")
    return Checked(True, "99.99% a call for 97% of 300 calls: long work is made of small reliability")
