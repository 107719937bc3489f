"""The benchmark runs every row, times what it says, and leaves the process as it was."""

import json
from types import SimpleNamespace

import pytest
import torch

from kimi_mini import KimiMini
from kimi_mini.base.evidence import Log
from kimi_mini.experiments.deployment import compared, speed
from kimi_mini.model import kernels
from kimi_mini.model.kernels import engine


def test_every_row_runs_at_a_fraction_of_its_size(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(speed, "MID", compared.NANO.replace(num_hidden_layers=2))
    threads = torch.get_num_threads()
    kernel = kernels._version("attention", torch.zeros(1))
    rows = speed.run(threads=(1,), rounds=1, scale=0.01)
    saved = json.loads(speed.log_of(rows, Log("bench", folder=tmp_path)).save().read_text())
    assert torch.get_num_threads() == threads and kernels._version("attention", torch.zeros(1)) is kernel
    assert len(rows) == 28 and len({row["name"] for row in rows}) == 28
    assert all(row["ratio"] > 0 and row["threads"] == 1 for row in rows)
    assert saved["rows"] == json.loads(json.dumps(rows))
    assert [claim["verdict"] for claim in saved["claims"]] == [row["verdict"] for row in rows if row["floor"]]
    assert len(capsys.readouterr().out.splitlines()) == 29


@pytest.mark.parametrize("named", [None, "mkl"])
def test_the_engine_is_probed_unless_it_is_named(tmp_path, capsys, monkeypatch, named):
    monkeypatch.setattr(engine, "_chosen", None)
    monkeypatch.setenv(engine.VARIABLE, named or "")
    if not named:
        monkeypatch.delenv(engine.VARIABLE)
    monkeypatch.setattr(engine, "probe", lambda: "onednn")
    monkeypatch.setattr(speed, "run", lambda threads: [])
    monkeypatch.setattr(speed, "bf16_pays", lambda config: True)
    monkeypatch.setattr(speed, "Log", lambda name: Log(name, folder=tmp_path))
    monkeypatch.setattr(speed.rollouts, "record", lambda log: log)
    assert speed.main(SimpleNamespace(threads=None)) == 0
    saved = json.loads((tmp_path / "bench.json").read_text())
    assert saved["engine"] == (named or ("onednn" if engine.AVAILABLE else "mkl")) and saved["bf16_pays"]
    assert "bf16 would pay" in capsys.readouterr().out


def test_ratio_says_how_many_times_faster_ours_is():
    clock = iter(range(10_000))
    timer = speed.Bench(1, rounds=3)
    timer.clock = lambda: next(clock)

    def slow():
        next(clock), next(clock)  # three ticks in place of one

    row = timer.compare("a / b", ours=lambda: None, reference=slow, floor=2.0)
    assert row["ratio"] == 3.0 and row["verdict"] == "holds"
    assert timer.compare("b / a", ours=slow, reference=lambda: None, floor=2.0)["verdict"] == "does not hold"


@pytest.mark.parametrize("config", [compared.NANO, compared.MID])
def test_the_dense_twin_has_the_activated_parameters(config):
    ours, twin = config.count_parameters(), compared.dense_twin(config).count_parameters()
    moe_layers = config.num_hidden_layers - config.first_k_dense_replace
    assert config.intermediate_size == compared.dense_twin(config).intermediate_size
    router = config.n_routed_experts * config.hidden_size
    assert ours.activated - twin.activated == moe_layers * router


@pytest.mark.parametrize("kernel", [compared.sdpa, compared.untracked])
def test_other_attention_computes_the_same_without_maxima(kernel):
    torch.manual_seed(0)
    model = KimiMini(compared.NANO.replace(v_head_dim=24, initializer_range=0.1))
    ids = compared.batch(compared.NANO, 60, 30)
    expected = model(ids).logits
    model.statistics.forget()
    with kernels.using(attention=kernel):
        torch.testing.assert_close(model(ids).logits, expected, atol=1e-5, rtol=1e-4)
    assert model.statistics.max_logits.isneginf().all()


@pytest.mark.slow
def test_each_side_of_a_row_runs_on_its_own_kernels(monkeypatch):
    """Attention: ours tracks maxima, the others are what they are called. Products: both sides with oneDNN, or neither."""
    ran, found = set(), []

    def noting(name, kernel):
        def noted(*arguments, **options):
            ran.add(name)
            return kernel(*arguments, **options)

        return noted

    def compare(self, name, *sides):
        for side in sides[:2]:
            ran.clear(), side()
            found.append((name, set(ran)))

    monkeypatch.setattr(speed.Bench, "compare", compare)
    for name in ("attention", "linear"):
        _, ours, _ = versions = kernels.TABLE[name]
        plain = noting(f"plain {name}", versions.reference)
        monkeypatch.setitem(
            kernels.TABLE, name, versions._replace(reference=plain, cpu=noting(f"our {name}", ours))
        )
    monkeypatch.setattr(speed, "sdpa", noting("sdpa", compared.sdpa))
    monkeypatch.setattr(speed, "untracked", noting("untracked", compared.untracked))
    for rows in (speed.attention_rows, speed.moe_layers):
        rows(speed.Bench(1, scale=0.01))
    for index, (name, kinds) in enumerate(found):
        if "MoE" in name:
            assert kinds == ({"plain linear"} if "no oneDNN" in name else {"our linear"}), name
        else:
            other = "sdpa" if "SDPA" in name else "untracked"
            assert kinds == {"our linear", other if index % 2 else "our attention"}, name


def test_the_transformers_reference_computes_the_same():
    model = compared.build(compared.NANO).eval()
    ids = compared.batch(compared.NANO, 60, 30)
    for options in ({}, {"experts_implementation": "eager"}):
        theirs = compared.same_in_transformers(model, **options).eval()
        torch.testing.assert_close(theirs(ids).logits, model(ids).logits, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_kept_keys_and_values_give_what_absorbed_latents_give():
    """The two rows compare the same work."""
    config, layer = compared.NANO, compared.build(compared.NANO).model.layers[0].self_attn
    q = torch.randn(2, config.num_attention_heads, 1, config.qk_head_dim)
    latents = torch.randn(2, 9, config.latent_dim)
    keys, values = layer.expand(*latents.split([config.kv_lora_rank, config.qk_rope_head_dim], -1))
    expected = layer.attend_absorbed(q, latents, None)
    torch.testing.assert_close(compared.attend_kept(q, keys, values), expected, atol=1e-5, rtol=1e-4)
