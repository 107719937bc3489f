"""The benchmark runs every row, times what it says, and leaves the process as it was."""

import json

import pytest
import torch

from kimi_mini import KimiMini
from kimi_mini.base.evidence import Log
from kimi_mini.experiments.deployment import speed
from kimi_mini.model.kernels import attention


def test_every_row_runs_at_a_fraction_of_its_size(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(speed, "MID", speed.NANO.replace(num_hidden_layers=2))
    threads = torch.get_num_threads()
    kernel = attention.causal_attention
    rows = speed.run(threads=(1,), rounds=1, scale=0.01)
    saved = json.loads(speed.log_of(rows, Log("bench", folder=tmp_path)).save().read_text())
    assert torch.get_num_threads() == threads and attention.causal_attention is kernel
    assert len(rows) == 27 and len({row["name"] for row in rows}) == 27
    assert all(row["ratio"] > 0 and row["threads"] == 1 for row in rows)
    assert saved["rows"] == json.loads(json.dumps(rows))
    assert [claim["verdict"] for claim in saved["claims"]] == [row["verdict"] for row in rows if row["floor"]]
    assert len(capsys.readouterr().out.splitlines()) == 28


def test_ratio_says_how_many_times_faster_ours_is():
    clock = iter(range(10_000))
    timer = speed.Bench(1, rounds=3)
    timer.clock = lambda: next(clock)

    def slow():
        next(clock), next(clock)  # three ticks in place of one

    row = timer.compare("a / b", ours=lambda: None, reference=slow, floor=2.0)
    assert row["ratio"] == 3.0 and row["verdict"] == "holds"
    assert timer.compare("b / a", ours=slow, reference=lambda: None, floor=2.0)["verdict"] == "does not hold"


@pytest.mark.parametrize("config", [speed.NANO, speed.MID])
def test_the_dense_twin_has_the_activated_parameters(config):
    ours, twin = config.count_parameters(), speed.dense_twin(config).count_parameters()
    moe_layers = config.num_hidden_layers - config.first_k_dense_replace
    assert config.intermediate_size == speed.dense_twin(config).intermediate_size
    router = config.n_routed_experts * config.hidden_size
    assert ours.activated - twin.activated == moe_layers * router


def test_the_fused_reference_computes_the_same():
    torch.manual_seed(0)
    model = KimiMini(speed.NANO.replace(v_head_dim=24, initializer_range=0.1)).eval()
    ids = speed.batch(speed.NANO, 60, 30)
    expected = model(ids).logits
    with speed.attending(speed.sdpa):
        torch.testing.assert_close(model(ids).logits, expected, atol=1e-5, rtol=1e-4)


def test_the_transformers_reference_computes_the_same():
    model = speed.build(speed.NANO).eval()
    ids = speed.batch(speed.NANO, 60, 30)
    for options in ({}, {"experts_implementation": "eager"}):
        theirs = speed.same_in_transformers(model, **options).eval()
        torch.testing.assert_close(theirs(ids).logits, model(ids).logits, atol=1e-5, rtol=1e-4)
