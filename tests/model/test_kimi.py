"""KimiMini as a whole: keys, initialisation, learning, statistics for training and figures, determinism."""

import copy

import pytest
import torch
import torch.nn.functional as F

from kimi_mini import KimiConfig, KimiMini

SMALL = KimiConfig.preset("nano", vocab_size=64, q_lora_rank=24, n_routed_experts=8, num_experts_per_tok=2)


def make(config=SMALL, seed=0):
    torch.manual_seed(seed)
    return KimiMini(config)


def batch(rows=2, length=12, seed=1):
    return torch.randint(0, SMALL.vocab_size, (rows, length), generator=torch.Generator().manual_seed(seed))


def loss_of(model, ids, valid=None):
    return F.cross_entropy(model(ids, valid=valid).logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def test_state_dict_keys_are_those_of_hugging_face():
    keys = set(make().state_dict())
    attention = {
        "q_a_proj.weight",
        "q_a_layernorm.weight",
        "q_b_proj.weight",
        "kv_a_proj_with_mqa.weight",
        "kv_a_layernorm.weight",
        "kv_b_proj.weight",
        "o_proj.weight",
    }
    dense = {"gate_proj.weight", "up_proj.weight", "down_proj.weight"}
    routed = {
        "gate.weight",
        "gate.e_score_correction_bias",
        "experts.gate_proj",
        "experts.up_proj",
        "experts.down_proj",
    } | {f"shared_experts.{name}" for name in dense}
    expected = {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"}
    for i in range(3):
        expected |= {f"model.layers.{i}.self_attn.{name}" for name in attention}
        expected |= {f"model.layers.{i}.mlp.{name}" for name in (routed if i else dense)}
        expected |= {f"model.layers.{i}.{name}_layernorm.weight" for name in ("input", "post_attention")}
    assert keys == expected


def test_without_q_lora_there_is_a_plain_q_proj():
    keys = set(make(SMALL.replace(q_lora_rank=None)).state_dict())
    assert "model.layers.0.self_attn.q_proj.weight" in keys
    assert not any("q_a_proj" in key for key in keys)


def test_initialisation():
    model = make(KimiConfig.preset("nano", initializer_range=0.05))
    for name, weight in model.named_parameters():
        if "norm" in name:
            assert (weight == 1).all(), name
        else:
            assert weight.std().item() == pytest.approx(0.05, rel=0.1), name
    assert all((router.e_score_correction_bias == 0).all() for router in model.routers())


def test_logits_and_hidden_states_agree():
    model, ids = make(), batch()
    out = model(ids)
    assert out.logits.shape == (2, 12, SMALL.vocab_size)
    torch.testing.assert_close(model.lm_head(model.hidden_states(ids)), out.logits)


@pytest.mark.parametrize("shape", [(5,), (0, 5), (5, 0), (1, 2, 3)])
def test_input_that_is_no_batch_is_one_line(shape):
    with pytest.raises(ValueError, match=r"\(batch, length\), not empty, got \("):
        make()(torch.zeros(shape, dtype=torch.long))
    with pytest.raises(ValueError, match="got list"):
        make()([[1, 2]])


def test_positions_from_the_limit_on_are_refused_on_both_roads():
    model = make(SMALL.replace(max_position_embeddings=12))
    model(batch()), model(batch(), positions=torch.arange(12))
    with pytest.raises(ValueError, match=r"0 \.\. 11 .*got 0 \.\. 12"):
        model(batch(length=13))
    for positions in (torch.arange(1, 13), torch.arange(1, 13).expand(2, -1)):
        with pytest.raises(ValueError, match=r"got 1 \.\. 12"):
            model(batch(), positions=positions)
    with pytest.raises(ValueError, match=r"got -1 \.\. 10"):  # a table would count from its end
        model(batch(), positions=torch.arange(-1, 11))


def test_the_future_does_not_leak():
    model, ids = make().eval(), batch()
    changed = ids.clone()
    changed[:, 7] = (changed[:, 7] + 1) % SMALL.vocab_size
    a, b = model(ids).logits, model(changed).logits
    torch.testing.assert_close(a[:, :7], b[:, :7])
    assert not torch.allclose(a[:, 7:], b[:, 7:])


def test_shifted_positions_leave_attention_as_it_was():
    """RoPE is relative: the same tokens at positions 5, 6, ... give the same logits."""
    model, ids = make().eval(), batch()
    expected = model(ids).logits
    shifted = model(ids, positions=torch.arange(5, 17)).logits
    torch.testing.assert_close(shifted, expected, atol=1e-5, rtol=1e-4)
    spread = model(ids, positions=3 * torch.arange(12)).logits
    assert not torch.allclose(spread, expected, atol=1e-5)


def test_padding_changes_neither_logits_nor_statistics():
    model, ids = make(), batch(1)
    padded = torch.cat([ids, torch.zeros(1, 5, dtype=torch.long)], 1)
    valid = torch.arange(17)[None] < 12
    expected, twin = model(ids).logits, copy.deepcopy(model.statistics)
    model.statistics.forget()
    torch.testing.assert_close(model(padded, valid=valid).logits[:, :12], expected, atol=1e-5, rtol=1e-4)
    assert torch.equal(model.statistics.loads, twin.loads)
    torch.testing.assert_close(model.statistics.max_logits, twin.max_logits)


def test_every_parameter_gets_a_gradient():
    model, ids = make(), batch(4, 40)
    loss_of(model, ids).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_routing_for_figures():
    model, ids = make(), batch()
    routing = model.routing(ids)
    assert model.training and model.statistics.loads.sum() == 0
    assert len(routing) == 2
    for indices, weights in routing:
        assert indices.shape == weights.shape == (2, 12, 2)
        torch.testing.assert_close(weights.sum(-1), torch.full((2, 12), SMALL.routed_scaling_factor))


def test_attention_weights_for_figures():
    weights = make().attention_weights(batch())
    assert weights.shape == (3, 2, 3, 12, 12)
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 2, 3, 12))


def train(steps, seed=0):
    """A few plain AdamW steps on one batch, router bias moving; returns the model and its losses."""
    model, ids, losses = make(seed=seed), batch(4, 16), []
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = loss_of(model, ids)
        loss.backward()
        optimizer.step()
        model.update_router_bias(0.005)
        losses.append(loss.item())
    return model, losses


def test_it_learns_a_batch_by_heart():
    _, losses = train(30)
    assert losses[0] == pytest.approx(4.16, abs=0.1)  # ln 64: no opinion at the start
    assert losses[-1] < 1.6


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
def test_training_twice_gives_the_same_bits(threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        a, b = (train(3)[0].state_dict() for _ in range(2))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_bfloat16_stays_close():
    model, ids = make().eval(), batch()
    expected = model(ids).logits.softmax(-1)
    model.bfloat16()
    torch.testing.assert_close(model(ids).logits.float().softmax(-1), expected, atol=5e-3, rtol=0)


def test_one_dense_layer_only_is_a_plain_transformer():
    model = make(SMALL.replace(num_hidden_layers=2, first_k_dense_replace=2))
    assert model.routers() == [] and model(batch()).logits.shape == (2, 12, 64)
    assert model.statistics.loads.shape == (0, SMALL.n_routed_experts)
    model.update_router_bias(0.01)
