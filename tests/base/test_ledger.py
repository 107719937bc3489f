"""README's two tables come from data/results/, all of it, and nothing else."""

import argparse
import json
import re

import pytest

from kimi_mini.base import ledger
from kimi_mini.base.errors import KimiError
from kimi_mini.base.evidence import CLAIM_KEYS, Log

EMPTY = """top
<!-- scoreboard:begin -->
before
<!-- scoreboard:end -->
middle
<!-- claims:begin --><!-- claims:end -->
end
"""


@pytest.fixture
def logs(tmp_path):
    with Log("moe", folder=tmp_path, seeds=[0, 1, 2]) as log:
        log.claim(
            "moe/balance",
            claim="the bias balances",
            source="DSV3 2.1.2",
            value=1.04,
            low=1.02,
            high=1.06,
            floor=1.1,
            at_most=True,
            figure="figures/balance.png",
            notebook="01.ipynb",
        )
        log.claim("moe/sparse", claim="loss falls | with sparsity", source="K2 2.3", value=0.5, floor=1.0)
    board = {"chain/thinking": {"value": 0.985, "low": 0.957, "high": 0.995, "n": 200, "seeds": 1}}
    Log("run", folder=tmp_path, scoreboard=board).save()
    return tmp_path


def test_readme_is_up_to_date_with_the_logs():
    readme = ledger.README.read_text(encoding="utf-8")
    assert ledger.render(readme) == readme, "run: python -m kimi_mini ledger"


def test_every_link_of_readme_leads_to_a_file():
    text = ledger.README.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#]+)", text)
    for target in targets:
        assert ":" in target or (ledger.README.parent / target).exists(), target


def test_every_claim_has_its_row_and_its_evidence(logs):
    text = ledger.render(EMPTY, logs)
    assert "| the bias balances | DSV3 2.1.2 | 1.04 [1.02, 1.06] | 1.1 | holds | 3 |" in text
    assert "[log](data/results/moe.json)" in text
    assert "notebooks/01.ipynb" not in text  # a page that is not written yet gets no link
    assert "| `chain/thinking` | 0.985 [0.957, 0.995] | 200 | 1 |" in text
    assert text.startswith("top\n")
    assert "before" not in text
    assert text.endswith("\nend\n")


def hides_failures(folder):
    """The wrong ledger: only what worked is shown."""
    return "\n".join(row for row in ledger.claims(folder).splitlines() if "does not hold" not in row)


def shows_failures(write) -> bool:
    return "| 0.5 | 1 | **does not hold** (no interval) |" in write


def test_a_claim_that_failed_stays_visible_with_its_floor(logs):
    assert shows_failures(ledger.claims(logs))
    assert not shows_failures(hides_failures(logs))


def test_a_bar_inside_a_claim_does_not_break_the_table(logs):
    table = ledger.claims(logs).splitlines()
    assert {line.replace("\\|", "").count("|") for line in table} == {8}


def test_writing_twice_changes_nothing(logs):
    once = ledger.render(EMPTY, logs)
    assert ledger.render(once, logs) == once


def test_without_logs_the_tables_say_so(tmp_path):
    text = ledger.render(EMPTY, tmp_path)
    assert "make run" in text
    assert "No measured claim yet" in text


@pytest.mark.parametrize("missing", CLAIM_KEYS)
def test_a_claim_that_lacks_a_part_is_refused(logs, missing):
    path = logs / "moe.json"
    log = json.loads(path.read_text())
    del log["claims"][0][missing]
    path.write_text(json.dumps(log))
    with pytest.raises(KimiError, match=rf"moe\.json: claim .* lacks {missing}"):
        ledger.claims(logs)


def test_one_name_in_two_logs_is_refused(logs):
    (logs / "other.json").write_text((logs / "moe.json").read_text())
    with pytest.raises(KimiError, match=r"moe\.json and other\.json"):
        ledger.claims(logs)


@pytest.mark.parametrize("damage", ["<!-- claims:end -->", "<!-- scoreboard:begin -->"])
def test_a_readme_without_its_markers_is_refused(logs, damage):
    with pytest.raises(KimiError, match="README needs one"):
        ledger.render(EMPTY.replace(damage, ""), logs)


def test_check_only_looks(logs, monkeypatch, tmp_path_factory, capsys):
    readme = tmp_path_factory.mktemp("repo") / "README.md"
    readme.write_text(EMPTY)
    monkeypatch.setattr(ledger, "README", readme)
    monkeypatch.setattr(ledger, "RESULTS", logs)
    with pytest.raises(KimiError, match="kimi_mini ledger"):
        ledger.main(argparse.Namespace(check=True))
    assert readme.read_text() == EMPTY
    ledger.main(argparse.Namespace(check=False))
    ledger.main(argparse.Namespace(check=True))
    assert capsys.readouterr().out.splitlines() == [
        "README rewritten from data/results/",
        "README is up to date with data/results/",
    ]


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
    assert ledger.number(value) == text
