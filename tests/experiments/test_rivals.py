"""The rivals of latent attention: equal caches, causal, keys shared as their names say; a verdict that can go either way."""

import pytest
import torch

from kimi_mini.experiments.attention import rivals


@pytest.mark.parametrize("arm", rivals.ARMS)
def test_every_arm_caches_as_much_and_sees_nothing_that_comes_later(arm):
    model = rivals.build(arm, seed=0)
    assert rivals.cached_numbers(model) == rivals.CACHED
    ids = torch.randint(0, 1024, (1, 24))
    changed = ids.clone()
    changed[0, 20:] = 5
    a, b = model(ids).logits, model(changed).logits
    torch.testing.assert_close(a[:, :20], b[:, :20], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(a[:, 20:], b[:, 20:])


def test_grouped_attention_is_torchs_own_with_shared_heads():
    """Against F.scaled_dot_product_attention(enable_gqa=True) on the same queries, keys and values."""
    model = rivals.build("GQA", seed=0)
    attn, x = model.model.layers[0].self_attn, torch.randn(2, 9, model.config.hidden_size)
    rotation = torch.ones(1, 9, attn.d // 2, dtype=torch.complex64)  # no turn: positions are tested above
    split = lambda linear, heads: linear(x).unflatten(-1, (heads, attn.d)).transpose(1, 2)
    q, k, v = split(attn.q_proj, rivals.HEADS), split(attn.k_proj, 2), split(attn.v_proj, 2)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    torch.testing.assert_close(attn(x, rotation), attn.o_proj(expected.transpose(1, 2).flatten(2)))


def test_a_difference_counts_for_mla_in_both_measures_and_can_go_against_it():
    rows = [
        {"arm": "MLA", "loss": 3.0, "found": [1.0, 0.5]},
        {"arm": "MQA", "loss": 3.2, "found": [0.5, 0.0]},
        {"arm": "MHA", "loss": 2.9, "found": [1.0, 1.0]},
    ]
    assert rivals.differences(rows, "loss", "MQA") == [pytest.approx(0.2)]
    assert rivals.differences(rows, "found", "MQA") == [pytest.approx(0.5)]
    assert rivals.differences(rows, "loss", "MHA") == [pytest.approx(-0.1)]
    assert rivals.differences(rows, "found", "MHA") == [pytest.approx(-0.25)]
