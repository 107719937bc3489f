"""KimiConfig: counts against the published numbers, config.json in both dialects, refusals."""

import json
import os

import pytest
import torch

from kimi_mini import KimiConfig, KimiMini
from kimi_mini.base.errors import BadFile
from kimi_mini.model.moe import gate_factor
from kimi_mini.model.presets import PRESETS

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
    with pytest.raises(ValueError, match="nano, micro, mini, midi, moonlight_16b, k2, deepseek_v3"):
        KimiConfig.preset("huge")


def test_overrides_reach_the_config():
    assert KimiConfig.preset("nano", num_hidden_layers=5).num_hidden_layers == 5


def test_every_number_of_attention_follows_the_heads():
    """num_key_value_heads is filled in by default; the default must not stand in the way of another number of heads."""
    config = KimiConfig.preset("nano").replace(num_attention_heads=4)
    assert (config.num_attention_heads, config.num_key_value_heads) == (4, 4)
    assert KimiConfig.preset("k2").replace(num_attention_heads=2).num_key_value_heads == 2
    with pytest.raises(ValueError, match="num_key_value_heads"):
        config.replace(num_key_value_heads=2)


NAN, INF = float("nan"), float("inf")
YARN = {"type": "yarn", "factor": 8.0, "original_max_position_embeddings": 16}
BAD = {
    "hidden_act": ["gelu", None],
    "scoring_func": ["softmax"],
    "topk_method": ["greedy"],
    "moe_layer_freq": [2, True, None],
    "attention_bias": [True, None, 0, "no"],
    "attention_dropout": [0.1, None, "0", NAN],
    "vocab_size": [0, -1, 1.5, "1024", None, True],
    "hidden_size": ["96", 96.0, [96]],
    "num_hidden_layers": [True, 0, None, "3"],
    "num_attention_heads": [0, None, "3", True],
    "num_key_value_heads": [1, "3", True],
    "intermediate_size": [0, None],
    "moe_intermediate_size": [0, None],
    "n_shared_experts": [-1, None, True],
    "n_routed_experts": [0, None, True],
    "num_experts_per_tok": [0, 17, None, True],
    "n_group": [0, 5, None, True],
    "topk_group": [0, 2, None, "1", True],
    "first_k_dense_replace": [-1, None, False],
    "num_nextn_predict_layers": [-1, None, "0", True],
    "q_lora_rank": [0, -1, "x", 1.5, True, [4]],
    "kv_lora_rank": [0, None],
    "qk_nope_head_dim": [0, "16"],
    "qk_rope_head_dim": [7, 0, None],
    "v_head_dim": [0, None],
    "max_position_embeddings": [0, None, "8192", 8192.5],
    "routed_scaling_factor": [None, 0, -1.0, NAN, INF, "1.7", True],
    "rope_theta": [None, 0.0, -1.0, NAN, INF, "50000", True, 10**400],
    "rms_norm_eps": [None, 0.0, NAN, "1e-6"],
    "initializer_range": [NAN, INF, -0.1, None, "0.02"],
    "aux_loss_alpha": [NAN, -1, None],
    "norm_topk_prob": [None, "yes", 1],
    "seq_aux": [None, "no"],
    "tie_word_embeddings": ["no", None, 0, 1],
    "bos_token_id": ["1", -1, 1.5, [1], True],
    "pad_token_id": ["1", -1],
    "eos_token_id": ["1", -1, [1, "2"], [True], {}],
    "rope_scaling": ["yarn", [], [1], 5, True],
}
BAD_YARN = {
    "type": ["linear", None, 5, "YaRN"],
    "factor": ["32", 0, -2.0, NAN, INF, True, [8]],
    "attention_factor": ["1", 0, NAN, True],
    "beta_fast": ["32", 0, -1, NAN, 0.5],  # 0.5 lies below beta_slow
    "beta_slow": ["1", 0, NAN, 33],
    "mscale": ["1", -1, NAN, INF],
    "mscale_all_dim": ["1", -1, NAN],
    "original_max_position_embeddings": ["4096", 0, -1, 4096.5, True],
    "truncate": ["no", None, 0],
}


def check_refused(values: dict, field: str, folder) -> None:
    """From Python and from a file: one line that names the field, and the file where there is one."""
    (folder / "config.json").write_text(json.dumps(values))
    with pytest.raises(BadFile, match=field) as caught:
        KimiConfig.load(folder)
    assert "\n" not in str(caught.value) and str(folder / "config.json") in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [(field, value) for field, values in BAD.items() for value in values],
    ids=lambda value: str(value)[:30],
)
def test_what_the_model_cannot_be_is_refused(field, value, tmp_path):
    with pytest.raises(ValueError, match=f"KimiConfig.*{field}"):
        KimiConfig.preset("nano", **{field: value})
    check_refused({**KimiConfig.preset("nano").to_dict(), field: value}, field, tmp_path)


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, values in BAD_YARN.items() for value in values]
)
def test_yarn_that_cannot_be_is_refused(field, value, tmp_path):
    wrong = {**YARN, field: value}
    names = f"rope_scaling.({field}|beta_fast)"
    with pytest.raises(ValueError, match=f"KimiConfig: {names}"):
        KimiConfig.preset("nano", rope_scaling=wrong)
    base = KimiConfig.preset("nano").to_dict()
    check_refused({**base, "rope_scaling": wrong}, names, tmp_path)
    five = {**wrong, "rope_type": wrong.pop("type"), "rope_theta": 50000.0}
    check_refused({**base, "rope_parameters": five}, names, tmp_path)


@pytest.mark.parametrize(
    ("more", "names"),
    [
        ({"rope_scaling": "yarn"}, "rope_scaling"),
        ({"rope_scaling": []}, "rope_scaling"),
        ({"rope_scaling": ["yarn"]}, "rope_scaling"),
        ({"rope_parameters": "yarn"}, "rope_parameters"),
        ({"rope_parameters": []}, "rope_parameters"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": None}}, "rope_theta"),
        ({"rope_scaling": {"factor": 4.0}}, "rope_scaling.type"),  # would stretch nothing
        (
            {"rope_scaling": {"type": "yarn", "factor": None}},
            "rope_scaling.factor",
        ),  # null, and of what length?
        (
            {"rope_scaling": {**YARN, "factor": None, "original_max_position_embeddings": 0}},
            "rope_scaling.factor",
        ),
        (
            {"rope_scaling": {**YARN, "factor": None}, "max_position_embeddings": "8192"},
            "max_position_embeddings",
        ),
        ({"rope_scaling": {**YARN, "partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"rope_scaling": YARN, "rope_theta": 1.0}, "rope_theta"),
        ({"rope_interleave": None}, "rope_interleave"),
        ({"rope_interleave": "yes"}, "rope_interleave"),
        ({"model_type": None}, "model_type"),
        ({"model_type": ["deepseek_v3"]}, "model_type"),
    ],
)
def test_a_file_that_says_what_is_not_done_is_refused(more, names, tmp_path):
    check_refused({**KimiConfig.preset("nano").to_dict(), **more}, names, tmp_path)


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


def test_the_default_of_rope_theta_is_that_of_transformers(root):
    """In their config it stands inside rope_parameters. Ours differs; the shipped model was trained with it."""
    from transformers import DeepseekV3Config

    theirs = DeepseekV3Config().rope_parameters["rope_theta"]
    yarn = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 16}
    for values in (
        {},
        {"rope_parameters": {"rope_type": "default"}},
        {"rope_parameters": yarn},
        {"rope_scaling": YARN},
    ):
        assert KimiConfig.from_dict(values).rope_theta == theirs == 10000.0
    assert KimiConfig.preset("nano").rope_theta == 50000.0
    shipped = KimiConfig.load(root / "data" / "checkpoints" / "final")
    ids = {name: getattr(shipped, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    assert shipped == KimiConfig.preset("nano", **ids)


def test_a_broken_config_file_is_one_line(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        KimiConfig.load(tmp_path / "config.json")
    whole = json.dumps({"vocab_size": 10})
    deep = '{"rope_scaling": ' + "[" * 100_000 + "]" * 100_000 + "}"
    for text in (whole[:-3], "", "\0", deep, "\udcff", '{"vocab_size": ' + "9" * 5000 + "}"):
        (tmp_path / "config.json").write_text(text, errors="surrogateescape")
        with pytest.raises(BadFile, match="not valid JSON") as caught:
            KimiConfig.load(tmp_path)
        assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_what_is_no_file_is_no_config(tmp_path):
    (tmp_path / "config.json").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        KimiConfig.load(tmp_path)
    (tmp_path / "config.json").rmdir()
    os.mkfifo(tmp_path / "config.json")  # reading it would wait for ever
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        KimiConfig.load(tmp_path)


@pytest.mark.parametrize(
    ("preset", "total", "activated"),
    [("mini", 188_722_176, 29_076_480), ("midi", 1_192_329_728, 188_842_496)],
)
def test_the_presets_for_one_gpu_are_as_large_as_they_say(preset, total, activated):
    """Counted by formula, and tensor by tensor; every width is whole 16 bytes in bf16, which grouped_mm wants."""
    config = KimiConfig.preset(preset)
    count = config.count_parameters()
    assert (count.total, count.activated) == (total, activated)
    with torch.device("meta"):
        assert sum(param.numel() for param in KimiMini(config).parameters()) == total
    assert config.hidden_size % 8 == config.moe_intermediate_size % 8 == 0
