"""What training passes leave behind: which passes count, what is forgotten when, and that it moves with the model."""

import copy

import pytest
import torch

from kimi_mini import KimiConfig, KimiMini
from kimi_mini.inference.cache import LatentCache
from kimi_mini.inference.generation import generate
from kimi_mini.model.statistics import Statistics

SMALL = KimiConfig.preset("nano", vocab_size=64, n_routed_experts=8, num_experts_per_tok=2)


def make():
    torch.manual_seed(0)
    return KimiMini(SMALL)


def batch(rows=2, length=12, seed=1):
    return torch.randint(0, SMALL.vocab_size, (rows, length), generator=torch.Generator().manual_seed(seed))


def is_new(statistics):
    return statistics.max_logits.isneginf().all() and not statistics.loads.any()


def test_a_training_pass_counts_every_layer():
    model = make()
    assert is_new(model.statistics) and model.statistics.max_logits.shape == (3, 3)
    model(batch())
    assert model.statistics.max_logits.isfinite().all()
    assert (model.statistics.loads.sum(-1) == 2 * 12 * 2).all() and model.statistics.loads.shape == (2, 8)


def test_each_layer_writes_to_its_own_rows():
    """The second MoE layer is the third layer: rows of loads are not rows of max_logits."""
    model, ids = make(), batch()
    routing, table = model.routing(ids), model.attention_weights(ids)
    model(ids)
    for row, (indices, _) in zip(model.statistics.loads, routing):
        assert row.tolist() == torch.bincount(indices.flatten(), minlength=8).tolist()
    assert len(table) == len(model.statistics.max_logits.unique(dim=0)) == 3


def feed_with_a_cache(model):
    """In training mode, as an agent's turns between two updates of RL might be: a chunk, then a token."""
    cache = LatentCache(SMALL, 2, 20)
    for tokens in (12, 1):
        model(batch(length=tokens), cache=cache.extend([tokens, tokens]))


@pytest.mark.parametrize(
    "look",
    [
        feed_with_a_cache,
        lambda model: generate(model, batch(), 3),
        lambda model: model.routing(batch()),
        lambda model: model.attention_weights(batch()),
        lambda model: model.eval()(batch()),
    ],
    ids=["cache", "generate", "routing", "attention_weights", "evaluation"],
)
def test_only_training_passes_count(look):
    model = make().train()
    look(model)
    assert is_new(model.statistics)


def test_forgetting():
    model = make()
    model(batch())
    kept = copy.deepcopy(model.statistics)
    model.statistics.forget_max_logits()
    assert model.statistics.max_logits.isneginf().all() and torch.equal(model.statistics.loads, kept.loads)
    model(batch())
    model.statistics.forget()
    assert is_new(model.statistics)


def test_the_bias_moves_by_the_loads_which_start_anew():
    model = make()
    model(batch())
    loads = model.statistics.loads.clone()
    model.update_router_bias(0.01)
    for router, load in zip(model.routers(), loads):
        expected = 0.01 * torch.sign(load.float().mean() - load)
        assert torch.equal(router.e_score_correction_bias, expected) and expected.any()
    assert not model.statistics.loads.any() and torch.equal(model.statistics.last_loads, loads)
    model.update_router_bias(0.01)  # nobody was seen since: nothing moves
    assert torch.equal(
        model.routers()[0].e_score_correction_bias, 0.01 * torch.sign(loads[0].float().mean() - loads[0])
    )


def check_moving(model):
    """After a training pass on the CPU the statistics go with the model to another device, and stay fp32 numbers when
    it is cast."""
    model(batch())
    maxima = model.statistics.max_logits.clone()
    model.bfloat16()
    assert torch.equal(model.statistics.max_logits, maxima)
    assert model.routers()[0].e_score_correction_bias.dtype == torch.float32
    model.to("meta")  # the second device that every machine has
    assert {x.device.type for x in (*model.parameters(), *model.buffers())} == {"meta"}
    assert {model.statistics.max_logits.device.type, model.statistics.loads.device.type} == {"meta"}
    model.statistics.layer(0).see(torch.zeros(3, device="meta"))


def test_statistics_move_with_the_model():
    check_moving(make())


def test_maxima_that_stay_behind_or_are_rounded_are_caught():
    """Mutants: plain attributes that stay on the old device; buffers that are cast with the weights."""
    behind = make()
    for name in ("max_logits", "loads"):
        kept = getattr(behind.statistics, name)
        del behind.statistics._buffers[name]
        setattr(behind.statistics, name, kept)
    rounded = make()
    rounded.statistics.__class__ = type("Cast", (Statistics,), {"_apply": torch.nn.Module._apply})
    for model in (behind, rounded):
        with pytest.raises((AssertionError, RuntimeError)):
            check_moving(model)


def test_statistics_are_no_part_of_a_checkpoint(tmp_path):
    model = make()
    assert not any("statistics" in key for key in model.state_dict())
    model(batch())
    model.save_pretrained(tmp_path)
    assert is_new(KimiMini.from_pretrained(tmp_path).statistics)
