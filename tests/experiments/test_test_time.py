"""Test-time compute: aggregation and revision are taught on training tasks alone, and every arm pays for what it wrote."""

import dataclasses
import random

import pytest
from tiny import tiny_model

from kimi_mini import worlds
from kimi_mini.agent.conversation import act, opening
from kimi_mini.base.intervals import over_seeds
from kimi_mini.experiments.evaluation import aggregation, arms, test_time
from kimi_mini.experiments.evaluation.aggregation import Suite
from kimi_mini.inference.attempts import Attempt, Chosen, lucky, majority, score
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.worlds.base import turn
from kimi_mini.worlds.repair.code import LINE_MARKS

SUITES = test_time.SUITES


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.load()


def tried(task, rng):
    """A repair that somebody has tried, rightly or not."""
    talk = opening(task)
    at = rng.choice([task.data["at"], rng.randrange(task.level)])
    code = rng.choice([task.data["right"][at], "x = x + 1", "pass"])
    if rng.random() < 0.9:
        act(talk, turn("end", call=("edit", {"line": LINE_MARKS[at], "code": code})))
    act(talk, turn("end", content="fixed"))
    return talk


def answered(task, rng):
    """A chain that somebody has worked out, rightly or not."""
    talk = opening(task)
    mistake = rng.choice([None, "slip"])
    act(talk, next(worlds.registry.expert(task, rng, mistake)))
    if rng.random() < 0.2:
        talk.messages[-1]["content"] = "?x"
    return talk


@pytest.fixture(scope="module")
def groups():
    """Attempts at training tasks of both families."""
    rng, found = random.Random(0), {}
    for family, attempted in (("repair", tried), ("chain", answered)):
        levels = SUITES["repair" if family == "repair" else "chains"].levels
        tasks = [worlds.generate(rng, family, levels[i % 3]) for i in range(12)]
        found[family] = [[attempted(task, rng) for _ in range(6)] for task in tasks]
    return found


# ---- what is taught ----------------------------------------------------------------------------------------


def test_attempts_are_made_at_training_tasks_alone(tokenizer, monkeypatch):
    """Mutant: the tasks that will be measured."""
    asked = []

    def solve(model, tokenizer, tasks, *rest, **options):
        asked.extend(tasks)
        return [opening(task) for task in tasks]

    monkeypatch.setattr(aggregation.scoreboard, "solve", solve)
    for suite in SUITES.values():
        found = aggregation.sampled(None, tokenizer, suite, 40, seed=0)
        assert len(found) == 40 and all(len({talk.task.key for talk in group}) == 1 for group in found)
    assert len({task.key for task in asked}) > 70 and not any(task.held_out for task in asked)


@pytest.mark.parametrize("family", ["repair", "chain"])
def test_the_expert_s_aggregation_is_right_whatever_the_attempts_say(groups, family):
    alone = 0
    for group in groups[family]:
        made = [aggregation.attempt(talk) for talk in group]
        for some in (made, made[:1], made[:3], [one for one in made if not one.passed]):
            if some:
                talk = opening(group[0].task)
                for message in aggregation.reflect(talk.task, some):
                    act(talk, message)
                assert talk.verdict().passed
                alone += not any(one.passed for one in some)
    assert alone > 5, "and where none of them is right"


def test_only_the_aggregation_is_learned(tokenizer, groups):
    """Mutants: the request is learned, too; or the attempts."""
    for family, some in groups.items():
        by_level = aggregation.aggregations(tokenizer, some, seed=0)
        assert sorted(by_level) == sorted({group[0].task.level for group in some})
        for example in (one for examples in by_level.values() for one in examples):
            said = tokenizer.decode(example.ids[example.mask].tolist())
            assert said.startswith("<think>") and " attempts" not in said and "Return of" not in said
            text = tokenizer.decode(example.ids.tolist())
            assert text.index(" attempts\n") < text.index("<think>"), "the request stands before"
            assert said.count("</think>") == (2 if family == "repair" else 1)


def test_only_the_revision_is_learned_and_only_after_failed_public_tests(tokenizer, groups):
    failed = sum(
        bool(aggregation.failing(t.environment.state)) for group in groups["repair"] for t in group[:2]
    )
    copies = [[again(talk) for talk in group[:2]] for group in groups["repair"]]
    by_level = aggregation.revisions(tokenizer, copies)
    found = [example for examples in by_level.values() for example in examples]
    assert 5 < len(found) == failed
    for example in found:
        said = tokenizer.decode(example.ids[example.mask].tolist())
        first = int(example.mask.argmax())
        assert "tests fail" in tokenizer.decode(example.ids[:first].tolist()), "the first attempt is context"
        assert said.endswith("fixed<|im_end|>")


def again(talk):
    """The same attempt once more: revisions write into it."""
    copy = opening(talk.task)
    for message in talk.messages[2:]:
        if message["role"] == "assistant":
            act(
                copy,
                {
                    **message,
                    "tool_calls": [{**c, "id": None} for c in message.get("tool_calls") or []] or None,
                },
            )
    return copy


# ---- the arms ----------------------------------------------------------------------------------------------


def test_heavy_mode_pays_for_its_attempts_and_for_its_last_turn():
    groups = [[Attempt("a", 10, False, False), Attempt("b", 12, False, True)]] * 2
    last = [Attempt("b", 30, False, True), Attempt("z", 31, False, False)]
    assert arms.heavy(groups, last) == [Chosen(1.0, 52), Chosen(0.0, 53)]
    assert arms.beyond(groups, last) == {"new": 1, "new_right": 0}


def test_arms_at_unequal_tokens_are_no_pair():
    book = arms.Book("repair", 0)
    ours, theirs = [Chosen(1.0, 100)] * 3, [Chosen(0.0, 100), Chosen(1.0, 100), Chosen(0.5, 100)]
    book.pair("heavy", "majority", 7, ours, theirs)
    assert book.pairs[0]["differences"] == [1.0, 0.0, 0.5]
    with pytest.raises(ValueError, match="heavy spent 100 tokens a task and majority 98"):
        book.pair("heavy", "majority", 7, ours, [Chosen(0.0, 98)] * 3)
    with pytest.raises(ValueError):
        book.pair("heavy", "majority", 7, ours, theirs[:2])


def test_a_gain_is_over_a_single_attempt_and_says_so():
    book = arms.Book("repair", 0)
    book.gain("best by public tests", 8, [Chosen(1.0, 80)], [Chosen(0.5, 10)])
    assert book.pairs[0]["against"] == "one attempt" and book.pairs[0]["tokens"] == [80.0, 10.0]


def test_the_vote_gets_what_the_aggregation_costs():
    groups = [[Attempt(i % 3, 10, False, i % 3 == 0) for i in range(8)] for _ in range(20)]
    vote = arms.paid_with(47.0, majority, groups)
    assert sum(chosen.tokens for chosen in vote) / 20 == pytest.approx(47, rel=0.01)
    assert arms.paid_with(82.0, majority, groups) is None, "so many attempts were not made"
    assert arms.paid_with(9.0, majority, groups) is None, "one attempt costs more"


def test_a_revision_begins_with_the_copy_s_own_first_attempt(tokenizer):
    """So both arms have begun alike, and without a round there is nothing else."""
    suite, model = Suite("repair", (2,), 1.0), tiny_model(vocab_size=1024)
    tasks = test_time.held_out_tasks("repair", (2,), 5, 0)
    own = arms.attempts_at(model, tokenizer, tasks, 2, 1.0, arms.own_seed(0))
    trial = arms.Trial(suite, 0, tokenizer, tasks, model, model, own, own)
    assert arms.revisions(model, trial, 0) == [group[0] for group in own]


def test_choices_are_the_mean_over_all_sets_of_n():
    rng = random.Random(0)
    groups = [
        [Attempt(rng.randrange(3), 10, rng.random() < 0.5, rng.random() < 0.5) for _ in range(8)]
        for _ in range(9)
    ]
    book = arms.Book("repair", 0)
    arms.choices(book, groups, (1, 4), tested=True)
    found = {(row["arm"], row["attempts"]): row for row in book.rows}
    everything = score(lucky, groups).value
    assert found["one at random", 4]["success"] == pytest.approx(everything, abs=1e-4)
    assert found["pass@n", 1]["success"] == pytest.approx(everything, abs=1e-4)
    halves = [score(majority, [group[i : i + 4] for group in groups]).value for i in (0, 4)]
    assert found["majority", 4]["success"] == pytest.approx(sum(halves) / 2, abs=1e-4)
    assert found["majority", 4]["tokens"] == 40
    arms.choices(untested := arms.Book("chains", 0), groups, (4,), tested=False)
    assert not {row["arm"] for row in untested.rows} & set(arms.TESTED), "a chain has no public tests"


def test_no_verdict_reaches_what_the_model_reads(tokenizer, groups, monkeypatch):
    """Turn all verdicts round: the requests stay as they are. Mutant: a chooser that sees the hidden verdict."""
    asked = []
    monkeypatch.setattr(
        arms, "solve", lambda model, tokenizer, tasks, *a, **k: asked.append([t.prompt for t in tasks])
    )
    for some in groups.values():
        made = [[aggregation.attempt(talk) for talk in group] for group in some]
        turned = [
            [dataclasses.replace(a, passed=not a.passed, accepted=not a.accepted) for a in g] for g in made
        ]
        tasks = [group[0].task for group in some]
        for each in (made, turned):
            arms.aggregated(None, tokenizer, tasks, each, 1.0, 0)
        assert asked[-1] == asked[-2] and all(prompt.endswith("end") for prompt in asked[-1])
        assert all(task.prompt in prompt for task, prompt in zip(tasks, asked[-1]))


def test_an_attempt_takes_nothing_else_from_its_verdict(groups, monkeypatch):
    """Mutant: what the verifier accepts is accepted."""
    talks = [talk for some in groups.values() for group in some for talk in group]
    made = [aggregation.attempt(talk) for talk in talks]
    verdict = type(talks[0]).verdict

    def turned(talk):
        said = verdict(talk)
        return dataclasses.replace(said, passed=not said.passed)

    monkeypatch.setattr(type(talks[0]), "verdict", turned)
    again = [dataclasses.replace(one, passed=not one.passed) for one in map(aggregation.attempt, talks)]
    assert again == made and len({one.passed for one in made}) == 2


def test_what_is_shown_of_an_attempt_is_what_it_did(groups):
    for talk in (talk for group in groups["repair"] for talk in group):
        made = aggregation.attempt(talk)
        changed = [
            i for i, line in enumerate(talk.environment.state.lines) if line != talk.task.data["buggy"][i]
        ]
        assert made.shown == (
            "nothing" if not changed else f"{LINE_MARKS[changed[0]]} {made.answer[changed[0]]}"
        )
    for talk in (talk for group in groups["chain"] for talk in group):
        made = aggregation.attempt(talk)
        assert made.shown.endswith(f" end {made.answer}") and not made.accepted


@pytest.mark.slow
def test_a_whole_seed_of_a_model_that_knows_nothing(tokenizer, monkeypatch):
    """Every arm runs, and pays; pairs only where the tokens are equal."""
    monkeypatch.setattr(
        test_time, "SUITES", {"repair": Suite("repair", (2,), 1.0), "chains": Suite("chain", (6,), 1.0)}
    )
    for name, value in dict(
        SIZES=(1, 2), HEAVY=(1,), ROUNDS=(1,), BUDGETS=(4,), GAIN=2, OWN=3, TASKS=8
    ).items():
        monkeypatch.setattr(test_time, name, value)
    for module in (arms, aggregation):
        monkeypatch.setattr(module, "LIMITS", dataclasses.replace(module.LIMITS, turn_tokens=6, turns=4))
    model = tiny_model(vocab_size=1024)
    part = test_time.measured(model, model, tokenizer, 0, 0.1)
    arms_of = {row["suite"]: set() for row in part["rows"]}
    for row in part["rows"]:
        arms_of[row["suite"]].add(row["arm"])
        assert 0 <= row["success"] <= 1 and row["tokens"] > 0 and row["read"] > 0
    assert {"heavy", "revision", "greedy", "pass@n", "shorter thought"} <= arms_of["repair"]
    assert "heavy" in arms_of["chains"] and "revision" not in arms_of["chains"]
    for pair in part["pairs"]:
        if pair["against"] != "one attempt":
            assert pair["tokens"][0] == pytest.approx(pair["tokens"][1], rel=0.011)
    assert test_time.difference(part["pairs"], "repair", "heavy", "nobody", 1)["value"] is None


def test_what_a_taught_copy_wins_is_told_over_seeds_and_a_choice_over_tasks():
    """Three copies are three draws, however many tasks each works on; one agent's attempts are as many as its tasks."""
    same = dict(suite="repair", against="majority", attempts=7)
    pairs = [
        dict(same, arm=arm, seed=seed, differences=[float(seed)] * 79 + [0.0])
        for arm in ("heavy", "surest")
        for seed in range(3)
    ]
    means = [seed * 79 / 80 for seed in range(3)]
    copies = test_time.difference(pairs, "repair", "heavy", "majority", 7)
    assert tuple(copies.values()) == pytest.approx(over_seeds(means)) and copies["low"] < 0
    choices = test_time.difference(pairs, "repair", "surest", "majority", 7)
    assert choices["value"] == pytest.approx(copies["value"]) and choices["low"] > 0.8
