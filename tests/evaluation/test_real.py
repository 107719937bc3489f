"""Numbers of other models: each with its source, or refused."""

import json

import pytest

from kimi_mini.base.errors import KimiError
from kimi_mini.evaluation.benchmarks import BENCHMARKS, real

NUMBER = {"benchmark": "b", "setting": "s", "model": "m", "value": 50.0, "source": "K2"}
SOURCES = {"K2": {"title": "a report", "address": "https://arxiv.org/abs/2507.20534"}}


def file_of(tmp_path, entry, sources=SOURCES):
    file = tmp_path / "real.json"
    file.write_text(json.dumps({"sources": sources, "scores": [entry]}))
    return file


def test_a_number_with_its_source_is_read(tmp_path):
    (score,) = real.scores(file_of(tmp_path, NUMBER))
    assert (score.value, score.source, score.mini) == (50.0, "K2", None)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"source": None}, "no source"),
        ({"source": "hearsay"}, "no source"),
        ({"value": 0.65 * 1000}, "per cent"),
        ({"value": "65"}, "per cent"),
        ({"value": True}, "per cent"),
        ({"remark": "x"}, "no score"),
    ],
)
def test_a_number_without_one_is_refused(tmp_path, change, says):
    with pytest.raises(KimiError, match=says):
        real.scores(file_of(tmp_path, {**NUMBER, **change}))


def test_a_missing_field_and_a_source_without_an_address_are_refused(tmp_path):
    without = {key: value for key, value in NUMBER.items() if key != "source"}
    with pytest.raises(KimiError, match="no score with its source"):
        real.scores(file_of(tmp_path, without))
    with pytest.raises(KimiError, match="no source"):
        real.scores(file_of(tmp_path, NUMBER, {"K2": {"title": "a report"}}))


def test_the_table_is_whole_and_knows_our_benchmarks():
    found = real.scores()
    assert len(found) > 200 and len({score[:3] + (score.source,) for score in found}) == len(found)
    assert {score.mini for score in found} - {None} <= BENCHMARKS.keys()
    swe = {(s.model, s.setting): s.value for s in real.imitated("mini_swe")}
    assert swe["K2 Instruct (July 2025)", "agentic, single attempt"] == 65.8
    assert swe["K2 Thinking", "with tools"] == 71.3 and swe["GPT-4.1", "agentic, single attempt"] == 54.6
    assert not real.imitated("long_horizon")  # no report has a table of it
