"""The probe that chooses between MKL and oneDNN: fake clocks, and who decides instead of it."""

import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from kimi_mini.base.errors import KimiError
from kimi_mini.model import kernels
from kimi_mini.model.kernels import engine

products = sys.modules["kimi_mini.model.kernels.linear"]  # the room's `linear` is the function


class Machine:
    """A clock that only actions move; in the calls of `slow`, counted from the warm-up's, it moves 50 times as far."""

    def __init__(self, slow=()):
        self.now, self.calls, self.slow = 0.0, 0, slow

    def action(self, seconds):
        def run():
            self.now += seconds * (50 if self.calls in self.slow else 1)
            self.calls += 1

        return run

    def fastest(self, first, second, **options):
        actions = {"first": self.action(first), "second": self.action(second)}
        return engine.fastest(actions, clock=lambda: self.now, **options)


@pytest.mark.parametrize(
    ("first", "second", "winner"),
    [
        (1.0, 2.0, "first"),
        (2.0, 1.0, "second"),
        (1.0, 1.0, "first"),
        (1.0, 0.99, "first"),
        (1.0, 0.9, "second"),
    ],
)
def test_the_faster_one_by_a_margin_and_the_default_when_they_are_equal(first, second, winner):
    assert Machine().fastest(first * 1e-3, second * 1e-3) == winner


def test_a_slow_spell_of_the_machine_does_not_decide():
    """Sums and means would take what the spell has spared."""
    assert Machine(slow=(2, 4, 5)).fastest(1e-3, 1.2e-3) == "first"
    assert Machine(slow=(3, 5, 8, 9)).fastest(1e-3, 0.8e-3) == "second"
    assert Machine(slow=(0, 1)).fastest(1e-3, 0.8e-3) == "second"


@pytest.mark.parametrize(("seconds", "calls"), [(1e-3, 2 * 8), (0.3, 2 * 3), (5.0, 2 * 2)])
def test_it_takes_a_second_at_most(seconds, calls):
    """Seven rounds after the warm-up, or until the second is over; one round at least."""
    machine = Machine()
    machine.fastest(seconds, seconds)
    assert machine.calls == calls


@pytest.fixture
def undecided(monkeypatch):
    """A process that has not chosen yet, and is to try."""
    monkeypatch.setattr(engine, "_chosen", None)
    monkeypatch.setenv(engine.VARIABLE, "probe")


def test_one_probe_a_process(undecided, monkeypatch):
    probes = []
    monkeypatch.setattr(engine, "probe", lambda: probes.append(1) or "onednn")
    layer_input, weight = torch.ones(100, 16), torch.ones(8, 16)
    assert not probes
    kernels.linear(layer_input[:5], weight), kernels.linear(layer_input.double(), weight.double())
    assert not probes  # none of these is oneDNN's
    for _ in range(3):
        kernels.linear(layer_input, weight)
    assert len(probes) == 1 and engine.chosen() == "onednn"


def test_the_choice_is_handed_down(undecided, monkeypatch):
    monkeypatch.setattr(engine, "probe", lambda: "mkl")
    assert engine.chosen() == "mkl"
    command = "from kimi_mini.model.kernels import engine; engine.probe = None; print(engine.chosen())"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, env=os.environ)
    assert done.stdout.strip() == "mkl", done.stderr


def test_unless_it_is_asked_for_nothing_is_tried(undecided, monkeypatch):
    """Sums of the shipped weights stay what they were, to the last bit."""
    monkeypatch.setattr(engine, "probe", None)
    monkeypatch.delenv(engine.VARIABLE)
    assert engine.chosen() == engine.USUAL


def test_what_is_said_goes_before_the_probe(undecided, monkeypatch):
    monkeypatch.setattr(engine, "probe", None)
    monkeypatch.setenv(engine.VARIABLE, "mkl")
    assert engine.chosen() == "mkl"
    engine.choose("onednn")
    assert engine.chosen() == ("onednn" if engine.AVAILABLE else "mkl")
    with pytest.raises(KimiError, match="no engine 'blis' .* mkl, onednn"):
        engine.choose("blis")


@pytest.mark.skipif(not engine.AVAILABLE, reason="this build of PyTorch has no oneDNN")
def test_each_engine_is_the_one_that_runs(undecided, monkeypatch):
    ran = []
    real = engine.onednn
    monkeypatch.setattr(products, "onednn", lambda *a: ran.append(1) or real(*a))
    x, weight = torch.randn(200, 16), torch.randn(8, 16)
    for name, expected in (("mkl", False), ("onednn", True)):
        engine.choose(name)
        ran.clear()
        torch.testing.assert_close(kernels.linear(x, weight), F.linear(x, weight))
        assert bool(ran) is expected
    with kernels.using(linear="reference"):  # forced, whatever is chosen
        ran.clear()
        kernels.linear(x, weight)
    assert not ran
    engine.choose("mkl")
    with kernels.using(linear=products.through_onednn):
        kernels.linear(x, weight)
    assert ran


def test_the_probe_draws_nothing_and_needs_no_gradient(undecided):
    before = torch.get_rng_state()
    assert engine.probe() in engine.ENGINES
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("known", engine.ENGINES)
def test_a_saved_state_names_the_engine_for_whoever_goes_on(undecided, monkeypatch, tmp_path, known):
    from kimi_mini import KimiConfig, KimiMini, MuonClip
    from kimi_mini.training.loop import History, load_state, save_state

    model = KimiMini(KimiConfig.preset("nano", vocab_size=64))
    optimizer = MuonClip(model)
    engine.choose(known)
    used = engine.chosen()
    save_state(tmp_path / "state.pt", model, optimizer, History())
    monkeypatch.setattr(engine, "_chosen", None)
    monkeypatch.setenv(engine.VARIABLE, next(name for name in engine.ENGINES if name != known))
    load_state(tmp_path / "state.pt", model, optimizer)
    assert engine.chosen() == used
