"""Our folders in other engines: transformers loads them, plain and packed; what vLLM and SGLang read is in config.json.

The two engines do not run here. Their lists of fields are read off their loaders:
vLLM    vllm/model_executor/models/deepseek_v2.py, commit 002d607
SGLang  python/sglang/srt/models/deepseek_v2.py, commit 00114ae
"""

import json
import shutil

import pytest
import torch
from parity import difference
from transformers import AutoModelForCausalLM, DeepseekV3Config

from kimi_mini import KimiConfig, KimiMini
from kimi_mini.base.paths import CHECKPOINTS
from kimi_mini.model.compact import int4

AGENTS = sorted(path.parent for path in CHECKPOINTS.glob("*/config.json"))

BOTH = (
    "architectures vocab_size hidden_size intermediate_size moe_intermediate_size num_hidden_layers "
    "num_attention_heads n_shared_experts n_routed_experts num_experts_per_tok routed_scaling_factor n_group topk_group "
    "norm_topk_prob topk_method first_k_dense_replace moe_layer_freq q_lora_rank kv_lora_rank qk_nope_head_dim "
    "qk_rope_head_dim v_head_dim hidden_act max_position_embeddings rms_norm_eps rope_theta rope_scaling "
    "num_nextn_predict_layers tie_word_embeddings torch_dtype eos_token_id"
)
READ = {"vLLM": [*BOTH.split(), "model_type", "scoring_func", "num_key_value_heads"], "SGLang": BOTH.split()}
WANTED = {
    "hidden_act": "silu",
    "topk_method": "noaux_tc",
    "scoring_func": "sigmoid",
}  # else another sum, or none


@pytest.mark.parametrize("folder", AGENTS, ids=lambda path: path.name)
def test_a_shipped_folder_gives_the_same_logits_in_transformers(folder):
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    assert type(theirs).__name__ == "DeepseekV3ForCausalLM"
    assert difference(KimiMini.from_pretrained(folder).eval(), theirs) <= 1e-4


# ---- packed INT4 -------------------------------------------------------------------------------------------


def packed(tmp_path, width):
    torch.manual_seed(0)
    shape = dict(num_hidden_layers=2, moe_intermediate_size=width, initializer_range=0.1)
    model = KimiMini(KimiConfig.preset("nano", **shape)).eval()
    model.save_pretrained(tmp_path, packed=True)
    return model


def test_a_packed_folder_gives_the_same_logits_in_transformers(tmp_path):
    """Through compressed-tensors, which leaves the experts in bf16: so ours are brought to bf16 too."""
    plain = packed(tmp_path, 64)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    torch.nn.Module.float(theirs)  # its own float() refuses what was packed
    again = KimiMini.from_pretrained(tmp_path).eval()
    for experts in int4.experts_of(again):
        for weight in experts.parameters():
            weight.data.copy_(weight.data.bfloat16())
    assert difference(again, theirs) <= 1e-4
    assert difference(plain, theirs) > 1e-2  # it is the rounded model that both have


def test_why_the_shipped_width_does_not_load_packed_in_transformers(tmp_path):
    """60 columns are not whole groups of 32: compressed-tensors has no such layout, ours fills the last group up."""
    packed(tmp_path, 60)
    KimiMini.from_pretrained(tmp_path)
    with pytest.raises((RuntimeError, ValueError), match="CONVERSION|divis"):
        AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)


def test_the_quantisation_is_what_the_quantizer_of_transformers_reads(tmp_path):
    from compressed_tensors.quantization import QuantizationConfig
    from transformers.utils.quantization_config import CompressedTensorsConfig

    packed(tmp_path, 64)
    said = json.loads((tmp_path / "config.json").read_text())["quantization_config"]
    read = CompressedTensorsConfig.from_dict(said)
    assert read.is_quantization_compressed and said["quant_method"] == "compressed-tensors"
    fields = {key: value for key, value in said.items() if key != "quant_method"}
    weights = (
        QuantizationConfig.model_validate({"quant_method": "compressed-tensors", **fields})
        .config_groups["group_0"]
        .weights
    )
    assert (weights.num_bits, weights.group_size, weights.symmetric) == (4, 32, True)
    assert (weights.type, weights.strategy) == ("int", "group")


# ---- what the engines read ---------------------------------------------------------------------------------


def missing(folder, engine):
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    lacks = [name for name in READ[engine] if name not in config]
    return lacks + [name for name, value in WANTED.items() if config.get(name) != value]


@pytest.mark.parametrize("engine", READ)
@pytest.mark.parametrize("folder", AGENTS, ids=lambda path: path.name)
def test_config_json_has_what_an_engine_reads(folder, engine):
    assert missing(folder, engine) == []
    config = DeepseekV3Config.from_pretrained(folder)  # vLLM reads this one's
    assert (
        config.rope_parameters["rope_theta"] == json.loads((folder / "config.json").read_text())["rope_theta"]
    )
    assert config.rope_parameters["rope_type"] == "default"


@pytest.mark.parametrize(
    ("field", "value"),
    [("n_group", None), ("moe_layer_freq", None), ("topk_method", "greedy"), ("hidden_act", "gelu")],
)
def test_a_config_that_lacks_a_field_or_means_another_sum_is_caught(tmp_path, field, value):
    shutil.copy(CHECKPOINTS / "final" / "config.json", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config.pop(field)
    (tmp_path / "config.json").write_text(json.dumps(config if value is None else {**config, field: value}))
    assert field in missing(tmp_path, "vLLM") and field in missing(tmp_path, "SGLang")


def test_the_page_names_no_command_as_run_that_was_not():
    page = (CHECKPOINTS / "README.md").read_text(encoding="utf-8")
    for engine in ("vLLM", "SGLang"):
        assert f"**{engine}, not run.**" in page
