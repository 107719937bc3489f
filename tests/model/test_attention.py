"""Latent attention: the recorded maximum, absorbed against naive, logits to look at. The kernels: test_kernels."""

import copy

import pytest
import torch

from kimi_mini import KimiConfig
from kimi_mini.model import attention as module
from kimi_mini.model.attention import LatentAttention
from kimi_mini.model.kernels import causal_attention
from kimi_mini.model.kernels.attention import BLOCK as BLOCKS
from kimi_mini.model.rope import rotations
from kimi_mini.model.statistics import Statistics

BLOCK = BLOCKS["cpu"]
NANO = KimiConfig.preset("nano", initializer_range=0.3)


def random_qkv(t, b=2, h=3, d_qk=8, d_v=12, seed=0):
    """q, k (b, h, t, d_qk) and v (b, h, t, d_v), value width unlike key width, large enough for sharp
    softmaxes."""
    g = torch.Generator().manual_seed(seed)
    sizes = (d_qk, d_qk, d_v)
    return [torch.randn(b, h, t, d, generator=g).mul_(1.5).requires_grad_() for d in sizes]


def layer(config=NANO, seed=0):
    """A LatentAttention with visible weights."""
    torch.manual_seed(seed)
    attention = LatentAttention(config)
    for name, weight in attention.named_parameters():
        torch.nn.init.normal_(weight, 1.0 if "layernorm" in name else 0.0, 0.3)
    return attention


def brute_max(q, k, v, scale, valid):
    """Largest allowed scaled logit of each head, pair by pair."""
    b, h, t, _ = q.shape
    best = torch.full((h,), float("-inf"))
    for row in range(b):
        for i in range(t):
            if valid[row, i]:
                logits = torch.einsum("hd,hjd->hj", q[row, :, i], k[row, :, : i + 1]) * scale
                best = torch.maximum(best, logits.amax(-1))
    return best


def check_max(attention):
    q, k, v = (x.detach() for x in random_qkv(BLOCK + 20))
    k[:, 1] = -q[:, 1].abs() * q[:, 1].sign()  # one head whose own-position logits are negative
    q[1, :, BLOCK:] *= 30  # padding with huge logits
    valid = torch.ones(2, BLOCK + 20, dtype=torch.bool)
    valid[1, BLOCK:] = False
    expected = brute_max(q, k, v, 0.35, valid)
    torch.testing.assert_close(attention(q, k, v, 0.35, valid)[1], expected, rtol=1e-6, atol=0)


def test_the_maximum_is_exact():
    check_max(causal_attention)


def wrong_max(kind):
    """Mutants of the recorded maximum."""

    def attention(q, k, v, scale, valid):
        scores = q @ k.transpose(-1, -2)
        allowed = torch.ones(scores.shape[-2:], dtype=torch.bool).tril() & valid[:, None, :, None]
        if kind == "unscaled":
            return None, scores.masked_fill(~allowed, float("-inf")).amax((0, 2, 3))
        scores = scores * scale
        if kind == "unmasked":
            return None, scores.masked_fill(~valid[:, None, :, None], float("-inf")).amax((0, 2, 3))
        if kind == "padding":
            return None, scores.masked_fill(~torch.ones_like(allowed).tril(), -1e9).amax((0, 2, 3))
        scores = scores.masked_fill(~allowed, float("-inf"))
        if kind == "absolute":
            return None, scores.masked_fill(~allowed, 0).abs().amax((0, 2, 3))
        if kind == "per layer":
            return None, scores.amax().expand(scores.shape[1])
        if kind == "outputs":  # measured on what attention returns
            return None, (scores.softmax(-1).nan_to_num() @ v).abs().amax((0, 2, 3))

    return attention


@pytest.mark.parametrize("kind", ["unscaled", "unmasked", "padding", "absolute", "per layer", "outputs"])
def test_wrong_maxima_are_caught(kind):
    with pytest.raises(AssertionError):
        check_max(wrong_max(kind))


def test_no_valid_row_gives_minus_infinity():
    q, k, v = random_qkv(4)
    _, maxima = causal_attention(q, k, v, 1.0, torch.zeros(2, 4, dtype=torch.bool))
    assert torch.equal(maxima, torch.full((3,), float("-inf")))


def test_the_layer_hands_a_running_maximum_to_its_tally():
    attention, x, statistics = layer(), torch.randn(2, 10, NANO.hidden_size), Statistics(NANO)
    rotation, tally = rotations(NANO, 10)[None], statistics.layer(1)
    attention(x, rotation)
    assert statistics.max_logits.isneginf().all()  # nobody asked
    attention(x, rotation, tally=tally)
    first = statistics.max_logits[1].clone()
    attention(0.01 * x, rotation, tally=tally)
    assert torch.equal(statistics.max_logits[1], first)  # the maximum over micro-batches, not the last
    attention(3 * x, rotation, tally=tally)
    assert (statistics.max_logits[1] > first).all()
    assert not statistics.max_logits.requires_grad
    assert statistics.max_logits[[0, 2]].isneginf().all()


def test_padding_on_the_right_changes_nothing():
    attention, x = layer(), torch.randn(1, 10, NANO.hidden_size)
    padded = torch.cat([x, 9 * torch.randn(1, 6, NANO.hidden_size)], 1)
    valid = torch.arange(16)[None] < 10
    one, other = Statistics(NANO), Statistics(NANO)
    short = attention(x, rotations(NANO, 10)[None], tally=one.layer(0))
    long = attention(padded, rotations(NANO, 16)[None], valid, tally=other.layer(0))
    torch.testing.assert_close(long[:, :10], short, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(other.max_logits[0], one.max_logits[0], atol=1e-5, rtol=1e-5)


def test_the_logits_to_look_at_are_those_that_attention_uses():
    attention, x, statistics = layer(), torch.randn(2, 7, NANO.hidden_size), Statistics(NANO)
    rotation = rotations(NANO, 7)[None]
    logits = attention.logits(x, rotation)
    assert logits.shape == (2, NANO.num_attention_heads, 7, 7)
    weights = logits.softmax(-1)
    assert (weights.triu(1) == 0).all()
    _, v = attention.expand(*attention.latents(x, rotation))
    by_hand = attention.o_proj((weights @ v).transpose(1, 2).flatten(2))
    out = attention(x, rotation, tally=statistics.layer(0))
    torch.testing.assert_close(by_hand, out, atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(logits.amax((0, 2, 3)), statistics.max_logits[0])
    rows = attention.logits(x, rotation, torch.tensor([5, 2]))
    torch.testing.assert_close(rows, logits[:, :, [5, 2]])


@pytest.mark.parametrize("changes", [{}, {"q_lora_rank": 24}, {"v_head_dim": 24, "qk_nope_head_dim": 8}])
def test_absorbed_equals_naive(changes):
    config = NANO.replace(**changes)
    attention, x = layer(config), torch.randn(3, 11, config.hidden_size)
    rotation = rotations(config, 11)[None]
    q = torch.cat(attention.queries(x, rotation), -1).transpose(1, 2)
    latents = torch.cat(attention.latents(x, rotation), -1)
    mask = torch.ones(11, 11, dtype=torch.bool).tril()[None, None]
    naive = attention.attend_naive(q, latents, mask)
    torch.testing.assert_close(attention.attend_absorbed(q, latents, mask), naive, atol=1e-5, rtol=1e-5)
    k, v = attention.expand(*latents.split([config.kv_lora_rank, config.qk_rope_head_dim], -1))
    torch.testing.assert_close(causal_attention(q, k, v, attention.scale)[0], naive, atol=1e-5, rtol=1e-5)


def check_bf16():
    """Both forms over a cache in bf16, logits up to 120: what is left is the rounding of keys and absorbed queries."""
    attention, x = (
        layer().double(),
        torch.randn(2, 40, 96, generator=torch.Generator().manual_seed(0)).double(),
    )
    rotation, mask = rotations(NANO, 40)[None], torch.ones(40, 40, dtype=torch.bool).tril()[None, None]
    attention.scale *= 4
    q = torch.cat(attention.queries(x, rotation), -1).transpose(1, 2).bfloat16()
    latents = torch.cat(attention.latents(x, rotation), -1).bfloat16()
    attention.kv_b_proj.bfloat16()
    exact = copy.deepcopy(attention).double()
    k, v = exact.expand(*latents.double().split([NANO.kv_lora_rank, NANO.qk_rope_head_dim], -1))
    expected = (q.double() @ k.mT * exact.scale).masked_fill(~mask, -torch.inf).softmax(-1) @ v
    for attend in (attention.attend_naive, attention.attend_absorbed):
        assert (attend(q, latents, mask).double() - expected).abs().max() < 0.035 * v.abs().max()


def test_bf16_over_a_cache():
    check_bf16()


@pytest.mark.parametrize("form", ["naive", "absorbed"])
def test_logits_over_a_cache_that_are_rounded_to_bf16_are_caught(form, monkeypatch):
    name = {"naive": "attention_logits", "absorbed": "wide_bmm"}[form]
    product = getattr(module, name)
    monkeypatch.setattr(module, name, lambda *arguments: product(*arguments).bfloat16().float())
    with pytest.raises(AssertionError):
        check_bf16()


def test_absorbing_without_the_latent_norm_is_caught():
    """Mutant: cache the raw latent instead of the normalised one."""
    attention, x = layer(), torch.randn(1, 5, NANO.hidden_size)
    rotation = rotations(NANO, 5)[None]
    q = torch.cat(attention.queries(x, rotation), -1).transpose(1, 2)
    good = torch.cat(attention.latents(x, rotation), -1)
    rank = NANO.kv_lora_rank
    raw = torch.cat([attention.kv_a_proj_with_mqa(x)[..., :rank], good[..., rank:]], -1)
    naive = attention.attend_naive(q, good, None)
    torch.testing.assert_close(attention.attend_absorbed(q, good, None), naive, atol=1e-5, rtol=1e-5)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(attention.attend_absorbed(q, raw, None), naive, atol=1e-5, rtol=1e-5)


def test_the_latent_norms_keep_their_own_epsilon():
    attention = LatentAttention(NANO.replace(rms_norm_eps=1e-3, q_lora_rank=24))
    assert attention.kv_a_layernorm.eps == attention.q_a_layernorm.eps == 1e-6


def test_rope_key_is_shared_by_all_heads():
    attention, x = layer(), torch.randn(1, 4, NANO.hidden_size)
    k, _ = attention.expand(*attention.latents(x, rotations(NANO, 4)[None]))
    rope_part = k[..., NANO.qk_nope_head_dim :]
    assert torch.equal(rope_part, rope_part[:, :1].expand_as(rope_part))
