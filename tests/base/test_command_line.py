"""The command line: what a user can put right is one line on standard error, never a traceback."""

import argparse
import dataclasses
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kimi_mini import __main__ as command_line
from kimi_mini.base import errors
from kimi_mini.base.command import add_options, in_one_line, natural, option, read_options
from kimi_mini.base.errors import BadFile, KimiError, MissingFile

pytestmark = pytest.mark.slow

HELPERS = Path(__file__).resolve().parents[1] / "helpers"

# A stand-in for the pipeline, given to a real child process: it does what the test asks for.
STAND_IN = """
import sys
import kimi_mini.pipeline.main
exec(sys.argv[1], sys.modules["kimi_mini.pipeline.main"].__dict__)
from kimi_mini.__main__ import main
sys.exit(main(["run"]))
"""


def child(body: str, **options) -> subprocess.Popen:
    environment = {key: value for key, value in os.environ.items() if key != "KIMI_MINI_DEBUG"}
    environment |= options
    command = [sys.executable, "-c", STAND_IN, body]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command,
        stdout=pipe,
        stderr=pipe,
        text=True,
        env=environment,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # a background job starts with it ignored
    )


def main_with(monkeypatch, capsys, words: list[str], error: BaseException) -> tuple[int, str]:
    """Exit status and standard error of a command whose module raises `error`."""

    def fail(_):
        raise error

    monkeypatch.delenv("KIMI_MINI_DEBUG", raising=False)
    monkeypatch.setattr("kimi_mini.pipeline.main.main", fail)
    return command_line.main(words), capsys.readouterr().err


# ------------------------------------------------------------------------------------------------- real ones
def test_help_answers_without_loading_torch(root):
    code = (
        "import sys\nfrom kimi_mini.__main__ import build_parser\nbuild_parser().format_help()\n"
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def test_an_unknown_preset_lists_the_presets(root):
    command = [sys.executable, "-m", "kimi_mini", "run", "--preset", "giant"]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith("kimi_mini: unknown preset 'giant'; choose one of: nano, micro, mini, ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("words", [[], ["fly"], ["run", "--threads", "0"], ["eval", "--tasks", "many"]])
def test_wrong_words_are_explained_by_usage(words, capsys):
    with pytest.raises(SystemExit) as stop:
        command_line.main(words)
    assert stop.value.code == 2
    assert "usage: python -m kimi_mini" in capsys.readouterr().err


STOPS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]  # as a shell reports them


@pytest.mark.parametrize(("sign", "status"), STOPS)
def test_ctrl_c_and_sigterm_are_one_line(sign, status):
    process = child("def main(args):\n    print('ready', flush=True)\n    import time\n    time.sleep(60)")
    assert process.stdout.readline() == "ready\n"
    process.send_signal(sign)
    _, said = process.communicate(timeout=300)
    assert process.returncode == status
    assert said == "kimi_mini: stopped; what was saved is safe: run the same command to go on\n"


@pytest.mark.parametrize("moment", ["argparse", "kimi_mini.base.command", "kimi_mini.pipeline.options"])
@pytest.mark.parametrize(("sign", "status"), STOPS)
def test_a_stop_while_modules_are_imported_is_one_line(root, moment, sign, status):
    """The signal comes when `python -m kimi_mini` asks for that module."""
    code = (
        "import builtins, os, runpy, sys\nimported = builtins.__import__\n"
        f"def stop(name, *rest, **more):\n    if name == {moment!r} and 'kimi_mini' in sys.modules:\n"
        f"        os.kill(os.getpid(), {int(sign)})\n    return imported(name, *rest, **more)\n"
        "builtins.__import__ = stop\nsys.argv[1:] = ['--help']\n"
        "runpy.run_module('kimi_mini', run_name='__main__', alter_sys=True)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == status and done.stdout == ""
    assert done.stderr == "kimi_mini: stopped; nothing was changed\n"


def test_what_is_said_does_not_hang_on_a_progress_bar(capfd):
    """A bar ends without a new line; an error that comes meanwhile has a line of its own."""
    from tqdm import tqdm

    def command():
        bars.append(tqdm(total=10, file=sys.stderr))
        raise KimiError("the disk is full")

    bars = []
    assert in_one_line(command) == 2
    before, _, after = capfd.readouterr().err.partition("kimi_mini: the disk is full")
    bars[0].close()
    assert "0/10" in before and before[-1] in "\r\n" and after.startswith("\n")


def test_a_reader_that_leaves_is_no_error():
    process = child("def main(args):\n    for i in range(10**6): print(i)")
    process.stdout.readline()
    process.stdout.close()
    said = process.stderr.read()
    assert process.wait(timeout=300) == 0
    assert said == ""


@pytest.mark.skipif(os.name != "posix", reason="needs rlimits")
def test_a_disk_that_fills_up_leaves_the_last_results(tmp_path):
    """A real short write: the file-size limit of the process stands in for the end of the disk."""
    target = tmp_path / "run.json"
    target.write_text("old")
    body = f"""
def main(args):
    import resource, signal
    from kimi_mini.base.files import write_atomic
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    write_atomic({str(target)!r}, "x" * 100_000)
"""
    process = child(body)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 2
    assert said.startswith("kimi_mini: ")
    assert said.count("\n") == 1
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["run.json"]


@pytest.mark.skipif(os.name != "posix", reason="needs rlimits")
@pytest.mark.parametrize("save", ["save_state", "save_pretrained", "save_arrays"])
def test_a_disk_that_fills_up_under_the_weights_is_one_line(tmp_path, save):
    """torch and safetensors raise errors of their own there, not OSError."""
    (tmp_path / "model.safetensors").write_text("old")
    body = f"""
def main(args):
    import pathlib, resource, signal, sys
    import numpy as np, torch
    sys.path.insert(0, {str(HELPERS)!r})
    from tiny import tiny_model
    from kimi_mini import MuonClip
    from kimi_mini.base import files
    from kimi_mini.training import loop
    model, folder = tiny_model(), pathlib.Path({str(tmp_path)!r})
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
    if {save!r} == "save_state":
        loop.save_state(folder / "model.safetensors", model, MuonClip(model), loop.History())
    elif {save!r} == "save_pretrained":
        model.save_pretrained(folder)
    else:
        files.save_arrays(folder / "model.safetensors", noise=np.random.default_rng(0).random(100_000))
"""
    process = child(body)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 2 and said.startswith("kimi_mini: ") and said.count("\n") == 1, said
    assert (tmp_path / "model.safetensors").read_text() == "old" and os.listdir(tmp_path) == [
        "model.safetensors"
    ]


@pytest.mark.parametrize("words", [["--device", "cuda"], ["--device", "foo"], ["--preset", "k2"]])
def test_what_this_machine_cannot_hold_begins_no_folder(tmp_path, words):
    """A plan on disk would refuse every other plan from then on."""
    code = (
        "import resource, sys\nfrom kimi_mini.__main__ import main\nimport torch\n"
        "resource.setrlimit(resource.RLIMIT_AS, (5 * 2**30, 5 * 2**30))\nsys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "run", "--folder", str(tmp_path / "run"), *words]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (
        result.returncode == 2 and result.stderr.count("\n") == 1 and result.stderr.startswith("kimi_mini: ")
    )
    assert not (tmp_path / "run").exists()


def test_with_debug_the_traceback_is_shown():
    body = "def main(args):\n    from kimi_mini.base.errors import KimiError\n    raise KimiError('no such thing')"
    plain, debug = child(body), child(body, KIMI_MINI_DEBUG="1")
    assert plain.communicate(timeout=300)[1] == "kimi_mini: no such thing\n"
    assert "Traceback" in debug.communicate(timeout=300)[1]
    assert (plain.returncode, debug.returncode) == (2, 1)


@pytest.mark.parametrize(
    ("name", "option"), [("verifiers.filter_gap", "--base"), ("thinking.modes", "--checkpoint")]
)
def test_an_experiment_without_its_checkpoint_is_one_line(root, tmp_path, name, option):
    command = [
        sys.executable,
        "-m",
        f"kimi_mini.experiments.{name}",
        option,
        str(tmp_path / "nowhere"),
        "--scale",
        "0.01",
    ]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith("kimi_mini: ") and result.stderr.count("\n") == 1


# ---------------------------------------------------------------------------------------------- every error
@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (KimiError("two\nlines"), 2, "two lines"),
        (MissingFile("no checkpoint folder at data/x"), 2, "no checkpoint folder at data/x"),
        (BadFile("model.safetensors cannot be read"), 2, "cannot be read"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "the disk is full"),
        (PermissionError(errno.EACCES, "Permission denied", "data/run"), 2, "no permission for data/run"),
        (OSError(errno.EROFS, "Read-only file system", "data/run"), 2, "no permission for data/run"),
        (FileNotFoundError(errno.ENOENT, "No such file", "a.json"), 2, "a.json does not exist"),
        (KeyboardInterrupt(), 130, "run the same command to go on"),
    ],
)
def test_what_a_user_can_put_right_is_one_line(monkeypatch, capsys, error, status, says):
    got, said = main_with(monkeypatch, capsys, ["run"], error)
    assert got == status
    assert says in said
    assert said.startswith("kimi_mini: ")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    "error", [ValueError("shape"), RuntimeError("bug"), OSError(errno.EBADF, "bad handle")]
)
def test_a_mistake_of_ours_keeps_its_traceback(monkeypatch, capsys, error):
    with pytest.raises(type(error)):
        main_with(monkeypatch, capsys, ["run"], error)


def test_new_errors_are_still_the_kinds_that_python_expects():
    assert issubclass(MissingFile, FileNotFoundError)
    assert issubclass(BadFile, ValueError)
    assert errors.explain_os_error(OSError(errno.EBUSY, "Device busy"), "x") == "x: Device busy"


# --------------------------------------------------------------------------------------- damaged checkpoints
@pytest.mark.parametrize("damage", ["missing folder", "missing weights", "cut weights", "cut config"])
def test_a_damaged_checkpoint_is_named_in_one_line(monkeypatch, capsys, tmp_path, damage):
    """The real loader meets each damage; what it raises reaches the user as one line."""
    from kimi_mini import KimiConfig, KimiMini

    folder = tmp_path / "checkpoint"
    if damage != "missing folder":
        KimiMini(KimiConfig.preset("nano", num_hidden_layers=1, vocab_size=32)).save_pretrained(folder)
        weights, config = folder / "model.safetensors", folder / "config.json"
        if damage == "missing weights":
            weights.unlink()
        victim = config if damage == "cut config" else weights
        if victim.exists():
            victim.write_bytes(victim.read_bytes()[: victim.stat().st_size // 2])

    load = lambda args: KimiMini.from_pretrained(args.checkpoint)
    monkeypatch.setattr("kimi_mini.evaluation.scoreboard.main", load)
    monkeypatch.delenv("KIMI_MINI_DEBUG", raising=False)
    assert command_line.main(["eval", "--processes", "1", "--checkpoint", str(folder)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert str(folder) in said


@pytest.mark.parametrize("folder", ["", "  ", "file"])
def test_a_folder_that_is_none_is_explained_by_usage(tmp_path, monkeypatch, capsys, folder):
    """An empty name would be the current folder: nothing is written there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(SystemExit) as stop:
        command_line.main(["run", "--folder", folder, "--scale", "0.001"])
    assert stop.value.code == 2 and "--folder" in capsys.readouterr().err
    assert [file.read_text() for file in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("given", [[[1, 2]], "1 2", None])
def test_a_model_says_what_it_wants(given):
    from tiny import tiny_model

    with pytest.raises(ValueError, match="input_ids must be a tensor of shape"):
        tiny_model()(given)


@pytest.mark.parametrize(
    "words",
    [
        ["run", "--seed", str(2**70)],
        ["run", "--threads", str(2**40)],
        ["run", "--scale", "1e300"],
        ["run", "--folder", "x" * 300],
        ["eval", "--tasks", str(10**30)],
        ["serve", "--port", "65536"],
    ],
)
def test_a_number_that_no_machine_holds_is_refused_at_once(capsys, words):
    with pytest.raises(SystemExit) as stop:
        command_line.main(words)
    said = capsys.readouterr().err
    assert stop.value.code == 2 and words[1] in said and len(said.splitlines()[-1]) < 200


FAR = ["--endpoint", "http://127.0.0.1:9/v1", "--model", "m"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["conformance", "--record", "x", "--temperature", "1"], "--temperature is of an endpoint"),
        (["conformance", "--record", "x", "--parallel", "8"], "--parallel is of an endpoint"),
        (["conformance", "--record", "x", "--no-stream"], "--no-stream is of an endpoint"),
        (["conformance", "--record", "x", "--reference", "y"], "leave --reference out"),
        (["conformance", "--record", "x", "--out", "y"], "leave --out out"),
        (["conformance", *FAR, "--checkpoint", "x"], "two models"),
        (["conformance", *FAR[:2]], "--model NAME"),
        (["eval", "--timeout", "600"], "--timeout is of an endpoint"),
        (["eval", "--form"], "--form is of an endpoint"),
        (["eval", *FAR, "--processes", "2"], "--processes is of an agent on this machine"),
        (["eval", "--suite", "all", "--seed", "3"], "--seed draws the tasks of the rows"),
    ],
)
def test_an_option_that_would_be_passed_over_is_one_line(capsys, words, says):
    assert command_line.main(words) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1


@pytest.mark.parametrize("command", ["ledger", "publish", "bench"])
def test_a_seed_is_of_the_commands_that_draw(capsys, command):
    with pytest.raises(SystemExit) as stop:
        command_line.main([command, "--seed", "3"])
    assert stop.value.code == 2 and "--seed" in capsys.readouterr().err


@pytest.mark.parametrize("file", ["", ".", "/", "new/"])
@pytest.mark.parametrize("words", [["eval", "--out"], ["conformance", "--record"]])
def test_a_file_that_cannot_be_written_is_said_before_the_exam(capsys, words, file):
    with pytest.raises(SystemExit) as stop:
        command_line.main([*words, file])
    assert stop.value.code == 2 and words[1] in capsys.readouterr().err


# ------------------------------------------------------------------------------------- options from a dataclass
@dataclasses.dataclass(frozen=True)
class Some:
    """Options of every kind."""

    step_tokens: int = option(4096, "tokens of a step", natural)
    name: str | None = option(None, "a name")
    kind: str = option("a", "one of two", choices=("a", "b"))


def test_a_dataclass_is_a_command_line(capsys):
    parser = argparse.ArgumentParser()
    add_options(parser, Some)
    assert read_options(parser.parse_args([]), Some) == Some()
    words = ["--step-tokens", "7", "--name", "x", "--kind", "b"]
    assert read_options(parser.parse_args(words), Some) == Some(7, "x", "b")
    for wrong in (["--step-tokens", "-1"], ["--kind", "c"]):
        with pytest.raises(SystemExit):
            parser.parse_args(wrong)
    text = " ".join(parser.format_help().split())
    assert "tokens of a step (default 4096)" in text and "a name --kind" in text


@pytest.mark.parametrize("own", [True, False])
def test_eval_takes_ones_own_agent_and_says_which(monkeypatch, capsys, tmp_path, own):
    from kimi_mini.agent import folder

    for name in ("RUNS", "CHECKPOINTS"):
        monkeypatch.setattr(folder, name, tmp_path / name)
    mine = tmp_path / "RUNS" / "second"
    for place in (tmp_path / "RUNS" / "first", mine, tmp_path / "RUNS" / "rehearsal"):
        (place / "checkpoints" / "final").mkdir(parents=True)
        (place / "checkpoints" / "final" / "config.json").write_text("{}")
        if own:
            (place / "run.json").write_text("{}")
            os.utime(place / "run.json", (0, {"first": 1, "second": 2, "rehearsal": 3}[place.name]))
    asked = []
    monkeypatch.setattr("kimi_mini.evaluation.scoreboard.main", lambda args: asked.append(args.checkpoint))
    expected = mine / "checkpoints" / "final" if own else tmp_path / "CHECKPOINTS" / "final"
    assert command_line.main(["eval", "--processes", "1"]) == 0 and asked == [expected]
    words = "your own agent" if own else "the shipped agent"
    assert capsys.readouterr().out == f"{words}, {expected}\n"
    assert (
        command_line.main(["eval", "--processes", "1", "--checkpoint", "other"]) == 0 and asked[-1] == "other"
    )
    assert capsys.readouterr().out == ""


def test_a_model_that_does_not_fit_is_refused_before_a_tensor_is_made(tmp_path):
    """K2 itself grew to 15 GB before a word was said: now within a gigabyte of memory."""
    code = (
        "import pathlib, re, sys\nfrom kimi_mini.__main__ import main\nimport torch, kimi_mini.pipeline.main\n"
        "status = main(['run', '--preset', 'k2', '--folder', sys.argv[1]])\n"
        # not ru_maxrss, which a process inherits from the one that starts it
        "peak = int(re.search(r'VmHWM:\\s+(\\d+)', pathlib.Path('/proc/self/status').read_text())[1])\n"
        "sys.exit(status if peak < 2**20 else 99)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "run")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2 and "GB are free here" in result.stderr and result.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()
