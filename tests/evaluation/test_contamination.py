"""The search for leaks: what is planted is found, what only looks alike is not, and wrong searches are noticed."""

import json
import random

import numpy as np
import pytest

from kimi_mini.base.files import read_json
from kimi_mini.evaluation.benchmarks import BENCHMARKS, contamination, datasheet, items
from kimi_mini.evaluation.benchmarks.contamination import Search, grams, normal, tokens_of
from kimi_mini.evaluation.benchmarks.store import FOLDER
from kimi_mini.experiments.evaluation.contamination import (
    LEAKS,
    other_layout,
    other_numbers,
    planted,
    streams,
    word_for_word,
)
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training import synthesis

TOKENIZER = Tokenizer.load()
NAMES = ("mini_swe", "mini_math")


def new_search():
    return Search(TOKENIZER, {name: items(BENCHMARKS[name], 24) for name in NAMES})


@pytest.fixture(scope="module")
def search():
    return new_search()


def fresh(search):
    search.streams.clear()
    return search


def clean(count=40):
    """Examples of training, with their keys."""
    made = [one for source in synthesis.SOURCES for one in synthesis.synthesise(TOKENIZER, source, count, 3)]
    return [one.example.ids for one in made], [one.key for one in made]


# ---- leaks that are planted ----------------------------------------------------------------------------------


@pytest.mark.parametrize("plant", [word_for_word, other_layout])
def test_a_task_among_the_examples_of_training_is_found(search, plant):
    ids, keys = clean()
    leaks = [search.tasks[3][1], search.tasks[30][1]]
    ids[7:7] = [plant(TOKENIZER, item, random.Random(0)) for item in leaks]
    fresh(search).read("training", ids, keys)
    assert search.leaked("training") == leaks


def test_other_numbers_are_another_task(search):
    """Of a repair or a chain nearly every word is a template or a number."""
    changed = [other_numbers(TOKENIZER, item, random.Random(0)) for _, item in search.tasks]
    fresh(search).read("training", changed)
    assert search.leaked("training") == []
    report = search.report()["mini_swe"]["one file"]["training"]
    assert report["raw"] > 0.5 and report["most"] < contamination.LEAK


def test_a_key_is_enough_and_is_told_apart(search):
    item = search.tasks[0][1]
    fresh(search).read("training", [], [item.task.key, "another"])
    assert search.leaked("training") == [item]
    entry = search.report()["mini_swe"]["one file"]["training"]
    assert (entry["keys"], entry["leaked"], entry["raw"]) == (1, 1, 0.0)


def test_clean_examples_touch_every_task_and_leak_none(search):
    """Raw counts cry wolf: the template stands in both. What one example holds of a task's own does not."""
    fresh(search).read("training", *clean())
    entry = search.report()["mini_swe"]["one file"]["training"]
    assert entry["raw"] == 1.0 and entry["leaked"] == entry["keys"] == 0
    assert entry["content_share"] < entry["raw_share"] and 0 < entry["most"] < contamination.LEAK


def test_every_planted_leak_of_a_whole_report(search):
    search = fresh(search)
    found = planted(search, 24)
    count = sum(min(24, part.count) for name in NAMES for part in BENCHMARKS[name].parts)
    assert found["word for word"] == found["in another layout"] == (count, count)
    assert found["with other numbers"] == (0, count) and not search.streams
    assert LEAKS["word for word"][1] == tuple(BENCHMARKS)


def test_leaks_are_planted_of_every_part(search):
    search = fresh(search)
    parts = {(name, item.part) for name, item in search.tasks}
    assert len(parts) > len(NAMES) and planted(search, 1)["word for word"] == (len(parts),) * 2


# ---- wrong searches ------------------------------------------------------------------------------------------


def as_it_stands(tokenizer, ids):
    """Wrong: another layout is another text."""
    return np.asarray(ids, np.uint64)


def test_a_search_that_trusts_white_space_is_noticed(monkeypatch):
    monkeypatch.setattr(contamination, "normal", as_it_stands)
    assert planted(new_search(), 8)["in another layout"][0] < 16


def test_a_search_that_keeps_templates_cries_wolf(monkeypatch):
    monkeypatch.setattr(contamination, "COMMON", 1.0)
    monkeypatch.setattr(contamination, "LEAK", 0.4)
    search = new_search()
    search.read("training", *clean())
    assert search.leaked("training")


def test_grams_are_thirteen_tokens_in_their_order():
    ids = np.arange(40, dtype=np.uint64)
    assert len(grams(ids)) == 28 and len(set(grams(ids).tolist())) == 28 and len(grams(ids[:12])) == 0
    assert (grams(ids)[5:] == grams(ids[5:])).all()
    swapped = ids.copy()
    swapped[[3, 4]] = swapped[[4, 3]]
    assert (grams(ids) == grams(swapped)).tolist() == [False] * 4 + [False] + [True] * 23
    zeros = np.zeros(20, np.uint64)
    assert len(np.unique(grams(zeros))) == 1 and grams(zeros)[0] != 0


def test_markers_and_white_space_are_one_blank():
    plain = TOKENIZER.encode("a b\n\n  c", allow_special=False)
    marked = TOKENIZER.encode("a<|im_end|><|im_user|>b  <think>c")
    assert normal(TOKENIZER, plain).tolist() == normal(TOKENIZER, marked).tolist()
    assert TOKENIZER.decode(normal(TOKENIZER, marked)) == "a b c"


def test_the_whole_work_of_a_task_is_read():
    item = items(BENCHMARKS["mini_telecom"], 1)[0]
    text = TOKENIZER.decode(tokens_of(TOKENIZER, item))
    assert item.task.prompt in text and item.task.system in text and "functions.identify:0" in text


# ---- the report ----------------------------------------------------------------------------------------------


def test_the_committed_report_covers_every_part_and_found_nothing():
    report = read_json(FOLDER / datasheet.CONTAMINATION)
    assert report["streams"].keys() == streams(TOKENIZER).keys()
    assert report["streams"]["examples of fine-tuning"]["tokens"] > 5_000_000
    for name, benchmark in BENCHMARKS.items():
        parts = report["benchmarks"][name]
        assert parts.keys() == {part.name for part in benchmark.parts}
        for part in benchmark.parts:
            for entry in parts[part.name].values():
                assert entry["tasks"] == part.count and entry["keys"] == entry["leaked"] == 0
        page = (FOLDER / name / "DATASHEET.md").read_text()
        assert "Not searched yet" not in page and "examples of the reader" in page


def test_a_datasheet_without_a_report_says_so(tmp_path):
    assert "Not searched yet" in datasheet._contamination(BENCHMARKS["mini_swe"], tmp_path)
    (tmp_path / datasheet.CONTAMINATION).write_text(json.dumps({"benchmarks": {}}))
    assert "Not searched yet" in datasheet._contamination(BENCHMARKS["mini_swe"], tmp_path)
