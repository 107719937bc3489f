"""The comparison of ways to train: the same loss of the same model, tuned until bracketed, read off honestly."""

import numpy as np
import pytest
import torch

from kimi_mini.experiments import token_efficiency as te
from kimi_mini.results import Log


def law(way, a, b, tokens, seed=0, seconds=0.2):
    """Runs that follow loss = a * tokens^-b exactly."""
    return [dict(way=way, seed=seed, tokens=n, asked=n, loss=a * n**-b, step_seconds=seconds, lr=0.01) for n in tokens]


OURS, ADAMW = (8.0, 0.06), (8.0, 0.05)


def check_tokens_to(function):
    curve = law("MuonClip", *OURS, (80_000, 160_000, 320_000, 640_000))
    for tokens in (80_000, 100_000, 200_000, 500_000, 1_000_000):  # the last one lies beyond the runs
        assert function(OURS[0] * tokens ** -OURS[1], curve[::-1]) == pytest.approx(tokens, rel=1e-6)


def test_tokens_to_a_loss_are_read_off_the_curve():
    check_tokens_to(te.tokens_to)


def linear(loss, curve):
    """Wrong: straight in tokens, which flatters whoever stands between two points."""
    curve = sorted(curve, key=lambda entry: entry["loss"])
    return float(np.interp(loss, [e["loss"] for e in curve], [e["tokens"] for e in curve]))


def nearest(loss, curve):
    """Wrong: the first run that is good enough."""
    return float(min(e["tokens"] for e in curve if e["loss"] <= loss + 1e-9))


@pytest.mark.parametrize("mutant", [linear, nearest])
def test_wrong_readings_are_caught(mutant):
    with pytest.raises((AssertionError, ValueError)):
        check_tokens_to(mutant)


def test_shares_and_laws_of_known_curves(tmp_path):
    log = Log("x", seeds=[0, 1], folder=tmp_path)
    budgets = (200_000, 400_000)
    for seed in (0, 1):
        log.rows += law("AdamW", *ADAMW, budgets, seed) + law("transformers", *ADAMW, budgets, seed, seconds=0.4)
        log.rows += law("MuonClip", *OURS, (80_000, 160_000, 320_000), seed, seconds=0.25)
    log.more["tuning"] = law("AdamW", *ADAMW, [40 * te.STEP_TOKENS], 100, seconds=3.0)
    before = sum(run["step_seconds"] * run["tokens"] / te.STEP_TOKENS for run in log.rows)
    te.report(log, [0, 1])
    assert log.more["training_seconds"] == round(before + 120)  # tuning counts
    shares = [budget ** (5 / 6) / budget for budget in budgets]  # 8 n^-0.06 = 8 b^-0.05
    claims = {claim["name"]: claim["value"] for claim in log.claims}
    assert claims["pretraining/tokens"] == pytest.approx(np.mean(shares))
    assert claims["pretraining/seconds"] == pytest.approx(np.mean(shares) * 0.25 / 0.2)
    assert claims["pretraining/transformers"] == pytest.approx(1 / (np.mean(shares) * 0.25 / 0.4))
    assert claims["pretraining/tokens_at_the_largest_budget"] == pytest.approx(shares[1])
    assert claims["pretraining/seconds_at_the_largest_budget"] == pytest.approx(shares[1] * 0.25 / 0.2)
    assert claims["pretraining/transformers_at_the_largest_budget"] == pytest.approx(1 / (shares[1] * 0.25 / 0.4))
    assert log.more["laws"]["AdamW"] == pytest.approx(ADAMW) and log.more["laws"]["MuonClip"] == pytest.approx(OURS)
    assert log.more["by_budget"]["tokens 400000"]["value"] == pytest.approx(shares[1])
    assert te.law_ratio(log.more["laws"], 400_000) == pytest.approx(shares[1])
    assert te.draw(log.as_dict()).axes[0].get_legend() is not None


class Valley:
    """Runs whose loss is smallest at one learning rate."""

    def __init__(self, best):
        self.best, self.asked = best, []

    def get(self, way, lr, tokens, seed):
        self.asked.append(lr)
        return {"lr": lr, "loss": abs(np.log(lr / self.best))}


@pytest.mark.parametrize("best", [0.001, 0.004, 0.05])
def test_tuning_goes_on_until_both_neighbours_are_worse(best):
    runs = Valley(best)
    rate, tried = te.tuned("AdamW", 1000, runs, 0.004)
    assert abs(np.log2(rate / best)) <= 0.5
    assert {rate / 2, rate * 2} <= {entry["lr"] for entry in tried}
    assert len(runs.asked) == len(set(runs.asked))


def test_transformers_model_is_the_same_model_with_the_same_loss():
    """From the same seed: what is compared are ways to train, not models."""
    ids = torch.randint(0, 1024, (2, 24), generator=torch.Generator().manual_seed(0))
    ours, theirs = (te.model_and_optimizer(way, 0.004, 3)[0].eval() for way in ("AdamW", "transformers"))
    with torch.no_grad():
        assert te.mean_loss(theirs, ids).item() == pytest.approx(te.mean_loss(ours, ids).item(), abs=1e-5)


def test_a_run_trains_and_is_kept(tmp_path, monkeypatch):
    windows = np.random.default_rng(0).integers(0, 40, (64, te.WINDOW)).astype(np.uint16)
    held_out = torch.from_numpy(windows[:4].astype(np.int64))
    monkeypatch.setattr(te, "windows", lambda: (windows, held_out))
    monkeypatch.setattr(te, "STEP_TOKENS", 4 * te.WINDOW)
    runs = te.Runs(tmp_path / "runs.json")
    made = runs.get("MuonClip", 0.008, 8 * 4 * te.WINDOW, 0)
    assert made["tokens"] == 8 * 4 * te.WINDOW and made["loss"] < np.log(1024) - 0.5 and made["step_seconds"] > 0
    assert te.Runs(tmp_path / "runs.json").get("MuonClip", 0.008, 8 * 4 * te.WINDOW, 0) == made
