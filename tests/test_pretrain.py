"""The pre-training command: alone, under torchrun, resumed, and with words that it cannot follow."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from kimi_mini import pretrain
from kimi_mini.model import KimiMini
from kimi_mini.tokenizer import Tokenizer

SMALL = ["--tokens", "2048", "--step-tokens", "1024", "--bytes", "1", "--samples", "2", "--device", "cpu",
         "--ns-dtype", "fp32"]  # fmt: skip


def torchrun(root, *words):
    """The command on two processes."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    env = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launcher, "-m", "kimi_mini.pretrain", *map(str, words)], cwd=root, env=env,
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def read(folder):
    return json.loads((folder / "pretrain.json").read_text())


def test_the_command_runs_alone_resumes_and_runs_under_torchrun(root, tmp_path, capsys):
    """Two steps of the nano; two processes see the losses of one."""
    one, two = tmp_path / "one", tmp_path / "two"
    assert pretrain.main([*SMALL, "--folder", str(one)]) == 0
    said = capsys.readouterr().out
    assert "float32, micro-batches: 2,048 tokens; 1 process(es)" in said and "peak memory" in said
    assert said.count("def read(") == 1  # a sample in the middle
    first = read(one)
    said = torchrun(root, *SMALL, "--folder", two)
    assert said.count("peak memory") == 1 and "2 process(es)" in said  # one of them speaks
    np.testing.assert_allclose(read(two)["loss"], first["loss"], atol=1e-5)
    assert read(two)["tokens"] == first["tokens"] == [1024, 1024]
    assert first["validation_loss"] == pytest.approx(read(two)["validation_loss"], abs=1e-3)
    assert first["validation_loss"] < first["validation_before"] - 0.05 and first["peak_bytes"] > 2**26
    assert pretrain.main([*SMALL, "--folder", str(one)]) == 0  # done already: nothing changes
    assert read(one)["loss"] == first["loss"]
    model = KimiMini.from_pretrained(one / "checkpoint")
    assert pretrain.sample(model, Tokenizer.load(), "def ", tokens=5).startswith("def ")
    assert pretrain.main([*SMALL, "--window", "128", "--folder", str(one)]) == 2
    assert "another --folder for another --window" in capsys.readouterr().err


@pytest.mark.parametrize(("words", "hint"), [(["--preset", "huge"], "choose one of"), (["--device", "cuda:9"], "--device cpu")])
def test_words_that_it_cannot_follow_are_one_line(tmp_path, capsys, words, hint):
    assert pretrain.main([*words, "--folder", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and hint in said


def test_every_window_is_read_once_before_any_is_read_twice():
    windows = np.arange(40, dtype=np.uint16).reshape(10, 4)
    data = pretrain.step_data(windows, 5, seed=0)
    seen = torch.cat([batch.ids for step in range(4) for batch in data(step)])[:, 0] // 4
    assert sorted(seen[:10].tolist()) == sorted(seen[10:].tolist()) == list(range(10))
    assert torch.equal(data(1)[0].ids, pretrain.step_data(windows, 5, seed=0)(1)[0].ids)
    assert not torch.equal(data(0)[0].ids, pretrain.step_data(windows, 5, seed=1)(0)[0].ids)
