"""A further course begins with an agent: it takes over the weights, needs no drills, and knows whose they are."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch

from kimi_mini.agent.folder import fingerprint, load_agent
from kimi_mini.base.errors import KimiError
from kimi_mini.base.files import read_json, write_json
from kimi_mini.base.paths import CHECKPOINTS, RESULTS
from kimi_mini.pipeline import Plan, Run, main, reinforce, stages, synthesise
from kimi_mini.pipeline import publish as publishing
from kimi_mini.training import synthesis

READER = CHECKPOINTS / "reader"


def test_it_takes_over_the_weights_and_trains_nothing_before_fine_tuning(tmp_path):
    run = Run(tmp_path / "run", Plan.rehearsal(), READER)
    notes = [stages.STAGES[name](run) for name in ("drill", "pretrain")]
    assert [note["tokens"] for note in notes] == [0, 0] and str(READER) in notes[0]["summary"]
    assert notes[1]["validation_before"] == notes[1]["validation_loss"] < 6  # of chance: log 1024 is 6.9
    taken, given = (
        load_agent(place)[0].state_dict() for place in (run.folder / "checkpoints" / "base", READER)
    )
    assert taken.keys() == given.keys() and all(torch.equal(taken[name], given[name]) for name in given)


def test_a_folder_keeps_to_its_agent(tmp_path):
    first, other = Run(tmp_path, Plan(), READER), Run(tmp_path, Plan(), CHECKPOINTS / "final")
    first.begin(**stages.tables(first))
    first.begin(**stages.tables(first))
    assert read_json(tmp_path / "plan.json")["agent"] == fingerprint(READER) != fingerprint(other.agent)
    for run in (other, Run(tmp_path, Plan())):
        with pytest.raises(KimiError, match="another agent"):
            run.begin(**stages.tables(run))


def test_a_folder_without_an_agent_is_refused_before_anything_is_written(tmp_path):
    args = SimpleNamespace(
        rehearsal=False,
        reader=False,
        further=str(tmp_path),
        mean=None,
        folder=str(tmp_path / "run"),
        seed=0,
        device="cpu",
        preset=None,
    )
    with pytest.raises(KimiError, match="names an agent's folder"):
        main.main(args)
    args.further, args.mean = str(READER), [str(READER), str(tmp_path)]
    with pytest.raises(KimiError, match="--mean names agents' folders"):
        main.main(args)
    args.further, args.mean = None, [str(READER)]
    with pytest.raises(KimiError, match="goes with --further"):
        main.main(args)
    assert not (tmp_path / "run").exists()


def test_a_course_that_is_averaged_ends_in_the_mean_and_keeps_its_own_end(tmp_path):
    ends = (CHECKPOINTS / "reader_taught", READER)
    run, (model, _) = Run(tmp_path, Plan.rehearsal(), READER, ends), load_agent(READER)
    with torch.no_grad():
        model.lm_head.weight.add_(3.0)
    weight = model.lm_head.weight.detach().clone()
    of = lambda place: load_agent(place)[0].lm_head.weight
    reinforce.ended(run, model)
    torch.testing.assert_close(of(tmp_path / "checkpoints" / "end"), weight)
    mean = (weight + sum(of(end) for end in ends)) / 3
    torch.testing.assert_close(of(tmp_path / "checkpoints" / "final"), mean)
    run.begin(**stages.tables(run))
    assert read_json(tmp_path / "plan.json")["ends"] == [fingerprint(end) for end in ends]
    for fewer in (ends[:1], ()):
        other = Run(tmp_path, Plan.rehearsal(), READER, fewer)
        with pytest.raises(KimiError, match="another ends"):
            other.begin(**stages.tables(other))


def test_a_course_alone_ends_in_its_own_weights(tmp_path):
    model, _ = load_agent(READER)
    reinforce.ended(Run(tmp_path, Plan.rehearsal(), READER), model)
    assert not (tmp_path / "checkpoints" / "end").exists()
    assert fingerprint(tmp_path / "checkpoints" / "final") == fingerprint(READER)


def test_all_pools_are_wide_open_from_the_first_task_on(monkeypatch):
    breadths = []
    monkeypatch.setattr(
        synthesise.synthesis, "numbered", lambda *args: breadths.append(args[-1]) or SimpleNamespace()
    )
    source = synthesis.VARIED[0]
    for plan in (Plan.further(), Plan.reader()):
        synthesise.trajectories(plan, [source], 100_000, 0)
    count = len(breadths) // 2
    assert set(breadths[:count]) == {2} and breadths[count] < 0.2 and breadths[-1] == 1


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """Somewhere else to ship to, with a reader there, its log, and a finished further course of it."""
    for name, folder in (("RESULTS", "results"), ("CHECKPOINTS", "checkpoints"), ("FIGURES", "figures")):
        monkeypatch.setattr(publishing, name, tmp_path / folder)
        (tmp_path / folder).mkdir()
    monkeypatch.setattr(publishing, "draw_shipped", lambda: None)
    monkeypatch.setattr(publishing.ledger, "update", lambda: None)
    (tmp_path / "checkpoints" / "reader").mkdir()
    (tmp_path / "checkpoints" / "reader" / "model.safetensors").write_text("first")
    log = read_json(RESULTS / "run.json")
    write_json(tmp_path / "results" / "run_reader.json", log | {"total_seconds": 100.0, "peak_bytes": 7})
    run = Run(tmp_path / "run", Plan.further(), tmp_path / "checkpoints" / "reader")
    run.begin(**stages.tables(run))
    (run.folder / "checkpoints" / "final").mkdir(parents=True)
    (run.folder / "checkpoints" / "final" / "model.safetensors").write_text("second")
    own = [{"name": "drill", "seconds": 0.0, "tokens": 0}, {"name": "finetune", "seconds": 50.0, "tokens": 9}]
    write_json(run.folder / "run.json", log | {"stages": own, "total_seconds": 50.0, "peak_bytes": 5})
    return tmp_path


def test_what_it_took_is_told_together_with_the_courses_before(clone):
    before = read_json(clone / "results" / "run_reader.json")
    first = before["stages"]
    publishing.publish_reader(clone / "run")
    log = read_json(clone / "results" / "run_reader.json")
    assert (clone / "checkpoints" / "reader" / "model.safetensors").read_text() == "second"
    assert log["stages"] == first + [{"name": "finetune", "seconds": 50.0, "tokens": 9}]
    assert (log["total_seconds"], log["peak_bytes"]) == (150.0, 7) and "--further" in log["command"]
    (earlier,) = log["earlier"]
    assert (earlier["seed"], earlier["rounds"]) == (before["seed"], before["rounds"])
    (minutes,) = (claim for claim in log["claims"] if claim["name"] == "reader/minutes")
    assert minutes["value"] == pytest.approx(2.5)


def test_the_course_of_another_agent_is_not_shipped(clone):
    (clone / "checkpoints" / "reader" / "model.safetensors").write_text("a third one")
    before = (clone / "results" / "run_reader.json").read_text()
    with pytest.raises(KimiError, match="another agent"):
        publishing.publish_reader(clone / "run")
    assert (clone / "results" / "run_reader.json").read_text() == before


def test_a_run_that_began_with_random_weights_has_no_agent(tmp_path):
    assert publishing.first_weights(tmp_path) is None
    shutil.copy(RESULTS / "run.json", tmp_path)
    (tmp_path / "plan.json").write_text(json.dumps({"agent": None}))
    assert publishing.first_weights(tmp_path) is None
