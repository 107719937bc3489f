"""A folder of the library peft: the same logits there and here, both ways, and one line for what cannot be read."""

import json

import pytest
import torch
from parity import CONFIGS, ids, ours
from safetensors.torch import load_file, save_file

from kimi_mini.base.errors import BadFile, KimiError
from kimi_mini.model.compact.lora import Adapter, attached, load_adapter, unmerge

CLOSE = dict(atol=1e-5, rtol=0)


def learned(model, rank=4, alpha=6.0, seed=1, **more):
    adapter = Adapter.new(model, rank, alpha, seed=seed, **more)
    generator = torch.Generator().manual_seed(seed)
    for name in adapter.names:
        torch.nn.init.normal_(adapter[name].b, 0.0, 0.05, generator=generator)
    return adapter


@pytest.fixture(params=["plain", "q_lora"])
def model(request):
    """Logits of about one, so that 1e-5 is not asked of numbers that fp32 does not hold so exactly."""
    return ours(CONFIGS[request.param].replace(initializer_range=0.05))


@pytest.fixture
def theirs(model, tmp_path):
    """transformers' model of the same weights."""
    from transformers import DeepseekV3ForCausalLM

    model.save_pretrained(tmp_path / "base")
    return DeepseekV3ForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32).eval()


@torch.no_grad()
def logits(model):
    return model(ids()).logits


@pytest.mark.parametrize("targets", [None, ["experts"], ["kv_b_proj", "o_proj"]])
def test_peft_loads_our_folder(model, theirs, targets, tmp_path):
    from peft import PeftModel

    adapter = learned(model, **({} if targets is None else {"targets": targets}))
    adapter.save(tmp_path / "adapter", "a/base")
    plain = logits(model)
    with attached(model, adapter):
        unmerged = logits(model)
    adapter.merge(model)
    assert (unmerged - plain).abs().max() > 0.01
    there = PeftModel.from_pretrained(theirs, tmp_path / "adapter").eval()
    torch.testing.assert_close(logits(there), unmerged, **CLOSE)
    torch.testing.assert_close(logits(there.merge_and_unload()), logits(model), **CLOSE)
    unmerge(model)


@pytest.mark.parametrize("parameters", [("gate_up_proj", "down_proj"), ("down_proj",), ("gate_up_proj",), ()])
def test_we_load_the_folder_of_peft(model, theirs, parameters, tmp_path):
    from peft import LoraConfig, get_peft_model

    q_proj = "q_b_proj" if model.config.q_lora_rank else "q_proj"
    config = LoraConfig(
        r=4,
        lora_alpha=6,
        target_modules=[q_proj, "o_proj", "kv_a_proj_with_mqa"],
        target_parameters=[f"mlp.experts.{name}" for name in parameters],
        alpha_pattern={"o_proj": 12},
    )
    plain = logits(model)
    there = get_peft_model(theirs, config).eval()
    for name, param in there.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(param, 0.0, 0.05)
    there.save_pretrained(tmp_path / "adapter")
    adapter = load_adapter(model, tmp_path / "adapter")
    with attached(model, adapter):
        torch.testing.assert_close(logits(model), logits(there), **CLOSE)
        assert (logits(model) - plain).abs().max() > 0.01
    adapter.merge(model)
    torch.testing.assert_close(logits(model), logits(there.merge_and_unload()), **CLOSE)


def test_through_peft_and_back(model, theirs, tmp_path):
    """peft stacks the experts as it loads: gate and up become one, of twice the rank and alpha."""
    from peft import PeftModel

    adapter = learned(model)
    adapter.save(tmp_path / "ours")
    PeftModel.from_pretrained(theirs, tmp_path / "ours").save_pretrained(tmp_path / "theirs")
    assert any("base_layer" in key for key in load_file(tmp_path / "theirs/adapter_model.safetensors"))
    again = load_adapter(model, tmp_path / "theirs")
    for name in adapter.names:
        torch.testing.assert_close(again.change(name), adapter.change(name), atol=1e-7, rtol=1e-5)


def test_what_is_saved_is_loaded_to_the_last_bit(model, tmp_path):
    adapter = learned(model)
    adapter.save(tmp_path, "a/base")
    again = load_adapter(model, tmp_path)
    assert sorted(again.names) == sorted(adapter.names)
    assert (again.rank, again.alpha, again.base) == (adapter.rank, adapter.alpha, adapter.base)
    for name in adapter.names:
        assert torch.equal(again[name].a, adapter[name].a) and torch.equal(again[name].b, adapter[name].b)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "a/base" and config["r"] == 4 and config["lora_alpha"] == 6.0
    assert not any("shared" in target for target in config["target_modules"])


def test_another_base_of_the_same_shapes_is_refused(model, tmp_path):
    learned(model).save(tmp_path)
    other = ours(model.config, seed=9)
    with pytest.raises(BadFile, match="trained on another base"):
        load_adapter(other, tmp_path)
    assert load_adapter(other, tmp_path, any_base=True).rank == 4


def damage(folder, kind):
    config, file = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    tensors, settings = load_file(file), json.loads(config.read_text())
    some = next(key for key in tensors if "o_proj.lora_A" in key)
    expert = next(key for key in tensors if "experts.3.up_proj.lora_B" in key)
    match kind:
        case "no config":
            config.unlink()
        case "no weights":
            file.unlink()
        case "a pickle":
            file.unlink()
            torch.save(tensors, folder / "adapter_model.bin")
        case "cut short":
            file.write_bytes(file.read_bytes()[:5000])
        case "no json":
            config.write_text("{")
        case "a list":
            config.write_text("[]")
        case "another method":
            settings["peft_type"] = "IA3"
        case "dora":
            settings["use_dora"] = True
        case "other modules":
            settings["modules_to_save"] = ["lm_head"]
        case "no rank":
            settings["r"] = 0
        case "alpha is text":
            settings["lora_alpha"] = "16"
        case "a pattern that is a program":
            settings["alpha_pattern"] = {"(a+)+$": 3}
        case "an alpha for one expert":
            settings["alpha_pattern"] = {"experts.3.up_proj": 12}
        case "half a pair":
            del tensors[some]
        case "a shared expert":
            for side in "AB":
                name = some.replace("lora_A", f"lora_{side}")
                tensors[name.replace("self_attn.o_proj", "mlp.shared_experts.up_proj")] = torch.zeros(4, 4)
        case "another shape":
            tensors[some] = torch.zeros(4, 5)
        case "two ranks":
            tensors[some] = torch.zeros(5, tensors[some].shape[1])
        case "an expert less":
            for side in "AB":
                del tensors[expert.replace("lora_B", f"lora_{side}")]
        case "another expert":
            tensors[expert] = torch.zeros(7, 4)
        case "not finite":
            tensors[some][0, 0] = float("nan")
        case "another layer":
            for side in "AB":
                name = some.replace("lora_A", f"lora_{side}")
                tensors[name.replace("layers.0", "layers.99")] = tensors[name].clone()
        case "weights of something else":
            tensors = {"lm_head.weight": torch.zeros(3, 3)}
        case "empty":
            tensors = {}
    if file.is_file() and kind != "cut short":
        save_file(tensors, file, metadata={"format": "pt"})
    if config.is_file() and kind not in ("no json", "a list"):
        config.write_text(json.dumps(settings))


KINDS = {
    "no config": "lacks adapter_config.json",
    "no weights": "lacks adapter_model.safetensors",
    "a pickle": "is a pickle",
    "cut short": "damaged",
    "no json": "no JSON",
    "a list": "peft_type",
    "another method": "peft_type",
    "dora": "use_dora",
    "other modules": "modules_to_save",
    "no rank": "r is 0",
    "alpha is text": "lora_alpha",
    "a pattern that is a program": "alpha_pattern",
    "an alpha for one expert": "not all of one alpha",
    "half a pair": "no other half",
    "a shared expert": "shared_experts",
    "another shape": "of another model",
    "two ranks": "of two ranks",
    "an expert less": "15 experts",
    "another expert": "not all of one shape",
    "not finite": "finite",
    "another layer": "of another model",
    "weights of something else": "lm_head.weight is no A or B",
    "empty": "is empty",
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("use_dora", True),
        ("use_rslora", True),
        ("lora_bias", True),
        ("fan_in_fan_out", True),
        ("use_qalora", True),
        ("bias", "all"),
        ("modules_to_save", ["lm_head"]),
        ("layer_replication", [[0, 1], [0, 2]]),
        ("trainable_token_indices", [5]),
    ],
)
def test_a_setting_that_is_no_plain_lora_is_one_line(name, value, tmp_path):
    model = ours(CONFIGS["plain"])
    learned(model).save(tmp_path)
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {name: value}))
    with pytest.raises(KimiError, match=f"{name} is .* plain LoRA") as error:
        load_adapter(model, tmp_path)
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_that_cannot_be_used_is_one_line(kind, tmp_path):
    model = ours(CONFIGS["plain"])
    learned(model).save(tmp_path)
    damage(tmp_path, kind)
    with pytest.raises(KimiError, match=KINDS[kind]) as error:
        load_adapter(model, tmp_path)
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)
