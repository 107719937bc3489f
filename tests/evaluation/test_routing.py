"""Measurements of routing: information against known cases, silence that silences, loads that add up; domains apart."""

import numpy as np
import pytest
import torch
from tiny import tiny_model

from kimi_mini.evaluation import routing
from kimi_mini.experiments.moe import domains

IDS = np.random.default_rng(0).integers(0, 1024, (6, 20))


# -- mutual information ----------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 4, 16])
def test_experts_of_ones_own_say_all_bits_of_the_label(n):
    labels = np.repeat(np.arange(n), 50)[:, None]  # (B, 1)
    assert routing.mutual_information(labels, labels[..., None]) == pytest.approx(np.log2(n))
    both = np.stack([labels, labels + n], -1)  # two experts each: still no more than the label holds
    assert routing.mutual_information(labels, both) == pytest.approx(np.log2(n))


def test_independent_experts_say_nothing():
    rng = np.random.default_rng(0)
    labels, experts = rng.integers(0, 4, (400, 50)), rng.integers(0, 16, (400, 50, 3))
    assert routing.mutual_information(labels, experts) < 0.002


def test_shuffled_labels_read_about_zero_where_true_ones_read_much():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 50)[:, None].repeat(30, 1)  # (200, 30)
    experts = (4 * labels + rng.integers(0, 6, labels.shape))[..., None] % 16
    assert routing.mutual_information(labels, experts) > 0.5
    assert routing.shuffled_information(labels, experts).mean() < 0.03


def topical(seed=0):
    """A router that follows the text, not the domain: every text has three favourites, drawn at random."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(4), 6)[:, None].repeat(200, 1)  # (24, 200)
    favourites = rng.integers(0, 16, (24, 3))
    return labels, favourites[np.arange(24)[:, None], rng.integers(0, 3, labels.shape)][..., None]


def check_control(shuffled):
    labels, experts = topical()
    measured, chance = routing.mutual_information(labels, experts), shuffled(labels, experts)
    assert measured < 1.5 * chance  # nothing that chance would not show


def test_the_control_knows_that_tokens_of_a_text_belong_together():
    check_control(lambda *given: routing.shuffled_information(*given).mean())


def test_a_control_that_shuffles_single_tokens_is_caught():
    def wrong(labels, experts):
        mixed = np.random.default_rng(0).permutation(labels.ravel()).reshape(labels.shape)
        return routing.mutual_information(mixed, experts)

    with pytest.raises(AssertionError):
        check_control(wrong)


def test_a_permutation_test_counts_the_measured_order_and_ties():
    assert routing.permutation_p(0.5, np.array([0.1, 0.2, 0.3])) == 1 / 4  # never 0
    assert routing.permutation_p(0.2, np.array([0.1, 0.2, 0.3])) == 3 / 4
    rng = np.random.default_rng(0)
    chances = []
    for seed in range(40):  # a router that follows the text: p is spread out, not small
        labels, experts = topical(seed)
        measured = routing.mutual_information(labels, experts)
        chances.append(
            routing.permutation_p(measured, routing.shuffled_information(labels, experts, 39, seed))
        )
    assert 0.3 < np.mean(chances) < 0.7 and np.mean(np.array(chances) <= 0.05) < 0.2
    labels = np.repeat(np.arange(4), 6)[:, None].repeat(200, 1)
    experts = (4 * labels + rng.integers(0, 6, labels.shape))[..., None] % 16
    found = routing.shuffled_information(labels, experts, 199)
    assert routing.permutation_p(routing.mutual_information(labels, experts), found) == 1 / 200


def check_bits(information):
    joint = np.array([[3, 1], [1, 3]])  # counts of (label, expert)
    labels = np.repeat([0, 0, 1, 1], joint.ravel())[:, None]
    experts = np.repeat([0, 1, 0, 1], joint.ravel())[:, None, None]
    assert information(labels, experts) == pytest.approx(0.75 * np.log2(1.5) + 0.25 * np.log2(0.5))


def test_information_is_counted_in_bits():
    check_bits(routing.mutual_information)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda labels, experts: routing.mutual_information(labels, experts) * np.log(2),  # nats
        lambda labels, experts: routing.mutual_information(
            labels, np.unique(experts, return_inverse=True)[1].reshape(experts.shape) * 0
        ),  # one expert for all
    ],
)
def test_wrong_information_is_caught(wrong):
    with pytest.raises(AssertionError):
        check_bits(wrong)


# -- load ------------------------------------------------------------------------------------------------


def test_maxvio_and_dead_experts_of_known_loads():
    load = np.array([[10, 10, 10, 10], [40, 0, 0, 0]])
    assert routing.max_vio(load).tolist() == [0.0, 3.0]
    assert routing.dead(load).tolist() == [0, 3]
    assert routing.dead(np.array([1000, 1000, 5, 900])) == 1
    assert routing.max_vio(np.zeros((0, 4))).size == 0  # a model without experts


def test_routes_and_loads_count_every_choice():
    model = tiny_model()
    found = routing.routes(model, IDS)
    layers, k = len(model.routers()), model.config.num_experts_per_tok
    assert found.experts.shape == found.weights.shape == (layers, *IDS.shape, k)
    load = routing.loads(found.experts, model.config.n_routed_experts)
    assert load.sum(1).tolist() == [IDS.size * k] * layers
    np.testing.assert_allclose(found.weights.sum(-1), model.config.routed_scaling_factor, rtol=1e-5)


def check_meter(update):
    """Two steps, the first of two micro-batches with padding: each step's choices of real training tokens."""
    model = tiny_model()
    meter = routing.LoadMeter(model)
    ids = torch.as_tensor(IDS)
    valid = torch.arange(20).expand(len(ids), 20) < 13
    model.train()
    model(ids, valid=valid)
    model(ids[:2])  # two micro-batches of one step
    update(model)
    meter(0, None)
    model.eval()
    model(ids)
    model.train()
    model(ids[:1])
    update(model)
    meter(1, None)
    k = model.config.num_experts_per_tok
    first, second = (len(ids) * 13 + 2 * 20) * k, 20 * k
    assert meter.steps.sum(-1).tolist() == [[first] * len(model.routers()), [second] * len(model.routers())]
    expected = routing.loads(routing.routes(model, IDS[:1]).experts, model.config.n_routed_experts)
    assert meter.steps[1].tolist() == expected.tolist()


def test_the_meter_counts_steps_apart_without_padding_and_only_in_training():
    check_meter(lambda model: model.update_router_bias(0.0))


def test_a_meter_that_never_starts_anew_is_caught():
    def adding_up(model):
        model.statistics.last_loads = model.statistics.loads.clone()

    with pytest.raises(AssertionError):
        check_meter(adding_up)


def test_usage_and_coactivation_of_a_known_router():
    experts = np.array([[[0, 1], [0, 1], [2, 3], [2, 3]]])  # (1, 4, 2)
    assert routing.usage(np.array([[0, 0, 1, 1]]), experts, 4).tolist() == [
        [0.5, 0.5, 0, 0],
        [0, 0, 0.5, 0.5],
    ]
    table = routing.coactivation(experts, 4)
    assert (
        table[0, 1] == table[2, 3] == pytest.approx(3.0) and table[0, 2] == 0.0 and not np.diag(table).any()
    )


@pytest.mark.parametrize(("k", "count"), [(2, 4), (3, 16), (8, 64)])
def test_a_router_that_draws_at_random_meets_by_chance(k, count):
    """Mutant: chance as if a token could choose the same expert twice (0.67, 0.71, 0.89)."""
    rng = np.random.default_rng(0)
    experts = rng.random((40_000, count)).argsort(1)[:, :k]
    table = routing.coactivation(experts, count)
    assert table[~np.eye(count, dtype=bool)].mean() == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(
    ("piece", "name"),
    [
        (" whale", "word"),
        ("_x", "word"),
        (" 42", "number"),
        ("==", "sign"),
        (' "', "sign"),
        ("\n    ", "space"),
        ("<|im_end|>", "marker"),
        ("<think>", "marker"),
        ("[EOS]", "marker"),
        ("[", "sign"),
        ("<", "sign"),
    ],
)
def test_kinds_of_tokens(piece, name):
    assert routing.TOKEN_CLASSES[routing.token_class(piece)] == name


# -- silence ---------------------------------------------------------------------------------------------


def without(model, layer, expert):
    """The same model with the expert's last matrix set to zero: it says nothing, literally."""
    other = tiny_model()
    other.load_state_dict(model.state_dict())
    moe = [part.mlp for part in other.model.layers if part.routed][layer]
    with torch.no_grad():
        moe.experts.down_proj[expert] = 0.0
    return other


def check_silence(context):
    model, ids = tiny_model(), torch.as_tensor(IDS)
    chosen = int(np.bincount(routing.routes(model, IDS).experts[0].ravel()).argmax())
    before = model(ids).logits
    with context(model, 0, chosen):
        muted = model(ids).logits
    assert not torch.allclose(muted, before)
    torch.testing.assert_close(muted, without(model, 0, chosen)(ids).logits, atol=1e-5, rtol=1e-4)
    assert torch.equal(model(ids).logits, before)  # and speaks again afterwards


def test_silencing_silences_one_expert_and_ends():
    check_silence(routing.silenced)


class Replaced(routing.silenced):
    """Mutant: the bias keeps the expert from being chosen, so another one speaks in its place."""

    def __enter__(self):
        self.router.e_score_correction_bias[self.expert] = -1e9

    def __exit__(self, *_):
        self.router.e_score_correction_bias[self.expert] = 0.0


class Place(routing.silenced):
    """Mutant: the second choice is muted, whoever that is."""

    def _mute(self, router, arguments, routed):
        weights = routed[1].clone()
        weights[:, 1] = 0
        return routed[0], weights


class Forever(routing.silenced):
    def __exit__(self, *_):
        pass


@pytest.mark.parametrize("wrong", [Replaced, Place, Forever])
def test_wrong_silence_is_caught(wrong):
    with pytest.raises(AssertionError):
        check_silence(wrong)


def test_damage_is_the_rise_of_the_loss():
    model, texts = tiny_model(), {"a": IDS[:3], "b": IDS[3:]}
    rise = routing.damage(model, texts, 0, 1)
    quiet = routing.losses(without(model, 0, 1), texts)
    before = routing.losses(model, texts)
    assert all(rise[name] == pytest.approx(quiet[name] - before[name], abs=1e-5) for name in texts)


def test_losses_count_the_places_that_they_are_told_to():
    model, places = tiny_model(), np.zeros(20, bool)
    places[[5, 9]] = True
    ids = torch.as_tensor(IDS)
    logits = model(ids).logits[:, [4, 8]]  # what stands before a place predicts it
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, [5, 9]].flatten()).item()
    assert routing.losses(model, {"a": IDS}, places)["a"] == pytest.approx(expected, abs=1e-5)


def test_the_top_expert_is_preferred_not_just_busy():
    shares = np.array(
        [[[0.6, 0.3, 0.1], [0.7, 0.1, 0.2]], [[0.4, 0.3, 0.3], [0.3, 0.3, 0.4]]]
    )  # (L, domains, E)
    assert routing.top_expert(shares, 0) == (
        0,
        1,
    )  # expert 0 is busier, and busier still with the other domain
    assert routing.top_expert(shares, 1) in ((0, 0), (0, 2), (1, 2))


# -- domains ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer():
    from kimi_mini.text.tokenizer import Tokenizer

    return Tokenizer.load()


@pytest.fixture(scope="module")
def some(tokenizer):
    return {held_out: domains.windows(tokenizer, 8, 64, held_out) for held_out in (False, True)}


def test_windows_of_every_domain_have_their_size_and_their_kind(tokenizer, some):
    assert tuple(some[False]) == domains.DOMAINS
    assert all(pool.shape == (8, 64) and pool.dtype == np.int32 for pool in some[False].values())
    text = {name: tokenizer.decode(pool.ravel()) for name, pool in some[False].items()}
    assert (
        "\n    " in text["Python"]
        and "<|im_end|>" in text["tool calls"]
        and "functions." in text["tool calls"]
    )
    assert "<|im_" not in text["arithmetic"] + text["prose"] and "end." in text["arithmetic"]


def test_held_out_windows_are_not_in_training(some):
    for name in domains.DOMAINS:
        seen = {row.tobytes() for row in some[False][name]}
        assert not any(row.tobytes() in seen for row in some[True][name]), name


def test_a_step_takes_the_next_windows_of_every_domain():
    texts = {
        "a": np.arange(12, dtype=np.uint16).reshape(4, 3),
        "b": 100 + np.arange(12, dtype=np.uint16).reshape(4, 3),
    }
    (batch,) = domains.batches(texts, 1, 2)
    assert sorted(batch.ids[:, 0].tolist()) == [6, 9, 106, 109]
    assert batch.mask.all()
    (batch,) = domains.batches(texts, 1, 2, np.array([False, True, False]))
    assert batch.mask[:, 1].all() and batch.mask.sum() == 4
    (batch,) = domains.batches(texts, 2, 2)  # from the start again
    assert sorted(batch.ids[:, 0].tolist()) == [0, 3, 100, 103]


def test_too_little_text_is_said(tokenizer):
    with pytest.raises(ValueError, match="prose has"):
        domains.windows(tokenizer, 10_000, 128, held_out=True, domains=["prose"])
