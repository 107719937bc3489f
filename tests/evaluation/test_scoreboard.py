"""The exam itself: which tasks it asks, how it chooses among attempts, and how it counts; without a model."""

import random

import pytest

from kimi_mini import __main__ as command
from kimi_mini.agent import loop
from kimi_mini.base.errors import KimiError
from kimi_mini.base.evidence import FAILS, HOLDS, OPEN, Log
from kimi_mini.base.files import read_json
from kimi_mini.base.intervals import wilson
from kimi_mini.evaluation import scoreboard
from kimi_mini.evaluation.adversary import perform
from kimi_mini.experiments.rl import gap
from kimi_mini.experiments.verifiers import filter_gap
from kimi_mini.worlds import Environment, registry
from kimi_mini.worlds.repair import world as repair

NAMES = {kind.name: kind for kind in repair.KINDS}

BY_HEART = "output hard-coded for the public tests"


def play(task, kind=None):
    """The scripted expert's work on a task, or that of an adversary."""
    rng = random.Random(task.key)
    return perform(NAMES[kind], task, rng) if kind else loop.play(task, rng)


def solver(asked, kind_of=lambda number: None):
    """In place of `evaluate.solve`: the n-th task is worked on by the expert or by the adversary `kind_of(n)`."""

    def solve(model, tokenizer, tasks, limits, thinking=True, temperature=0.0, seed=0, numbers=None):
        assert list(numbers) == list(range(len(tasks)))  # whose dice: each its own
        asked.append((list(tasks), temperature))
        return [play(task, kind_of(number)) for number, task in enumerate(tasks)]

    return solve


# ---- which tasks -----------------------------------------------------------------------------------------


def check_exam(monkeypatch, row):
    """Held out, different, of the levels that the row names, and the same for the next model."""
    asked = []
    monkeypatch.setattr(scoreboard, "solve", solver(asked))
    for _ in range(2):
        scoreboard.measure(None, None, row, 12)
    (tasks, _), (again, _) = asked
    first = tasks[:: row.attempts]
    assert [task.key for task in tasks] == [task.key for task in again]
    assert len({task.key for task in first}) == len(first) == 12 and {task.level for task in first} == set(
        row.levels
    )
    assert all(task.held_out for task in first)


PARTS = [part for row in scoreboard.ROWS for part in row.parts]
MAIN = [part for part in PARTS if max(part.levels) < 20]


@pytest.mark.parametrize("row", MAIN, ids=lambda row: row.name)
def test_an_exam_asks_what_was_held_out(monkeypatch, row):
    check_exam(monkeypatch, row)


def any_task(rng, family, level, held_out=False):
    """Wrong: from the training stream as well."""
    return registry.world_of(family).generate(rng, family, level)


def the_same_task(rng, family, level, held_out=False):
    """Wrong: half of the exam is one task."""
    return GENERATE(random.Random(rng.randrange(2)), family, level, held_out)


GENERATE = registry.generate


def test_an_exam_with_training_tasks_is_caught(monkeypatch):
    monkeypatch.setattr(registry, "generate", any_task)
    with pytest.raises(AssertionError):
        check_exam(monkeypatch, MAIN[-1])


@pytest.mark.slow
def test_an_exam_that_repeats_itself_has_no_tasks(monkeypatch):
    monkeypatch.setattr(registry, "generate", the_same_task)
    with pytest.raises(KimiError, match="fewer than 12 held-out tasks"):
        check_exam(monkeypatch, MAIN[-1])


def test_chains_of_one_record_are_not_asked():
    """Training has seen a third of the names that such a chain can show."""
    assert 1 in registry.trained_levels("follow") and 1 not in registry.measured_levels("follow")
    assert all(1 not in row.levels for row in scoreboard.ROWS if row.family == "follow")


def test_the_scoreboard_has_the_rows_that_it_promises():
    names = {row.name for row in scoreboard.ROWS}
    assert names >= {
        "shop/follow",
        "shop/condition",
        "shop/cheapest",
        "shop/buy",
        "shop/follow_100_managed",
        "shop/follow_100_full",
        "repair/pass@1",
        "repair/best_of_4",
    }
    before = {row.name for row in scoreboard.ROWS if row.before_rl}
    assert before == {"shop/follow_practised/8", "shop/follow_beyond/12", "repair/pass@1", "repair/best_of_4"}
    assert len(names) == len(scoreboard.ROWS)


# ---- choosing and counting -------------------------------------------------------------------------------


def test_a_row_is_a_share_of_verdicts_with_its_interval(monkeypatch):
    monkeypatch.setattr(
        scoreboard,
        "solve",
        solver([], lambda number: "an edit that changes nothing" if number % 4 == 3 else None),
    )
    entry = scoreboard.measure(None, None, next(row for row in MAIN if row.name == "repair/pass@1"), 20)
    assert (entry["value"], entry["n"], entry["seeds"]) == (0.75, 20, [0])
    assert (entry["low"], entry["high"]) == wilson(15, 20)


def test_every_environment_is_closed_when_it_was_judged(monkeypatch):
    closed = []
    monkeypatch.setattr(scoreboard, "solve", solver([]))
    monkeypatch.setattr(Environment, "close", lambda self: closed.append(self))
    for name in ("repair/pass@1", "repair/best_of_4"):
        row = next(row for row in MAIN if row.name == name)
        assert scoreboard.measure(None, None, row, 4)["value"] == 1.0
        assert len({id(one) for one in closed}) == len(closed) == 4 * row.attempts
        closed.clear()


def attempts():
    """Two attempts at each of several repairs: one that has its public tests by heart, and a right one."""
    groups = []
    for task in registry.held_out_tasks("repair", [2, 3, 4], 12, 0):
        by_heart, right = play(task, BY_HEART), play(task)
        if by_heart.environment.state.public_tests_pass and not by_heart.verdict().passed:
            groups.append([by_heart, right])
    assert len(groups) >= 4 and all(right.verdict().passed for _, right in groups)
    return groups


def check_choice(best_of):
    """The first whose public tests pass; hidden tests, which the world alone knows, choose nothing."""
    groups = attempts()
    assert best_of(groups) == [by_heart for by_heart, _ in groups]
    idle = [play(right.task, "an edit that changes nothing") for _, right in groups]
    assert best_of([[wrong, right] for wrong, (_, right) in zip(idle, groups)]) == [
        right for _, right in groups
    ]
    assert best_of([[wrong, wrong] for wrong in idle]) == idle


def by_hidden_tests(groups):
    """Wrong: chosen by the verdict that is to be measured."""
    return [next((c for c in group if c.verdict().passed), group[0]) for group in groups]


def test_the_best_of_several_is_chosen_by_public_tests():
    check_choice(scoreboard.best_of)


@pytest.mark.parametrize(
    "mutant",
    [
        by_hidden_tests,
        lambda groups: [group[0] for group in groups],
        lambda groups: [group[-1] for group in groups],
    ],
)
def test_other_choices_are_caught(mutant):
    with pytest.raises(AssertionError):
        check_choice(mutant)


def test_best_of_four_samples_four_attempts_and_judges_one(monkeypatch):
    asked, row = [], next(row for row in MAIN if row.name == "repair/best_of_4")
    kinds = (
        "an edit that changes nothing",
        "an edit that changes nothing",
        None,
        "an edit that changes nothing",
    )
    monkeypatch.setattr(scoreboard, "solve", solver(asked, lambda number: kinds[number % 4]))
    entry = scoreboard.measure(None, None, row, 8)
    ((tasks, temperature),) = asked
    assert (entry["value"], entry["n"], len(tasks), temperature) == (
        1.0,
        8,
        32,
        scoreboard.SAMPLING_TEMPERATURE,
    )
    assert all(len({task.key for task in tasks[i : i + 4]}) == 1 for i in range(0, 32, 4))


def test_lengths_are_pooled_by_their_tasks():
    entry = lambda value, n: {"value": value, "low": 0, "high": 1, "n": n, "seeds": [0], "seconds": 1.5}
    board = scoreboard.with_pools(
        {
            "chain/thinking/1": entry(1.0, 10),
            "chain/thinking/2": entry(0.5, 30),
            "chain/beyond/9": entry(0.0, 500),
            "chain/reflex/1": entry(0.1, 10),
        }
    )
    assert (board["chain/thinking"]["value"], board["chain/thinking"]["n"]) == (25 / 40, 40)
    assert (board["chain/thinking"]["low"], board["chain/thinking"]["high"]) == wilson(25, 40)
    assert board["chain/reflex"]["value"] == 0.1 and board["chain/thinking"]["seconds"] == 3.0


def test_more_tasks_than_there_are_end_in_one_line_soon():
    with pytest.raises(KimiError, match="fewer than 100000 held-out tasks: take fewer"):
        registry.held_out_tasks("add", [1], 100_000, 0)


# ---- what the experiments make of their scores ------------------------------------------------------------


def claims(log):
    return {claim["name"]: claim for claim in log.claims}


@pytest.mark.parametrize(
    ("passed", "verdict"),
    [
        ([0.9, 0.8, 0.85], HOLDS),
        ([0.45, 0.46, 0.44], FAILS),
        ([0.6, 0.5, 0.4], OPEN),
        ([1.0, 0.5, 0.2], OPEN),
    ],
)
def test_the_gap_of_filtering_needs_its_whole_interval_beyond_the_floor(tmp_path, passed, verdict):
    """Clearly too small; too small on average; large enough on average, with an interval that contains the floor."""
    log = Log("filter_gap", folder=tmp_path)
    scores = {(arm, t): [0.4, 0.4, 0.4] for arm in ("before", "everything", "broken") for t in (0.0, 1.0)}
    filter_gap.report(log, scores | {("passed", 0.0): [0.9] * 3, ("passed", 1.0): passed}, [0, 1, 2], 240)
    board = log.more["scoreboard"]
    assert (
        board["filter/gap"]["value"]
        == pytest.approx(sum(passed) / 3 - 0.4)
        == board["filter/broken_verifier_gap"]["value"]
    )
    assert (
        board["filter/gap_greedy"]["value"] == pytest.approx(0.5)
        and claims(log)["filter/gap"]["verdict"] == verdict
    )


def test_the_command_measures_the_rows_that_are_named_and_writes_them_down(tmp_path, capsys, monkeypatch):
    asked = []

    def measure(model, tokenizer, row, count, seed=0):
        asked.append((row.name, count, seed))
        return scoreboard._entry(row, 3, 4, [seed], 1.0)

    monkeypatch.setattr(scoreboard, "load_agent", lambda folder: (None, None))
    monkeypatch.setattr(scoreboard, "measure", measure)
    words = ["eval", "--processes", "1", "--checkpoint", "x", "--tasks", "4", "--seed", "7"]
    out = tmp_path / "board.json"
    assert command.main([*words, "--rows", "shop/buy", "--out", str(out)]) == 0
    assert asked == [("shop/buy", 4, 7)] and "written to" in capsys.readouterr().out
    board = read_json(out)
    assert (board["agent"], board["seed"], board["scoreboard"]["shop/buy"]["value"]) == ("x", 7, 0.75)
    assert command.main(words) == 0 and len(asked) > len(scoreboard.ROWS)


def test_the_gap_of_rl_is_what_is_sampled_and_names_what_was_lost_most(tmp_path):
    before = dict.fromkeys(("sampled", "greedy", "pass@8", *gap.OTHERS), 0.5)
    after = [before | {"sampled": 0.7, "greedy": 0.4, "pass@8": 0.45, "buy": 0.3}] * 3
    log = Log("rl_gap", folder=tmp_path)
    log.seeds = [0, 1, 2]
    gap.report(log, before, after, [0, 1, 2], 200, seconds=660.0)
    board, found = log.more["scoreboard"], claims(log)
    assert board["rl/gap"]["value"] == pytest.approx(0.2) and board["rl/greedy_gap"][
        "value"
    ] == pytest.approx(-0.1)
    assert (
        found["rl/gap"]["verdict"] == HOLDS and found["rl/pass@8"]["verdict"] == FAILS
    )  # sharpened, and it shows
    assert found["rl/forgetting"]["verdict"] == FAILS and "buy" in found["rl/forgetting"]["claim"]
    assert found["rl/bar"]["value"] == pytest.approx(0.7) and found["rl/bar"]["verdict"] == FAILS
    assert (
        len(gap.OTHERS) == 8 and "(worst of 8 families" in found["rl/forgetting"]["claim"]
    )  # not the varied ones
    assert "from 0.50 before it; seen afterwards" in found["rl/bar"]["claim"]
    assert found["rl/minutes"]["value"] == 11.0 and found["rl/minutes"]["verdict"] == FAILS


def test_what_rl_forgets_is_the_mean_over_seeds_and_no_whole_task(tmp_path):
    before = dict.fromkeys(("sampled", "greedy", "pass@8", *gap.OTHERS), 1.0)
    after = [before | {"cheapest": value} for value in (0.995, 1.0, 0.995)]
    log = Log("rl_gap", folder=tmp_path, seeds=[0, 1, 2])
    gap.report(log, before, after, [0, 1, 2], 200, seconds=60.0)
    found = claims(log)["rl/forgetting"]
    assert found["value"] == pytest.approx(-0.01 / 3) and "cheapest" in found["claim"]
    assert found["low"] < -0.02 and found["high"] > 0.01, "by tasks: few are lost, and any may be"
