"""Hostile programs (helpers/hostile.py) on both engines, run by root and by nobody: none gets out, whoever runs it.

Where an engine or a user is not to be had here, the tests say why they are skipped.
"""

import re
import unicodedata

import pytest
from hostile import PROGRAMS, SECONDS, run_as

from kimi_mini.worlds.tools import namespaces, sandbox

MAX_HELD = namespaces.MAX_ADDRESS_SPACE / 2**20
ENDS = {  # where only one end is right in full CPython
    "calls of another machine": "SystemExit: the program left before its end",
    "endless device": ("MemoryError", "TimeoutError"),
    "doubling": ("MemoryError", "TimeoutError"),
    "stopping itself": "TimeoutError",
    "deaf to signals": "TimeoutError",
    "a long sleep": "TimeoutError",
    "standard input": "EOFError",
    "output on all sides": "OutputError: more than 65536 bytes printed",
    "output past Python": "OutputError: more than 65536 bytes printed",
    "a forged verdict": "SystemExit",
    "leaving": "SystemExit",
    "replacing itself": "SystemExit",
    "a dead interpreter": "SystemExit",
    "packages beside Python": "ModuleNotFoundError",
    "this project": "ModuleNotFoundError",
    "fork bomb": "PermissionError",
    "thread bomb": "RuntimeError",
    "an error that cannot be read": "E: (its text cannot be read)",
    "an error in colours": "ValueError: [2J 31m red next",
}


@pytest.fixture(
    scope="module",
    params=[
        *(("root", "monty"), ("nobody", "monty")),
        *(pytest.param((user, "bubblewrap"), marks=pytest.mark.slow) for user in ("root", "nobody")),
    ],
    ids="-".join,
)
def outcomes(request, tmp_path_factory):
    """(engine, program -> how it ended), for one user and one engine."""
    user, engine = request.param
    folder = tmp_path_factory.mktemp("hostile")
    for path in (folder, *folder.parents[:2]):
        path.chmod(0o755)  # nobody may read the canary: it is the sandbox that must not let it
    (folder / "canary").write_text("tweet")
    try:
        yield engine, run_as(user, engine, folder)
    except LookupError as reason:
        pytest.skip(str(reason))
    assert (folder / "canary").read_text() == "tweet"
    assert [path.name for path in folder.iterdir()] == ["canary"]


@pytest.mark.parametrize("name", list(PROGRAMS))
def test_no_hostile_program_gets_out(outcomes, name):
    engine, found = outcomes
    result = found[name]
    said = result["stdout"] + (result["error"] or "")
    assert "ESCAPED" not in said and "tweet" not in said
    assert all(int(held) <= MAX_HELD for held in re.findall(r"held (\d+)", said))
    assert result["ok"] == (result["error"] is None)
    assert result["seconds"] < SECONDS[engine] + 5 and len(result["stdout"]) <= sandbox.MAX_OUTPUT
    if engine == "bubblewrap" and name in ENDS:
        assert result["error"].startswith(ENDS[name])


def test_every_error_is_one_short_line_of_plain_letters(outcomes):
    for name, result in outcomes[1].items():
        error = result["error"] or ""
        assert len(error) <= sandbox.MAX_ERROR, name
        assert not any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in error), name


def test_nothing_is_held_that_a_program_could_not_use(outcomes):
    """The limit is not so low that nothing fits: a table that never reaches it would prove nothing."""
    engine, found = outcomes
    if engine == "bubblewrap":
        assert found["lists"]["stdout"] == "held 100\nheld 200\n"
