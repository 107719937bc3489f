"""Equal to transformers' DeepseekV3ForCausalLM: logits, both directions of loading, gradients, greedy generation."""

import pytest
import torch
from parity import CONFIGS, difference, ids, ours, randomise
from transformers import DeepseekV3ForCausalLM

from kimi_mini import KimiMini
from kimi_mini.inference.generation import generate


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
