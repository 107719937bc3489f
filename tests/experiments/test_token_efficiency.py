"""The comparison of ways to train: the same loss of the same model, tuned until bracketed, read off honestly."""

import numpy as np
import pytest
import torch

from kimi_mini.base.evidence import Log
from kimi_mini.experiments.muonclip import token_efficiency as te
from kimi_mini.experiments.muonclip import token_runs


def law(way, a, b, tokens, seed=0, seconds=0.2):
    """Runs that follow loss = a * tokens^-b exactly."""
    return [
        dict(
            way=way, seed=seed, tokens=n, asked=n, loss=a * n**-b, step_seconds=seconds, lr=0.01, tables=0.01
        )
        for n in tokens
    ]


OURS, ADAMW = (8.0, 0.06), (8.0, 0.05)


def check_tokens_to(function):
    curve = law("MuonClip", *OURS, (80_000, 160_000, 320_000, 640_000))
    for tokens in (80_000, 100_000, 200_000, 500_000, 1_000_000):  # the last one lies beyond the runs
        assert function(OURS[0] * tokens ** -OURS[1], curve[::-1]) == pytest.approx(tokens, rel=1e-6)


def test_tokens_to_a_loss_are_read_off_the_curve():
    check_tokens_to(te.tokens_to)


def test_a_loss_is_measured_only_between_runs():
    curve = [{"tokens": 1, "loss": 4.0}, {"tokens": 2, "loss": 3.5}]
    assert [te.is_measured(loss, curve) for loss in (3.4, 3.5, 3.7, 4.0, 4.1)] == [
        False,
        True,
        True,
        True,
        False,
    ]


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
        log.rows += law("AdamW", *ADAMW, budgets, seed) + law(
            "transformers", *ADAMW, budgets, seed, seconds=0.4
        )
        log.rows += law("MuonClip", *OURS, (80_000, 160_000, 320_000), seed, seconds=0.25)
        log.rows += law(te.UNBALANCED, 7.0, ADAMW[1], budgets, seed)
        log.rows += law(te.TWO_RATES, *OURS, budgets, seed, seconds=0.5)  # as good as MuonClip, half as fast
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
    assert claims["pretraining/transformers_at_the_largest_budget"] == pytest.approx(
        1 / (shares[1] * 0.25 / 0.4)
    )
    for suffix in ("", "_at_the_largest_budget"):
        assert claims[f"pretraining/two_rates/tokens{suffix}"] == pytest.approx(1)
        assert claims[f"pretraining/two_rates/seconds{suffix}"] == pytest.approx(0.5)
    assert log.more["laws"]["AdamW"] == pytest.approx(ADAMW) and log.more["laws"][
        "MuonClip"
    ] == pytest.approx(OURS)
    assert log.more["by_budget"]["tokens 400000"]["value"] == pytest.approx(shares[1])
    assert te.law_ratio(log.more["laws"], 400_000) == pytest.approx(shares[1])
    for way in ("AdamW", "transformers"):
        assert log.more["above_unbalanced"][f"{way} 400000"]["value"] == pytest.approx(400_000 ** -ADAMW[1])
    assert te.draw(log.as_dict()).axes[0].get_legend() is not None


class Valley:
    """Runs whose loss is smallest at one pair of rates."""

    def __init__(self, *best):
        self.best, self.asked = best, []

    def get(self, way, rates, tokens, seed):
        self.asked.append(rates)
        return {"lr": rates[0], "loss": sum(abs(np.log(rate / best)) for rate, best in zip(rates, self.best))}


@pytest.mark.parametrize("best", [0.001, 0.004, 0.05])
def test_tuning_goes_on_until_both_neighbours_are_worse(best):
    runs = Valley(best, best)
    (rate, tables), tried = token_runs.tuned("AdamW", 1000, runs, (0.004, 0.004))
    assert abs(np.log2(rate / best)) <= 0.5 and rate == tables  # one rate for everything
    assert {(rate / 2, rate / 2), (rate * 2, rate * 2)} <= set(runs.asked)
    assert len(runs.asked) == len(set(runs.asked)) == len(tried)


@pytest.mark.parametrize("way", [te.MUONCLIP, te.TWO_RATES])
def test_ways_with_two_rates_find_both(way):
    runs = Valley(0.002, 0.032)
    rates, _ = token_runs.tuned(way, 1000, runs, (0.004, 0.004))
    assert rates == pytest.approx((0.002, 0.032))
    assert {(rates[0] * a, rates[1] * b) for a, b in ((2, 1), (0.5, 1), (1, 2), (1, 0.5))} <= set(runs.asked)


def test_the_optimizer_gets_both_rates():
    """Tables are embedding, head and norms; for transformers there is one rate, as it is mostly used."""
    for way in (te.MUONCLIP, te.ADAMW, te.TWO_RATES, te.UNBALANCED):
        model, optimizer = token_runs.model_and_optimizer(way, 0.002, 0.016, 3)
        rate = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
        assert rate[id(model.model.embed_tokens.weight)] == rate[id(model.lm_head.weight)] == 0.016
        assert rate[id(model.model.norm.weight)] == 0.016
        assert rate[id(model.model.layers[1].mlp.experts.up_proj)] == 0.002 and len(rate) == len(
            [*model.parameters()]
        )


class Valleys:
    """Every way and budget has best rates of its own."""

    def __init__(self):
        self.best = {
            (way, tokens): 0.001 * 2 ** ((3 * number + place) % 5)
            for number, way in enumerate((te.MUONCLIP, te.ADAMW, te.TWO_RATES, te.TRANSFORMERS))
            for place, tokens in enumerate((*te.BUDGETS, LONGEST))
        }

    def get(self, way, rates, tokens, seed):
        loss = sum(abs(np.log(rate / best)) for rate, best in zip(rates, self.pair(way, tokens)))
        return {"way": way, "tokens": tokens, "lr": rates[0], "tables": rates[1], "loss": loss}

    def pair(self, way, tokens):
        """Best rates of matrices and tables; way by way and budget by budget others."""
        best = self.best[way, tokens]
        return (best, 4 * best) if way in (te.MUONCLIP, te.TWO_RATES) else (best, best)


LONGEST = round(te.BUDGETS[0] * te.SHORTER[-1])


def check_tuning(tune, tmp_path):
    """Each kind of AdamW gets its own rates at every budget; MuonClip, whose rivals they are, at two lengths."""
    runs, log = Valleys(), Log("x", seeds=[0], folder=tmp_path, tuning=[])
    rates = tune(runs, int, log)
    near = lambda found, way, tokens: np.abs(np.log2(np.divide(found, runs.pair(way, tokens)))).max() <= 0.5
    for way in (te.ADAMW, te.TWO_RATES, te.TRANSFORMERS):
        assert all(near(rates[way][budget], way, budget) for budget in te.BUDGETS)
    assert rates[te.UNBALANCED] == rates[te.TRANSFORMERS]
    *shorter, longest = rates[te.MUONCLIP].values()
    assert near(longest, te.MUONCLIP, LONGEST) and len(shorter) == len(te.SHORTER) - 1
    assert all(near(found, te.MUONCLIP, te.BUDGETS[1]) for found in shorter)
    assert log.more["rates"] == rates and len(log.more["tuning"]) >= 3 * 12
    assert all(log.more["tuning"].count(entry) == 1 for entry in log.more["tuning"])


def test_every_rival_is_tuned_at_every_budget(tmp_path):
    check_tuning(te.tune, tmp_path)


def rates_of_the_other_code(runs, scaled, log):
    """Wrong: transformers runs at the rates that were best for our AdamW."""
    rates = te.tune(runs, scaled, log)
    return rates | {te.TRANSFORMERS: rates[te.ADAMW], te.UNBALANCED: rates[te.ADAMW]}


def one_rate_for_the_rival(runs, scaled, log):
    """Wrong: MuonClip alone has a rate for its tables."""
    rates = te.tune(runs, scaled, log)
    return rates | {te.TWO_RATES: rates[te.ADAMW]}


def the_middle_rate_for_all(runs, scaled, log):
    """Wrong: the rate of one budget for all."""
    rates = te.tune(runs, scaled, log)
    return {way: dict.fromkeys(by_budget, list(by_budget.values())[1]) for way, by_budget in rates.items()}


@pytest.mark.parametrize("mutant", [rates_of_the_other_code, one_rate_for_the_rival, the_middle_rate_for_all])
def test_wrong_tunings_are_caught(mutant, tmp_path):
    with pytest.raises(AssertionError):
        check_tuning(mutant, tmp_path)


def test_transformers_model_is_the_same_model_with_the_same_loss():
    """From the same seed: what is compared are ways to train, not models."""
    ids = torch.randint(0, 1024, (2, 24), generator=torch.Generator().manual_seed(0))
    ours, theirs = (
        token_runs.model_and_optimizer(way, 0.004, 0.004, 3)[0].eval() for way in ("AdamW", "transformers")
    )
    with torch.no_grad():
        assert token_runs.mean_loss(theirs, ids).item() == pytest.approx(
            token_runs.mean_loss(ours, ids).item(), abs=1e-5
        )


@pytest.fixture
def small(monkeypatch):
    """64 windows of 40 words, four of them a step."""
    windows = np.random.default_rng(0).integers(0, 40, (64, token_runs.WINDOW)).astype(np.uint16)
    data = windows, torch.from_numpy(windows[:4].astype(np.int64))
    monkeypatch.setattr(token_runs, "windows", lambda: data)
    monkeypatch.setattr(token_runs, "STEP_TOKENS", 4 * token_runs.WINDOW)
    return data


@pytest.mark.parametrize("way, moves", [("AdamW", True), ("MuonClip", True), (te.UNBALANCED, False)])
def test_only_the_way_without_the_rule_leaves_the_router_biases_alone(way, moves, small, monkeypatch):
    made, build = [], token_runs.model_and_optimizer
    monkeypatch.setattr(
        token_runs, "model_and_optimizer", lambda *asked: made.append(build(*asked)) or made[-1]
    )
    token_runs.run(way, 0.004, 0.004, 4 * 4 * token_runs.WINDOW, 0, small)
    biases = [
        buffer for name, buffer in made[0][0].named_buffers() if name.endswith("e_score_correction_bias")
    ]
    assert biases and all(bool(bias.any()) == moves for bias in biases)


@pytest.mark.slow
def test_a_run_trains_and_is_kept(tmp_path, small):
    runs = token_runs.Runs(tmp_path / "runs.json")
    made = runs.get("MuonClip", (0.008, 0.01), 8 * 4 * token_runs.WINDOW, 0)
    assert (
        made["tokens"] == 8 * 4 * token_runs.WINDOW
        and made["loss"] < np.log(1024) - 0.5
        and made["step_seconds"] > 0
    )
    assert (
        token_runs.Runs(tmp_path / "runs.json").get("MuonClip", (0.008, 0.01), 8 * 4 * token_runs.WINDOW, 0)
        == made
    )


def test_a_scale_that_makes_all_budgets_one_is_refused_in_a_line(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("sys.argv", ["token_efficiency", "--scale", "0.02", "--folder", str(tmp_path)])
    assert te.in_one_line(te.main) and "--scale must be 0.1 or more" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
