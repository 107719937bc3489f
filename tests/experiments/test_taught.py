"""Teaching: what a teacher shows is right, its sums are true and small, and none of it is held out."""

import random
import re
from collections import Counter
from itertools import groupby, pairwise

import pytest

from kimi_mini import worlds
from kimi_mini.agent import loop
from kimi_mini.agent.conversation import opening
from kimi_mini.agent.policy import Script
from kimi_mini.base.evidence import Log
from kimi_mini.base.files import read_json
from kimi_mini.base.paths import CHECKPOINTS, RESULTS
from kimi_mini.evaluation.benchmarks import BENCHMARKS
from kimi_mini.experiments import harness
from kimi_mini.experiments.evaluation import taught, teachers
from kimi_mini.experiments.evaluation.sheets import SHEETS
from kimi_mini.text import chat
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training import sft
from kimi_mini.worlds.base import is_held_out
from kimi_mini.worlds.registry import FAMILIES, held_out_tasks
from kimi_mini.worlds.rows import LIMITS
from kimi_mini.worlds.telecom.service import STEPS
from kimi_mini.worlds.telecom.world import ASKS


def shown(family, count=40):
    """What the teacher does at tasks of every level in turn."""
    levels = list(FAMILIES[family].levels)
    for seed in range(count):
        played = opening(worlds.generate(random.Random(seed), family, levels[seed % len(levels)]))
        loop.converse(Script(lambda c, seed=seed: teachers.teach(c.task, random.Random(seed))), [played])
        yield played


TAUGHT = [name for arm in taught.ARMS.values() for name in arm.exams]


@pytest.mark.parametrize("family", TAUGHT)
def test_what_is_shown_is_right(family):
    assert all(played.verdict().passed for played in shown(family))


@pytest.mark.parametrize("family", TAUGHT)
def test_what_is_shown_fits_into_the_turns_and_the_context_of_an_exam(family):
    """At every level: an agent cannot repeat what is longer than it may write, and is never seen to have learned it. Of
    four documents the last turn may find too little room, but seldom."""
    tokenizer, crowded = Tokenizer.load(), 0
    for played in shown(family, 90):
        ids, mask = chat.encode(tokenizer, played.messages, played.tools)
        turns = [len(list(run)) for own, run in groupby(mask) if own]
        assert max(turns) <= LIMITS.turn_tokens and len(turns) <= LIMITS.turns
        crowded += len(ids) - turns[-1] + LIMITS.turn_tokens > LIMITS.context
    assert crowded <= (6 if family == "hops" else 0)


@pytest.mark.parametrize(
    ("left", "sign", "right", "text", "value"),
    [
        (67, "-", 38, "=37-8=29", 29),
        (35, "+", 30, "=65", 65),
        (35, "+", 38, "=65+8=73", 73),
        (38, "-", 3, "=35", 35),
        (7, "*", 12, "=84", 84),
        (20, "-", 20, "=00", 0),
        (9, "+", 0, "=09", 9),
    ],
)
def test_sums_go_by_way_of_full_tens(left, sign, right, text, value):
    assert teachers.sums(left, sign, right) == (text, value)


@pytest.mark.parametrize("family", ["define", "solve"])
def test_every_sum_of_a_teacher_is_true(family):
    """Both sides of every sign of equality, once the letters before values are taken out."""
    seen = 0
    for played in shown(family, 120):
        thought = re.sub(r"[a-z] = |[a-z]+ (?=\d)", "", played.messages[-1]["reasoning_content"])
        for sums in re.findall(r"[\d+*/ -]*\d(?:=\d+(?:[-+]\d)?)+", thought):
            sides = [re.sub(r"\b0+(?=\d)", "", side) for side in sums.split("=")]
            sides[0] = re.search(r"\d+ ?[-+*/] ?\d+$", sides[0])[0]
            assert len({eval(side) for side in sides}) == 1, sums  # our own teacher's digits
            seen += 1
    assert seen >= 120


def test_a_letter_is_always_followed_by_its_value_when_it_is_looked_up():
    for played in shown("define"):
        values = played.task.data["values"]
        looked_up = re.findall(r"\b([a-z]) (\d\d)\b", played.messages[-1]["reasoning_content"])
        assert {letter for letter, _ in looked_up} == set(values)
        assert all(values[letter] == int(number) for letter, number in looked_up)


def test_a_list_of_relations_is_numbered_as_asked_and_loses_its_last_one_with_each_document():
    for played in shown("hops"):
        asked = re.findall(r"the (\w+) of", played.messages[1]["content"])
        thoughts = [one["reasoning_content"] for one in played.messages if one["role"] == "assistant"]
        for step, (thought, about) in enumerate(zip(thoughts[::2], played.task.data["chain"])):
            left = asked[: len(asked) - step]
            listed = " ".join(f"{n} {relation}" for n, relation in enumerate(left, 1)) or "end"
            if step:
                assert thought == f"{len(left) + 1} {asked[len(left)]} is {about}, {listed}"
            else:
                assert thought == f"{listed} of {about}"


def pieces_of(family, count=20):
    """Sheets of a family, each as lines of text with what is learned marked by angle brackets."""
    for seed in range(count):
        pieces = SHEETS[family](random.Random(seed))
        assert (
            0.1 < sum(len(text) for text, own in pieces if own) / sum(len(text) for text, _ in pieces) < 0.7
        )
        yield "".join(f"<{text}>" if own else text for text, own in pieces).strip()


def test_sheets_of_definitions_ask_for_values_that_stand_there():
    seen = 0
    for sheet in pieces_of("define"):
        for told, asked in zip(*[iter(sheet.split("\n"))] * 2):
            values = dict(re.findall(r"([a-z]) (\d\d)", told))
            assert len(values) >= 2
            for letter, value in re.findall(r"[-+*] ([a-z])< (\d\d)>", asked):
                assert values[letter] == value
                seen += 1
    assert seen >= 400, "twice as many as letters, in four lists of a sheet"


def test_sheets_of_search_are_questions_with_their_lists_or_documents_with_their_facts():
    kinds = Counter()
    for sheet in pieces_of("hops"):
        lines = [line for line in sheet.split("\n") if line]
        for told, asked in zip(lines[::2], lines[1::2], strict=True):
            kinds["of" if asked.startswith("<") else "is"] += 1
            if asked.startswith("<"):
                relations, name = re.findall(r"the (\w+) of", told), told.rstrip(".?").split(" ")[-1]
                assert asked == f"<{teachers.numbered(relations, name)},>"
            else:
                facts = re.findall(r"\d (\w+) is< (\w+),>", asked)
                subject = told.split(" ")[3]
                assert {f"The {relation} of {subject} is {value}." for relation, value in facts} == set(
                    re.findall(r"The \w+ of \w+ is \w+\.", told)
                )
    assert set(kinds) == {"of", "is"}


def test_sheets_of_telecom_keep_their_policies():
    """Every step but the last is asked for, fails, and is followed by the one behind it; then one amount is judged."""
    begins = {STEPS[step]: words for step, words in (ASKS | {"apn": "Please set the APN to"}).items()}
    for sheet in pieces_of("line"):
        parts = re.split(r"^it works: ", sheet, flags=re.M)[1:]
        assert len(parts) == 4
        for part in parts:
            policy, limit = re.match(r"(.*)\. Refund at most (\d+)\.", part).groups()
            steps = policy.split(", ")
            assert re.findall(r"^ok\n<ok, until it works: (.*)>$", part, re.M) == steps[:1]
            told = re.findall(r"^(Please .*)\n<still broken, (.*)>$", part, re.M)
            assert [thought for _, thought in told] == [f"{one}, {after}" for one, after in pairwise(steps)]
            assert all(words.startswith(begins[step]) for (words, _), step in zip(told, steps))
            [(asked, amount, most, allowed)] = re.findall(
                r"^Please refund (\d+)\.\n<(\d+) at most (\d+) .* (yes|no)>$", part, re.M
            )
            assert (asked, most) == (amount, limit) and (allowed == "yes") == (int(amount) <= int(limit))


@pytest.mark.parametrize(
    ("left", "right", "text"),
    [(62, 69, "6 as 6 2 under 9"), (81, 73, "8 over 7"), (7, 12, "0 under 1"), (44, 44, "4 as 4 4 as 4")],
)
def test_amounts_are_compared_digit_by_digit(left, right, text):
    assert teachers.compared(left, right) == text


def test_the_next_step_of_a_policy_stands_behind_the_last_one():
    """As in the system message, so that it can be read off; and what is done is what the expert does."""
    named = 0
    for played in shown("line"):
        policy = played.messages[0]["content"]
        for message in played.messages:
            found = re.match(r"still broken, (.*?)(?:, look it up)?$", message.get("reasoning_content") or "")
            if found:
                assert ", " in found[1] and (f"{found[1]}," in policy or f"{found[1]}." in policy), found[1]
                named += 1
    assert named >= 20


def test_the_first_step_of_a_policy_stands_behind_the_words_before_it():
    """Without them an agent that had learned all the later steps took any step for the first one."""
    for played in shown("line"):
        thoughts = [one.get("reasoning_content") or "" for one in played.messages]
        [first] = [
            one.removeprefix("ok, ").removesuffix(", look it up") for one in thoughts if one[:4] == "ok, "
        ]
        assert f"{first}, " in played.messages[0]["content"] and first.startswith("until it works: ")


def test_the_apn_is_said_as_the_account_has_it():
    said = [
        one for played in shown("line") for one in played.messages if "set the APN" in (one["content"] or "")
    ]
    assert said
    for message in said:
        [apn] = re.findall(r'APN to ("\w+")', message["content"])
        assert message["reasoning_content"] == f"APN {apn}"


def test_no_lesson_is_held_out_and_every_level_has_some(monkeypatch):
    tokenizer, keys, real = Tokenizer.load(), [], worlds.generate

    def noted(*args, **options):
        keys.append(real(*args, **options))
        return keys[-1]

    monkeypatch.setattr(worlds, "generate", noted)
    for arm in taught.ARMS.values():
        for source in taught.sources(arm):
            made = taught.lessons(tokenizer, source, 3 * len(source.levels), 0)
            assert {level for _, level in made} == set(source.levels)
            assert sft.make_plan(made, 2000, 1000, 0)
    assert not any(is_held_out(task.key) for task in keys)
    exams = {
        task.key for name, (levels, *_) in taught.EXAMS.items() for task in held_out_tasks(name, levels, 8, 0)
    }
    assert not exams & {task.key for task in keys}


def test_a_dialogue_with_several_answers_is_several_examples():
    line = next(
        one for one in taught.sources(taught.ARMS["reader"]) if one.family == "line" and one.mode == "think"
    )
    made = taught.lessons(Tokenizer.load(), line, 6, 0)
    assert sum(map(len, made.values())) > 12


def test_shares_are_whole_and_what_is_examined_is_taught():
    for arm in taught.ARMS.values():
        assert sum(arm.shares.values()) + sum(arm.sheets.values()) + arm.replay == pytest.approx(1)
        assert set(arm.shares) == set(arm.exams) <= set(taught.LENGTHS) and set(arm.sheets) <= set(SHEETS)
    assert set(TAUGHT) == set(taught.EXAMS)


def logged(tmp_path, hops=(0.9, 0.9, 0.1), kept=0.9):
    """The log of three seeds in which all goes well, but for what is given."""
    log = Log("taught", seeds=[0, 1, 2], folder=tmp_path)
    for name, arm in taught.ARMS.items():
        for seed in log.seeds[: arm.most_seeds]:
            known = {family: {"2": 0.9, "3": 0.9} for family in arm.known}
            log.row(arm=name, seed=seed, taught=False, success=known | {f: {"2": 0.0} for f in arm.exams})
            after = {family: {"2": 0.8, "3": 1.0} for family in arm.exams}
            after |= {family: {"2": kept} for family in arm.known}
            log.row(arm=name, seed=seed, taught=True, success=after | {"hops": {"2": hops[seed]}})
    taught.report(log)
    return log


def test_a_seed_below_the_floor_is_not_hidden_by_the_others(tmp_path):
    log = logged(tmp_path)
    verdicts = {claim["name"]: claim["verdict"] for claim in log.claims}
    assert verdicts == {
        "taught/write": "holds",
        "taught/define": "holds",
        "taught/solve": "holds",
        "taught/hops": "open",
        "taught/line": "holds",
        "taught/kept/final": "holds",
        "taught/kept/reader": "holds",
    }
    groups = Counter(name.split("/")[0] for name in log.more["scoreboard"])
    assert groups == {"taught": 6, "kept": 9}
    assert taught.draw({"scoreboard": log.more["scoreboard"]}).axes


def test_what_is_forgotten_is_told(tmp_path):
    log = logged(tmp_path, kept=0.5)
    lost = {claim["name"]: claim for claim in log.claims if "kept" in claim["name"]}
    assert {claim["verdict"] for claim in lost.values()} == {"does not hold"}
    assert lost["taught/kept/final"]["value"] == pytest.approx(-0.4)


def test_what_is_shipped_is_what_the_log_measured():
    """The agents of seed 0, and no part is claimed for a taught agent whose arm had no lessons of it."""
    log = read_json(RESULTS / "taught.json")
    for arm, name in taught.SHIPPED.items():
        row = next(r for r in log["rows"] if (r["arm"], r["seed"], r["taught"]) == (arm, 0, True))
        assert row["weights"] == harness.fingerprint(CHECKPOINTS / name)
    for benchmark in BENCHMARKS.values():
        for part in benchmark.parts:
            by = {
                taught.SHIPPED[arm]
                for arm in taught.SHIPPED
                if set(part.families) <= {*taught.ARMS[arm].exams}
            }
            assert by == ({part.taught} if part.taught else set())
