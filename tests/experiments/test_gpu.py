"""`python -m kimi_mini gpu`: every part by rehearsal on a CPU, and no row of a GPU without one."""

import json
from dataclasses import replace

import pytest
import torch

from kimi_mini import __main__ as command_line
from kimi_mini.base.errors import KimiError
from kimi_mini.base.evidence import Log
from kimi_mini.base.files import read_json
from kimi_mini.base.paths import GPU_FLOORS, GPU_RESULTS
from kimi_mini.experiments.gpu import (
    dense,
    drawings,
    exactness,
    logits,
    main,
    pretraining,
    runs,
    speed,
    timing,
)
from kimi_mini.experiments.gpu.sheet import Sheet, floors
from kimi_mini.experiments.gpu.site import OutOfTime, Site
from kimi_mini.model import kernels
from kimi_mini.model.kernels import TABLE, Versions
from kimi_mini.model.moe import Router
from kimi_mini.pipeline.plan import Optimizer
from kimi_mini.training.batch import text_batch
from kimi_mini.training.loop import History, load_state


@pytest.fixture
def site(tmp_path):
    return Site.choose(True, tmp_path)


def test_the_published_folder_is_the_same_by_any_path(monkeypatch):
    """Its text and saved states lie outside of it, and its figures with the others."""
    monkeypatch.chdir(GPU_RESULTS.parent)
    named, usual = Site.choose(True, GPU_RESULTS.name), Site.choose(True, GPU_RESULTS)
    assert (named.folder, named.work, named.figures) == (usual.folder, usual.work, usual.figures)


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory):
    """The folder of a rehearsal of all parts."""
    folder = tmp_path_factory.mktemp("gpu")
    assert command_line.main(["gpu", "--rehearsal", "--folder", str(folder)]) == 0
    return folder


# ---- the whole ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_rehearsal_runs_every_part_and_makes_every_claim(rehearsed):
    logs = {name: read_json(rehearsed / f"{name}.json") for name in main.PARTS}
    for name, log in logs.items():
        assert log["complete"] and log["device"] == "cpu" and "gpu" not in log["versions"]
        wanted = {row["name"] for row in floors().values() if row["part"] == name}
        assert {claim["name"] for claim in log["claims"]} == wanted
        assert not [row for row in log["rows"] if "failed" in row]
        for claim in log["claims"]:
            planned = floors()[claim["name"]]
            assert (claim["floor"], claim["at_most"]) == (planned["floor"], planned["at_most"])
    assert {row["part"] for row in floors().values()} <= set(main.PARTS)
    drawn = {path.stem for path in rehearsed.glob("*.png")}
    assert drawn == {f"gpu_{name}" for name in drawings.DRAWINGS} and set(drawings.DRAWINGS) <= set(
        main.PARTS
    )
    figures = {f"figures/{name}.png" for name in drawn}
    assert {row["figure"] for row in floors().values()} <= figures | {None}


@pytest.mark.slow
def test_the_runs_of_a_part_are_what_they_say(rehearsed):
    """Tuned on a seed that is not measured; the rivals share tokens or seconds; pre-training goes on to its end."""
    grown, rivals, long = (
        {row["name"]: row for row in read_json(rehearsed / f"{name}.json")["rows"]}
        for name in ("logits", "dense", "pretraining")
    )
    assert {row["seed"] for name, row in grown.items() if name.startswith("grid")} == {runs.TUNING_SEED}
    results = [row for name, row in grown.items() if name.startswith(("mini", "midi"))]
    wanted = 3 * [("midi", 0)] + 3 * [("mini", seed) for seed in runs.SEEDS]
    assert sorted((row["size"], row["seed"]) for row in results) == sorted(wanted)
    caps = {row["optimizer"]: [] for row in results}
    for row in results:
        caps[row["optimizer"]].append(row["tau"])
    assert caps["adamw"] == [None] * 4 and len(caps["muon"]) == 8 and caps["muon"].count(None) == 4
    for seed in runs.SEEDS:
        equal, moe = rivals[f"dense, equal tokens, seed {seed}"], rivals[f"moe, all, seed {seed}"]
        assert equal["tokens"] == moe["tokens"]
    assert long["mini"]["validation"] < long["mini"]["validation_before"] and long["text"]["bytes"] > 50_000
    assert long["rates"]["lr"] == grown["mini, muon, seed 0"]["lr"]
    samples = [row for name, row in long.items() if name.startswith("samples")]
    assert len(samples) >= 5 and all(len(row["texts"]) == 2 for row in samples)
    assert not list((rehearsed / "work").glob("*.pt"))


def run_of(validation, **more):
    return {"validation": validation, **more}


def test_the_grid_takes_the_lowest_validation_loss_and_leaves_out_what_diverged(site, monkeypatch):
    losses = iter([None, 2.0])
    monkeypatch.setattr(runs, "train_one", lambda site, config, setting: run_of(next(losses), lr=setting.lr))
    best = runs.tuned(Sheet(site, "a"), site, "mini", None, "muon", 2)
    assert best["lr"] == runs.RATES["muon"][1]
    monkeypatch.setattr(runs, "train_one", lambda *_: run_of(None))
    with pytest.raises(KimiError, match="every run of the grid of muon diverged"):
        runs.tuned(Sheet(site, "b"), site, "mini", None, "muon", 2)


def test_a_seed_that_diverged_leaves_the_claim_unmeasured():
    assert runs.over_seeds([0.1, None, 0.3]) == (None, None, None)
    value, low, high = runs.over_seeds([0.1, 0.2, 0.3])
    assert low < value < high and value == pytest.approx(0.2)
    assert runs.minus(run_of(3.0), run_of(None)) is None and runs.minus(run_of(3.0), run_of(1.0)) == 2.0


def test_times_as_large_are_ratios():
    value, low, _ = runs.over_seeds([4.0, 0.25, 1.0], ratios=True)
    assert value == pytest.approx(1.0) and low > 0
    assert runs.over_seeds([4.0, None], ratios=True) == (None, None, None)


def test_pretraining_goes_on_with_the_rates_that_it_began_with(site, monkeypatch):
    """Its log names them; the part `logits` may be measured between two calls."""
    seen, found = [], [Optimizer(lr=0.1), Optimizer(lr=0.2)]
    monkeypatch.setattr(Site, "text", lambda _: {"bytes": 1, "files": 1})
    monkeypatch.setattr(pretraining, "pace", lambda _: {"steps": 5})
    monkeypatch.setattr(pretraining, "rates", lambda _: found.pop(0))

    def read_on(sheet, site, plan, optimizer):
        seen.append(optimizer)
        if len(seen) == 1:
            raise OutOfTime("the time is over")
        return {"loss": 1.0}

    monkeypatch.setattr(pretraining, "read_on", read_on)
    with pytest.raises(OutOfTime):
        pretraining.measure(site)
    pretraining.measure(site)
    assert seen == [Optimizer(lr=0.1)] * 2


def test_the_steps_of_a_part_fit_its_seconds(tmp_path):
    card = Site(False, torch.device("cpu"), tmp_path, tmp_path)
    assert runs.steps_in(card, seconds=100, runs=10, step_seconds=0.05) == 200
    assert runs.steps_in(card, 100, 10, 1e-9) == runs.MOST_STEPS
    budgets = (*logits.SECONDS.values(), dense.SECONDS, pretraining.SECONDS)
    assert (
        sum(budgets) <= 25 * 60 - 8 * 60
    )  # eight minutes are left for speed, exactness, writing and compiling


@pytest.mark.slow
def test_what_is_whole_is_not_measured_again_and_what_was_stopped_goes_on(rehearsed, capsys):
    file = rehearsed / "exactness.json"
    log, before = read_json(file), (rehearsed / "generation.json").stat().st_mtime_ns
    cut = {**log, "complete": False, "rows": [{**log["rows"][0], "worst": 0.5}]}
    file.write_text(json.dumps(cut))
    assert command_line.main(["gpu", "--rehearsal", "--folder", str(rehearsed)]) == 0
    again = read_json(file)
    assert again["rows"][0]["worst"] == 0.5 and len(again["rows"]) == len(log["rows"]) and again["complete"]
    assert (rehearsed / "generation.json").stat().st_mtime_ns == before
    assert "is whole; delete it to measure again" in capsys.readouterr().out


def test_rows_of_another_machine_are_not_taken_over(site):
    sheet = Sheet(site, "a")
    sheet.once("x", lambda: {"value": 1})
    again = Sheet(site, "a")
    assert again.once("x", lambda: {"value": 2})["value"] == 1
    assert again.log.earlier == read_json(sheet.log.path)["seconds"]  # what it takes over it counts
    saved = read_json(sheet.log.path)
    sheet.log.path.write_text(json.dumps({**saved, "versions": {**saved["versions"], "processor": "other"}}))
    other = Sheet(site, "a")
    assert other.once("x", lambda: {"value": 2})["value"] == 2 and other.log.earlier == 0


def test_a_part_that_fails_leaves_the_others_their_turn(site, monkeypatch, capsys):
    def broken(site):
        raise KimiError("no such kernel")

    monkeypatch.setattr(main, "PARTS", {"broken": broken, "whole": lambda site: Sheet(site, "whole")})
    status = command_line.main(["gpu", "--rehearsal", "--folder", str(site.folder)])
    assert status == 2 and read_json(site.folder / "whole.json")["complete"]
    assert "broken failed" in capsys.readouterr().err


class Clock:
    """A row takes fifteen minutes."""

    now = 100.0

    def __call__(self):
        return self.now

    def row(self):
        self.now += 15 * 60
        return {"value": self.now}


def in_rows(clock, part, *rows):
    def measure(site):
        sheet = Sheet(site, part)
        for row in rows:
            sheet.once(row, clock.row)
        return sheet

    return measure


def test_after_25_minutes_nothing_new_is_begun_and_the_same_command_goes_on(site, monkeypatch, capsys):
    clock = Clock()
    parts = {"long": in_rows(clock, "long", "a", "b", "c"), "next": in_rows(clock, "next", "d")}
    monkeypatch.setattr(main, "PARTS", parts)
    monkeypatch.setattr(main.Site, "choose", lambda *_: replace(site, clock=clock))
    command = ["gpu", "--rehearsal", "--folder", str(site.folder)]
    assert command_line.main(command) == 2
    log = read_json(site.folder / "long.json")
    assert [row["name"] for row in log["rows"]] == ["a", "b"] and not log["complete"]
    assert (
        log["stopped"].startswith("c: the 25 minutes are over") and not (site.folder / "next.json").exists()
    )
    said = capsys.readouterr().err
    assert "25 minutes are over: the same command goes on with long, next" in said and "failed" not in said
    assert command_line.main(command) == 0
    log = read_json(site.folder / "long.json")
    assert (
        [row["name"] for row in log["rows"]] == ["a", "b", "c"] and log["complete"] and "stopped" not in log
    )
    assert log["rows"][0]["value"] == 1000.0 and read_json(site.folder / "next.json")["complete"]


def test_a_long_training_that_is_out_of_time_is_saved_and_goes_on(site, monkeypatch):
    """Not a step is lost: what the second call trains are the steps behind the first one's."""
    calls = []

    def train(model, optimizer, data, steps, schedule, state_file, progress, **_):
        history = History()
        if state_file.exists():
            history = load_state(state_file, model, optimizer)
        for step in range(len(history.loss), steps):
            calls.append(step)
            for values in (history.loss, history.max_logit):
                values.append(1.0)
            history.tokens.append(10)
            history.seconds += 1.0
            progress(step, history)
        return history

    monkeypatch.setattr(pretraining, "train", train)
    monkeypatch.setattr(pretraining, "evaluate_loss", lambda *_: 1.0)
    monkeypatch.setattr(pretraining, "sample", lambda *_: "text")
    monkeypatch.setattr(Site, "windows", lambda *_: (torch.zeros(8, 128).int().numpy(),) * 2)
    late = replace(site, deadline=0.0, clock=lambda: float(len(calls) >= 2))
    sheet, plan = (
        Sheet(site, "pretraining"),
        {"window": 128, "step_tokens": 256, "steps": 5, "micro_tokens": None},
    )
    arguments = (sheet, site, plan, Optimizer())
    with pytest.raises(OutOfTime):
        pretraining.read_on(sheet, late, plan, Optimizer())
    assert calls == [0, 1] and pretraining.read_on(*arguments)["tokens"] == 50
    assert calls == [0, 1, 2, 3, 4]


# ---- no GPU, no row ----------------------------------------------------------------------------------------


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_one_line_says_what_to_do(capsys):
    assert command_line.main(["gpu"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "a GPU is needed" in said and "--rehearsal" in said


def test_an_unknown_part_lists_the_parts(capsys):
    assert command_line.main(["gpu", "--rehearsal", "--parts", "flight"]) == 2
    assert "no part flight; choose from: exactness, speed" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_row_of_a_gpu_is_never_written_without_one(tmp_path):
    before = sorted(GPU_RESULTS.iterdir())
    with pytest.raises(KimiError, match="speed.json would be a log of a GPU"):
        Log("speed", folder=GPU_RESULTS)
    with pytest.raises(KimiError, match="would be a log of a GPU"):
        Sheet(Site(True, torch.device("cpu"), GPU_RESULTS, tmp_path), "speed")
    with pytest.raises(KimiError, match="only be written where there is one"):
        Log("speed", folder=GPU_RESULTS, device="cuda").save()
    with pytest.raises(KimiError, match="would be a log of a GPU"):
        command_line_folder = GPU_RESULTS / ".." / "gpu"
        Log("speed", folder=command_line_folder)
    assert sorted(GPU_RESULTS.iterdir()) == before


def test_the_floors_are_those_of_the_issue():
    """What was asked for before anything was measured."""
    wanted = {"mfu-mini": 0.3, "mfu-midi": 0.4, "transformers": 3, "maxima": 1.02, "peak": 40, "default": 0.9}
    assert {name: floors()[f"gpu/{name}"]["floor"] for name in wanted} == wanted
    assert [name for name in wanted if floors()[f"gpu/{name}"]["at_most"]] == ["maxima", "peak"]
    assert GPU_FLOORS.parent == GPU_RESULTS


# ---- exactness ---------------------------------------------------------------------------------------------


def wrong_maxima(q, k, v, scale, valid=None, track=True):
    out, maxima = TABLE["attention"].reference(q, k, v, scale, None, track)  # padding counts
    return out, maxima


def wrong_gradient(x, weight, eps):
    unit = x.detach() * (x.square().mean(-1, keepdim=True) + eps).rsqrt()  # half of it
    return unit * weight


@pytest.mark.parametrize(("kernel", "wrong"), [("attention", wrong_maxima), ("norm", wrong_gradient)])
def test_a_kernel_that_is_wrong_exceeds_what_is_allowed(site, monkeypatch, kernel, wrong):
    case = exactness.cases(site)[kernel]
    assert exactness.errors(kernel, case, torch.float32)["worst"] < 1
    honest = TABLE[kernel]
    monkeypatch.setitem(TABLE, kernel, Versions(honest.reference, honest.cpu, wrong))
    assert exactness.errors(kernel, case, torch.float32)["worst"] > 1


# ---- speed -------------------------------------------------------------------------------------------------


def test_round_robin_gives_every_expert_the_same(site):
    router = Router(site.config("mini"))
    chosen = timing.round_robin(router, torch.rand(64, 4))
    assert torch.bincount(chosen.flatten()).tolist() == [32] * 4
    assert all(len(set(row)) == 2 for row in chosen.tolist())


@pytest.mark.slow
def test_the_step_is_whole_and_the_variants_do_what_they_say(site, monkeypatch):
    """Compiled layers, in turn: the optimizer moves the weights; forced loads are equal and end with their context;
    without maxima none are seen."""
    model, seen = timing.fresh(site, site.config("mini")), []
    ids = timing.text_of_a_step(site, 128, 512)
    honest = model.statistics.forget_max_logits
    monkeypatch.setattr(
        model.statistics,
        "forget_max_logits",
        lambda: (seen.append(model.statistics.max_logits.clone()), honest())[1],
    )
    with site.kernels():
        step = timing.our_step(site, model, ids, None, adamw=True)
        bare = kernels.using(attention=timing.untracked)(step)
        before = [param.detach().clone() for param in model.parameters()]
        step(), bare(), step()
        assert all((old != new).any() for old, new in zip(before, model.parameters()))
        assert [bool(maxima.isfinite().all()) for maxima in seen] == [True, False, True]
        assert seen[1].isneginf().all()
        learned = model.statistics.last_loads[0].tolist()
        with timing.forced_balance():
            step()
            assert model.statistics.last_loads[0].tolist() == [256] * 4
        step()
        assert learned != [256] * 4 and model.statistics.last_loads[0].tolist() != [256] * 4


def test_a_ratio_is_of_medians_and_of_opposite_quartiles():
    row = lambda *values: dict(
        zip(("tokens_per_second", "tokens_per_second_low", "tokens_per_second_high"), values)
    )
    assert speed.ratio(row(6, 5, 8), row(2, 1, 4)) == (3, 5 / 4, 8)
    assert speed.ratio(row(6, 5, 8), speed.best([{"failed": "no kernel"}])) == (None, None, None)


def test_seconds_are_measured_in_turn_after_the_warm_up(site):
    told = []
    first, second = timing.times(site, lambda: told.append("a"), lambda: told.append("b"), rounds=3, warm=2)
    assert told == ["a", "b"] * 5 and len(first) == len(second) == 3


def test_a_setting_of_transformers_that_does_not_run_says_why(site, monkeypatch):
    def broken(*_):
        raise RuntimeError("no kernel\nfor this")

    monkeypatch.setattr(timing, "their_step", broken)
    ids = timing.text_of_a_step(site, 128, 256)
    found = timing.transformers_times(site, site.config("mini"), ids, "bf16 weights", rounds=1)
    assert found == {"failed": "RuntimeError: no kernel"}


# ---- text --------------------------------------------------------------------------------------------------


def test_text_is_found_without_a_network_and_the_held_out_part_is_its_own(site):
    found = site.text()
    assert found["training"].dtype.name == "uint16" and 50_000 < found["bytes"] <= 300_000
    assert len(found["training"]) > len(found["validation"]) > 128
    again = site.windows(128)
    assert again[0].shape == (len(found["training"]) // 128, 128)


def test_the_windows_that_are_timed_are_learned_from_whole(site):
    batch = text_batch(timing.text_of_a_step(site, 128, 512).numpy())
    assert batch.learned == 4 * 127 and batch.valid.all()
