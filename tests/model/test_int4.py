"""INT4 of routed experts: the numbers of the formula, the layout of compressed-tensors, a gradient that passes through."""

import json

import pytest
import torch
from compressed_tensors.compressors import pack_to_int32, unpack_from_int32
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.lifecycle.forward import fake_quantize
from compressed_tensors.quantization.utils import calculate_qparams

from kimi_mini import KimiConfig, KimiMini
from kimi_mini.base.errors import BadFile
from kimi_mini.model.compact import int4

SHAPES = [(5, 64), (60, 96), (96, 60), (7, 33)]


@pytest.fixture
def model():
    torch.manual_seed(0)
    return KimiMini(KimiConfig.preset("nano", num_hidden_layers=2, initializer_range=0.1)).eval()


def weights(shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("shape", [(5, 64), (60, 96)])
def test_the_rounding_is_that_of_compressed_tensors(shape):
    weight = weights(shape)
    args = QuantizationArgs(num_bits=4, type="int", symmetric=True, strategy="group", group_size=32)
    groups = weight.unflatten(-1, (-1, 32))
    scale, zero = calculate_qparams(groups.amin(-1), groups.amax(-1), args)
    scale = scale.to(torch.bfloat16).float()
    theirs = fake_quantize(weight, scale, zero, args)
    torch.testing.assert_close(int4.rounded(weight), theirs, atol=1e-6, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_packed_words_are_those_of_compressed_tensors(shape):
    codes, _ = int4.quantise(weights(shape))
    words = int4.pack(codes)
    assert torch.equal(words, pack_to_int32(codes, 4).to(torch.int32))
    assert torch.equal(int4.unpack(words, shape[1]), codes)
    assert torch.equal(unpack_from_int32(words, 4, torch.Size(shape)).to(torch.int8), codes)


def test_a_scale_holds_for_32_columns_of_one_row():
    """Scales of groups of rows, or of a whole row, would give the small weights here up."""
    weight = torch.full((2, 64), 1e-3)
    weight[0, :32] = 1.0
    torch.testing.assert_close(int4.rounded(weight), weight, rtol=0.08, atol=0)  # 7 of 7.5 steps


@pytest.mark.parametrize("shape", SHAPES)
def test_no_weight_is_off_by_more_than_half_a_step_but_the_largest(shape):
    weight = weights(shape)
    _, scale = int4.quantise(weight)
    step = scale.float().repeat_interleave(32, -1)[:, : shape[1]]
    off = (int4.rounded(weight) - weight).abs()
    assert (off <= 0.53 * step).all()  # 7.5 steps become 7 or -8


def test_a_group_of_zeros_stays_zero():
    assert int4.rounded(torch.zeros(2, 32)).eq(0).all()


def test_the_gradient_passes_through_as_if_nothing_was_rounded():
    weight, upstream = weights((4, 64)).requires_grad_(), weights((4, 64)) * 3
    (int4.rounded(weight) * upstream).sum().backward()
    assert torch.equal(weight.grad, upstream)


def test_awareness_computes_with_what_is_stored_and_learns_what_is_not(model):
    ids = torch.arange(24).view(2, 12)
    plain = model(ids).logits
    with int4.aware(model):
        seen = model(ids).logits
        seen.square().mean().backward()
    assert all(
        weight.grad is not None for experts in int4.experts_of(model) for weight in experts.parameters()
    )
    assert torch.equal(model(ids).logits, plain) and not torch.allclose(seen, plain, atol=1e-4)
    others = {name: value.clone() for name, value in model.named_parameters() if ".experts." not in name}
    int4.round_experts(model)
    torch.testing.assert_close(model(ids).logits, seen, atol=1e-5, rtol=1e-5)
    assert all(torch.equal(dict(model.named_parameters())[name], value) for name, value in others.items())


def test_a_packed_folder_holds_the_rounded_model_in_a_quarter_of_the_bytes(model, tmp_path):
    model.save_pretrained(tmp_path / "packed", packed=True)
    model.save_pretrained(tmp_path / "whole")
    again = KimiMini.from_pretrained(tmp_path / "packed")
    int4.round_experts(model)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value, atol=0, rtol=0)
    config = json.loads((tmp_path / "packed" / "config.json").read_text())["quantization_config"]
    assert (
        config["format"] == "pack-quantized"
        and config["config_groups"]["group_0"]["weights"]["group_size"] == 32
    )
    experts = sum(weight.numel() for one in int4.experts_of(model) for weight in one.parameters())
    whole, packed = ((tmp_path / name / "model.safetensors").stat().st_size for name in ("whole", "packed"))
    saved = whole - packed  # bytes; 4 of each expert's weight were fp32
    assert (4 * experts - saved) / (
        2 * experts
    ) <= 0.36  # 60 columns are two groups, the second not full; headers


def test_shared_experts_and_dense_layers_are_not_packed(model, tmp_path):
    model.save_pretrained(tmp_path, packed=True)
    from safetensors import safe_open

    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        packed = [key for key in file.keys() if key.endswith("weight_packed")]  # noqa: SIM118
    assert len(packed) == 3 * model.config.n_routed_experts
    assert all(".mlp.experts." in key for key in packed)


@pytest.mark.parametrize("damage", ["no scale", "no shape", "another shape", "a packed shared expert"])
def test_a_damaged_packed_folder_is_one_line(model, damage, tmp_path):
    from safetensors.torch import load_file, save_file

    model.save_pretrained(tmp_path, packed=True)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    name = next(key for key in tensors if key.endswith("weight_packed")).removesuffix("_packed")
    if damage == "no scale":
        del tensors[f"{name}_scale"]
    elif damage == "no shape":
        del tensors[f"{name}_shape"]
    elif damage == "another shape":
        tensors[f"{name}_shape"] = torch.tensor([3, 1000])
    else:
        tensors["model.layers.1.mlp.shared_experts.up_proj.weight_packed"] = tensors[f"{name}_packed"].clone()
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(BadFile, match="weight_packed") as error:
        KimiMini.from_pretrained(tmp_path)
    assert "\n" not in str(error.value)
