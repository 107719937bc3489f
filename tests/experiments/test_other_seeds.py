"""Whole runs that differ in their seed: the worst seed decides, and the shipped run is read, not trained again."""

import json
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace

import pytest

from kimi_mini.base.errors import KimiError
from kimi_mini.base.evidence import Log
from kimi_mini.base.paths import RESULTS
from kimi_mini.experiments.evaluation import other_seeds
from kimi_mini.experiments.harness import rate

TASKS = 2000


def made_up(tmp_path, **changed):
    """The log of three equal runs in which rows of the last seed are changed."""
    log = Log("other_seeds", seeds=[0, 1, 2], folder=tmp_path)
    for seed in log.seeds:
        for name in (*other_seeds.FLOORS, *other_seeds.UNSURE):
            value = changed.get(name.replace("/", "_").replace("@", "_"), 0.99) if seed == 2 else 0.99
            log.row(seed=seed, name=name, n=TASKS, **rate(round(value * TASKS), TASKS))
    other_seeds.report(log)
    return log


@pytest.mark.parametrize(
    ("changed", "broken"),
    [
        ({}, None),
        ({"shop_buy": 0.96}, "shop/buy"),
        ({"repair_pass_1": 0.69}, "repair/pass@1"),
        ({"shop_follow_practised_8": 0.5}, "shop/follow_practised/8"),
    ],
)
def test_one_seed_that_misses_is_seen(tmp_path, changed, broken):
    log = made_up(tmp_path, **changed)
    assert [c["name"] for c in log.claims if c["verdict"] != "holds"] == (
        [f"seeds/{broken}"] if broken else []
    )


def test_a_worst_seed_near_the_floor_is_open(tmp_path):
    """As other rows are: its tasks are a sample."""
    said = {claim["name"]: claim["verdict"] for claim in made_up(tmp_path, shop_buy=0.972).claims}
    assert said.pop("seeds/shop/buy") == "open" and set(said.values()) == {"holds"}


def test_a_mean_would_have_hidden_it(tmp_path, monkeypatch):
    """The mutant: 0.99, 0.99 and 0.96 have a mean over the floor of 0.97."""
    found_at = other_seeds.found_at

    def averaged(rows, name):
        found = found_at(rows, name)
        mean = rate(round(fmean(row["value"] for row in found) * TASKS), TASKS)
        return [row | mean for row in found]

    monkeypatch.setattr(other_seeds, "found_at", averaged)
    assert all(claim["verdict"] == "holds" for claim in made_up(tmp_path, shop_buy=0.96).claims)


def test_the_shipped_run_is_read_and_other_seeds_are_trained(monkeypatch, tmp_path):
    asked = []

    def run(command, check):
        words = dict(zip(command[4::2], command[5::2]))
        assert command[1:4] == ["-m", "kimi_mini", "run"]
        asked.append((words["--seed"], words["--scale"]))
        folder = Path(words["--folder"])
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps({"trained": int(words["--seed"])}))
        return SimpleNamespace(returncode=int(words["--seed"] == "3"))

    monkeypatch.setattr(other_seeds.subprocess, "run", run)
    monkeypatch.setattr(other_seeds, "RUNS", tmp_path)
    assert other_seeds.run_of(0, 1.0)["seed"] == 0 and not asked
    assert other_seeds.run_of(2, 1.0) == {"trained": 2} and asked == [("2", "1.0")]
    assert (
        other_seeds.run_of(0, 0.5) == {"trained": 0} and (tmp_path / "0-0.5").is_dir()
    )  # a rehearsal is not the run
    with pytest.raises(KimiError, match="seed 3 has not ended"):
        other_seeds.run_of(3, 1.0)


def test_the_figure_shows_every_seed(tmp_path):
    log = made_up(tmp_path, shop_buy=0.5)
    [ax] = other_seeds.draw(log.as_dict()).axes
    assert [line.get_label() for line in ax.lines[:3]] == ["seed 0", "seed 1", "seed 2"]
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert ax.lines[2].get_xdata()[labels.index("shop/buy")] == 0.5


def test_each_run_is_measured_on_what_it_was_taught(monkeypatch, tmp_path):
    """The shipped one as the suite's log has it, another one by its own weights."""
    monkeypatch.setattr(other_seeds, "RUNS", tmp_path)
    log, loaded = Log("other_seeds", seeds=[0, 2], folder=tmp_path), []
    suite = json.loads((RESULTS / "suite.json").read_text())["rows"]
    shipped = {row["part"]: row["value"] for row in suite if row["arm"] == "final"}
    monkeypatch.setattr(other_seeds, "load_agent", lambda folder: loaded.append(folder) or (None, None))
    monkeypatch.setattr(
        other_seeds, "measured", lambda m, t, one, most, way: {f"{one.name}/a part": {"value": most}}
    )
    found = other_seeds.suite_of(log, 0, 1.0)
    assert found and not loaded
    assert all(entry["value"] == shipped[name.removeprefix("suite/")] for name, entry in found.items())
    assert {name for name in other_seeds.FLOORS if name.startswith("suite/")} < set(found)
    found = other_seeds.suite_of(log, 2, 0.1)
    assert set(found) == {f"suite/{one.name}/a part" for one in other_seeds.SUITE}
    assert {entry["value"] for entry in found.values()} == {20}
    assert set(loaded) == {tmp_path / "2-0.1" / "checkpoints" / "final"}
