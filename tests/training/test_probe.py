"""What a run tries at its start: whether bf16 pays, and which engine it keeps."""

import pytest
import torch

from kimi_mini.base.errors import KimiError
from kimi_mini.model import KimiConfig
from kimi_mini.model.kernels import engine
from kimi_mini.training.machine import probe
from kimi_mini.training.machine.placement import Placement

TINY = KimiConfig.preset("nano", vocab_size=64)


class Steps:
    """A clock on which a step takes as long as its number format is told to; the steps are real."""

    def __init__(self, monkeypatch, fp32, bf16):
        self.now, self.dtypes, run = 0.0, [], Placement.run

        def timed(place, *work):
            self.now += bf16 if place.dtype == torch.bfloat16 else fp32
            self.dtypes.append(place.dtype)
            return run(place, *work)

        monkeypatch.setattr(Placement, "run", timed)
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True, raising=False)


@pytest.mark.parametrize(
    ("bf16", "pays"), [(0.5, True), (0.8, True), (0.9, False), (1.0, False), (3.0, False)]
)
def test_bf16_pays_from_a_gain_of_a_fifth(monkeypatch, bf16, pays):
    steps = Steps(monkeypatch, 1.0, bf16)
    assert probe.bf16_pays(TINY, window=32, clock=lambda: steps.now) is pays
    assert set(steps.dtypes) == {torch.float32, torch.bfloat16} and len(steps.dtypes) <= 6


def test_a_processor_without_bf16_is_not_tried(monkeypatch):
    monkeypatch.setattr(probe, "KimiMini", None)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False, raising=False)
    assert probe.bf16_pays(TINY) is False


def test_the_probe_takes_no_random_number_of_the_run(monkeypatch):
    steps, before = Steps(monkeypatch, 1.0, 1.0), torch.get_rng_state()
    probe.bf16_pays(TINY, window=32, clock=lambda: steps.now)
    assert torch.equal(before, torch.get_rng_state())


def test_a_run_keeps_its_engine(monkeypatch, tmp_path):
    monkeypatch.setattr(engine, "_chosen", None)
    probe.settle_engine(tmp_path, "mkl")
    assert engine.chosen() == "mkl" and (tmp_path / "engine").read_text() == "mkl\n"
    if engine.AVAILABLE:
        engine.choose("onednn")
        probe.settle_engine(tmp_path)
        assert engine.chosen() == "mkl"
    (tmp_path / "engine").write_text("abacus")
    with pytest.raises(KimiError, match="no engine 'abacus'"):
        probe.settle_engine(tmp_path)


@pytest.mark.skipif(not engine.AVAILABLE, reason="this PyTorch brings one engine")
@pytest.mark.parametrize("faster", ["mkl", "onednn"])
def test_a_new_run_takes_the_faster_engine(monkeypatch, tmp_path, faster):
    monkeypatch.setattr(engine, "_chosen", None)
    monkeypatch.setattr(engine, "probe", lambda: faster)
    probe.settle_engine(tmp_path)
    assert engine.chosen() == faster == (tmp_path / "engine").read_text().strip()
