"""The stage that filters: held-out tasks and empty levels stop a run, what failed stays behind."""

import pytest

from kimi_mini.base.errors import KimiError
from kimi_mini.pipeline import Run
from kimi_mini.pipeline.synthesise import filter_passed
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training import synthesis
from kimi_mini.training.synthesis import Source, trajectory

SOURCE = Source("buy", "think", 1.0, (1, 2))


def made(tmp_path, change=lambda items: items):
    """A run that has synthesised four tasks of each level, some of them changed."""
    tokenizer = Tokenizer.load()
    items = [
        trajectory(tokenizer, f"{level}/{i}", "buy", level, "think", 0.0)
        for level in (1, 2)
        for i in range(4)
    ]
    synthesis.save(tmp_path / "trajectories.npz", {SOURCE: change(items)})
    return Run(tmp_path)


def test_what_passed_is_kept_and_counted(tmp_path):
    run = made(tmp_path, lambda items: [replace_passed(items[0]), *items[1:]])
    note = filter_passed(run)
    assert note["funnel"]["buy/think/1"] == {"made": 4, "passed": 3}
    assert note["funnel"]["buy/think/2"] == {"made": 4, "passed": 4}
    (kept,) = synthesis.load(tmp_path / "training.npz").values()
    assert len(kept) == 7 and all(item.passed for item in kept)


def replace_passed(item):
    return item._replace(passed=False)


def test_a_level_of_which_nothing_passed_stops_the_run(tmp_path):
    run = made(tmp_path, lambda items: [replace_passed(item) for item in items[:4]] + items[4:])
    with pytest.raises(KimiError, match="no trajectory of buy at level 1 passed"):
        filter_passed(run)


def test_a_held_out_task_stops_the_run(tmp_path):
    held_out = trajectory(Tokenizer.load(), "x", "buy", 2, "think", 0.0, held_out=True)
    with pytest.raises(ValueError, match="a held-out task of buy, level 2"):
        filter_passed(made(tmp_path, lambda items: [*items, held_out]))
    assert not (tmp_path / "training.npz").exists()
