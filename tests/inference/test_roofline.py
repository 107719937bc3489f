"""The costs of serving: published counts, sums by hand, and the versions that are known to be wrong."""

from math import ceil

import numpy as np
import pytest

from kimi_mini.base.errors import KimiError
from kimi_mini.inference.serving.roofline import (
    APIS,
    CARDS,
    GB,
    GIB,
    HOURS,
    Api,
    Card,
    Mode,
    bought,
    break_even,
    cards_needed,
    decode,
    hybrid,
    largest_batch,
    memory_per_card,
    prefill,
    price_per_million,
    touched,
)
from kimi_mini.model.config import KimiConfig
from kimi_mini.model.costs import FORMATS

K2, H200 = KimiConfig.preset("k2"), CARDS["H200"]
INT4, FP8, BF16 = (FORMATS[name] for name in ("int4", "fp8", "bf16"))
EVERY = [KimiConfig.preset(name) for name in ("nano", "micro", "mini", "moonlight_16b", "k2", "deepseek_v3")]
SLOW = Card(80, 1e6, 1e30, 1e30, 1e30, 1e30, 1, "a card whose memory decides")


def weights(config, form):
    return sum(config.weight_bytes(form).values())


# ------------------------------------------------------------------------------------------------- memory
@pytest.mark.parametrize(
    ("form", "published", "within"),
    [(INT4, 594e9, 0.5e9), (FP8, 1.03e12, 2e9)],  # the folders on the hub, 2nd-hand
    ids=["int4", "fp8"],
)
def test_checkpoints_are_as_large_as_those_on_the_hub(form, published, within):
    assert abs(weights(K2, form) - published) < within


def test_int4_with_well_known_mistakes_is_another_size():
    count = K2.count_parameters()
    without_scales = weights(K2, INT4) - count.routed_experts * 2 / 32
    shared_too = weights(K2, INT4) - count.shared_experts * (2 - INT4.experts)
    everything = count.total * INT4.experts
    for wrong in (without_scales, shared_too, everything, weights(K2, INT4) / GIB * GB):
        assert abs(wrong - 594e9) > 2e9


def test_bf16_is_two_bytes_for_every_parameter():
    for config in EVERY:
        assert weights(config, BF16) == 2 * config.count_parameters().total


def test_the_cache_is_the_latent_as_vllm_reports_it():
    published = 46.80 * GIB / 715_072  # vLLM's log of K2 Thinking on 8 H200, a card
    empty, one = (memory_per_card(K2, INT4, 8, batch, 1) for batch in (0, 1))
    assert one - empty == pytest.approx(published, rel=2e-4)
    assert abs(46.80 * GB / 715_072 - (one - empty)) > 4000  # GB for GiB
    assert K2.kv_cache_bytes_per_token(kind="mha") > 30 * published  # heads for the latent


def test_layouts_share_out_different_things():
    def grown(layout, cards):
        return memory_per_card(K2, FP8, cards, 1, 1000, layout) - memory_per_card(
            K2, FP8, cards, 0, 0, layout
        )

    cache = 1000 * K2.kv_cache_bytes_per_token()
    assert grown("tensor", 8) == pytest.approx(cache)  # each card holds the latent whole
    assert grown("expert", 8) == pytest.approx(cache / 8)
    parts = K2.weight_bytes(FP8)
    assert memory_per_card(K2, FP8, 16, 0, 0, "tensor") == pytest.approx(sum(parts.values()) / 16)
    kept = parts["rest"] + parts["table"]
    assert memory_per_card(K2, FP8, 16, 0, 0, "expert") == pytest.approx(parts["experts"] / 16 + kept)
    with pytest.raises(KimiError, match="choose one of"):
        memory_per_card(K2, FP8, 16, 0, 0, "pipeline")


def test_the_smallest_published_deployments_are_found():
    assert cards_needed(K2, FP8, H200, context=131_072) == 16  # Moonshot's guide: 16 H200 or H20
    assert cards_needed(K2, INT4, H200, context=262_144) == 8  # K2 Thinking's guide
    assert cards_needed(K2, INT4, CARDS["B200"]) == 4  # NVIDIA Dynamo's recipe, in NVFP4
    assert cards_needed(K2, INT4, CARDS["Mac Studio"]) == 2
    assert cards_needed(EVERY[0], BF16, H200) == 1
    with pytest.raises(KimiError, match="no number"):
        cards_needed(K2, INT4, H200, batch=10_000, context=262_144)  # the cache of a card alone


@pytest.mark.parametrize("layout", ["tensor", "expert"])
def test_the_largest_batch_fits_and_one_more_does_not(layout):
    batch = largest_batch(K2, INT4, H200, 8, 8192, layout)
    room = 0.9 * 141 * GB
    assert memory_per_card(K2, INT4, 8, batch, 8192, layout) <= room
    assert memory_per_card(K2, INT4, 8, batch + 1, 8192, layout) > room
    assert largest_batch(K2, BF16, H200, 8, 8192, layout) < 0


# ---------------------------------------------------------------------------------------------------- time
@pytest.mark.parametrize(
    ("experts", "chosen", "tokens"), [(384, 8, 1), (384, 8, 40), (256, 8, 100), (16, 3, 5)]
)
def test_touched_experts_are_those_of_a_simulation(experts, chosen, tokens):
    drawn = np.random.default_rng(0).random((400, tokens, experts)).argsort(-1)[..., :chosen]
    found = [len(np.unique(one)) for one in drawn]
    error = 4 * np.std(found) / 20 + 1e-9
    assert abs(touched(experts, chosen, tokens) - np.mean(found)) < error
    if tokens > 1:
        assert abs(min(experts, chosen * tokens) - np.mean(found)) > error  # the same expert counted twice


def test_one_token_reads_what_it_activates():
    for config in EVERY:
        read = decode(config, BF16, SLOW, 1, 1, 0).weights * SLOW.bandwidth
        assert read == pytest.approx(2 * config.count_parameters().activated_with_head)


def test_reading_is_not_what_the_well_known_mistakes_say():
    count = K2.count_parameters()
    read = decode(K2, INT4, SLOW, 1, 1, 0).weights * SLOW.bandwidth
    rest = 2 * (count.activated_with_head - count.activated_experts)
    assert read == pytest.approx(count.activated_experts * 0.5625 + rest)
    for wrong in (
        weights(K2, INT4),  # all experts for one token
        read - 2 * count.shared_experts,  # the shared expert forgotten
        read - count.activated_experts / 16,  # the scales forgotten
        read + 2 * count.embeddings,  # the whole table for one row
    ):
        assert abs(wrong / read - 1) > 0.03


def test_a_large_batch_reads_every_expert_once():
    read = decode(K2, FP8, SLOW, 1, 100_000, 0).weights * SLOW.bandwidth
    parts = K2.weight_bytes(FP8)
    assert read == pytest.approx(parts["experts"] + parts["rest"])


def test_the_cache_is_read_whole_on_each_card_or_shared_out():
    whole = 32 * 9000 * K2.kv_cache_bytes_per_token() / H200.bandwidth
    assert decode(K2, INT4, H200, 8, 32, 9000).cache == pytest.approx(whole)
    assert decode(K2, INT4, H200, 8, 32, 9000, "expert").cache == pytest.approx(whole / 8)
    by_heads = 32 * 9000 * K2.kv_cache_bytes_per_token(kind="mha") / H200.bandwidth
    assert by_heads > 30 * whole


def test_decoding_multiplies_in_the_latent():
    step = decode(K2, BF16, H200, 8, 64, 5000, "expert")
    keys = 61 * 64 * (576 + 512) * 2  # a score over the latent and the rope part, a sum over the latent
    assert step.compute == pytest.approx(64 * (K2.flops_per_token(0) + keys * 5000) / 8 / 989e12)
    fast = decode(K2, FP8, H200, 8, 64, 0, "expert").compute
    assert fast == pytest.approx(decode(K2, INT4, H200, 8, 64, 0, "expert").compute * 989 / 1979)


def test_a_prompt_multiplies_what_its_tokens_do_one_after_the_other():
    prompt, count = 700, K2.count_parameters()
    by_hand = sum(K2.flops_per_token(keys) for keys in range(1, prompt + 1)) - 2 * count.head * (prompt - 1)
    assert prefill(K2, BF16, H200, 8, prompt, 3).compute == pytest.approx(3 * by_hand / 8 / 989e12)
    with pytest.raises(KimiError, match="with tokens"):
        prefill(K2, BF16, H200, 8, 0)


def test_tokens_that_leave_their_node_are_counted():
    step = decode(K2, FP8, H200, 96, 96 * 480, 2050, "expert")
    by_hand = 480 * 60 * 8 * 11 / 12 * 3 * 7168 / 50e9  # a card's tokens, 11 of 12 nodes are other ones
    assert step.exchange == pytest.approx(by_hand) and step.bound == "exchange"
    once = prefill(K2, FP8, H200, 96, 480, 96, "expert").exchange
    assert once == pytest.approx(by_hand / 8 * 12 * (1 - (11 / 12) ** 8))
    assert decode(K2, FP8, H200, 1, 480, 2050, "expert").exchange == 0
    near = decode(K2, INT4, H200, 8, 10, 0).exchange
    assert near == pytest.approx(10 * 61 * 2 * 2 * 7168 * 2 * 7 / 8 / 450e9)  # two ring sums a layer
    assert decode(K2, INT4, H200, 16, 10, 0).exchange == pytest.approx(near + 10 * 61 * 4 * 7168 / 8 / 50e9)


def test_the_slowest_resource_decides():
    step = decode(K2, INT4, H200, 8, 64, 8192)
    assert step.seconds == step.weights + step.cache and step.bound == "weights"
    assert step.rate == pytest.approx(64 / step.seconds)
    assert decode(K2, INT4, H200, 8, 128, 32_768).bound == "cache"
    assert prefill(K2, INT4, H200, 8, 8192).bound == "compute"
    for config in EVERY:
        for layout in ("tensor", "expert"):
            assert decode(config, INT4, H200, 8, 4, 100, layout).rate > 0


def test_four_bits_against_eight():
    """At one token INT4's bf16 attention weighs what its experts save; with many tokens the experts decide."""
    ratio = [
        decode(K2, FP8, H200, 8, b, 0).seconds / decode(K2, INT4, H200, 8, b, 0).seconds for b in (1, 64)
    ]
    assert ratio[0] == pytest.approx(1, abs=0.05) and 1.6 < ratio[1] < 1.78


# --------------------------------------------------------------------------------------------------- money
def test_money_by_hand():
    card = Card(1, 1, 1, 1, 1, 1, 2.3, "H200 as LMSYS rents it")
    assert price_per_million(24_000, card, 8) == pytest.approx(0.213, abs=5e-4)  # they say 0.21
    assert price_per_million(24_000, card, 8, use=0.5) == pytest.approx(2 * 0.213, abs=1e-3)
    assert bought(9000, 1000, years=1) == pytest.approx(9000 / 8760 + 0.15)
    api = Api(fresh=0.6, cached=0.15, written=2.5)
    assert api.bill(1e6, 0) == 0.6 and api.bill(0, 1e6) == 2.5
    assert api.bill(1e6, 1e6, hits=0.5) == pytest.approx(0.375 + 2.5)
    assert break_even(8 * 4 * HOURS, api, 8000, 1000) == pytest.approx(8 * 4 * 730 / (0.0048 + 0.0025))
    assert all(one.source for one in (*APIS.values(), *CARDS.values()))


def test_hybrid_routing_by_hand():
    cheap = [Mode(1.0, 10, 1.0), Mode(0.2, 10, 1.0)]
    dear = [Mode(1.0, 100, 5.0), Mode(0.9, 200, 5.0)]
    found = hybrid((0.75, 0.25), cheap, dear, (0, 1))
    assert found == pytest.approx({"success": 0.975, "cost": (7.5 + 250) / 1e6, "sent": 0.25})
    half = hybrid((0.75, 0.25), cheap, dear, (0.5, 0.5))
    never, always = (hybrid((0.75, 0.25), cheap, dear, (to, to)) for to in (0, 1))
    assert all(half[key] == pytest.approx((never[key] + always[key]) / 2) for key in half)
    for shares, sent in (((0.5, 0.6), (0, 0)), ((0.5, 0.5), (0, 1.5)), ((1.5, -0.5), (0, 0))):
        with pytest.raises(KimiError, match="shares"):
            hybrid(shares, cheap, dear, sent)
    with pytest.raises(ValueError):
        hybrid((1.0,), cheap, dear, (0, 0))


def test_whole_nodes():
    for name in ("A100", "H100", "H200", "B200"):
        cards = cards_needed(K2, BF16, CARDS[name])
        assert cards in (1, 2, 4) or cards == 8 * ceil(cards / 8)
