"""Rotary positions: pairs, not halves; YaRN's frequencies and its sharper softmax."""

import math

import pytest
import torch

from kimi_mini import KimiConfig
from kimi_mini.model.rope import (
    RotationTable,
    apply_rope,
    frequencies,
    rotation_gain,
    rotations,
    softmax_scale,
    yarn_mscale,
    yarn_range,
)

K2 = KimiConfig.preset("k2")


def reference_rope(x, config):
    """One pair at a time, as DeepSeek writes it down. x (T, d_r)."""
    out = torch.empty_like(x)
    for position in range(x.shape[0]):
        for pair in range(x.shape[1] // 2):
            angle = position * config.rope_theta ** (-2 * pair / x.shape[1])
            a, b = x[position, 2 * pair], x[position, 2 * pair + 1]
            out[position, 2 * pair] = a * math.cos(angle) - b * math.sin(angle)
            out[position, 2 * pair + 1] = a * math.sin(angle) + b * math.cos(angle)
    return out


def halves_rope(x, rotation):
    """Mutant: turn (x_i, x_{i + d/2}), the convention of GPT-NeoX and Llama."""
    first, second = x.chunk(2, -1)
    turned = torch.view_as_real(torch.complex(first, second) * rotation)
    return torch.cat([turned[..., 0], turned[..., 1]], -1)


def check_pairs(rope):
    torch.manual_seed(0)
    config = KimiConfig.preset("nano")
    x = torch.randn(9, config.qk_rope_head_dim)
    torch.testing.assert_close(rope(x, rotations(config, 9)), reference_rope(x, config), atol=1e-5, rtol=0)


def test_neighbouring_pairs_are_turned():
    check_pairs(apply_rope)


def test_turning_halves_is_caught():
    with pytest.raises(AssertionError):
        check_pairs(halves_rope)


def test_scores_depend_on_the_distance_only():
    torch.manual_seed(0)
    config = KimiConfig.preset("nano")
    q, k = torch.randn(2, config.qk_rope_head_dim)
    table = rotations(config, 50)
    scores = [apply_rope(q, table[7 + shift]) @ apply_rope(k, table[shift]) for shift in (0, 5, 40)]
    torch.testing.assert_close(torch.stack(scores), scores[0].expand(3), atol=1e-5, rtol=1e-5)


def test_same_scores_as_transformers():
    """transformers may lay the result out in another order; the dot products are what counts."""
    from transformers.models.deepseek_v3.modeling_deepseek_v3 import apply_rotary_pos_emb_interleave

    torch.manual_seed(0)
    config = KimiConfig.preset("nano")
    q, k = torch.randn(2, 1, 2, 20, config.qk_rope_head_dim)
    angles = torch.outer(torch.arange(20.0), frequencies(config)).repeat(1, 2)[None]
    theirs_q, theirs_k = apply_rotary_pos_emb_interleave(q, k, angles.cos(), angles.sin())
    table = rotations(config, 20)
    ours = apply_rope(q, table) @ apply_rope(k, table).transpose(-1, -2)
    torch.testing.assert_close(ours, theirs_q @ theirs_k.transpose(-1, -2), atol=1e-5, rtol=1e-5)


def test_rope_keeps_dtype_and_length():
    x = torch.randn(3, 5, 16, dtype=torch.bfloat16)
    table = rotations(KimiConfig.preset("nano"), 5)
    out = apply_rope(x, table)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float().norm(dim=-1), x.float().norm(dim=-1), atol=0.03, rtol=0.01)


def test_yarn_of_k2_is_a_step_at_frequency_twenty():
    plain, stretched = frequencies(K2.replace(rope_scaling=None)), frequencies(K2)
    torch.testing.assert_close(stretched[:20], plain[:20])
    torch.testing.assert_close(stretched[20:], plain[20:] / 32)
    assert yarn_range(K2) == (19, 20)
    assert yarn_range(KimiConfig.preset("deepseek_v3")) == (10, 23)


@pytest.mark.parametrize(
    ("factor", "squared"), [(32, 1.8133), (40, 1.8739), (64, 2.0047), (1, 1.0), (0.5, 1.0)]
)
def test_mscale(factor, squared):
    assert yarn_mscale(factor, 1.0) ** 2 == pytest.approx(squared, abs=1e-4)


def check_scale(scale):
    assert scale(KimiConfig.preset("moonlight_16b")) == pytest.approx(192**-0.5)
    assert scale(K2) == pytest.approx(192**-0.5 * 1.8133, rel=1e-4)


def test_softmax_scale_has_both_widths_and_mscale_squared():
    check_scale(softmax_scale)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda c: c.qk_head_dim**-0.5,  # YaRN's mscale missing
        lambda c: softmax_scale(c) / (yarn_mscale(32, 1) if c.rope_scaling else 1),  # mscale, not squared
        lambda c: softmax_scale(c) * (c.qk_head_dim / c.qk_nope_head_dim) ** 0.5,  # nope width only
        lambda c: softmax_scale(c) * (c.qk_head_dim / c.v_head_dim) ** 0.5,  # value width
    ],
)
def test_wrong_softmax_scales_are_caught(wrong):
    with pytest.raises(AssertionError):
        check_scale(wrong)


def test_gain_is_one_for_the_released_models_and_mscale_without_the_pair():
    assert rotation_gain(K2) == rotation_gain(KimiConfig.preset("nano")) == 1.0
    scaling = {"type": "yarn", "factor": 32.0, "original_max_position_embeddings": 4096}
    alone = K2.replace(rope_scaling=scaling)
    assert rotation_gain(alone) == pytest.approx(yarn_mscale(32, 1))


def test_the_table_grows_and_keeps_its_values():
    config = KimiConfig.preset("nano")
    table = RotationTable(config)
    short = table(10, torch.device("cpu")).clone()
    long = table(3000, torch.device("cpu"))
    assert len(long) == 3000
    assert torch.equal(long[:10], short)
    assert torch.equal(long, rotations(config, 3000))
