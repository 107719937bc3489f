"""README's generated parts and data/results/README.md come from the logs, all of them, and from nothing else."""

import argparse
import ast
import json
import re
import subprocess
import sys
import tomllib

import pytest

from kimi_mini.base import ledger, markdown
from kimi_mini.base.errors import KimiError
from kimi_mini.base.evidence import CLAIM_KEYS, Log
from kimi_mini.base.paths import RESULTS, ROOT

EMPTY = """top
<!-- course:begin -->
before
<!-- course:end -->
middle
<!-- scoreboard:begin chain/thinking
     filter/gap --><!-- scoreboard:end -->
<!-- claims:begin --><!-- claims:end -->
end
"""
PAGE = ledger.Notebook("01.ipynb", "01 Experts", "Why?", "about a minute")
ROW = {
    "value": 0.985,
    "low": 0.957,
    "high": 0.995,
    "n": 200,
    "seeds": 1,
    "main": True,
    "floor": None,
    "says": "",
}
README = ledger.README.read_text(encoding="utf-8")


@pytest.fixture
def logs(tmp_path):
    with Log(
        "moe", folder=tmp_path, seeds=[0, 1, 2], scoreboard={"filter/gap": ROW | {"value": 0.53}}
    ) as log:
        log.claim(
            "moe/balance",
            claim="the bias balances",
            source="DSV3 2.1.2",
            value=1.04,
            low=1.02,
            high=1.06,
            floor=1.1,
            at_most=True,
            notebook="01.ipynb",
            headline=True,
        )
        log.claim(
            "moe/sparse", claim="loss | sparsity", source="K2 2.3", value=0.5, floor=1.0, notebook="01.ipynb"
        )
        log.claim("speed", claim="fast", source="this", value=1.2, low=0.9, high=1.3, floor=1.0)
    Log("run", folder=tmp_path, scoreboard={"chain/thinking": ROW, "chain/reflex": ROW}).save()
    return tmp_path


def whole(folder) -> str:
    return ledger.whole(ledger.read_logs(folder), [PAGE])


def readme(folder, text=EMPTY) -> str:
    return ledger.render(text, ledger.read_logs(folder), [PAGE])


# ------------------------------------------------------------------------------------------- as committed
def test_both_pages_say_what_the_logs_say():
    assert not ledger.stale(), "run: python -m kimi_mini ledger"


@pytest.mark.parametrize("part", ["course", "scoreboard", "claims"])
def test_a_number_that_no_log_backs_is_seen(part, tmp_path, monkeypatch):
    """A digit of a generated part is changed by hand."""
    body = re.search(rf"<!-- {part}:begin[^>]*-->(.*?)<!-- {part}:end", README, re.DOTALL)
    number = re.search(r"\b\d[\d.]*\d\b", body[1])
    at = body.start(1) + number.end() - 1
    wrong = README[:at] + str((int(README[at]) + 1) % 10) + README[at + 1 :]
    (tmp_path / "README.md").write_text(wrong)
    monkeypatch.setattr(ledger, "README", tmp_path / "README.md")
    assert tmp_path / "README.md" in ledger.stale()


def test_the_failures_in_words_are_those_of_the_logs():
    """The numbers of the prose below the claims' line: values and floors of claims, as one writes them."""
    told = README.split("<!-- claims:end -->")[1].split("\n## ")[0]
    claims = [claim for claim in ledger.collect(ledger.read_logs(RESULTS)) if claim["value"] is not None]
    known = {f"{claim[key]:.2f}" for claim in claims for key in ("value", "floor")}
    known |= {f"{100 * claim['value']:.1f}%" for claim in claims}
    numbers = re.findall(r"\d+\.\d+%?", told)
    assert len(numbers) >= 5 and set(numbers) <= known


def test_readme_can_be_read_in_one_sitting():
    assert README.count("\n") <= 200


@pytest.mark.parametrize(
    "page", [ledger.README, RESULTS / "README.md", RESULTS / "NOTES.md"], ids=lambda p: p.name
)
def test_every_link_leads_to_a_file(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        assert ":" in target or (page.parent / target).exists(), target


def test_the_house_is_as_readme_says():
    """A line a room: the first paragraph of its docstring; in the order of the layers, lowest first."""
    block = README.split("<!-- rooms:begin -->")[1].split("<!-- rooms:end -->")[0]
    rooms = dict(line.split(None, 1) for line in block.strip().splitlines())
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    layers = [set(layer.split(" | ")) for layer in contracts["contracts"][0]["layers"] if layer != "__main__"]
    order = list(rooms)
    for layer in reversed(layers):
        assert {order.pop(0) for _ in layer} == layer
    assert not order
    for room, text in rooms.items():
        tree = ast.parse((ROOT / "kimi_mini" / room / "__init__.py").read_text(encoding="utf-8"))
        assert ast.get_docstring(tree).split("\n\n")[0].replace("\n", " ") == text, room


DOORS = [line for line in README.splitlines() if line.startswith("from kimi_mini")]


@pytest.mark.slow
@pytest.mark.parametrize("line", DOORS, ids=lambda line: line.split()[1])
def test_every_door_that_readme_names_opens(line):
    """Each alone in a new interpreter: a circle would show only in one order of imports."""
    assert len(DOORS) == 6
    subprocess.run([sys.executable, "-c", line], cwd=ROOT, check=True)


# ------------------------------------------------------------------------------------------------ the pages
def test_every_claim_has_its_row_and_its_evidence(logs):
    text = whole(logs)
    assert "## [01 Experts](../../notebooks/01.ipynb)" in text and "## Speed" in text
    assert (
        "| the bias balances | DSV3 2.1.2 | 1.04 [1.02, 1.06] | at most 1.1 | holds | 3 | [log](moe.json) |"
        in text
    )
    assert "| fast | this | 1.2 [0.9, 1.3] | at least 1 | open | 3 |" in text
    assert text.index("| the bias balances") < text.index("## Speed") < text.index("| fast")


def test_the_scoreboard_joins_all_logs_and_begins_with_the_run(logs):
    assert list(ledger.join(ledger.read_logs(logs))) == ["chain/thinking", "chain/reflex", "filter/gap"]
    (logs / "other.json").write_text(json.dumps({"scoreboard": {"filter/gap": ROW}}))
    with pytest.raises(KimiError, match=r"other\.json: row 'filter/gap' has other numbers"):
        whole(logs)


def test_readme_shows_a_headline_a_notebook_the_rows_it_asks_for_and_the_counts(logs):
    text = readme(logs)
    line = "| [01 Experts](notebooks/01.ipynb) | Why? | the bias balances: **1.04 [1.02, 1.06]** | 1 / 0 / 1 | about a minute |"
    assert line in text
    assert text.index("| `chain/thinking` |") < text.index("| `filter/gap` |") and "chain/reflex" not in text
    assert (
        "**3 measured: 1 hold, 1 open, 1 do not.** 1 have no interval." in text and "speed: 0 / 1 / 0" in text
    )
    assert text.startswith("top\n") and text.endswith("\nend\n") and "before" not in text
    assert readme(logs, text) == text


def test_a_row_that_no_log_has_is_refused(logs):
    with pytest.raises(KimiError, match="README asks for chain/none"):
        readme(logs, EMPTY.replace("filter/gap", "chain/none"))


def hides_failures(folder) -> str:
    """The wrong ledger: only what worked is shown."""
    return "\n".join(row for row in whole(folder).splitlines() if "does not hold" not in row)


def shows_failures(text) -> bool:
    return "| 0.5 | at least 1 | **does not hold** (no interval) |" in text


def test_a_claim_that_failed_stays_visible_with_its_floor(logs):
    assert shows_failures(whole(logs))
    assert not shows_failures(hides_failures(logs))


def test_a_bar_inside_a_claim_does_not_break_the_table(logs):
    rows = [line for line in whole(logs).splitlines() if "[log]" in line]
    assert len(rows) == 3 and {line.replace("\\|", "").count("|") for line in rows} == {8}


# ------------------------------------------------------------------------------------------------- bad logs
def test_a_notebook_without_its_question_is_refused(tmp_path):
    cell = {"source": ["# 01 Experts\n\n**Question**: Why?\n\n**Cost**: a minute on two cores."]}
    (tmp_path / "01.ipynb").write_text(json.dumps({"cells": [cell]}))
    assert ledger.course(tmp_path) == [ledger.Notebook("01.ipynb", "01 Experts", "Why?", "a minute")]
    (tmp_path / "01.ipynb").write_text(json.dumps({"cells": [{"source": ["# 01 Experts"]}]}))
    with pytest.raises(KimiError, match=r"01\.ipynb: its first cell needs"):
        ledger.course(tmp_path)


@pytest.mark.parametrize("missing", CLAIM_KEYS)
def test_a_claim_that_lacks_a_part_is_refused(logs, missing):
    path = logs / "moe.json"
    log = json.loads(path.read_text())
    del log["claims"][0][missing]
    path.write_text(json.dumps(log))
    with pytest.raises(KimiError, match=rf"moe\.json: claim.* lacks {missing}"):
        whole(logs)


@pytest.mark.parametrize(
    ("log", "says"),
    [
        ([], "is no log of a run"),
        (None, "is no log of a run"),
        ({"scoreboard": []}, "is no log of a run"),
        ({"scoreboard": {"a": {}}}, "row 'a' lacks value"),
        ({"scoreboard": {"a": 0.5}}, "row 'a' lacks value"),
        ({"scoreboard": {"a": ROW | {"value": "1"}}}, "where value should be a number"),
        ({"claims": [{}]}, "claim lacks name"),
        ({"claims": ["a"]}, "claim lacks name"),
    ],
)
def test_a_log_that_is_none_is_one_line_and_nothing_is_written(logs, monkeypatch, log, says):
    (logs / "bad.json").write_text(json.dumps(log))
    (logs / "README.md").write_text("as it was")
    monkeypatch.setattr(ledger, "RESULTS", logs)
    before = {path: path.read_bytes() for path in [*logs.iterdir(), ledger.README]}
    with pytest.raises(KimiError, match=says) as caught:
        ledger.main(argparse.Namespace(check=False))
    assert str(caught.value).startswith("bad.json") and "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in before} == before


def test_a_verdict_that_its_numbers_do_not_bear_is_refused(logs):
    path = logs / "moe.json"
    path.write_text(path.read_text().replace('"verdict": "open"', '"verdict": "holds"'))
    with pytest.raises(KimiError, match=r"moe\.json: claim 'speed' says holds, its numbers open"):
        whole(logs)


def test_one_name_in_two_logs_is_refused(logs):
    (logs / "other.json").write_text((logs / "moe.json").read_text())
    with pytest.raises(KimiError, match=r"moe\.json and other\.json"):
        whole(logs)


# ------------------------------------------------------------------------------------------------- of a GPU
FLOORS = [
    {"name": f"gpu/{name}", "part": "speed", "claim": f"{name} is fast", "source": "this", "floor": 0.3}
    | {"at_most": False}
    for name in ("mini", "midi")
]


def gpu_log(folder, device="cuda", **versions):
    """A log in gpu/ that has measured one of two claims."""
    (folder / "gpu").mkdir(exist_ok=True)
    (folder / "gpu" / "floors.json").write_text(json.dumps(FLOORS))
    about = {key: value for key, value in FLOORS[0].items() if key != "part"}
    with Log("speed", folder=folder) as log:
        log.claim(**about, value=0.4)
    made = json.loads(log.path.read_text()) | {"device": device, "versions": versions}
    log.path.unlink()
    (folder / "gpu" / "speed.json").write_text(json.dumps(made))


def with_waiting(folder) -> tuple[str, str]:
    found = ledger.read_logs(folder)
    waiting = ledger.unmeasured(folder, ledger.collect(found))
    return ledger.whole(found, [PAGE], waiting), ledger.render(EMPTY, found, [PAGE], waiting)


def test_what_no_gpu_has_measured_is_a_row_that_says_so_and_is_counted(logs):
    gpu_log(logs, gpu="H100")
    page, top = with_waiting(logs)
    measured = (
        "| mini is fast | this | 0.4 | at least 0.3 | holds (no interval) | 1 | [log](gpu/speed.json) |"
    )
    waiting = "| midi is fast | this | - | at least 0.3 | not measured on a GPU | - | - |"
    assert page.index("## On one GPU") < page.index(measured) < page.index(waiting)
    assert page.count("is fast") == 2 and "speed: 1 / 1 / 0. 1 more is not measured on a GPU." in top
    (logs / "gpu" / "speed.json").unlink()
    page, top = with_waiting(logs)
    assert page.count("| not measured on a GPU |") == 2 and "2 more are not measured" in top


def test_a_claim_that_waits_says_so_and_is_not_counted(logs):
    before = readme(logs)
    with Log("moe2", folder=logs) as log:
        log.later("moe/later", claim="later", source="this", floor=0.5, notebook="01.ipynb")
    assert "| later | this | - | at least 0.5 | not measured | 1 | [log](moe2.json) |" in whole(logs)
    assert readme(logs) == before.replace("speed: 0 / 1 / 0.", "speed: 0 / 1 / 0. 1 more is not measured.")
    assert readme(logs) != before


@pytest.mark.parametrize(
    ("device", "versions"), [("cpu", {"gpu": "H100"}), ("cuda", {}), ("cuda", {"gpu": ""})]
)
def test_a_log_of_a_gpu_that_names_none_is_refused(logs, device, versions):
    gpu_log(logs, device, **versions)
    with pytest.raises(KimiError, match="gpu/speed.json is to be of a GPU and names none"):
        ledger.read_logs(logs)


@pytest.mark.parametrize("damage", ["<!-- claims:end -->", "<!-- course:begin -->"])
def test_a_readme_without_its_markers_is_refused(logs, damage):
    with pytest.raises(KimiError, match="README needs one"):
        readme(logs, EMPTY.replace(damage, ""))


def test_check_only_looks_and_no_log_is_ever_written(logs, monkeypatch, tmp_path_factory, capsys):
    root = tmp_path_factory.mktemp("repo")
    page, before = root / "README.md", {path: path.read_bytes() for path in logs.iterdir()}
    page.write_text(EMPTY)
    for name, value in (("README", page), ("RESULTS", root / "results"), ("NOTEBOOKS", root)):
        monkeypatch.setattr(ledger, name, value)
    logs.rename(root / "results")
    with pytest.raises(KimiError, match=r"README\.md and results/README\.md: behind the logs"):
        ledger.main(argparse.Namespace(check=True))
    assert page.read_text() == EMPTY
    ledger.main(argparse.Namespace(check=False))
    ledger.main(argparse.Namespace(check=True))
    assert capsys.readouterr().out.splitlines() == [
        "README.md and results/README.md: written from data/results/",
        "README and data/results/README say what the logs say",
    ]
    assert {path.name: (root / "results" / path.name).read_bytes() for path in before} == {
        path.name: old for path, old in before.items()
    }


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.97512, "0.975"),
        (1.0, "1"),
        (15.96, "16"),
        (1026.41, "1,026"),
        (0.00088, "0.00088"),
        (0.000012, "1.2e-05"),
        (0, "0"),
        (None, "-"),
        (-0.2, "-0.2"),
        (200, "200"),
    ],
)
def test_numbers_are_written_for_people(value, text):
    assert markdown.number(value) == text
