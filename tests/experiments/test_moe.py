"""The arithmetic of the routing experiments: equal sizes are equal, savings are read off right, arms differ as they say."""

import numpy as np
import pytest
from digits import to_five

from kimi_mini.base.evidence import Log
from kimi_mini.base.files import read_json
from kimi_mini.base.intervals import over_seeds
from kimi_mini.base.paths import RESULTS
from kimi_mini.experiments.moe import balance, shared, sparsity, specialisation


def size(config):
    return config.count_parameters()


def test_a_token_costs_the_same_whatever_the_number_of_experts_but_for_the_router():
    base = size(sparsity.ARMS["8"])
    for experts in sparsity.EXPERTS:
        now = size(sparsity.ARMS[str(experts)])
        assert (
            now.activated_without_embeddings - now.router == base.activated_without_embeddings - base.router
        )
    dense, large = size(sparsity.ARMS["dense, same activated"]), size(sparsity.ARMS["dense, as large as 64"])
    assert dense.total_without_embeddings == pytest.approx(
        base.activated_without_embeddings - base.router, rel=0.001
    )
    assert large.activated_without_embeddings == pytest.approx(
        size(sparsity.ARMS["64"]).total_without_embeddings, rel=0.02
    )


def test_balance_arms_have_equal_sizes():
    def shape(arm):
        settings = {key: value for key, value in balance.ARMS[arm].items() if key not in balance.TRAINING}
        return size(shared.shape(**{"experts": balance.EXPERTS, "chosen": balance.CHOSEN} | settings))

    ours, without = shape("sign"), shape("no shared")
    assert without.shared_experts == 0
    assert without.total_without_embeddings - without.router == ours.total_without_embeddings - ours.router
    assert (
        without.activated_without_embeddings - without.router
        == ours.activated_without_embeddings - ours.router
    )


def test_facts_follow_their_table():
    table = np.random.default_rng(0).integers(0, sparsity.THIRD, (sparsity.FIRST, sparsity.SECOND))
    windows = sparsity.facts(table, 5, 1).astype(int) - sparsity.FIRST_WORD
    first, second, third = (windows[:, place : shared.LENGTH // 3 * 3 : 3] for place in range(3))
    assert (third - sparsity.FIRST - sparsity.SECOND == table[first, second - sparsity.FIRST]).all()
    assert len(np.unique(first)) == sparsity.FIRST and len(np.unique(second)) == sparsity.SECOND
    _, held_out, learned = sparsity.read("facts", 1000, 0)
    assert learned.sum() == shared.LENGTH // 3 and learned[2] and not learned[:2].any()
    assert held_out["facts"].shape[1] == shared.LENGTH


def curve(loss_at_end, steps, speed):
    return list(loss_at_end + np.exp(-speed * np.arange(steps)))


def test_savings_count_flops_to_the_same_loss():
    base = {"train_loss": curve(1.0, 400, 0.01), "flops_per_token": 100}
    twice = {"train_loss": curve(1.0, 400, 0.02), "flops_per_token": 100}
    assert sparsity.saved(twice, base, 0.0) == pytest.approx(2.0, rel=0.05)
    assert sparsity.saved(base, twice, 0.0) == pytest.approx(0.5, rel=0.05)
    dearer = twice | {"flops_per_token": 125}
    assert sparsity.saved(dearer, base, 0.0) == pytest.approx(1.6, rel=0.05)
    assert sparsity.saved(base, base, 0.3) == 1.0


def test_the_ratio_of_silence_is_own_over_the_largest_of_the_others():
    """Whichever way the other went; a mean would let a fall hide a rise."""
    assert specialisation.ratio({"of": "a", "rise": {"a": 0.3, "b": 0.05, "c": 0.15}}) == pytest.approx(2.0)
    assert specialisation.ratio({"of": "a", "rise": {"a": 0.3, "b": -0.1, "c": 0.0}}) == pytest.approx(3.0)


@pytest.mark.slow
def test_a_short_run_of_every_way_to_balance_says_what_it_did():
    windows, held_out = shared.texts(shared.ROWS * shared.LENGTH * 4, 0, held_out=2)
    rows = {
        arm: balance.measure(arm, balance.ARMS[arm], windows, held_out, 4, 0)
        for arm in ("none", "sign", "centred", "loss")
    }
    assert rows["none"]["bias_mean"] == rows["loss"]["bias_mean"] == 0
    assert rows["centred"]["bias_mean"] < 1e-6 < rows["sign"]["bias_mean"]
    assert rows["loss"]["loss"] != rows["none"]["loss"]
    assert len(rows["sign"]["load"]) == 2 and len(rows["sign"]["load"][0]) == balance.EXPERTS


@pytest.mark.parametrize(
    "module", [balance, sparsity, specialisation], ids=lambda module: module.__name__.split(".")[-1]
)
def test_a_committed_log_claims_what_its_rows_say(module, tmp_path):
    log = Log(module.__name__.split(".")[-1], folder=tmp_path)
    kept = read_json(RESULTS / log.path.name)
    log.rows, log.seeds = kept["rows"], kept["seeds"]
    module.report(log)
    assert to_five(log.claims) == to_five(kept["claims"])
    assert {claim["figure"] for claim in log.claims} == {f"figures/{log.path.stem}.png"}


def test_a_mean_of_domains_does_not_hide_a_price(tmp_path):
    log = Log("balance", seeds=[0, 1, 2], folder=tmp_path)
    for seed in log.seeds:
        for arm in balance.ARMS:
            dearer = 0.0 if arm == "none" else 0.06 + seed / 1000
            losses = {"prose": 3.0 - dearer, "tool calls": 2.0 + dearer}
            loss = float(np.mean(list(losses.values())))
            log.row(seed=seed, arm=arm, by_domain=losses, loss=loss, max_vio=0.1, dead=0)
    balance.report(log)
    found = {claim["name"]: claim for claim in log.claims}
    assert found["moe/price_sign"]["verdict"] == "holds"
    worst = found["moe/price_sign/worst"]
    assert worst["verdict"] == "does not hold" and worst["value"] == pytest.approx(0.0305)
    assert "worst: tool calls" in worst["claim"] and worst["floor"] == found["moe/price_sign"]["floor"]


def test_claims_of_sparsity_say_how_many_doublings_they_compare():
    claims = {claim["name"]: claim["claim"] for claim in read_json(RESULTS / "sparsity.json")["claims"]}
    single = [text for text in claims.values() if text.startswith("facts, one doubling: ")]
    assert len(single) == 5 and claims["sparsity/facts_8_to_64"].startswith("facts, three doublings: ")


def test_the_loss_panel_of_sparsity_shows_t_intervals_as_the_savings_do():
    log = read_json(RESULTS / "sparsity.json")
    value, low, high = over_seeds([row["loss"] for row in sparsity.find(log["rows"], "text", "8")])
    whisker = next(line for line in sparsity.draw(log).axes[4].lines if line.get_marker() == "_")
    assert list(whisker.get_ydata()) == pytest.approx([low, high]) and low < value < high
