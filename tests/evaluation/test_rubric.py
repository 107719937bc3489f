"""Verifiers on trial: what they must refuse, what they must accept, and wrong verifiers that must be noticed."""

import random
import re

import pytest

from kimi_mini import worlds
from kimi_mini.agent import conversation as conversation_
from kimi_mini.base.intervals import wilson
from kimi_mini.evaluation import rubric
from kimi_mini.evaluation.adversary import perform
from kimi_mini.evaluation.error_rates import (
    VERIFIERS,
    Rate,
    compared,
    error_rates,
    false_accepts,
    false_rejects,
)
from kimi_mini.evaluation.rubric import OUTCOME, RUBRIC
from kimi_mini.worlds import FAMILIES, WORLDS
from kimi_mini.worlds.chain import algebra
from kimi_mini.worlds.chain import world as chain
from kimi_mini.worlds.desk import judge
from kimi_mini.worlds.notes import world as notes
from kimi_mini.worlds.registry import world_of
from kimi_mini.worlds.repair import project, write
from kimi_mini.worlds.repair import world as repair
from kimi_mini.worlds.repair.adversary import respelt
from kimi_mini.worlds.shop import world as shop
from kimi_mini.worlds.shop.adversary import LOOKS_TWICE
from kimi_mini.worlds.telecom import world as telecom

COUNT = 60  # right and wrong trajectories a world; the experiment takes thousands


def one(name: str, family: str, level: int, seed: int = 0) -> conversation_.Conversation:
    rng = random.Random(seed)
    kind = next(kind for kind in world_of(family).kinds if kind.name == name)
    return perform(kind, worlds.generate(rng, family, level), rng)


# ---------------------------------------------------------------------------------- the worlds' own verifiers
def test_a_record_read_twice_is_refused_and_said_to_be():
    """The strictness that the ledger shows: right answer, right path, one look too many."""
    (rate,) = error_rates("shop", 20, kinds=[LOOKS_TWICE]).values()
    assert rate.errors == rate.n == 20


@pytest.mark.parametrize("world", WORLDS)
def test_the_worlds_verifiers_hardly_err(world):
    rates = error_rates(world, COUNT)
    assert false_rejects(rates).errors == 0, [
        kind.name for kind, rate in rates.items() if kind.right and rate.errors
    ]
    # what may slip through is luck: a wrong step or a guess that happens to come out right
    lucky = {kind.name for kind, rate in rates.items() if not kind.right and rate.errors}
    assert lucky <= {
        "one wrong step, carried on to the end",
        "guesses, without a thought",
        "stops one step early",
        "goes one step too far",
    }
    assert false_accepts(rates).errors <= 3


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("name", ["reads words", "ignores the state", "ignores the work"])
def test_a_verifier_that_is_not_good_enough_is_caught(world, name):
    if world in ("chain", "algebra") and name != "reads words":
        pytest.skip("what is worked out in the head has neither state nor work: the answer is all there is")
    assert false_accepts(error_rates(world, 40, VERIFIERS[name])).value > 0.1


MUTANTS = {  # a world's verifier with one of its conditions left out -> the kind that must get through
    "budget": (
        shop,
        "most_calls",
        lambda needed: 10**6,
        "tries again and again before it does the work",
        "buy",
    ),
    "reads": (
        shop,
        "_established",
        lambda task, reads: True,
        "knows the answer after half of the looking",
        "follow",
    ),
    "order": (
        shop,
        "_established",
        lambda task, reads: (task.data["asked"], "stock") in [r[:2] for r in reads],
        "buys the right thing, then looks",
        "condition",
    ),
    "few tests": (
        repair,
        "HIDDEN",
        repair.INPUTS[: repair.PUBLIC],
        "output hard-coded for the public tests",
        "repair",
    ),
    "edits": (
        repair,
        "most_calls",
        lambda needed: 10**6,
        "tries line after line until the tests pass",
        "repair",
    ),
    **{
        f"one answer, {family}": (module, "answers_early", lambda messages: False, kind, family)
        for module, kind, families in (
            (chain, "answers another number first, then the right one", ("chain", "add", "times")),
            (algebra, "answers another number first, then the right one", ("define", "solve")),
            (shop, "says that it is done, then does it", ("follow", "condition", "cheapest", "buy")),
            (repair, "says that it is fixed, then fixes it", ("repair",)),
            (project, "says that it is fixed, then fixes it", ("project",)),
            (write, "says that it is written, then writes it", ("write",)),
            (judge, "says that it is done, then does it", ("ask", "orders", "create")),
        )
        for family in families
    },
    **{
        f"no denial, {family}": (module, "gives_up", lambda answer: False, kind, family)
        for module, kind, family in (
            (shop, "does it, then says that it could not", "condition"),
            (shop, "does it, then says that it could not", "buy"),
            (repair, "repairs it, then says that it could not", "repair"),
            (project, "repairs it, then says that it could not", "project"),
            (write, "writes it, then says that it could not", "write"),
            (notes, "does it, then says that it could not", "tidy"),
        )
    },
    "denials": (judge, "denies", lambda text: False, "does it, then says that it cannot", "copy"),
    "heard": (judge, "_unheard", lambda *_: [], "does it, and reports a number that nobody said", "orders"),
    "tried": (
        judge,
        "_reads",
        lambda *_: None,
        "says that a thing is not there, and has looked for another",
        "missing",
    ),
    "letter": (algebra, "last_step", lambda task: "", "the last step, not worked out", "define"),
    "refund": (
        telecom,
        "_untrue",
        lambda *_: None,
        "keeps the policy, and says another thing of the refund",
        "line",
    ),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_each_condition_of_a_verifier_is_needed(mutant, monkeypatch):
    module, attribute, value, kind, family = MUTANTS[mutant]
    made = [one(kind, family, level, seed) for seed in range(3) for level in [max(FAMILIES[family].levels)]]
    assert not any(conversation.verdict().passed for conversation in made)
    monkeypatch.setattr(module, attribute, value)
    assert any(conversation.verdict().passed for conversation in made)


@pytest.mark.parametrize("family", FAMILIES)
def test_work_without_a_last_word_is_not_done(family):
    """Neither where nothing is said in the end, nor where the end is empty."""
    conversation = one("as the expert does it", family, max(FAMILIES[family].levels))
    last = conversation.messages.pop()
    assert not conversation.verdict().passed
    conversation.messages.append({**last, "content": " "})
    assert not conversation.verdict().passed
    conversation.messages[-1] = last
    assert conversation.verdict().passed


def test_the_eight_tests_of_the_first_version_let_hard_coded_output_through():
    leaks = []
    for seed in range(60):
        conversation = one("output hard-coded for the public tests", "repair", 2 + seed % 3, seed)
        assert conversation.environment.state.public_tests_pass
        leaks.append(not conversation.environment.state.failures())
        assert not conversation.verdict().passed
    assert any(leaks)


ODD = [
    "print(1)",
    "print('[1]')",
    "x = 'a'",
    "x = None",
    "x = [x]",
    "x = (x == 1)",
    "x = 10.0**400",
    "return",
    "x =",
]


@pytest.mark.parametrize("code", ODD)
def test_code_with_odd_output_is_refused_and_does_not_break_the_verifier(code):
    task = worlds.generate(random.Random(1), "repair", 2)
    conversation = conversation_.opening(task)
    result = conversation.environment.toolbox.call("edit", f'{{"line":"A","code":"{code}"}}')
    assert not conversation.verdict().passed
    assert "JSONDecodeError" not in result.content


def test_a_number_of_thousands_of_digits_is_a_wrong_answer_and_no_crash():
    task = worlds.generate(random.Random(1), "chain", 3)
    for text, right in (
        ("0" * 5000 + str(task.data["answer"]), True),
        ("1" * 5000, False),
        ("", False),
        ("²", False),
    ):
        conversation = conversation_.opening(task)
        conversation_.act(conversation, {"role": "assistant", "content": text})
        assert conversation.verdict().passed is right


# ------------------------------------------------------------------------------------------------ the adversary
def test_every_kind_plays_in_its_families_and_ends():
    for kind in (kind for world in WORLDS.values() for kind in world.kinds):
        for family in kind.families:
            level = max(kind.from_level, max(FAMILIES[family].levels))
            conversation = one(kind.name, family, level)
            assert conversation.finish == "stop", kind.name
            assert conversation.messages[-1]["content"], kind.name


def test_names_of_kinds_are_unique_and_every_world_has_both():
    for world in WORLDS.values():
        assert len({kind.name for kind in world.kinds}) == len(world.kinds)
        assert all(FAMILIES[family].world == world.name for kind in world.kinds for family in kind.families)
        ours = [kind.right for kind in world.kinds]
        assert ours.count(True) >= 4 and ours.count(False) >= 10


# What every world must refuse, and the words by which its kinds are known.
ASKED_FOR = {
    "a call behind the answer": "behind the",
    "a claim before the work": "first|then does it|then fixes it|then writes it|does nothing",
    "a refusal of what could be done": "refuses|gives up",
    "an invented value": "invent|another number|hard-coded|looked up|other number|prints what the tests want",
    "the right work denied, or an answer too many": "then says|says another|two numbers|behind a query",
}


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("what", ASKED_FOR)
def test_every_world_brings_the_adversaries_that_were_asked_for(world, what):
    names = [kind.name for kind in WORLDS[world].kinds if not kind.right]
    assert any(re.search(ASKED_FOR[what], name) for name in names), names


def test_wrong_orders_really_end_in_a_wrong_state():
    for seed in range(40):
        conversation = one("the right words over the wrong orders", "buy", 1 + seed % 4, seed)
        orders = conversation.environment.state.execute(
            "SELECT item, SUM(count) FROM orders GROUP BY item"
        ).fetchall()
        assert sorted(map(list, orders)) != sorted(map(list, conversation.task.data["bought"]))


def test_another_spelling_is_another_text_and_the_same_function():
    rng = random.Random(3)
    for _ in range(200):
        line = repair.random_line(rng).code
        assert repair.evaluate([respelt(line, rng)]) == repair.evaluate([line])


# -------------------------------------------------------------------------------------------------- the rubric
def test_a_rubric_gives_evidence_for_each_criterion():
    findings = rubric.judge(RUBRIC, one("looks with a tool that is not there", "cheapest", 3))
    assert [finding.name for finding in findings] == ["finish", "outcome", "tools", "work"]
    assert {finding.name for finding in findings if not finding.passed} == {"outcome", "tools"}
    assert all(finding.evidence for finding in findings)
    assert "look_up" in findings[2].evidence


@pytest.mark.parametrize("limit", ["length", "loops", "turns", "context"])
def test_what_was_cut_off_has_not_finished(limit):
    """Whatever stands at its end: a reward for finishing, or a vote, would go to who never stops."""
    work = one("looks with a tool that is not there", "cheapest", 3)
    assert rubric.judge((rubric.FINISH,), work)[0].passed
    work.finish = limit
    (finding,) = rubric.judge((rubric.FINISH,), work)
    assert not finding.passed and finding.evidence.startswith("cut off: ")


@pytest.mark.parametrize(
    ("thought", "modulus", "wrong"),
    [
        ("a 12+09=21 b 21*3=63 end", 100, []),
        ("a 88+9=97 b 97*2=94 end", 100, []),
        ("a 88+9=97 b 97*2=94 end", None, ["97*2=94"]),
        ("7+8+1=16 0+0+1=1", None, []),
        ("7*8+3=58", None, ["7*8+3=58"]),
        ("a 05-9=96 end", 100, []),
        ("nothing to see", None, []),
    ],
)
def test_false_sums_are_found_and_true_ones_left_alone(thought, modulus, wrong):
    assert chain.false_sums(thought, modulus) == wrong


def test_false_comparisons_are_found_and_true_ones_left_alone():
    assert shop.false_comparisons('12 below 14 yes 3 "fig"') == []
    assert shop.false_comparisons("12 below 14 no; 3 below 2 no; 9 below 1 yes") == [
        "12 below 14 no",
        "9 below 1 yes",
    ]


def test_the_rubric_sees_slips_that_come_out_right():
    """The outcome cannot: the answer is right. Only the thought shows that it was luck."""
    found = [one("one wrong step, carried on to the end", "cheapest", 5, seed) for seed in range(60)]
    lucky = [conversation for conversation in found if conversation.verdict().passed]
    assert lucky
    assert not any(rubric.passes(RUBRIC)(conversation) for conversation in lucky)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_rubric_accepts_experts(family):
    for level in FAMILIES[family].levels:
        conversation = one("as the expert does it", family, level)
        assert rubric.passes(RUBRIC)(conversation), rubric.judge(RUBRIC, conversation)


# --------------------------------------------------------------------------------------------------- the rates
def test_rates_count_errors_of_both_sides():
    always, never = error_rates("shop", 12, lambda c: True), error_rates("shop", 12, lambda c: False)
    assert false_accepts(always).value == 1 and false_rejects(always).value == 0
    assert false_accepts(never).value == 0 and false_rejects(never).value == 1
    assert false_accepts(always).n >= 12 and false_rejects(always).n >= 12


def test_rates_carry_wilsons_interval_and_repeat_with_the_seed():
    rate = Rate(3, 500)
    assert (
        rate.interval == wilson(3, 500)
        and rate.as_dict()["low"] < rate.value == 0.006 < rate.as_dict()["high"]
    )
    assert error_rates("chain", 30, seed=4) == error_rates("chain", 30, seed=4)


def test_outcome_is_the_worlds_verdict():
    conversation = one("as the expert does it", "buy", 2)
    assert rubric.outcome(conversation) and OUTCOME.look(conversation) == (
        True,
        conversation.verdict().evidence,
    )


def test_verifiers_beside_each_other_err_as_each_does_alone():
    """All judge the same trajectories; none sees what another one left."""
    for world in ("shop", "repair"):
        together = compared(world, 40, VERIFIERS)
        assert together == {name: error_rates(world, 40, accepts) for name, accepts in VERIFIERS.items()}
        assert len({tuple(rates.values()) for rates in together.values()}) > 2
