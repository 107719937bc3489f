"""Equal to transformers' DeepseekV3ForCausalLM: logits, both directions of loading, greedy generation;
folders on disk."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import DeepseekV3ForCausalLM

from kimi_mini import KimiConfig, KimiMini
from kimi_mini.base.errors import BadFile, KimiError
from kimi_mini.inference.generation import generate

YARN = {
    "type": "yarn",
    "factor": 8.0,
    "original_max_position_embeddings": 16,
    "beta_fast": 1.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
}
BASE = KimiConfig.preset("nano", vocab_size=128, initializer_range=0.12, max_position_embeddings=128)
CONFIGS = {
    "plain": BASE,
    "q_lora": BASE.replace(q_lora_rank=32),
    "yarn": BASE.replace(rope_scaling=YARN),
    "yarn_ramp": BASE.replace(q_lora_rank=32, rope_theta=1e4, rope_scaling={**YARN, "beta_fast": 32.0}),
    "yarn_unequal_mscale": BASE.replace(rope_scaling={**YARN, "mscale": 0.7, "mscale_all_dim": 0.3}),
    "groups": BASE.replace(n_group=4, topk_group=2),
    "two_dense": BASE.replace(first_k_dense_replace=2, n_shared_experts=2),
    "eps": BASE.replace(rms_norm_eps=1e-2, norm_topk_prob=False),
    "everything": BASE.replace(
        q_lora_rank=24,
        rope_scaling=YARN,
        n_group=2,
        topk_group=1,
        v_head_dim=24,
        first_k_dense_replace=2,
        num_attention_heads=4,
        num_key_value_heads=4,
    ),
}


def randomise(model):
    """Norm weights and biases too, so that an error in any of them shows."""
    for name, weight in model.named_parameters():
        if "norm" in name:
            torch.nn.init.normal_(weight, 1.0, 0.3)
    for name, buffer in model.named_buffers():
        if name.endswith("e_score_correction_bias"):
            buffer.normal_(0.0, 0.2)


def ours(config, seed=0):
    torch.manual_seed(seed)
    model = KimiMini(config).eval()
    randomise(model)
    return model


def ids(rows=2, length=48, seed=1):
    return torch.randint(0, BASE.vocab_size, (rows, length), generator=torch.Generator().manual_seed(seed))


def difference(a, b, length=48):
    with torch.no_grad():
        first, second = a(ids(length=length)).logits, b(ids(length=length)).logits
    assert second.std() > 0.3  # logits that say something
    return (first - second).abs().max().item()


@pytest.mark.parametrize("name", CONFIGS)
def test_transformers_loads_our_folder(name, tmp_path):
    model = ours(CONFIGS[name])
    model.save_pretrained(tmp_path)
    theirs = DeepseekV3ForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    assert difference(model, theirs) <= 1e-4


@pytest.mark.parametrize("name", CONFIGS)
def test_we_load_the_folder_of_transformers(name, tmp_path):
    from transformers import DeepseekV3Config

    torch.manual_seed(0)
    theirs = DeepseekV3ForCausalLM(DeepseekV3Config(**CONFIGS[name].to_dict())).eval()
    randomise(theirs)
    theirs.save_pretrained(tmp_path)
    model = KimiMini.from_pretrained(tmp_path).eval()
    assert difference(model, theirs) <= 1e-4


@pytest.mark.parametrize("name", ["plain", "everything"])
def test_greedy_generation_is_the_same(name, tmp_path):
    model = ours(CONFIGS[name])
    model.save_pretrained(tmp_path)
    theirs = DeepseekV3ForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    prompt = ids(3, 10)
    options = dict(attention_mask=torch.ones_like(prompt), do_sample=False, pad_token_id=0)
    expected = theirs.generate(prompt, max_new_tokens=25, **options)
    assert torch.equal(generate(model, prompt, max_new_tokens=25), expected)


def test_gradients_are_the_same(tmp_path):
    model = ours(CONFIGS["q_lora"])
    model.save_pretrained(tmp_path)
    theirs = DeepseekV3ForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    for m in (model, theirs):
        m.train()
        torch.nn.functional.cross_entropy(m(ids()).logits.flatten(0, 1), ids(seed=2).flatten()).backward()
    reference = {name: p.grad for name, p in theirs.named_parameters()}
    for name, p in model.named_parameters():
        if name.endswith(("experts.gate_proj", "experts.up_proj")):
            gate, up = reference[name.rsplit(".", 1)[0] + ".gate_up_proj"].chunk(2, 1)
            expected = gate if "gate_proj" in name else up
        else:
            expected = reference[name]
        torch.testing.assert_close(p.grad, expected, atol=2e-6, rtol=1e-3)


def mutate(model, kind):
    """Break one thing in a model that agrees with transformers."""
    for layer in model.model.layers:
        attention = layer.self_attn
        if kind == "no mscale":
            attention.scale = model.config.qk_head_dim**-0.5
        if kind == "latent eps":
            attention.kv_a_layernorm.eps = 1e-2
        if layer.routed and kind == "no bias":
            layer.mlp.gate.e_score_correction_bias.zero_()
        if layer.routed and kind == "no factor":
            layer.mlp.gate.factor = 1.0
        if layer.routed and kind == "one group":
            layer.mlp.gate.n_group = 1
    if kind == "no stretched frequencies":
        model.rotation.tables.clear()
        model.rotation.config = model.config.replace(rope_scaling=None)


@pytest.mark.parametrize(
    "kind", ["no mscale", "latent eps", "no bias", "no factor", "one group", "no stretched frequencies"]
)
def test_parity_notices_mutants(kind, tmp_path):
    model = ours(CONFIGS["everything"])
    model.save_pretrained(tmp_path)
    theirs = DeepseekV3ForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    mutate(model, kind)
    assert difference(model, theirs) > 1e-3


# ---- folders -------------------------------------------------------------------------------------------


def test_a_folder_round_trips_bit_for_bit(tmp_path):
    model = ours(CONFIGS["everything"])
    model.save_pretrained(tmp_path)
    again = KimiMini.from_pretrained(tmp_path)
    assert again.config == model.config
    a, b = model.state_dict(), again.state_dict()
    assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
    again.train()(ids())  # buffers that are not stored exist
    again.update_router_bias(0.01)


def test_the_file_holds_one_key_per_expert(tmp_path):
    ours(BASE).save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    for j in range(BASE.n_routed_experts):
        assert stored[f"model.layers.1.mlp.experts.{j}.gate_proj.weight"].shape == (60, 96)
        assert stored[f"model.layers.2.mlp.experts.{j}.down_proj.weight"].shape == (96, 60)
    assert not any(key.endswith("experts.gate_proj") for key in stored)


def test_tokenizer_files_travel_along(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    ours(BASE).save_pretrained(tmp_path / "out", [tmp_path / "tokenizer.json"])
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]


@pytest.mark.parametrize("preset", ["moonlight_16b", "k2"])
def test_hub_shaped_folders_load(preset, tmp_path):
    """The published config.json scaled down, bf16 shards with an index, a bf16 bias, an MTP layer to
    ignore."""
    small = KimiConfig.preset(
        preset,
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        moe_intermediate_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        n_routed_experts=8,
        kv_lora_rank=16,
        qk_nope_head_dim=8,
        qk_rope_head_dim=8,
        v_head_dim=8,
        q_lora_rank=None if preset == "moonlight_16b" else 16,
    )
    model = ours(small)
    model.save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    hub_only = {"ep_size": 1, "auto_map": {"AutoModel": "modeling_deepseek.DeepseekV3Model"}}
    (tmp_path / "config.json").write_text(json.dumps({**values, **hub_only}))
    tensors = {k: v.bfloat16() for k, v in load_file(tmp_path / "model.safetensors").items()}
    tensors["model.layers.3.eh_proj.weight"] = torch.zeros(2, 2)
    (tmp_path / "model.safetensors").unlink()
    names, weight_map = sorted(tensors), {}
    for shard, keys in enumerate((names[::2], names[1::2]), 1):
        file = f"model-{shard:05d}-of-00002.safetensors"
        save_file({key: tensors[key] for key in keys}, tmp_path / file)
        weight_map.update(dict.fromkeys(keys, file))
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    loaded = KimiMini.from_pretrained(tmp_path, dtype=torch.float32).eval()
    assert loaded.config.model_type == small.model_type
    prompt = torch.arange(20)[None]
    torch.testing.assert_close(loaded(prompt).logits, model(prompt).logits, atol=0.1, rtol=0)
    kept = KimiMini.from_pretrained(tmp_path)
    assert kept.lm_head.weight.dtype == torch.bfloat16
    assert kept.routers()[0].e_score_correction_bias.dtype == torch.float32


def test_a_tied_model_round_trips(tmp_path):
    model = ours(BASE.replace(tie_word_embeddings=True))
    model.save_pretrained(tmp_path)
    again = KimiMini.from_pretrained(tmp_path).eval()
    assert again.lm_head.weight is again.model.embed_tokens.weight
    torch.testing.assert_close(again(ids()).logits, model(ids()).logits)


def test_missing_and_damaged_folders_are_one_line(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint folder"):
        KimiMini.from_pretrained(tmp_path / "nowhere")
    folder = tmp_path / "model"
    ours(BASE).save_pretrained(folder)
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="truncated"):
        KimiMini.from_pretrained(folder)
    weights.unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks model\.safetensors"):
        KimiMini.from_pretrained(folder)


def test_a_missing_tensor_or_expert_is_named(tmp_path):
    ours(BASE).save_pretrained(tmp_path)
    whole = load_file(tmp_path / "model.safetensors")
    lost = {"model.layers.1.mlp.experts.3.up_proj.weight": "expert 3", "model.norm.weight": "norm"}
    for key, pattern in lost.items():
        save_file({k: v for k, v in whole.items() if k != key}, tmp_path / "model.safetensors")
        with pytest.raises(ValueError, match=pattern):
            KimiMini.from_pretrained(tmp_path)


def test_quantised_weights_are_refused(tmp_path):
    ours(BASE).save_pretrained(tmp_path)
    whole = load_file(tmp_path / "model.safetensors")
    whole["model.layers.0.self_attn.o_proj.weight_scale_inv"] = torch.ones(1)
    save_file(whole, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="quantised"):
        KimiMini.from_pretrained(tmp_path)


def test_a_folder_that_came_in_shards_holds_what_was_saved_last(tmp_path):
    """Mutant: the old index stays, and with it the old weights."""
    theirs = DeepseekV3ForCausalLM(DeepseekV3ForCausalLM.config_class(**BASE.to_dict()))
    theirs.save_pretrained(tmp_path, max_shard_size="200KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    KimiMini.from_pretrained(tmp_path)
    new = ours(BASE, seed=3)
    new.save_pretrained(tmp_path)
    assert sorted(file.name for file in tmp_path.glob("model*")) == ["model.safetensors"]
    assert difference(KimiMini.from_pretrained(tmp_path).eval(), new) < 1e-6


def test_a_folder_that_does_not_fit_its_config_is_one_line(tmp_path):
    ours(BASE).save_pretrained(tmp_path)
    right = json.loads((tmp_path / "config.json").read_text())
    for wrong in (
        {**right, "hidden_size": 64},
        {**right, "vocab_size": 256},
        {**right, "hidden_size": "96"},
        [],
    ):
        (tmp_path / "config.json").write_text(json.dumps(wrong))
        with pytest.raises(BadFile) as caught:
            KimiMini.from_pretrained(tmp_path)
        assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_kimis_presets_are_read_by_transformers(tmp_path):
    """transformers knows no model_type kimi_k2: with it on disk every routed expert would be random."""
    small = {
        name: getattr(BASE, name)
        for name in (
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "moe_intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "n_routed_experts",
            "kv_lora_rank",
            "qk_nope_head_dim",
            "qk_rope_head_dim",
            "v_head_dim",
            "initializer_range",
            "max_position_embeddings",
        )
    }
    model = ours(KimiConfig.preset("k2", **small, q_lora_rank=32, pad_token_id=0, model_type="kimi_k2"))
    model.save_pretrained(tmp_path)
    assert (
        difference(DeepseekV3ForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval(), model) < 1e-4
    )


def test_a_failed_save_leaves_the_old_folder(tmp_path, monkeypatch):
    """A full disk: save_file raises half-way."""
    model = ours(BASE)
    model.save_pretrained(tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()

    def full_disk(tensors, path, metadata=None):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kimi_mini.model.checkpoint.save_file", full_disk)
    with pytest.raises(KimiError, match="disk is full"):
        ours(BASE, seed=1).save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
