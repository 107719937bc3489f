"""The measuring instruments of `logit_growth`: logits recomputed, spikes counted, clips followed to the next step."""

import json
from functools import partial

import numpy as np
import pytest
import torch

from kimi_mini import KimiConfig, KimiMini
from kimi_mini.base.evidence import FAILS, HOLDS, OPEN, Log, verdict
from kimi_mini.course.figures import muonclip
from kimi_mini.evaluation.attention import attention_logits, head_maxima
from kimi_mini.experiments.muonclip import (
    clip_overshoot,
    clip_silence,
    logit_claims,
    logit_growth,
    logit_runs,
)
from kimi_mini.experiments.muonclip.logit_runs import Setting, spikes, summary, thin, train_one
from kimi_mini.training.batch import token_losses

SMALL = dict(
    vocab_size=256,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=2,
    first_k_dense_replace=2,
    kv_lora_rank=24,
    qk_nope_head_dim=8,
    qk_rope_head_dim=8,
    v_head_dim=8,
)


@pytest.fixture
def small(monkeypatch, tmp_path):
    """One tiny size and a folder of its own for the records."""
    monkeypatch.setattr(logit_runs, "SIZES", {"dense": KimiConfig(**SMALL)})
    monkeypatch.setattr(logit_runs, "KEPT", tmp_path)
    rows = np.random.default_rng(0).integers(0, 256, (40, 32)).astype(np.uint8)
    monkeypatch.setattr(logit_runs, "windows", lambda size: (rows[:30], rows[30:]))
    return Setting("dense", "muon", 0.1, 0.004, 0.0, 0.5, 0, 30)


# ---- logits ----------------------------------------------------------------------------------------------


def test_recomputed_logits_have_the_maxima_that_training_recorded():
    torch.manual_seed(0)
    model = KimiMini(KimiConfig(**SMALL)).train()
    ids = torch.randint(0, 256, (3, 24))
    model(ids)
    recorded = model.statistics.max_logits.clone()
    table = attention_logits(model, ids)
    assert table.shape == (2, 3, 2, 24, 24) and model.training
    torch.testing.assert_close(head_maxima(table), recorded, rtol=1e-4, atol=1e-6)
    assert torch.isneginf(table[..., 3, 4]).all() and table[..., 4, 3].isfinite().all()
    assert torch.equal(model.statistics.max_logits, recorded)  # looking is no evidence
    transposed = table.transpose(-1, -2)  # the mutant: keys and queries exchanged
    assert not torch.allclose(head_maxima(transposed.masked_fill(table.isneginf(), -torch.inf)), recorded)


# ---- spikes ----------------------------------------------------------------------------------------------


def noisy(jumps, length=200):
    loss = 3 + 0.05 * np.random.default_rng(0).standard_normal(length) - np.linspace(0, 1, length)
    for step in jumps:
        loss[step] += 1.0
    return loss


def check_spikes(count):
    assert count(noisy([])) == 0
    assert count(noisy([60])) == 1
    assert count(noisy([60, 61, 62])) == 1  # one spike of three steps
    assert count(noisy([60, 90, 150])) == 3
    assert count([3.0] * 10) == 0  # shorter than the window
    assert count(noisy([60]) - 2 * (np.arange(200) > 100)) == 1  # a drop is no spike


def test_spikes_follow_their_rule():
    check_spikes(spikes)


@pytest.mark.parametrize(
    "mutant",
    [
        lambda loss: int((np.diff(loss) > 0.5).sum() > 0),
        lambda loss: int(sum(abs(x - np.median(loss)) > 0.5 for x in loss)),
        lambda loss: spikes(loss, sigmas=0.5),
        lambda loss: spikes(loss, sigmas=60),
    ],
    ids=["at most one", "every step", "too eager", "blind"],
)
def test_wrong_spike_counts_are_caught(mutant):
    with pytest.raises(AssertionError):
        check_spikes(mutant)


def test_thin_keeps_peaks_where_it_takes_the_maximum():
    assert thin([1, 9, 2, 3, 7], 2, np.max) == [9, 3]
    assert thin([1, 9, 2, 3, 7], 2, np.mean) == [5, 2.5]


# ---- runs ------------------------------------------------------------------------------------------------


class Clip:
    def __init__(self, layer, head):
        self.layer, self.head = layer, head


def test_the_step_after_a_clip_is_looked_up_for_the_same_head():
    recorder = logit_runs.Recorder(None, type("O", (), {"tau": 10.0}), None, 1)
    recorder.maxima = [torch.tensor([[20.0, 3.0]]), torch.tensor([[9.0, 30.0]]), torch.tensor([[1.0, 11.0]])]
    recorder.clips = [[Clip(0, 0)], [Clip(0, 1)], [Clip(0, 1)]]  # the last has no next step
    assert recorder.after_clips() == pytest.approx([0.9, 1.1])


@pytest.mark.slow
def test_a_run_is_recorded_kept_and_repeatable(small):
    first = train_one(small)
    assert (
        first["clips"] > 0 and first["tau"] == 0.5 and len(first["loss"]) == 30 and first["stopped"] is None
    )
    assert first["after_clip"]["n"] > 0 and first["same_tokens"]["n"] > 0 and first["heads_ever_clipped"] <= 4
    assert sum(first["histogram"]["counts"][0]) == 2 * 2 * 4 * 32 * 33 // 2  # L, H, rows, allowed pairs
    before = small.file().read_text()
    assert (
        json.loads(before)["peak"] == pytest.approx(train_one(small)["peak"])
        and small.file().read_text() == before
    )
    small.file().unlink()
    again = train_one(small)
    assert {**again, "seconds": 0} == {**json.loads(before), "seconds": 0}
    assert train_one(small._replace(tau=float("inf")))["clips"] == 0
    assert small._replace(seed=1).file() != small.file()


def test_both_optimizers_see_the_same_weights_and_data(small):
    runs = [train_one(small._replace(optimizer=name, tau=1e9, lr=1e-9)) for name in ("muon", "adamw")]
    assert runs[0]["loss"][0] == runs[1]["loss"][0] and runs[0]["clips"] == runs[1]["clips"] == 0


def test_adamw_with_qk_clip_clips(small):
    run = train_one(small._replace(optimizer="adamw", lr=0.02, table_lr=0.02))
    assert run["clips"] > 0


def test_a_run_that_diverges_is_a_result(small, monkeypatch):
    def broken(model, batch):
        return torch.full((8,), float("nan"), requires_grad=True) * model.lm_head.weight.sum()

    calls = []

    def sometimes(model, batch):
        calls.append(0)
        return token_losses(model, batch) if len(calls) <= 12 else broken(model, batch)

    monkeypatch.setattr(logit_runs, "train", partial(logit_runs.train, losses=sometimes))
    run = train_one(small)
    assert run["validation"] is None and "step 12" in run["stopped"] and len(run["loss"]) == 12


# ---- claims ----------------------------------------------------------------------------------------------


def row(seed, arm, size="dense", peak=50.0, worst=None, clips=0, validation=2.0):
    after = {"n": clips, "worst": worst, "within": None if worst is None else float(worst <= 1.05)}
    return dict(
        size=size,
        arm=arm,
        seed=seed,
        peak=peak,
        after_clip=after,
        same_tokens=after,
        late=after,
        clips=clips,
        validation=validation,
        lr=0.1,
        table_lr=0.1,
        decay=0.0,
        tau=None,
        spikes=0,
        heads_ever_clipped=0,
    )


def report(**changes):
    """Claims over a made-up set of runs; changes: arm -> changed values, in the last seed of the dense model."""
    log = type("L", (), {"seeds": [0, 1, 2], "more": {"pair": []}, "found": {}})()
    log.claim = lambda name, **values: log.found.update({name: values})
    log.rows = []
    for size in logit_growth.SIZES:
        for seed in log.seeds:
            for arm in logit_growth.ARMS:
                extra = changes.get(arm, {}) if (seed, size) == (2, "dense") else {}
                base = dict(peak=200.0) if arm == "hot Muon" else {}
                log.rows.append(row(seed, arm, size, **{**base, "validation": 2 + 0.01 * seed, **extra}))
    logit_growth.report(log)
    return log.found


def test_one_seed_that_fails_is_seen():
    assert report()["logits/held"]["value"] is None, "where nothing is clipped nothing is held"
    assert report(**{"hot MuonClip 30": dict(worst=1.2, clips=3)})["logits/held"]["value"] == 1.2
    assert (
        report(**{"hot AdamW + QK-Clip 30": dict(worst=9.0, clips=3)})["logits/held"]["value"] is None
    )  # not MuonClip
    assert report()["logits/muon_passes_100_dense"]["value"] == 200
    assert report(**{"hot Muon": dict(peak=90.0)})["logits/muon_passes_100_dense"]["value"] == 90
    assert report()["logits/no_harm_dense"]["value"] == 0
    harmed = report(**{"MuonClip 100": dict(validation=2.5)})["logits/no_harm_dense"]
    assert harmed["value"] > harmed["floor"]
    clipped = report(**{"MuonClip 100": dict(validation=2.5, clips=4, worst=1.0)})["logits/no_harm_dense"]
    assert clipped["value"] == 0 and clipped["seeds"] == [
        0,
        1,
    ]  # a run that clipped says nothing about harm without


def test_a_change_of_loss_is_that_of_its_own_seed():
    """A run that diverged has none, and the others keep theirs."""
    rows = [row(seed, arm) for arm in ("Muon", "MuonClip 100") for seed in range(3)]
    rows[3]["validation"], rows[5] = None, rows[5] | {"validation": 3.5, "clips": 4}
    assert logit_claims.harm(rows, "MuonClip 100", "Muon", "dense") == {1: 0.0, 2: 1.5}
    found = {}
    logit_claims.claim_no_harm(lambda name, **values: found.update(values), rows, "dense")
    assert found["value"] == 0.0 and found["seeds"] == [1]


def test_arms_differ_in_what_they_say(small):
    best = {"muon": (0.02, 0.04, 0.1), "adamw": (0.004, 0.01, 0.0)}
    made = {arm: logit_growth.setting("dense", arm, best, 1, 400) for arm in logit_growth.ARMS}
    assert len(set(made.values())) == len(made)
    assert made["hot Muon"].lr > made["Muon"].lr and made["hot Muon"].decay == 0
    assert made["MuonClip 100"] == made["Muon"]._replace(tau=100.0)
    assert made["hot AdamW + QK-Clip 30"] == made["hot AdamW"]._replace(tau=30.0)


# ---- figures ---------------------------------------------------------------------------------------------


def test_figures_show_what_they_are_given():
    fig = muonclip.bands({"a": {"x": ([1, 2], [[1, 2], [3, 4]])}}, ["y"], [False], {"x": "red"}, [[2.0]], 1)
    line = next(line for line in fig.axes[0].lines if line.get_label() == "x")
    assert line.get_ydata().tolist() == [2, 3]
    fig = muonclip.heads([1, 2], np.ones((2, 3, 4)), 5.0)
    assert len(fig.axes) == 3 and len(fig.axes[0].lines) == 5
    before = np.ones((4, 3))
    after = np.array([1, 1, 0.5, 0.5])[:, None] * before
    fig = muonclip.rows(before, after, {"a": (0, 2), "b": (2, 4)})
    assert fig.axes[2].lines[0].get_xdata().tolist() == [1, 1, 0.5, 0.5]
    muonclip.singular_values({"a": [2, 1]})


def test_a_histogram_shows_density_and_an_equal_one_dashed():
    fig = muonclip.histogram([-1, 0, 4], {"a": [1, 4], "b": [1, 4]}, 1.0)  # as many in each unit of logit
    first, second = fig.axes[0].patches
    assert (
        first.get_data().values.tolist() == pytest.approx([0.2, 0.2])
        and "per unit" in fig.axes[0].get_ylabel()
    )
    assert (first.get_linestyle(), second.get_linestyle()) == ("-", "--")


def test_every_setting_shows_its_loss_and_lines_that_coincide_differ_in_their_dashes():
    rows = [
        row(seed, arm, size) | dict(group=4, loss=[3.0, 2.0, 1.5], max_logit=[1.0, 2.0, 3.0])
        for seed in (0, 1)
        for arm in logit_growth.ARMS
        for size in logit_growth.SIZES
    ]
    fig = logit_growth.draw({"rows": rows})
    titles = [ax.get_title(loc="left") for ax in fig.axes]
    assert titles == [
        f"{size}, {heat}: {what}"
        for size in logit_growth.SIZES
        for heat in ("tuned", "hot")
        for what in ("logits", "loss")
    ]
    for ax in fig.axes:
        styles = {
            line.get_label(): line.get_linestyle()
            for line in ax.lines
            if not line.get_label().startswith("_")
        }
        assert len({styles[arm] for arm in ("Muon", "MuonClip 100", "MuonClip 30")}) == 3


def test_summary_reads_its_columns(small):
    recorder = logit_runs.Recorder(None, type("O", (), {"tau": 10.0}), None, 1)
    recorder.maxima = [torch.full((2, 2), value) for value in (5.0, 120.0, 40.0)]
    recorder.clips, recorder.again = [[], [Clip(1, 0)], []], [1.0, 1.1]
    history = logit_runs.History(loss=[3.0, 2.0, 1.0], clipped_heads=[0, 1, 0])
    found = summary(small, history, recorder)
    assert (found["peak"], found["last"], found["passed_100"], found["last_clip_step"]) == (120, 40, 2, 2)
    assert found["after_clip"] == {"n": 1, "worst": 4.0, "within": 0.0}
    assert found["same_tokens"] == {"n": 2, "worst": 1.1, "within": 0.5}


# ---- one step after a clip -------------------------------------------------------------------------------


@pytest.fixture
def hot(small, monkeypatch):
    """The hot run of the tiny size: tau so low that every head is clipped at every step."""
    monkeypatch.setattr(clip_overshoot, "TAU", 0.05)
    monkeypatch.setattr(clip_overshoot, "HOT", 0.1)
    return clip_overshoot.hot_run(0, 20)


def test_arms_go_on_from_one_state_and_leave_it_as_it_was(hot):
    before = [value.clone() for value in hot[0].values()]
    rows = [clip_overshoot.go_on(hot, 0, rate, 4, 8) for rate in (1.0, 0.01, 1.0)]
    assert all(torch.equal(a, b) for a, b in zip(before, hot[0].values()))
    assert rows[0] | {"seconds": 0} == rows[2] | {"seconds": 0} and rows[0] != rows[1]
    assert rows[0]["clips"] > 8 and rows[0]["same_tokens"] > 0


def test_a_gentle_rate_overshoots_less_on_the_same_text(hot):
    worst = [clip_overshoot.go_on(hot, 0, rate, 4, 16)["same_tokens"] for rate in (1.0, 0.01)]
    assert worst[1] < worst[0]
    assert worst[1] < 1.05  # the clip itself is exact: what a tiny update leaves is tau


def overshoots(at_small, at_large):
    rows = [
        {
            "seed": seed,
            "rate": rate,
            "tokens": 256 * windows,
            "worst": 1.3,
            "clips": 9,
            "within": 0.9,
            "same_tokens": 1.01,
        }
        for seed in range(3)
        for rate in clip_overshoot.RATES
        for windows in clip_overshoot.STEPS
    ]
    for row in rows:
        if row["rate"] == clip_overshoot.RATES[-1]:
            row["worst"] = (at_large if row["tokens"] == 256 * clip_overshoot.LARGEST else at_small)[
                row["seed"]
            ]
    return rows


@pytest.mark.parametrize(
    ("large", "value"), [((1.02, 1.03, 1.01), 1.03), ((1.02, 1.06, 1.01), 1.06), ((1.02, 0.0, 1.01), None)]
)
def test_one_seed_over_the_bound_or_without_a_clip_is_seen(tmp_path, large, value):
    log = Log("clip_overshoot", seeds=[0, 1, 2], folder=tmp_path, tau=30, hot_rate=0.03, bound=1.05)
    log.rows = overshoots((1.2, 1.15, 1.18), large)
    clip_overshoot.report(log)
    found = {claim["name"]: (claim["verdict"], claim["value"]) for claim in log.claims}
    assert found["overshoot/held"] == (HOLDS if value == 1.03 else FAILS, value)
    assert [found[f"overshoot/{name}"][0] for name in ("same_text", "hot", "rate")] == [HOLDS, FAILS, HOLDS]
    assert (found["overshoot/batch"][1] is None) == (value is None), "no clip is no gain of large steps"
    assert clip_overshoot.draw(log.as_dict()).axes[0].lines


@pytest.mark.parametrize(("windows", "value"), [(4, 1.06), (32, 1.06), (256, 1.0501), (256, 0.0)])
def test_the_same_text_is_judged_at_every_size_of_a_step(tmp_path, windows, value):
    log = Log("clip_overshoot", seeds=[0, 1, 2], folder=tmp_path, tau=30, hot_rate=0.03, bound=1.05)
    log.rows = overshoots((1.2, 1.15, 1.18), (1.02, 1.03, 1.01))
    wanted = {"seed": 2, "rate": clip_overshoot.RATES[-1], "tokens": 256 * windows}
    next(row for row in log.rows if row.items() >= wanted.items())["same_tokens"] = value
    clip_overshoot.report(log)
    claim = next(claim for claim in log.claims if claim["name"] == "overshoot/same_text")
    assert claim["verdict"] == FAILS and claim["value"] == (value or None)


@pytest.mark.parametrize(
    ("muon", "said"), [((1.8, 1.81, 1.79), HOLDS), ((2.2, 2.21, 2.19), FAILS), ((1.2, 2.0, 2.7), OPEN)]
)
def test_muon_ends_lower_only_with_its_whole_interval(muon, said):
    """AdamW ends at 2 everywhere: clearly lower, clearly higher, and lower on average with zero in the interval."""
    log = type("L", (), {"seeds": [0, 1, 2], "more": {"pair": []}, "found": {}})()
    log.claim = lambda name, **values: log.found.update({name: values})
    log.rows = [
        row(seed, arm, validation=muon[seed] if arm == "Muon" else 2.0, worst=1.0, clips=1)
        for seed in log.seeds
        for arm in logit_growth.ARMS
    ]
    logit_growth.report(log)
    claim = log.found["logits/muon_loss_under_adamw_dense"]
    assert claim["seeds"] == [0, 1, 2]
    assert claim["value"] == pytest.approx(np.mean(muon) - 2.0) and verdict(**claim) == said


# ---- the clip falls silent -------------------------------------------------------------------------------


def silence(last=()):
    """Made-up runs of three seeds; last: the step of the last clip of an arm, seed by seed."""
    steps_of = {"clip": (40, 30, 45), "clip, no decay": (99, 100, 98), "decay, no clip": (None,) * 3} | dict(
        last
    )
    return [
        dict(
            size="dense",
            arm=arm,
            seed=seed,
            steps=100,
            last_clip_step=steps_of[arm][seed],
            group=50,
            validation=2.0,
            max_logit=[40.0, 20.0],
            clipped_heads=[1.0, 0.0],
        )
        for seed in range(3)
        for arm in clip_silence.ARMS
    ]


@pytest.mark.parametrize(
    ("last", "broken"),
    [
        ({}, set()),
        ({"clip": (40, 30, 51)}, {"silence/last_clip"}),
        ({"clip": (40, None, 45)}, {"silence/last_clip"}),
        ({"clip, no decay": (99, 60, 98)}, {"silence/not_without_decay"}),
    ],
)
def test_one_seed_that_goes_on_clipping_or_never_clips_is_seen(tmp_path, last, broken):
    log = Log("clip_silence", seeds=[0, 1, 2], folder=tmp_path, tau=30.0)
    log.rows = silence(last)
    clip_silence.report(log)
    assert {claim["name"] for claim in log.claims if claim["verdict"] != HOLDS} == broken
    assert len(clip_silence.draw(log.as_dict()).axes) == 2


def test_a_harm_and_loud_logits_are_seen(tmp_path):
    log = Log("clip_silence", seeds=[0, 1, 2], folder=tmp_path, tau=30.0)
    log.rows = silence()
    for row in log.rows:
        row["validation"] += 0.1 * (row["arm"] == "clip")
        row["max_logit"][-1] += 11 * (row["arm"] == "decay, no clip" and row["seed"] == 1)
    clip_silence.report(log)
    assert {c["name"] for c in log.claims if c["verdict"] != HOLDS} == {
        "silence/no_harm",
        "silence/decay_alone",
    }


def test_a_rate_that_does_not_fall_stays_up_and_has_a_record_of_its_own(small):
    assert logit_runs.factor(29, 30) < 0.2 and logit_runs.factor(29, 30, falls=False) == 1
    assert logit_runs.factor(0, 30, falls=False) < 0.2  # the warm-up stays
    constant = small._replace(falls=False)
    assert constant.file() != small.file() and train_one(constant)["loss"] != train_one(small)["loss"]


def test_a_hot_rate_without_a_clip_shows_nothing(tmp_path):
    log = Log("clip_overshoot", seeds=[0, 1, 2], folder=tmp_path, tau=30, hot_rate=0.03, bound=1.05)
    log.rows = overshoots((1.2, 1.15, 1.18), (1.02, 1.03, 1.01))
    for row in log.rows:
        if row["rate"] == 1.0:
            row["worst"] = 0.0
    clip_overshoot.report(log)
    found = {claim["name"]: claim["value"] for claim in log.claims}
    assert found["overshoot/hot"] is None and found["overshoot/rate"] is None


def test_a_peak_over_another_is_a_ratio():
    """Four times and a quarter are none; their arithmetic mean is twice."""
    log = type("L", (), {"found": {}})()
    claim = lambda name, **values: log.found.update({name: values})
    rows = [row(seed, "Muon", peak=peak) for seed, peak in enumerate((200.0, 12.5, 50.0))]
    logit_claims.claim_pair(claim, rows + [row(seed, "AdamW") for seed in range(3)], "dense")
    found = log.found["logits/muon_over_adamw_dense"]
    assert found["value"] == pytest.approx(1.0) and found["low"] > 0


def test_more_seeds_of_the_pair_narrow_its_interval_and_touch_nothing_else():
    def found(pair):
        log = type("L", (), {"seeds": [0, 1, 2], "more": {"pair": pair}, "found": {}})()
        log.claim = lambda name, **values: log.found.update({name: values})
        log.rows = [
            row(seed, arm, validation=1.9 + 0.05 * seed if arm == "Muon" else 2.0, worst=1.0, clips=1)
            for seed in log.seeds
            for arm in logit_growth.ARMS
        ]
        logit_growth.report(log)
        return log.found

    more = [
        row(seed, arm, validation=1.95 if arm == "Muon" else 2.0)
        for seed in (3, 4, 5)
        for arm in logit_growth.PAIR
    ]
    three, six = found([]), found(more)
    name = "logits/muon_loss_under_adamw_dense"
    assert six[name]["seeds"] == [0, 1, 2, 3, 4, 5] and six[name]["value"] == pytest.approx(-0.05)
    assert verdict(**three[name]) == OPEN and verdict(**six[name]) == HOLDS
    pair = (name, "logits/muon_over_adamw_dense")
    assert {key: value for key, value in three.items() if key not in pair} == {
        key: value for key, value in six.items() if key not in pair
    }
