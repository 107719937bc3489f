"""Learning-rate schedules: their phases, the published one of K2, and that they move the whole optimizer."""

import doctest

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR

from kimi_mini.training.optim import schedule
from kimi_mini.training.optim.muonclip import MuonClip
from kimi_mini.training.optim.schedule import cosine, scale_lr, wsd


def check_phases(wsd):
    curve = [wsd(step, 100, warmup=10, decay_start=60, floor=0.1) for step in range(121)]
    assert curve[0] == pytest.approx(0.1) and curve[4] == pytest.approx(0.5)  # the first update counts
    assert curve[9:61] == [1.0] * 52
    assert curve[80] == pytest.approx(0.55)  # half way down to the floor
    assert curve[99] > 0.1 and curve[100:] == pytest.approx([0.1] * 21)


def test_phases():
    check_phases(wsd)


@pytest.mark.parametrize(
    "mutant",
    [
        lambda step, total, warmup, **rest: wsd(step, total, 0, **rest) * min(1.0, step / warmup),
        lambda step, total, warmup, decay_start, floor: wsd(step, total, warmup, decay_start=decay_start),
        lambda step, total, warmup, decay_start, floor: cosine(step, total, warmup, floor),
        lambda step, total, **rest: wsd(min(step, total - 1), total, **rest),
        lambda step, total, **rest: wsd(step, total, shape="cosine", **rest) ** 2,
    ],
    ids=["first update wasted", "no floor", "no stable phase", "never arrives", "wrong decay"],
)
def test_wrong_schedules_are_caught(mutant):
    with pytest.raises(AssertionError):
        check_phases(mutant)


def test_docstring_shows_k2s_schedule():
    assert doctest.testmod(schedule).failed == 0
    k2 = dict(total=230_968, warmup=500, decay_start=149_012, floor=0.1, shape="cosine")
    tokens_a_step = 16_384 * 4096
    assert k2["decay_start"] * tokens_a_step == pytest.approx(10e12, rel=1e-4)
    assert k2["total"] * tokens_a_step == pytest.approx(15.5e12, rel=1e-4)
    assert 2e-4 * wsd(230_968, **k2) == pytest.approx(2e-5)


def test_cosine_is_torchs():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = CosineAnnealingLR(optimizer, T_max=50, eta_min=0.2)
    for step in range(50):
        assert cosine(step, 50, floor=0.2) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()


def test_decay_as_a_fraction():
    by_fraction = [wsd(step, 200, warmup=5, decay_fraction=0.65) for step in range(201)]
    assert by_fraction == [wsd(step, 200, warmup=5, decay_start=70) for step in range(201)]
    assert wsd(199, 200) == wsd(500, 200) == 1.0  # no decay asked for
    assert wsd(199, 200, decay_fraction=0.0) == wsd(201, 200, decay_fraction=0.0) == 1.0


@settings(max_examples=200, deadline=None)
@given(st.data(), st.integers(1, 300), st.floats(0, 1), st.sampled_from(["linear", "cosine"]))
def test_rises_stays_falls(data, total, floor, shape):
    start = data.draw(st.integers(0, total))
    warmup = data.draw(st.integers(0, start))
    curve = [wsd(s, total, warmup, decay_start=start, floor=floor, shape=shape) for s in range(total + 2)]
    assert all(min(floor, 1 / max(warmup, 1)) - 1e-9 <= f <= 1 for f in curve)
    assert curve[: start + 1] == sorted(curve[: start + 1]) or start == total
    assert curve[start:] == sorted(curve[start:], reverse=True)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(step=-1, total=10), "counts from 0"),
        (dict(step=0, total=10, warmup=11), "in order"),
        (dict(step=0, total=10, warmup=5, decay_start=4), "in order"),
        (dict(step=0, total=10, decay_fraction=1.5), "in order"),
        (dict(step=0, total=10, decay_start=5, decay_fraction=0.5), "not both"),
        (dict(step=0, total=10, decay_start=5, floor=2.0), "floor"),
        (dict(step=0, total=10, shape="triangle"), "triangle"),
    ],
)
def test_bad_schedules_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        wsd(**arguments)


# ---- on an optimizer --------------------------------------------------------------------------------------


def two_halves():
    torch.manual_seed(0)
    matrix, table = nn.Parameter(torch.randn(8, 8)), nn.Parameter(torch.randn(16, 8))
    groups = [dict(params=[matrix], algorithm="muon"), dict(params=[table], algorithm="adamw")]
    matrix.grad, table.grad = torch.randn(8, 8), torch.randn(16, 8)
    return MuonClip(groups, lr=0.02, adamw_lr=3e-3)


def check_both_halves(schedule_step):
    """At factor 0 nothing moves, neither half; at factor .5 each has half of its own base rate."""
    optimizer = two_halves()
    before = [p.detach().clone() for g in optimizer.param_groups for p in g["params"]]
    schedule_step(optimizer, 0.0)
    optimizer.step()
    after = [p.detach() for g in optimizer.param_groups for p in g["params"]]
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))
    schedule_step(optimizer, 0.5)
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.01, 1.5e-3])


def test_schedule_moves_both_halves():
    check_both_halves(scale_lr)


def only_muon(optimizer, factor):
    optimizer.param_groups[0]["lr"] = 0.02 * factor


def one_rate_for_both(optimizer, factor):
    for group in optimizer.param_groups:
        group["lr"] = 0.02 * factor


def compounding(optimizer, factor):
    for group in optimizer.param_groups:
        group["lr"] *= factor


@pytest.mark.parametrize("mutant", [only_muon, one_rate_for_both, compounding])
def test_schedulers_that_miss_a_half_are_caught(mutant):
    with pytest.raises(AssertionError):
        check_both_halves(mutant)


def test_torchs_scheduler_moves_both_halves_too():
    optimizer = two_halves()
    scheduler = LambdaLR(optimizer, lambda step: wsd(step, 10, warmup=2, decay_fraction=0.5))
    for step in range(10):
        factor = wsd(step, 10, warmup=2, decay_fraction=0.5)
        assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.02 * factor, 3e-3 * factor])
        optimizer.step()
        scheduler.step()


def test_base_rates_survive_a_resume():
    optimizer, resumed = two_halves(), two_halves()
    scale_lr(optimizer, 0.1)
    resumed.load_state_dict(optimizer.state_dict())
    scale_lr(resumed, 1.0)
    assert [g["lr"] for g in resumed.param_groups] == pytest.approx([0.02, 3e-3])
