"""Two processes take the step of one: really launched, over gloo; and every way of joining them wrongly shows."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
import two_ranks

from kimi_mini.base import ranks
from kimi_mini.training import loop
from kimi_mini.training.machine import distributed
from kimi_mini.training.optim.muonclip import MuonClip

pytestmark = pytest.mark.slow

MEASURED = ("loss", "gradient_norm", "max_logit", "max_violation", "tokens", "clipped_heads")


def environment(root, **more):
    return {**os.environ, "PYTHONPATH": f"{root}:{root / 'tests'}", "OMP_NUM_THREADS": "1", **more}


def two_processes(root, *words):
    """A command on two processes. torchrun tells its children no more than this, and takes seconds of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    told = [
        dict(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
        for rank in range(2)
    ]
    started = [
        subprocess.Popen(
            [sys.executable, *map(str, words)],
            cwd=root,
            env=environment(root, **one),
            stderr=subprocess.PIPE,
            text=True,
        )
        for one in told
    ]
    for process in started:
        errors = process.communicate(timeout=120)[1]
        assert process.returncode == 0, errors[-2000:]


@pytest.fixture(scope="module")
def alone():
    """What one process measures."""
    history, weights = two_ranks.run()
    return {**vars(history), "weights": weights.tolist()}


@pytest.fixture(scope="module")
def together(root, tmp_path_factory):
    """What two processes measure: the right way and each mistake."""
    out = tmp_path_factory.mktemp("ranks") / "found.json"
    two_processes(root, "tests/helpers/two_ranks.py", out)
    return json.loads(out.read_text()) | {"state": out.with_name("found.json.pt")}


def same(found, alone):
    """Losses and all else to 1e-5, weights too, and the ranks have not drifted apart."""
    close = [np.allclose(found[name], alone[name], atol=1e-5, rtol=1e-5) for name in (*MEASURED, "weights")]
    return all(close) and found["drift"] == 0


def test_two_processes_measure_what_one_does(alone, together):
    found = together["right"]
    np.testing.assert_allclose(found["loss"], alone["loss"], atol=1e-5)
    np.testing.assert_allclose(found["weights"], alone["weights"], atol=1e-5)
    assert same(found, alone)
    assert sum(alone["clipped_heads"]) > 0  # QK-Clip had something to do
    assert max(alone["gradient_norm"]) > 1  # and so had the clipping of gradients


@pytest.mark.parametrize("mistake", [name for name in two_ranks.VARIANTS if name != "right"])
def test_ranks_joined_wrongly_are_found_out(alone, together, mistake):
    assert not same(together[mistake], alone)


@pytest.mark.parametrize("mistake", ["maxima summed", "maxima of each rank"])
def test_wrong_maxima_show_in_the_losses_themselves(alone, together, mistake):
    assert not np.allclose(together[mistake]["loss"], alone["loss"], atol=1e-5)


def test_nothing_keeps_the_group_after_the_ranks_have_parted(together):
    """Its threads live as long as it does; alive at the interpreter's end, they kill their rank now and then."""
    assert together["group_left"] is False


def test_the_first_rank_saves_a_state_that_a_single_process_goes_on_from(alone, together):
    model = two_ranks.tiny_model(vocab_size=64)
    history = loop.load_state(together["state"], model, MuonClip(model))
    np.testing.assert_allclose(history.loss, alone["loss"], atol=1e-5)


@pytest.mark.parametrize(
    ("device", "gpus", "engine"), [("cpu", True, "gloo"), ("auto", False, "gloo"), ("auto", True, "nccl")]
)
def test_ranks_on_processors_leave_the_gpus_alone(monkeypatch, device, gpus, engine):
    """Two ranks on one GPU's machine, told --device cpu: neither may ask for a second GPU."""
    chosen, joined_by = [], []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(distributed.dist, "init_process_group", joined_by.append)
    monkeypatch.setattr(distributed.dist, "destroy_process_group", lambda: None)
    with distributed.joined(device):
        assert joined_by == [engine] and chosen == ([1] if engine == "nccl" else [])


def test_alone_nothing_is_joined():
    assert not ranks.is_on() and ranks.rank() == 0 and ranks.world_size() == 1
    assert ranks.total(3, 0.1) == [3, 0.1]
    assert ranks.share([1, 2, 3]) == [1, 2, 3]
    assert ranks.in_order([1, 2, 3], lambda own: [2 * item for item in own]) == [2, 4, 6]
    assert ranks.first_rank(lambda: "done") == "done"
    maxima = torch.tensor([1.0, 2.0])
    assert torch.equal(distributed.largest(maxima), maxima) and distributed.largest(maxima) is not maxima


ENGINES = """
import os, sys
from kimi_mini.base import ranks
from kimi_mini.model.kernels import engine
from kimi_mini.training.machine.distributed import joined
os.environ[engine.VARIABLE] = "probe"
engine.probe = lambda: "mkl" if os.environ["RANK"] == "0" else "onednn"
with joined("cpu"):
    open(os.path.join(sys.argv[1], str(ranks.rank())), "w").write(engine.chosen())
"""


def test_all_ranks_multiply_by_the_first_ones_engine(root, tmp_path):
    two_processes(root, "-c", ENGINES, tmp_path)
    assert [(tmp_path / str(rank)).read_text() for rank in range(2)] == ["mkl", "mkl"]
