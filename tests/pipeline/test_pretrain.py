"""The pre-training command: alone, under torchrun, resumed, and with words that it cannot follow."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from kimi_mini import __main__ as command_line
from kimi_mini.base.command import read_options
from kimi_mini.base.files import locked
from kimi_mini.model.kimi import KimiMini
from kimi_mini.pipeline import Plan, pretrain, shared
from kimi_mini.pipeline.options import Options
from kimi_mini.text.tokenizer import Tokenizer

SMALL = [
    "--tokens",
    "2048",
    "--step-tokens",
    "1024",
    "--bytes",
    "1",
    "--samples",
    "2",
    "--device",
    "cpu",
    "--ns-dtype",
    "fp32",
]

pytestmark = pytest.mark.slow


def torchrun(root, *words):
    """The command on two processes: exit status and what it said."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    env = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launcher, "-m", "kimi_mini", "pretrain", *map(str, words)],
        cwd=root,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def run(*words):
    """The command in this process: its exit status."""
    return command_line.main(["pretrain", "--processes", "1", *words])


def options(*words):
    args = command_line.build_parser().parse_args(["pretrain", *words])
    return read_options(args, Options)


def read(folder):
    return json.loads((folder / "pretrain.json").read_text())


def test_the_command_runs_alone_resumes_and_runs_under_torchrun(root, tmp_path, capsys):
    """Two steps of the nano; two processes see the losses of one."""
    one, two = tmp_path / "one", tmp_path / "two"
    assert run(*SMALL, "--folder", str(one)) == 0
    said = capsys.readouterr().out
    assert "float32, micro-batches: 2,048 tokens; 1 process(es)" in said and "peak memory" in said
    assert said.count("def read(") == 1  # a sample in the middle
    first = read(one)
    status, said, error = torchrun(root, *SMALL, "--folder", two)
    assert status == 0, error[-2000:]
    assert said.count("peak memory") == 1 and "2 process(es)" in said  # one of them speaks
    np.testing.assert_allclose(read(two)["loss"], first["loss"], atol=1e-5)
    assert read(two)["tokens"] == first["tokens"] == [1024, 1024]
    assert first["validation_loss"] == pytest.approx(read(two)["validation_loss"], abs=1e-3)
    assert first["validation_loss"] < first["validation_before"] - 0.05 and first["peak_bytes"] > 2**26
    assert run(*SMALL, "--folder", str(one)) == 0  # done already: nothing changes
    assert read(one)["loss"] == first["loss"]
    model = KimiMini.from_pretrained(one / "checkpoint")
    assert pretrain.sample(model, Tokenizer.load(), "def ", tokens=5).startswith("def ")
    for words, changed in (
        (["--window", "128"], "window"),
        (["--hub", "some/text", "--seed", "7"], "hub, seed"),
        (["--step-tokens", "512"], "step_tokens"),
        (["--lr", "0.1"], "lr"),
    ):
        assert run(*SMALL, *words, "--folder", str(one)) == 2
        assert f"a run with another {changed}: use --folder" in capsys.readouterr().err
    assert read(one)["loss"] == first["loss"]  # what was there is as it was
    status, _, error = torchrun(root, *SMALL, "--seed", "7", "--folder", two)
    assert status != 0 and error.count("a run with another seed") == 2 and "RuntimeError" not in error


@pytest.mark.parametrize("moment", ["before the first step", "after the last"])
def test_an_evaluation_that_does_not_fit_goes_on_in_smaller_parts(
    tmp_path, capsys, caplog, monkeypatch, moment
):
    """A device that holds 1,100 tokens without gradients, from the start or only once training is over."""
    forward = KimiMini.hidden_states

    def full(self, ids, **options):
        trained = (tmp_path / "state.pt").is_file()
        if (
            ids.numel() > 1100
            and not torch.is_grad_enabled()
            and (trained or moment == "before the first step")
        ):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return forward(self, ids, **options)

    monkeypatch.setattr(KimiMini, "hidden_states", full)
    assert run(*SMALL, "--folder", str(tmp_path)) == 0
    said = capsys.readouterr().out
    assert caplog.text.count("out of memory at 2,048 tokens at once") == 1 and "peak memory" in said


def test_a_preset_that_does_not_fit_is_one_line(tmp_path, capsys, monkeypatch):
    def refuse(config):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")

    monkeypatch.setattr(shared, "KimiMini", refuse)
    assert run(*SMALL, "--folder", str(tmp_path)) == 2
    assert "951,600 parameters, more than fit here" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["--window", "0"],
        ["--tokens", "-5"],
        ["--step-tokens", "0"],
        ["--micro-tokens", "-1"],
        ["--lr", "nan"],
        ["--lr", "-1"],
        ["--adamw-lr", "0"],
        ["--seed", "-1"],
    ],
)
def test_numbers_that_make_no_sense_are_explained_by_usage(tmp_path, capsys, words):
    with pytest.raises(SystemExit) as stop:
        run(*words, "--folder", str(tmp_path))
    assert stop.value.code == 2 and words[0] in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_the_hub_is_read_as_far_as_the_run_goes(monkeypatch):
    asked = {}
    monkeypatch.setattr(pretrain.corpus, "load_hub", lambda name, /, **options: asked.update(options) or [])
    asking = options("--hub", "some/text", "--tokens", "10000000")
    wanted = {"text_column": "text", "max_documents": None, "max_characters": 40_000_000}
    assert pretrain.documents(asking) == [] and asked == wanted
    words = ["--hub", "some/text", "--hub-config", "en", "--text-column", "body", "--tokens", "10000000"]
    pretrain.documents(options(*words))
    assert asked == wanted | {"text_column": "body", "name": "en"}


def test_a_text_on_both_sides_is_refused(tmp_path, capsys, monkeypatch):
    """A renamed copy of a held-out chapter among what is trained on; the command of `make run` splits the same way."""
    documents = pretrain.corpus.default_documents(1)
    held_out, copies = pretrain.corpus.split(documents)[1][0], [f"a copy, {number}" for number in range(20)]
    leaking = [*documents, *(pretrain.corpus.Document(name, held_out.text) for name in copies)]
    monkeypatch.setattr(pretrain, "documents", lambda args: leaking)
    assert run(*SMALL, "--folder", str(tmp_path)) == 2
    assert f"{held_out.name} is held out for validation and also trained on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--preset", "huge"], "choose one of"),
        (["--device", "cuda:9"], "--device cpu"),
        (["--step-tokens", "1000000000000", "--bytes", "1"], "a smaller --step-tokens"),
        (["--window", "1"], "--window 2 or more"),
        (["--hub-config", "en"], "--hub NAME"),
        (["--text-column", "body"], "--hub NAME"),
        (["--documents", "5"], "--hub NAME"),
        (["--window", "8193", "--bytes", "1"], "positions for 8,192 tokens: take a shorter --window"),
    ],
)
def test_words_that_it_cannot_follow_are_one_line(tmp_path, capsys, words, hint):
    assert run(*words, "--folder", str(tmp_path)) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and hint in said
    assert not (tmp_path / "plan.json").exists()  # the next words, put right, find no plan of these


def test_a_text_too_short_for_the_window_is_one_line_and_leaves_no_plan(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(pretrain, "documents", lambda options: pretrain.corpus.default_documents(1)[:1])
    assert run(*SMALL, "--window", "8192", "--folder", str(tmp_path)) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "more text or a shorter window" in said
    assert not (tmp_path / "plan.json").exists()


def test_a_step_without_a_window_for_each_process_is_refused_before_anything_is_written(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(pretrain.ranks, "world_size", lambda: 5)
    assert run(*SMALL, "--folder", str(tmp_path)) == 2
    assert "take --processes 4 or fewer" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_more_processes_than_find_work_are_not_started(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("kimi_mini.base.processes.start", lambda *_: pytest.fail("they were started"))
    assert run(*SMALL, "--processes", "5", "--folder", str(tmp_path)) == 2
    assert "take --processes 4 or fewer" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_every_window_is_read_once_before_any_is_read_twice():
    windows = np.arange(40, dtype=np.uint16).reshape(10, 4)
    data = pretrain.step_data(windows, 5, seed=0)
    seen = torch.cat([batch.ids for step in range(4) for batch in data(step)])[:, 0] // 4
    assert sorted(seen[:10].tolist()) == sorted(seen[10:].tolist()) == list(range(10))
    assert torch.equal(data(1)[0].ids, pretrain.step_data(windows, 5, seed=0)(1)[0].ids)
    assert not torch.equal(data(0)[0].ids, pretrain.step_data(windows, 5, seed=1)(0)[0].ids)


def test_of_fewer_windows_than_ranks_some_rank_has_none(monkeypatch):
    """Held-out windows of a short text: it measures nothing, and the others' sums are the whole."""
    windows, shares = np.arange(8, dtype=np.uint16).reshape(2, 4), []
    monkeypatch.setattr(pretrain.ranks, "is_on", lambda: True)
    monkeypatch.setattr(pretrain.ranks, "world_size", lambda: 3)
    for rank in range(3):
        monkeypatch.setattr(pretrain.ranks, "rank", lambda rank=rank: rank)
        shares.append([batch.ids.tolist() for batch in pretrain.own_share(windows)])
    assert shares == [[[[0, 1, 2, 3]]], [[[4, 5, 6, 7]]], []]


def test_two_runs_in_one_folder_are_one_line(tmp_path, capsys):
    with locked(tmp_path):
        assert run(*SMALL, "--folder", str(tmp_path)) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"another run is at work in {tmp_path}" in said
    assert [file.name for file in tmp_path.iterdir()] == [".lock"]


def test_the_defaults_are_those_of_the_whole_run():
    """What the options say of a plan is what the plan says."""
    assert options().plan() == Plan()
    other = options(
        "--lr",
        "0.1",
        "--window",
        "64",
        "--tokens",
        "5",
        "--step-tokens",
        "128",
        "--bytes",
        "7",
        "--seed",
        "3",
    )
    plan = other.plan()
    assert (plan.optimizer.lr, plan.text.window, plan.pretrain.tokens, plan.step_tokens) == (0.1, 64, 5, 128)
    assert (plan.text.stdlib_bytes, plan.seed) == (7, 3)
    assert other.decisive().keys() == vars(Options()).keys() - {
        "folder",
        "device",
        "dtype",
        "ns_dtype",
        "micro_tokens",
        "processes",
        "samples",
        "every",
    }


def test_drills_are_kept_up_in_every_step_where_the_plan_says_so():
    plan = replace(Plan(), drill=replace(Plan().drill, kept=300))
    data = lambda step: []
    assert pretrain.with_drills(data, Plan(), 2048) is data
    steps = [pretrain.with_drills(data, plan, 2048)(step) for step in (0, 0, 1)]
    shown = [np.concatenate([batch.ids[batch.valid] for batch in step]).tolist() for step in steps]
    assert shown[0] == shown[1] != shown[2] and 250 < len(shown[0]) < 450
    learned = sum(batch.learned for batch in steps[0])
    assert 50 < learned < len(shown[0])
