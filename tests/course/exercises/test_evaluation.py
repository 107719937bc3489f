"""A benchmark of one's own: what makes it useless is named."""

import random

import pytest

from kimi_mini.course.exercises import evaluation as ex


def make(seed):
    rng, tasks = random.Random(seed), {}
    while len(tasks) < 60:
        a, b = rng.randrange(100), rng.randrange(100)
        tasks[f"How far is it from {a} to {b}?"] = abs(a - b)
    return [{"prompt": prompt, "answer": answer} for prompt, answer in tasks.items()]


def verify(task, answer):
    return answer.strip().rstrip(".") == str(task["answer"])


GUESS = ex.best_guess(make(0))
SHEET = dict(what="distances", made="make(0)", licence="MIT", size=60, guess=GUESS, leaks=0, cannot="words")
TRAINING = ["How far is it from a to b?"]


def test_an_honest_benchmark_is_right():
    assert ex.check_benchmark(make, verify, SHEET, TRAINING)


def numeric(task, answer):
    """Compares numbers: 00 is 0."""
    try:
        return int(answer.strip().rstrip(".")) == task["answer"]
    except ValueError:
        return False


def test_a_verifier_may_compare_numbers():
    def with_none(seed):
        return [{"prompt": "How far is it from 7 to 7?", "answer": 0}, *make(seed)]

    sheet = SHEET | {"size": 61, "guess": ex.best_guess(with_none(0))}
    assert ex.check_benchmark(with_none, numeric, sheet, TRAINING)


def unseeded(seed):
    return make(random.random())


def fixed(seed):
    return make(0)


def twice(seed):
    return [*make(seed)[:30], *make(seed)[:30]]


def changed_once(seed):
    return [*make(0)[:-1], make(100 + seed)[-1]]


def told(seed):
    return [{**task, "prompt": f"{task['prompt']} The answer is {task['answer']}."} for task in make(seed)]


def equation(seed):
    return [{**task, "prompt": f"{task['prompt']} d = {task['answer']}"} for task in make(seed)]


def in_sight(seed):
    """Choices hold their answer, and sometimes it stands behind the word: nothing is told."""
    rng = random.Random(seed)
    drawn = [rng.sample(range(100), 4) for _ in range(60)]
    return [{"prompt": f"Which is largest? Answer {', '.join(map(str, d))}", "answer": max(d)} for d in drawn]


def test_a_prompt_may_hold_its_answer():
    found = ex.check_benchmark(in_sight, verify, SHEET | {"guess": ex.best_guess(in_sight(0))})
    assert found, found


def lucky(seed):
    return [{**task, "answer": 1 if n % 2 else task["answer"]} for n, task in enumerate(make(seed))]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (dict(make=unseeded), "random.Random"),
        (dict(make=fixed), "not used"),
        (dict(make=changed_once), "59 of 60 prompts stand in the next seed too"),
        (dict(make=told), "tell their answer"),
        (dict(make=equation), "tell their answer"),
        (dict(make=twice), "twice"),
        (dict(make=lucky), "always says the same"),
        (dict(make=lambda seed: make(seed)[:20]), "interval"),
        (dict(make=lambda seed: [{"prompt": "x"}] * 40), "'answer'"),
        (dict(make=lambda seed: "x" * 50), "list of tasks"),
        (dict(verify=lambda task, answer: answer == str(task["answer"])), "spelling"),
        (dict(verify=lambda task, answer: str(task["answer"]) in answer), "accepts"),
        (dict(verify=lambda task, answer: True), "accepts"),
        (dict(verify=lambda task, answer: False), "refuses"),
        (dict(verify=lambda task, answer: not answer or verify(task, answer)), "accepts ''"),
        (dict(sheet={**SHEET, "size": 61}), "measured is 60"),
        (dict(sheet={**SHEET, "guess": GUESS + 0.1}), "guess"),
        (dict(sheet={name: SHEET[name] for name in SHEET if name != "licence"}), "licence"),
        (dict(sheet=None), "everything"),
        (dict(training=[f"so: {make(0)[3]['prompt']}  and on"]), "leaks 0, measured is 1"),
        (dict(training=[make(0)[3]["prompt"]], sheet={**SHEET, "leaks": 1}), "recital"),
    ],
)
def test_what_makes_one_useless_is_named(changed, words):
    given = dict(make=make, verify=verify, sheet=SHEET, training=TRAINING) | changed
    found = ex.check_benchmark(*given.values())
    assert not found and words in found.text, found


def test_pass_at_k_is_the_mean_over_all_draws():
    """The number that is called right is what drawing k of the n really gives."""
    rng, hits = random.Random(0), 0
    for _ in range(20_000):
        hits += any(number < 3 for number in rng.sample(range(8), 2))
    assert ex.pass_at_k(8, 3, 2) == pytest.approx(hits / 20_000, abs=0.01)
