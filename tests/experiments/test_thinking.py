"""Experiments of thinking mode: what they count is what happened, and their figures hide no curve."""

import random

import pytest
from digits import to_five
from tiny import Typist

from kimi_mini import worlds
from kimi_mini.agent import conversation, loop, policy
from kimi_mini.base.evidence import Log
from kimi_mini.base.files import read_json
from kimi_mini.base.paths import RESULTS
from kimi_mini.experiments import harness
from kimi_mini.experiments.thinking import budget, horizon, interventions, long_chains, modes, thought_used
from kimi_mini.experiments.thinking.length import context, copying
from kimi_mini.experiments.thinking.length.calls import how_it_broke, numbers_of, tally
from kimi_mini.inference import writer
from kimi_mini.inference.thinking import Turn
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.worlds import registry
from kimi_mini.worlds.chain.world import false_sums

TOKENIZER = Tokenizer.load()
TASK = worlds.generate(random.Random(0), "follow", 6)
PATH = TASK.data["path"]
CLOSE = TOKENIZER.token_id("</think>")


def test_call_numbers_are_counted_by_call_and_by_dialogue():
    found = tally([[0, 1, 2, 2], [0, 21]])
    assert found == {
        "made": 6,
        "numbered": 4,
        "unique": 5,
        "made_at": [2, 2, 1, 1],
        "numbered_at": [2, 1, 1, 0],
    }
    calls = [{"id": "functions.next:21"}, {"id": "next"}, {"id": ""}]
    assert numbers_of([{"tool_calls": calls}, {"tool_calls": None}]) == [21, -1, -1]


def broken(text: str, finish: str):
    """A dialogue of two right calls and a third turn of this text."""
    (talk,) = loop.run(Typist(TOKENIZER), TOKENIZER, [TASK], conversation.Limits(256, 2, 2048))
    talk.finish = None
    ids = list(TOKENIZER.encode(text))
    loop.take_turn(
        talk, policy.Reply(ids, [0.0] * len(ids), finish), TOKENIZER, conversation.Limits(256, 20, 2048)
    )
    return how_it_broke(talk, TOKENIZER)


OPEN = "<think>on</think><|tool_calls_section_begin|><|tool_call_begin|>functions.next:2<|tool_call_argument_begin|>"
CLOSED = "<|tool_call_end|><|tool_calls_section_end|><|im_end|>"


@pytest.mark.parametrize(
    ("text", "finish", "how"),
    [
        (f'{OPEN}{{"item":"{PATH[2]}" end', "length", "cut off (length) after the right name"),
        (f'{OPEN}{{"item":"{PATH[1]}" end', "length", "cut off (length) after another name"),
        ("<think>on and on", "length", "cut off (length)"),
        (f'{OPEN}{{"item":"{PATH[2]}" end{CLOSED}', "stop", "unreadable after the right name"),
        (f'{OPEN}{{"item":"{PATH[0]}"}}{CLOSED}', "stop", "an earlier item again"),
        ("<think>end</think>done<|im_end|>", "stop", "stopped too early"),
    ],
)
def test_a_break_says_whether_the_right_name_was_written(text, finish, how):
    assert broken(text, finish) == (2, how)


def test_a_gap_keeps_the_words_and_their_distance_and_closing_it_only_the_words():
    task = registry.held_out_tasks("follow", [copying.GAP_AT], 1, 0)[0]
    ids, moments = copying.script(TOKENIZER, task)
    found = copying.contexts(TOKENIZER, ids, moments[-1])
    (whole, _), (gap, stood), (closed, moved) = (found[name] for name in ("whole", "gap", "closed"))
    assert gap == closed == stood and len(gap) < len(whole) == moments[-1].before + 1
    assert moved == list(range(len(gap))) and gap[-1] == moments[-1].before
    text = TOKENIZER.decode([ids[i] for i in gap])
    assert [name in text for name in task.data["path"][1:10]] == [
        True,
        True,
        False,
        False,
        False,
        False,
        True,
        True,
        True,
    ]


def test_a_share_stays_between_none_and_all():
    assert (
        harness.share_across([0.0, 0.1, 0.0])["low"] == 0.0
        and harness.share_across([1.0, 0.9])["high"] == 1.0
    )
    assert harness.share_across([0.5]) == {"value": 0.5, "low": None, "high": None}


def curves(fig):
    """Points of every line with markers, panel by panel."""
    return [[tuple(map(tuple, bars[0].get_xydata())) for bars in ax.containers] for ax in fig.axes]


def test_equal_curves_stand_side_by_side():
    rows = [
        {"family": family, "level": level, "mode": mode, "n": 4, "passed": 4}
        for family in modes.FAMILIES
        for level in (1, 2)
        for mode in ("thinking", "reflex")
    ]
    lengths = [
        {"means": means, "steps": steps, "n": 4, "right": 1}
        for means in long_chains.MEANS
        for steps in (8, 9)
    ]
    for panel in curves(modes.draw({"rows": rows})) + curves(long_chains.draw({"rows": lengths})):
        points = [point for line in panel for point in line]
        assert len(set(points)) == len(points) > 0


def chain(level: int = 4):
    return registry.generate(random.Random(3), "chain", level)


def turn_of(task, thought: str, answer: str):
    """A turn as the model would have written it."""
    ids = [*TOKENIZER.encode(f"<think>{thought}</think>{answer}<|im_end|>")]
    inside = writer.inside_thought(ids, TOKENIZER)
    return Turn([], ids, [True] * len(ids), inside, "stop", [0.0] * len(ids))


def expert_turn(task):
    message = next(worlds.registry.expert(task, random.Random(0)))
    return turn_of(task, message["reasoning_content"], message["content"])


def test_the_same_facts_are_said_in_every_form():
    task = chain()
    turn = expert_turn(task)
    assert interventions.solves(turn, TOKENIZER, task)
    said = set()
    for surface in interventions.SURFACES:
        whole = interventions.paraphrased(turn, TOKENIZER, task, surface)
        text = TOKENIZER.decode(whole.ids)
        assert text.startswith("<think>") and text.endswith(" end</think>") and not any(whole.own)
        for _, value, _, operand, result in interventions.steps_of(task):
            assert f"{value:02d}" in text and f"{operand}" in text and f"{result:02d}" in text
        half = TOKENIZER.decode(interventions.paraphrased(turn, TOKENIZER, task, surface, 2).ids)
        assert text.startswith(half) and "end" not in half and half.count("=") == 2
        said.add(text)
    assert (
        len(said) == len(interventions.SURFACES)
        and TOKENIZER.decode(turn.ids[: turn.ids.index(CLOSE) + 1]) not in said
    )


def test_sums_in_another_order_are_still_true():
    for surface in ("operands turned", "spaces", "no labels"):
        for _ in range(20):
            for step in interventions.steps_of(chain()):
                text = interventions.SURFACES[surface](*step).replace(" ", "")
                left, result = text.lstrip(step[0]).split("=")
                assert not false_sums(f"{left}={result}", 100), text


def test_a_thought_is_cut_behind_the_result_of_a_step_and_knows_what_it_came_to():
    task = chain(5)
    turn = expert_turn(task)
    for steps in range(1, 5):
        tokens, result = interventions.reached(turn, TOKENIZER, task, steps)
        inside = [token for token, thought in zip(turn.ids, turn.thought) if thought][:tokens]
        text = TOKENIZER.decode(inside)
        assert text.count("=") == steps and text.endswith(f"={result:02d}")
        assert result == interventions.result_of(task, steps - 1)
    slipped = turn_of(task, " ".join(f"a 0+0={99 - i}" for i in range(5)) + " end", "07")
    with pytest.raises(ValueError):
        interventions.reached(slipped, TOKENIZER, task, 2)
    rng = random.Random(0)
    while task.data["answer"] not in [step[-1] for step in interventions.steps_of(task)[:-1]]:
        task = registry.generate(rng, "chain", 5)  # a chain that passes through its answer
    kept = {interventions.steps_kept(task, random.Random(seed)) for seed in range(40)}
    assert kept <= {1, 2, 3, 4} and all(
        interventions.result_of(task, n - 1) != task.data["answer"] for n in kept
    )


def test_right_answers_behind_wrong_thoughts_are_told_from_those_behind_right_ones(monkeypatch):
    task = chain(3)
    results, answer = (
        [f"{step[-1]:02d}" for step in interventions.steps_of(task)],
        f"{task.data['answer']:02d}",
    )
    other = f"{(task.data['answer'] + 1) % 100:02d}"

    def thought(numbers):
        return " ".join(f"a 0+0={number}" for number in numbers) + " end"

    turns = [
        turn_of(task, thought(results), answer),
        turn_of(task, thought(results), other),
        turn_of(task, thought(["99", *results[1:]]), answer),  # lucky: wrong on the way, right at the end
        turn_of(task, thought([*results[:-1], other]), other),
        turn_of(task, thought(results[:-1]), answer),  # a step is missing
    ]
    monkeypatch.setattr(interventions, "write_in_batches", lambda *a, **k: turns)
    found = interventions.natural(None, TOKENIZER, [task] * 5, 0)
    assert found == {"n": 5, "thought": 2, "right_behind_right": 1, "right_behind_wrong": 2, "says_last": 2}


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("thinking_budget", budget),
        ("thought_used", thought_used),
        ("modes", modes),
        ("horizon", horizon),
        ("context", context),
    ],
)
def test_a_committed_log_claims_what_its_rows_say(name, module, tmp_path):
    kept = read_json(RESULTS / f"{name}.json")
    log = Log(name, seeds=kept["seeds"], folder=tmp_path)
    log.rows = kept["rows"]
    module.report(log)
    assert to_five(log.claims) == to_five(kept["claims"])


def test_what_one_agent_gains_is_no_surer_than_its_tasks_are_many(tmp_path):
    """Three sets of tasks that agree to the last answer are still 24 tasks."""
    log = Log("modes", seeds=[0, 1, 2], folder=tmp_path)
    for seed in log.seeds:
        for mode, passed in (("thinking", 8), ("reflex", 4)):
            log.row(seed=seed, family="repair", level=2, mode=mode, n=8, passed=passed)
    modes.report(log)
    (gap,) = log.claims
    assert gap["value"] == 0.5 and gap["low"] < 0.3 and gap["high"] > 0.65


def test_numbers_of_calls_are_told_by_dialogues():
    """All seeds at the same share: the dialogues were few, however many calls each of them had."""
    rows = [
        dict(part="calls", context="managed", calls=300, seed=seed, n=4, made=1200, numbered=600)
        for seed in (0, 1, 2)
    ]
    found = horizon.numbers(rows, (0, 1, 2))
    assert found["value"] == 0.5 and found["low"] < 0.3 and found["high"] > 0.7
    rows[0]["numbered"] = 0
    assert horizon.numbers(rows, (0, 1, 2))["low"] == 0.0
