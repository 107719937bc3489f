"""Experiments of thinking mode: what they count is what happened, and their figures hide no curve."""

import random

import pytest
from tiny import Typist

from kimi_mini import worlds
from kimi_mini.agent import conversation, loop, policy
from kimi_mini.experiments import harness
from kimi_mini.experiments.thinking import long_chains, modes
from kimi_mini.experiments.thinking.length import copying
from kimi_mini.experiments.thinking.length.calls import how_it_broke, numbers_of, tally
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.worlds import registry

TOKENIZER = Tokenizer.load()
TASK = worlds.generate(random.Random(0), "follow", 6)
PATH = TASK.data["path"]


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
