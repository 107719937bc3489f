"""A model that writes the same again and again is stopped; lists, digits and all that experts write are not."""

import random
from dataclasses import replace

import pytest
import torch
from tiny import tiny_model

from kimi_mini import worlds
from kimi_mini.agent import loop
from kimi_mini.inference import writer
from kimi_mini.inference.writer import PERIOD, SHORTEST, Row, looping
from kimi_mini.text import chat
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training.rl import rounds
from kimi_mini.training.rl.config import RLConfig
from kimi_mini.training.rl.curriculum import Curriculum, Drawn
from kimi_mini.training.rl.partial import Backlog
from kimi_mini.training.rl.rewards import reward
from kimi_mini.worlds.rows import Limits

TIMES = 4
CONFIG = RLConfig(
    tasks=(("buy", 1), ("chain", 1)),
    prompts=2,
    attempts=2,
    limits=Limits(turn_tokens=64, turns=2, context=400),
    loops=TIMES,
)


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.load()


def first(ids, times=TIMES):
    """How many tokens are written when the loop is seen; None if it never is."""
    return next((end for end in range(1, len(ids) + 1) if looping(ids[:end], times)), None)


@pytest.mark.parametrize("period", [1, 2, 5, 8, PERIOD])
def test_a_loop_is_seen_as_soon_as_it_has_gone_round_often_enough(period):
    stretch, before = list(range(100, 100 + period)), [7, 8, 9]
    assert first(before + stretch * 20) == 3 + max(TIMES * period, SHORTEST)
    assert first(before + stretch * (TIMES - 1)) is None
    assert first(before + (stretch * TIMES)[:-1]) is None if TIMES * period >= SHORTEST else True


def test_what_changes_a_little_each_time_is_no_loop():
    counting = [token for number in range(40) for token in (1, 2, 3, 100 + number)]
    digits = [5] * (SHORTEST - 1)
    longer = list(range(200, 200 + PERIOD + 1)) * 8
    assert first(counting) is first(digits) is first(longer) is None


@pytest.mark.parametrize("family", sorted(worlds.FAMILIES))
def test_nothing_that_an_expert_writes_is_a_loop(tokenizer, family):
    """Long lists, numbers, programs: the highest levels of every world, thoughts and all; not even half as often."""
    rng = random.Random(f"loops/{family}")
    for level in (max(worlds.FAMILIES[family].levels), min(worlds.FAMILIES[family].levels)):
        done = loop.play(worlds.generate(rng, family, level), rng)
        done.environment.close()
        ids, mask = chat.encode(tokenizer, done.messages, done.tools)
        turn: list[int] = []
        for token, own in zip(ids, mask):
            turn = [*turn, token] if own else []
            assert not (turn and looping(turn, TIMES // 2)), tokenizer.decode(turn)


def test_a_row_ends_where_it_repeats_if_it_is_told_to():
    def write(loops):
        row = Row([1], 40, frozenset({0}), loops=loops)
        for token in [7, 8, 9, 5, 6] + [3, 4] * 30:
            if row.finish is None:
                row.take(token, -0.1)
        return row

    free, watched = write(0), write(TIMES)
    assert (free.finish, free.written) == ("length", 40)
    assert (watched.finish, watched.written) == ("loops", 5 + SHORTEST)


@pytest.fixture
def stutters(monkeypatch):
    """A model that says one token for ever."""
    said = lambda logits, *_, **__: (torch.full((len(logits),), 5), torch.zeros(len(logits)))
    monkeypatch.setattr(writer, "sample", said)
    return tiny_model()


def test_a_round_cuts_attempts_off_that_repeat_themselves(tokenizer, stutters):
    def sampled(config):
        drawn = Curriculum().draw(config, 0, 0)
        return [
            c for group in rounds.sample_round(stutters, tokenizer, config, drawn, 0, 0)[0] for c in group
        ]

    free, watched = sampled(replace(CONFIG, loops=0)), sampled(CONFIG)
    assert {(c.finish, c.written) for c in free} == {("length", 64)}
    assert {(c.finish, c.written) for c in watched} == {("loops", SHORTEST)}
    assert "again and again" in watched[0].verdict().evidence
    assert reward(watched[0], CONFIG)["total"] == -0.5, "punished like all that is cut off"


def test_a_loop_goes_on_over_a_pause_and_through_a_resume(tokenizer, stutters):
    config = replace(CONFIG, objective="k2.5", segment_tokens=6)
    backlog, drawn = Backlog(), [Drawn("buy", 1, "0/rl/0/0")]
    (group,) = backlog.sample(stutters, tokenizer, config, drawn, (1.0, 0), 0)
    assert {(c.finish, c.written) for c in group.attempts} == {("loops", SHORTEST)}
    backlog.groups = [group]
    again = Backlog.restored(backlog.saved(), tokenizer, config).groups[0]
    assert [c.finish for c in again.attempts] == ["loops"] * 2
    assert [c.ids for c in again.attempts] == [c.ids for c in group.attempts]
