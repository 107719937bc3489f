"""Logs that survive a crash, and verdicts that are read off the interval."""

import errno
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from kimi_mini.base import evidence, files
from kimi_mini.base.errors import KimiError
from kimi_mini.base.evidence import CLAIM_KEYS, Log
from kimi_mini.base.paths import RESULTS, ROOT


# ------------------------------------------------------------------------------------------------- the log
def test_a_log_says_what_made_it_and_what_came_out(tmp_path):
    with Log(
        "clip", seeds=[0, 1], folder=tmp_path, command="python -m kimi_mini.experiments.clip", seed=7
    ) as log:
        log.row(seed=0, logit=np.float32(1.5), heads=torch.arange(2))
        log.claim(
            "clip/logit",
            claim="stays",
            source="K2 2.1",
            value=99.0,
            low=98,
            high=100,
            floor=100,
            at_most=True,
        )
    saved = json.loads((tmp_path / "clip.json").read_text())
    assert saved["command"] == "python -m kimi_mini.experiments.clip"
    assert (saved["device"], saved["seeds"], saved["seed"]) == ("cpu", [0, 1], 7)
    assert saved["threads"] == torch.get_num_threads()
    assert saved["versions"]["torch"].startswith("2.")
    assert saved["seconds"] >= 0
    assert saved["rows"] == [{"seed": 0, "logit": 1.5, "heads": [0, 1]}]
    assert tuple(saved["claims"][0]) == CLAIM_KEYS
    assert saved["claims"][0]["verdict"] == "open"  # its interval ends at the floor
    assert saved["claims"][0]["seeds"] == [0, 1]


VERDICTS = [  # value, low, high, floor, at_most, verdict
    (0.97, None, None, 0.97, False, "holds"),  # no interval: the value alone
    (0.96, None, None, 0.97, False, "does not hold"),
    (1.1, None, None, 1.2, True, "holds"),
    (1.3, None, None, 1.2, True, "does not hold"),
    (None, None, None, 1.2, True, "does not hold"),  # nothing was shown
    (0.94, 0.91, 0.97, 0.9, False, "holds"),
    (0.94, 0.89, 0.97, 0.9, False, "open"),
    (0.88, 0.80, 0.95, 0.9, False, "open"),
    (0.80, 0.75, 0.85, 0.9, False, "does not hold"),
    (0.02, 0.01, 0.03, 0.05, True, "holds"),
    (0.02, 0.01, 0.06, 0.05, True, "open"),
    (0.30, 0.20, 0.40, 0.05, True, "does not hold"),
    (0.10, 0.00, 0.20, 0.0, False, "open"),  # an interval that begins at the floor contains it
]


def by_value(*, value, low, high, floor, at_most):
    """The wrong verdict: the value decides, however wide its interval."""
    return (
        "holds" if value is not None and (value <= floor if at_most else value >= floor) else "does not hold"
    )


def one_way(*, value, low, high, floor, at_most):
    """The wrong verdict: a ceiling is read as a floor."""
    return evidence.verdict(value=value, low=low, high=high, floor=floor)


@pytest.mark.parametrize(("rule", "right"), [(evidence.verdict, True), (by_value, False), (one_way, False)])
def test_a_verdict_is_read_off_the_interval(rule, right):
    keys = ("value", "low", "high", "floor", "at_most")
    said = [rule(**dict(zip(keys, row))) for *row, _ in VERDICTS]
    assert (said == [row[-1] for row in VERDICTS]) is right


def test_every_committed_claim_carries_the_verdict_of_its_interval():
    logs = [files.read_json(file, object) for file in sorted(RESULTS.rglob("*.json"))]
    claims = [claim for log in logs if isinstance(log, dict) for claim in log.get("claims", [])]
    assert len(claims) > 150
    for claim in claims:
        assert claim["verdict"] == evidence.verdict(**claim), claim["name"]


def exists(command: str) -> bool:
    """Whether the target of make, the module or the file that a command line names is there."""
    match command.split():
        case ["make", target, *_]:
            return f"\n{target}:" in (ROOT / "Makefile").read_text(encoding="utf-8")
        case ["python", "-m", module, *_]:
            place = ROOT.joinpath(*module.split("."))
            return place.with_suffix(".py").is_file() or (place / "__main__.py").is_file()
        case ["python", file, *_]:
            return (ROOT / file).is_file()
    return False


def test_the_command_of_every_committed_log_is_there():
    logs = {file.name: files.read_json(file, object) for file in sorted(RESULTS.rglob("*.json"))}
    commands = {name: log["command"] for name, log in logs.items() if isinstance(log, dict)}
    assert len(commands) > 50
    assert [name for name, command in commands.items() if not exists(command)] == []


@pytest.mark.parametrize(
    "command",
    [
        "python -m kimi_mini.experiments.balance",
        "python -m kimi_mini.experiments.moe",
        "make runs",
        "balance",
    ],
)
def test_the_check_for_commands_can_fail(command):
    assert not exists(command)


@pytest.mark.parametrize(
    ("lines", "name"),
    [
        ("vendor_id : GenuineIntel\nmodel name : Intel(R) Xeon(R) Processor", "Intel(R) Xeon(R) Processor"),
        (
            "vendor_id : AuthenticAMD\nmodel name : EPYC\n\nvendor_id : AuthenticAMD\nmodel name : EPYC",
            "AMD EPYC",
        ),
        ("vendor_id : GenuineIntel\nmodel name : Virtual CPU", "Intel Virtual CPU"),
    ],
)
def test_the_processor_is_named_with_its_make(tmp_path, lines, name):
    (tmp_path / "cpuinfo").write_text(lines)
    assert evidence._processor(tmp_path / "cpuinfo") == name


def test_the_seconds_of_earlier_starts_count(tmp_path, monkeypatch):
    """A part that an earlier start kept adds its seconds; one that is made now is in the log's own count already."""
    clock = [0.0]
    monkeypatch.setattr(evidence, "perf_counter", lambda: clock[0])

    def make(seconds, found):
        clock[0] += seconds
        return found

    first = Log("a", folder=tmp_path)
    assert first.part(tmp_path / "one.json", lambda: make(10, {"rows": [1]})) == {"rows": [1]}
    with pytest.raises(KeyboardInterrupt):  # stopped in its second part
        first.part(tmp_path / "two.json", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    assert first.as_dict()["seconds"] == 10

    clock[0] += 1000  # nobody worked
    second = Log("a", folder=tmp_path)
    assert second.part(tmp_path / "one.json", lambda: make(99, {})) == {"rows": [1]}
    assert second.part(tmp_path / "two.json", lambda: make(5, {"rows": [2]})) == {"rows": [2]}
    assert second.as_dict()["seconds"] == 15

    (tmp_path / "old.json").write_text('{"rows": []}')  # kept before seconds were
    assert second.part(tmp_path / "old.json", dict) == {"rows": []} and second.as_dict()["seconds"] == 15


def test_a_run_that_fails_leaves_the_last_log(tmp_path):
    with Log("a", folder=tmp_path) as log:
        log.row(good=1)
    with pytest.raises(ZeroDivisionError), Log("a", folder=tmp_path) as log:
        log.row(good=1 / 0)
    assert json.loads((tmp_path / "a.json").read_text())["rows"] == [{"good": 1}]


def test_the_log_names_no_machine_no_user_and_no_path(tmp_path):
    text = json.dumps(Log("a", folder=tmp_path).as_dict())
    words = set(re.findall(r"[\w.-]+", text))
    assert os.uname().nodename not in words
    assert str(Path.home()) not in text
    assert str(tmp_path) not in text
    assert not re.search(r'"(?:python )?/', text)


def test_the_command_loses_the_paths_of_this_machine(monkeypatch):
    monkeypatch.setattr(
        "sys.orig_argv", ["/somewhere/.venv/bin/python", "-m", "kimi_mini", "run", "/data/run"]
    )
    assert evidence.this_command() == "python -m kimi_mini run run"


def test_not_a_number_is_not_a_result(tmp_path):
    log = Log("a", folder=tmp_path)
    log.row(loss=float("nan"))
    with pytest.raises(ValueError):
        log.save()
    assert not list(tmp_path.iterdir())


# -------------------------------------------------------------------------------------------- atomic writes
def write_in_place(path: Path, text: str) -> None:
    """The wrong way: the old result is gone before the new one is safe."""
    with open(path, "w") as file:
        file.write(text[: len(text) // 2])
        os.fsync(file.fileno())
        file.write(text[len(text) // 2 :])


def survives(write, path: Path, failure: OSError, monkeypatch) -> bool:
    """Whether the old text is still there after a write that failed half-way."""
    path.write_text("old")

    def fail(*_):
        raise failure

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises((OSError, KimiError)):
            write(path, "new text")
    return path.read_text() == "old"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch, code):
    path = tmp_path / "run.json"
    failure = OSError(code, os.strerror(code))
    assert survives(files.write_atomic, path, failure, monkeypatch)
    assert not survives(write_in_place, path, failure, monkeypatch)
    assert os.listdir(tmp_path) == ["run.json"]  # and no half-written file beside it


@pytest.mark.parametrize(
    ("code", "says"),
    [(errno.ENOSPC, "disk is full"), (errno.EACCES, "no permission"), (errno.EROFS, "no permission")],
)
def test_the_error_is_one_line_that_says_what_to_do(tmp_path, monkeypatch, code, says):
    def fail(*_, **__):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(KimiError, match=says) as caught:
        files.write_json(tmp_path / "a.json", {})
    assert "\n" not in str(caught.value)


def test_a_place_that_is_a_file_is_no_folder(tmp_path):
    (tmp_path / "data").write_text("")
    with pytest.raises(KimiError, match=r"check the path|File exists"):
        files.write_json(tmp_path / "data" / "a.json", {})
