"""KimiConfig: counts against the published numbers, config.json in both dialects, refusals."""

import json

import pytest
import torch

from kimi_mini import KimiConfig, KimiMini
from kimi_mini.model.config import PRESETS
from kimi_mini.model.moe import gate_factor

BILLION = 1e9

# facts 1.1: total with both embeddings and without; activated without embeddings, with the head, with both
PUBLISHED = {
    "k2": (1026.41, 1024.06, 30.51, 31.69, 32.86),
    "deepseek_v3": (671.03, 669.17, 35.70, 36.63, 37.55),
    "moonlight_16b": (15.96, 15.289, 2.244, 2.58, 2.915),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_are_the_published_ones(name):
    count = KimiConfig.preset(name).count_parameters()
    ours = (
        count.total,
        count.total_without_embeddings,
        count.activated_without_embeddings,
        count.activated_with_head,
        count.activated,
    )
    for value, published in zip(ours, PUBLISHED[name]):
        digits = len(str(published).split(".")[1])
        assert value / BILLION == pytest.approx(published, abs=0.51 * 10**-digits)


def test_a_count_without_the_shared_expert_is_noticed():
    """Mutant: forgetting the shared expert changes K2's total by 2.6B, which the check above would see."""
    count = KimiConfig.preset("k2").count_parameters()
    assert round((count.total - count.shared_experts) / BILLION, 2) != PUBLISHED["k2"][0]


@pytest.mark.parametrize("name", PRESETS)
def test_the_model_on_the_meta_device_agrees_with_the_count(name):
    config = KimiConfig.preset(name)
    with torch.device("meta"):
        model = KimiMini(config)
    assert sum(p.numel() for p in model.parameters()) == config.count_parameters().total


def test_attention_per_layer():
    for name, published in {"k2": 101.124, "deepseek_v3": 187.107, "moonlight_16b": 13.763}.items():
        config = KimiConfig.preset(name)
        assert round(config.count_parameters().attention / config.num_hidden_layers / 1e6, 3) == published


def test_tied_head_is_counted_once():
    config = KimiConfig.preset("nano", tie_word_embeddings=True)
    assert sum(p.numel() for p in KimiMini(config).parameters()) == config.count_parameters().total


def test_kv_cache_does_not_depend_on_heads():
    k2, v3 = KimiConfig.preset("k2"), KimiConfig.preset("deepseek_v3")
    assert k2.kv_cache_bytes_per_token() == v3.kv_cache_bytes_per_token() == 70272
    assert v3.kv_cache_bytes_per_token(kind="mha") == 2 * k2.kv_cache_bytes_per_token(kind="mha")
    with pytest.raises(ValueError, match="mla, mha, gqa, mqa"):
        k2.kv_cache_bytes_per_token(kind="paged")


def test_flops_are_two_per_weight_and_grow_with_context():
    config = KimiConfig.preset("nano")
    count = config.count_parameters()
    assert config.flops_per_token(0) == 2 * (count.activated_with_head - count.norms)
    per_key = config.num_attention_heads * (config.qk_head_dim + config.v_head_dim) * config.num_hidden_layers
    assert config.flops_per_token(10) - config.flops_per_token(0) == 20 * per_key


@pytest.mark.parametrize(
    ("experts", "chosen", "published"), [(64, 6, 2.446), (384, 8, 2.827), (16, 4, 1.991)]
)
def test_gate_factor_is_moonlights_recipe(experts, chosen, published):
    assert gate_factor(experts, chosen) == pytest.approx(published, abs=0.003)


@pytest.mark.parametrize("name", ["nano", "mini", "moonlight_16b", "k2"])
def test_presets_carry_their_gate_factor(name):
    config = KimiConfig.preset(name)
    expected = gate_factor(config.n_routed_experts, config.num_experts_per_tok)
    assert config.routed_scaling_factor == pytest.approx(expected, abs=0.003)


def test_unknown_preset_lists_the_names():
    with pytest.raises(ValueError, match="nano, mini, moonlight_16b, k2, deepseek_v3"):
        KimiConfig.preset("huge")


def test_overrides_reach_the_config():
    assert KimiConfig.preset("nano", num_hidden_layers=5).num_hidden_layers == 5


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hidden_act", "gelu"),
        ("scoring_func", "softmax"),
        ("topk_method", "greedy"),
        ("attention_bias", True),
        ("num_experts_per_tok", 17),
        ("n_group", 5),
        ("topk_group", 2),
        ("qk_rope_head_dim", 7),
        ("num_key_value_heads", 1),
        ("rope_scaling", {"type": "linear", "factor": 2.0}),
        ("rope_scaling", {"type": "yarn"}),
        ("first_k_dense_replace", -1),
        ("rope_theta", 0.0),
        ("num_experts_per_tok", 0),
        ("kv_lora_rank", 0),
        ("n_group", None),
        ("n_shared_experts", -1),
        ("n_shared_experts", None),
        ("hidden_size", "96"),
        ("vocab_size", 0),
        ("rms_norm_eps", 0.0),
    ],
)
def test_what_the_model_cannot_be_is_refused(field, value):
    with pytest.raises(ValueError, match="KimiConfig"):
        KimiConfig.preset("nano", **{field: value})


@pytest.mark.parametrize("name", PRESETS)
def test_config_json_round_trip(name, tmp_path):
    config = KimiConfig.preset(name)
    config.save(tmp_path)
    assert KimiConfig.load(tmp_path) == config


def test_both_dialects_of_rope_read_the_same():
    """transformers 4 writes rope_theta and rope_scaling, transformers 5 one rope_parameters."""
    base = {k: v for k, v in KimiConfig.preset("k2").to_dict().items() if not k.startswith("rope_")}
    yarn = {
        "factor": 32.0,
        "original_max_position_embeddings": 4096,
        "beta_fast": 1.0,
        "beta_slow": 1.0,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
    }
    four = KimiConfig.from_dict({**base, "rope_theta": 50000.0, "rope_scaling": {"type": "yarn", **yarn}})
    parameters = {"rope_type": "yarn", "rope_theta": 50000.0, **yarn}
    five = KimiConfig.from_dict({**base, "rope_parameters": parameters})
    plain = KimiConfig.from_dict({**base, "rope_parameters": {"rope_type": "default", "rope_theta": 50000.0}})
    assert four == five == KimiConfig.preset("k2")
    assert plain.rope_scaling is None and plain.rope_theta == 50000.0


def test_left_out_fields_take_the_defaults_of_transformers():
    from transformers import DeepseekV3Config

    theirs = DeepseekV3Config().to_dict()
    ours = KimiConfig.from_dict({"model_type": "deepseek_v3"}).to_dict()
    shared = set(theirs) & set(ours) - {"num_nextn_predict_layers", "architectures", "rope_scaling"}
    assert {k: ours[k] for k in shared} == {k: theirs[k] for k in shared}


def test_unknown_keys_are_ignored_and_other_families_refused():
    assert KimiConfig.from_dict({"ep_size": 1, "quantization_config": None}).hidden_size == 7168
    with pytest.raises(ValueError, match="llama"):
        KimiConfig.from_dict({"model_type": "llama"})
    with pytest.raises(ValueError, match="interleave"):
        KimiConfig.from_dict({"rope_interleave": False})


def test_a_broken_config_file_is_one_line(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        KimiConfig.load(tmp_path / "config.json")
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": 10})[:-3])
    with pytest.raises(ValueError, match="truncated"):
        KimiConfig.load(tmp_path)
