"""Checkers of notebook 06: what is a cheat and what is a repair; a world of one's own and who is refused in it."""

import random
from dataclasses import replace

import pytest

from kimi_mini import worlds
from kimi_mini.course.exercises import verifiers as ex
from kimi_mini.worlds import Environment, Family, Row, Task, Verdict, World
from kimi_mini.worlds.base import Kind, answers_early, final_answer, needs, turn
from kimi_mini.worlds.repair import world as repair
from kimi_mini.worlds.tools import Tool, Toolbox


def test_the_cheat_of_the_solution_is_refused_by_the_verifier_and_a_repair_is_no_cheat():
    right = {}
    for seed in range(3):
        task = worlds.generate(random.Random(seed), "repair", 2 + seed)
        right[tuple(task.data["buggy"])] = (
            repair.LINE_MARKS[task.data["at"]],
            task.data["right"][task.data["at"]],
        )
    assert "real repair" in ex.check_cheat(lambda lines, tests: right[tuple(lines)]).text


# ---- a switchboard -----------------------------------------------------------------------------------------------


def generate(rng, family, level):
    on = sorted(rng.sample(range(10), level))
    return Task("board", family, level, f"All is off. Turn on {on}.", {"on": on})


def open_environment(task):
    lit = set()

    def press(number):
        lit.symmetric_difference_update({number})
        return "pressed"

    return Environment(
        Toolbox([Tool("press", "", needs(number={"type": "integer", "minimum": 0, "maximum": 9}), press)]),
        lit,
    )


def expert(task, rng, mistake=None):
    for number in task.data["on"][bool(mistake) :]:
        yield turn("", call=("press", {"number": number}))
    yield turn("", content="done")


def evidence(task, environment):
    return f"on: {sorted(environment.state)}, wanted {task.data['on']}"


def is_lit(task, environment):
    return sorted(environment.state) == task.data["on"]


def verify(task, messages, environment):
    right = final_answer(messages) == "done" and not answers_early(messages) and is_lit(task, environment)
    return Verdict(right, evidence(task, environment))


def twice(task, rng):
    yield turn("", call=("press", {"number": task.data["on"][0]}))
    yield from expert(task, rng)


def late(task, rng):
    yield turn("", content="done")
    yield from expert(task, rng)


def other_late(task, rng):
    """Claims twice, and then does nothing more."""
    yield from expert(task, rng)
    yield turn("", content="done")


def endless(task, rng):
    while True:
        yield turn("", call=("press", {"number": 1}))


def other_words(task, rng):
    yield turn("", content="I cannot do that")


def wrong(*scripts):
    return [Kind(script.__name__, False, ("switch",), script) for script in scripts]


def world(**changes):
    parts = dict(
        generate=generate,
        open_environment=open_environment,
        expert=expert,
        verify=verify,
        families={"switch": Family(range(1, 5), {})},
        rows=[Row("board/switch", "switch")],
        kinds=wrong(twice, late),
    )
    return World("board", **parts | changes)


def judged(passes, says=evidence):
    return lambda task, messages, environment: Verdict(
        bool(passes(task, messages, environment)), says(task, environment)
    )


def test_a_world_whose_verdicts_are_right_passes():
    found = ex.check_world(world())
    assert found and "7 ways" in found.text, found


def lights_that_stay(task):
    """Mutant: a button that only turns on; who presses twice has done no harm."""
    lit = set()
    schema = needs(number={"type": "integer"})
    return Environment(Toolbox([Tool("press", "", schema, lambda number: lit.add(number))]), lit)


COUNT = iter(range(10**6))


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        (
            {"verify": judged(lambda t, m, e: final_answer(m) == "done")},
            "accepted, and wrong: 'one wrong step",
        ),
        ({"verify": judged(lambda t, m, e: is_lit(t, e))}, "'late'"),
        (
            {"verify": judged(lambda t, m, e: is_lit(t, e)), "kinds": wrong(twice, lambda t, r: twice(t, r))},
            "the last call behind the answer",
        ),
        (
            {
                "verify": judged(lambda t, m, e: is_lit(t, e) and m[-2]["role"] == "tool"),
                "kinds": wrong(twice, other_late),
            },
            "the last call behind the answer",
        ),
        (
            {
                "verify": judged(
                    lambda t, m, e: verify(t, m, e).passed and len(m) == 3 + 2 * len(t.data["on"])
                )
            },
            "refused, and right: \"the expert's work behind a call that failed",
        ),
        ({"verify": judged(lambda t, m, e: False)}, "refused, and right: 'as the expert does it'"),
        ({"verify": judged(lambda t, m, e: verify(t, m, e).passed, lambda t, e: "seen")}, "always the same"),
        ({"verify": judged(lambda t, m, e: verify(t, m, e).passed, lambda t, e: "")}, "what it saw"),
        ({"verify": lambda t, m, e: verify(t, m, e).passed}, "verify returns Verdict"),
        ({"kinds": wrong(twice)}, "two adversaries"),
        ({"kinds": wrong(twice, other_words)}, "looks right"),
        ({"kinds": wrong(twice, lambda task, rng: twice(task, rng))}, "two names for one cheat"),
        ({"open_environment": lights_that_stay}, "accepted, and wrong: 'twice'"),
        ({"open_environment": lambda task: Environment()}, "Toolbox"),
        (
            {"expert": lambda task, rng, mistake=None: expert(task, rng)},
            "accepted, and wrong: 'one wrong step",
        ),
        ({"expert": lambda task, rng, mistake=None: iter(())}, "says nothing"),
        ({"kinds": wrong(twice, endless)}, "endless raised RuntimeError: more than 40 turns"),
        ({"generate": lambda rng, family, level: None}, "returns a Task"),
        ({"generate": lambda rng, family, level: generate(random.Random(1), family, 2)}, "1 different tasks"),
        (
            {"generate": lambda rng, family, level: generate(random.Random(next(COUNT)), family, level)},
            "same seed",
        ),
        (
            {"generate": lambda rng, family, level: replace(generate(rng, family, level), world="x")},
            "names its",
        ),
        ({"generate": lambda rng, family, level: rng.nothing}, "generate raised AttributeError"),
    ],
)
def test_a_world_with_a_hole_gets_a_hint(changes, hint):
    kinds = changes.get("kinds")
    if kinds and len({kind.name for kind in kinds}) < len(kinds):
        kinds[-1] = replace(kinds[-1], name="again")
    found = ex.check_world(world(**changes))
    assert not found and hint in found.text, found


@pytest.mark.parametrize("answer", [..., None, 3, world, {"world": 1}])
def test_what_is_no_world_gets_a_hint(answer):
    assert "begin with World(" in ex.check_world(answer).text
