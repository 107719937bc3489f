"""What is measured of a policy: every number against its definition, and wrong versions that are found out."""

import math
from dataclasses import replace

import pytest
import torch
from tiny import tiny_model

from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training.rl import measures, rounds
from kimi_mini.training.rl.config import RLConfig
from kimi_mini.training.rl.curriculum import Curriculum
from kimi_mini.worlds.rows import Limits

TEMPERATURE = 0.8
CONFIG = RLConfig(
    tasks=(("buy", 1), ("chain", 2)),
    prompts=2,
    attempts=3,
    temperature=(TEMPERATURE, TEMPERATURE),
    limits=Limits(turn_tokens=12, turns=2, context=400),
)


@pytest.fixture(scope="module")
def sampled():
    """A model with a will of its own, another one, and attempts of the first."""
    model, tokenizer = tiny_model(std=0.4), Tokenizer.load()
    drawn = Curriculum().draw(CONFIG, 0, 0)
    groups, _ = rounds.sample_round(model, tokenizer, CONFIG, drawn, 0, 0)
    return model, tiny_model(seed=1, std=0.4), groups


def by_hand(model, start, conversations, own=lambda conversation: conversation.mask):
    """Entropy and KL token by token, one sequence at a time. own: which tokens count."""
    entropies, gaps = [], []
    with torch.no_grad():
        for conversation in conversations:
            ids = torch.tensor([conversation.ids])
            now, then = (m(ids).logits[0].div(TEMPERATURE).log_softmax(-1) for m in (model, start))
            for place, counts in enumerate(own(conversation)):
                if counts:
                    entropies.append(-sum(p * math.log(p) for p in now[place - 1].exp().tolist() if p > 0))
                    token = conversation.ids[place]
                    gaps.append((now[place - 1, token] - then[place - 1, token]).item())
    return {"entropy": sum(entropies) / len(entropies), "kl": sum(gaps) / len(gaps)}


def test_entropy_and_kl_are_those_of_the_written_tokens(sampled):
    model, start, groups = sampled
    conversations = [c for group in groups for c in group]
    found = measures.drift(model.eval(), start.eval(), conversations, TEMPERATURE)
    assert found == pytest.approx(by_hand(model, start, conversations), abs=1e-4)
    assert 0 < found["entropy"] < math.log(1024)
    assert found["kl"] > 0.1, "towards what was sampled: the mean of log pi - log pi_start is a distance"


def test_forced_and_heard_tokens_do_not_count(sampled):
    """A forced </think>, and the prompt, have an entropy, too: it is not the policy's."""
    model, start, groups = sampled
    (conversation,) = groups[0][:1]
    segment = conversation.segments[0]
    forced = replace(segment, own=[False, *segment.own[1:]])
    conversation.segments[0] = forced
    try:
        found = measures.drift(model.eval(), start.eval(), [conversation], TEMPERATURE)
    finally:
        conversation.segments[0] = segment
    place = len(segment.context)
    without = [own and index != place for index, own in enumerate(conversation.mask)]
    want = by_hand(model, start, [conversation], lambda _: without)
    assert found == pytest.approx(want, abs=1e-4)
    assert found != pytest.approx(by_hand(model, start, [conversation]), abs=1e-3), "this one counts it"
    everything = by_hand(model, start, [conversation], lambda c: [index > 0 for index in range(len(c.ids))])
    assert found != pytest.approx(everything, abs=1e-2), "and this one the prompt"


def test_there_is_no_distance_to_oneself_and_a_turned_sign_is_found_out(sampled):
    model, start, groups = sampled
    conversations = [c for group in groups for c in group]
    assert measures.drift(model, model, conversations, TEMPERATURE)["kl"] == pytest.approx(0, abs=1e-5)
    wanted = by_hand(model, start, conversations)["kl"]
    assert measures.drift(model, start, conversations, TEMPERATURE)["kl"] != pytest.approx(-wanted, abs=0.1)


def test_what_is_measured_leaves_no_trace(sampled):
    model, start, groups = sampled
    model.train()
    measures.drift(model, start, groups[0], TEMPERATURE)
    assert model.training and not model.statistics.loads.any()
    assert measures.drift(model, start, [], TEMPERATURE) == {"entropy": 0.0, "kl": 0.0}


# ---- attempts ---------------------------------------------------------------------------------------------


def test_right_answers_that_are_the_same_count_once(sampled, monkeypatch):
    groups = sampled[2]
    group = groups[0]
    monkeypatch.setattr(type(group[0]), "verdict", lambda self: Said(self is not group[2]))
    assert measures.distinct([[group[0], group[0], group[1]]]) == 2
    assert measures.distinct([[group[0], group[2]], [group[2]]]) == 0.5, "wrong ones do not count"


class Said:
    """A verdict."""

    def __init__(self, passed):
        self.passed = passed


# ---- collapse ---------------------------------------------------------------------------------------------

UP = [0.4, 0.45, 0.5, 0.6, 0.7, 0.75, 0.8]
CURVES = {
    "goes up": (UP, None),
    "falls and stays": ([*UP, 0.6, 0.3, 0.1, 0.0, 0.0], 9),  # means .75 .72 .57 .33
    "falls and comes back": ([*UP, 0.1, 0.0, 0.0, 0.5, 0.7, 0.7], None),
    "one bad round": ([*UP, 0.0, 0.8, 0.8], None),
    "below half of its start": ([0.5, 0.5, 0.5, 0.2, 0.1, 0.1, 0.1], 5),
    "was never good": ([0.0] * 8, None),
    "too short to say": ([0.8, 0.0], None),
    "a little lower": ([0.8, 0.8, 0.8, 0.5, 0.5, 0.5], None),
    "falls in its last rounds": ([*UP, 0.0, 0.0, 0.0], 8),  # means .75 .52 .27
}


def check_collapse(rule):
    for name, (curve, when) in CURVES.items():
        assert rule(curve) == when, name


def test_a_collapse_is_dated():
    check_collapse(measures.collapsed)


def means(curve):
    return [sum(curve[i : i + 3]) / 3 for i in range(len(curve) - 2)]


@pytest.mark.parametrize(
    "mutant",
    [
        lambda curve: next((i for i, v in enumerate(curve) if v < max(curve[: i + 1]) / 2), None),
        lambda curve: next(
            (i + 2 for i, v in enumerate(means(curve)) if v < max(means(curve)[: i + 1]) / 2), None
        ),
        lambda curve: next((i + 2 for i, v in enumerate(means(curve)) if v < means(curve)[0] / 2), None),
        lambda curve: None,
    ],
    ids=["single rounds", "may come back", "of the start alone", "never"],
)
def test_other_rules_are_found_out(mutant):
    with pytest.raises(AssertionError):
        check_collapse(mutant)
