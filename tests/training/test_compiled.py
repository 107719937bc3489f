"""Compiled layers do what uncompiled ones do, and the statistics are written. On a CPU: torch.compile traces the
layers as for a GPU and runs the graphs as they are (backends "eager" and "aot_eager")."""

import flex
import numpy as np
import pytest
import torch
from tiny import tiny_model

from kimi_mini import MuonClip
from kimi_mini.model import kernels
from kimi_mini.model.rope import apply_rope
from kimi_mini.model.statistics import Seen
from kimi_mini.training.batch import Example, collate
from kimi_mini.training.loop import History, evaluate_loss, train_step
from kimi_mini.training.machine import compiled
from kimi_mini.training.machine.placement import Placement


def batch(seed=0, length=128):
    """Two rows, the second padded from the middle on."""
    rng = np.random.default_rng(seed)
    rows = [Example(rng.integers(0, 64, size), rng.random(size) < 0.6) for size in (length, length // 2)]
    return collate(rows)


def three_steps(place, length=128, **changes):
    model = tiny_model(vocab_size=64, **changes).train()
    optimizer, history = MuonClip(model, lr=0.02, tau=3.0), History()
    loads = []
    for step in range(3):
        train_step(model, optimizer, [batch(step, length), batch(9, length)], 0.05, history, place=place)
        loads.append(model.statistics.last_loads.tolist())
    history.loss.append(evaluate_loss(model, [batch(5, length)], place))
    return history, loads, torch.cat([value.flatten() for value in model.state_dict().values()])


def check(backend, dtype=torch.bfloat16, length=128, **changes):
    """Losses, largest logits, loads, clips and weights of three steps, compiled and not."""
    with kernels.using("cuda"):
        want, want_loads, want_weights = three_steps(Placement(dtype=dtype), length, **changes)
        place = Placement(dtype=dtype, compiled=True, backend=backend)
        found, loads, weights = three_steps(place, length, **changes)
    assert sum(want.clipped_heads) > 0 and all(sum(load[0]) == 2 * 2 * 3 * length // 2 for load in want_loads)
    for name in ("loss", "max_logit", "gradient_norm"):
        np.testing.assert_allclose(getattr(found, name), getattr(want, name), rtol=0.02)
    assert (
        found.clipped_heads[0] == want.clipped_heads[0] > 0
    )  # later steps differ where bf16 rounds otherwise
    np.testing.assert_allclose(loads, want_loads, atol=8)  # a token between two experts
    torch.testing.assert_close(weights, want_weights, atol=0.08, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_layers_give_the_same_steps(monkeypatch, backend):
    flex.lift(monkeypatch, backend)
    check(backend)


def test_lengths_that_cannot_be_compiled_run_as_they_are(monkeypatch):
    monkeypatch.setattr(compiled, "compiled", None)  # it would be called
    check("eager", length=60)


@pytest.mark.slow
@pytest.mark.parametrize("mutant", ["no maxima", "no loads", "padding is counted"])
def test_a_compiled_layer_that_forgets_the_statistics_is_found_out(monkeypatch, mutant):
    flex.lift(monkeypatch)
    torch._dynamo.reset()
    if mutant == "no maxima":
        monkeypatch.setattr(Seen, "see", lambda self, max_logits: None)
    elif mutant == "no loads":
        monkeypatch.setattr(Seen, "count", lambda self, indices, valid=None: None)
    else:
        monkeypatch.setattr(Seen, "count", lambda self, indices, valid=None, f=Seen.count: f(self, indices))
    with pytest.raises(AssertionError):
        check("eager")
    torch._dynamo.reset()


def test_layers_of_a_kind_share_one_graph(monkeypatch):
    """Eight layers are two kinds: a compiler that took each for new would need minutes."""
    flex.lift(monkeypatch)
    graphs = []

    def counting(graph, inputs):
        graphs.append(graph)
        return graph.forward

    function = torch.compile(compiled.one_layer, backend=counting, dynamic=False)
    monkeypatch.setattr(compiled, "compiled", lambda backend: function)
    with kernels.using("cuda"):
        three_steps(Placement(dtype=torch.bfloat16, compiled=True), num_hidden_layers=5)
    assert len(graphs) == 4  # dense and routed, training and evaluation


def test_the_model_is_as_before_afterwards():
    model = tiny_model()
    with compiled.compiled_layers(model, "eager"):
        assert "forward" in vars(model.model.layers[0])
    assert all("forward" not in vars(layer) for layer in model.model.layers)


def test_rotations_in_real_numbers_are_those_in_complex_ones():
    x = torch.randn(2, 5, 3, 8)
    rotation = torch.polar(torch.ones(1, 5, 4), torch.randn(1, 5, 4))
    real = apply_rope(x, torch.view_as_real(rotation)[:, :, None])
    torch.testing.assert_close(real, apply_rope(x, rotation[:, :, None]), atol=1e-6, rtol=1e-6)
    turned_back = apply_rope(x, torch.view_as_real(rotation.conj().resolve_conj())[:, :, None])
    assert (turned_back - real).abs().max() > 0.1
