"""bf16 against fp32 on a CPU: both formats do the same work, and nothing is claimed of a processor that is not there."""

import json
import sys

import pytest
import torch

from kimi_mini.base.evidence import Log
from kimi_mini.experiments.deployment import compared
from kimi_mini.experiments.pretraining import formats
from kimi_mini.training.machine.placement import Placement

SMALL = compared.NANO.replace(num_hidden_layers=2)
ROWS = (
    {"what": "step", "size": "nano", "micro": 2048, "ratio": 1.3, "low": 1.2, "high": 1.4},
    {"what": "step", "size": "nano", "micro": 4096, "ratio": 9.0, "low": 9.0, "high": 9.0},
    {"what": "step", "size": "mid", "micro": 2048, "ratio": 2.5, "low": 2.4, "high": 2.6},
    *(
        {"what": "text", "seed": seed, "dtype": dtype, "validation_loss": loss + seed}
        for seed in range(3)
        for dtype, loss in (("fp32", 3.0), ("bf16", 3.01 + seed / 1000))
    ),
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_step_reads_every_token_and_moves_the_weights(monkeypatch, dtype):
    built = []
    monkeypatch.setattr(formats, "build", lambda config: built.append(compared.build(config)) or built[-1])
    step = formats.whole_step(SMALL, 16, 64, Placement(dtype=dtype, micro_tokens=32))
    before = {name: param.clone() for name, param in built[0].named_parameters()}
    step()
    moved = [name for name, param in built[0].named_parameters() if not torch.equal(param, before[name])]
    assert len(moved) > 0.9 * len(before) and all(
        param.dtype == torch.float32 for param in built[0].parameters()
    )


def test_the_parts_of_a_step_add_up_to_the_whole(monkeypatch):
    grads = []
    for micro in (16, 64):
        built = []
        monkeypatch.setattr(
            formats, "build", lambda config, built=built: built.append(compared.build(config)) or built[-1]
        )
        monkeypatch.setattr(formats.MuonClip, "step", lambda self: None)
        formats.whole_step(SMALL, 16, 64, Placement(micro_tokens=micro))()
        grads.append(built[0].lm_head.weight.grad)
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("amx", [True, False])
@pytest.mark.parametrize("minutes", [None, 15.0])
def test_what_is_claimed_is_of_a_processor_with_amx(tmp_path, monkeypatch, amx, minutes):
    monkeypatch.setattr(formats, "has_amx", lambda: amx)
    log = Log("formats", folder=tmp_path)
    for row in ROWS:
        log.row(**row)
    formats.claims(log, minutes)
    said = {claim["name"]: claim for claim in json.loads(log.save().read_text())["claims"]}
    assert set(said) == {"amx/step/nano", "amx/step/mid", "amx/loss", "amx/run"}
    waits = {name for name, claim in said.items() if claim.get("waits")}
    assert waits == (set(said) if not amx else set() if minutes else {"amx/run"})
    if amx:
        assert said["amx/step/nano"]["value"] == 1.3 and said["amx/step/nano"]["verdict"] == "does not hold"
        assert said["amx/step/mid"]["verdict"] == "holds"
        assert said["amx/loss"]["value"] == pytest.approx(0.011) and said["amx/loss"]["verdict"] == "holds"
    if amx and minutes:
        assert said["amx/run"]["value"] == 15.0 and said["amx/run"]["verdict"] == "does not hold"


@pytest.mark.slow
def test_the_whole_experiment_in_small(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "SIZES", {"nano": (SMALL, 256, 1.6), "mid": (SMALL, 512, 2.0)})
    monkeypatch.setattr(formats, "RUNS", tmp_path)
    argv = ["formats", "--scale", "0.01", "--seeds", "0", "1", "--processes", "1", "--folder", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", argv)
    formats.main()
    log = json.loads((tmp_path / "formats.json").read_text())
    assert [row["what"] for row in log["rows"]] == ["step"] * 4 + ["text"] * 4
    assert (tmp_path / "formats.png").is_file()
    for seed in (0, 1):
        first, second = (row for row in log["rows"] if row.get("seed") == seed)
        assert first["validation_before"] == pytest.approx(second["validation_before"], abs=0.05)
        assert first["validation_loss"] < first["validation_before"]
