"""INT4 of routed experts: the numbers of the formula, the layout of compressed-tensors, a gradient that passes through."""

import json
from functools import partial

import pytest
import torch
from compressed_tensors.compressors import pack_to_int32, unpack_from_int32
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.lifecycle.forward import fake_quantize
from compressed_tensors.quantization.utils import calculate_qparams

from kimi_mini import KimiConfig, KimiMini
from kimi_mini.base.errors import BadFile
from kimi_mini.inference.decoder import Decoder
from kimi_mini.model.checkpoint import to_disk_keys
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


def theirs(bits: int):
    """torchao's fake quantiser: symmetric, group 32, scales of its own in fp32."""
    from torchao.quantization.qat import IntxFakeQuantizeConfig, IntxFakeQuantizer

    config = IntxFakeQuantizeConfig(getattr(torch, f"int{bits}"), group_size=32, is_symmetric=True)
    return IntxFakeQuantizer(config)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_the_rounding_is_that_of_torchao_but_for_the_format_of_scales(bits):
    """Both have max |w| over half the number of steps; ours is bf16, as it is stored. So the largest weight, exactly
    between two numbers for torchao, is above or below there: one code apart, where it is not the same."""
    from torchao.quantization.qat.utils import _fake_quantize_per_channel_group

    weight, quantiser, least = weights((60, 96)), theirs(bits), -(2 ** (bits - 1))
    found = quantiser(weight)
    codes, scale = int4.quantise(weight, bits)
    assert torch.equal(scale, quantiser.scale.to(torch.bfloat16)) and not torch.equal(scale, quantiser.scale)
    apart = (found / quantiser.scale.repeat_interleave(32, -1)).round() - codes
    assert apart.abs().max() <= 1 and (apart != 0).float().mean() < 0.02 * 2 ** max(bits - 4, 0)
    zeros = torch.zeros_like(scale, dtype=torch.int32)
    same = _fake_quantize_per_channel_group(weight, scale.float(), zeros, least, -least - 1, 32)
    torch.testing.assert_close(int4.rounded(weight, bits), same, atol=1e-6, rtol=0)


def test_torchao_stops_the_gradient_of_what_it_cuts_off_and_we_do_not():
    """The one difference of the two estimators: a weight at the upper end, where 7.5 steps or a little more become 7."""
    from torchao.quantization.qat.utils import _fake_quantize_per_channel_group

    weight = torch.linspace(-1, 1, 32)[None].requires_grad_()
    scale, zero = torch.tensor([[1 / 7.6]]), torch.zeros(1, 1, dtype=torch.int32)
    _fake_quantize_per_channel_group(weight, scale, zero, -8, 7, 32).sum().backward()
    torch.testing.assert_close(weight.grad, torch.tensor([[1.0] * 31 + [0.0]]))
    weight.grad = None
    int4.rounded(weight).sum().backward()
    assert (weight.grad == 1).all()


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
        decoder = Decoder(model, 2, 12)
        decoder.extend(ids[:, :11].tolist())
        decoded = decoder.step(ids[:, 11])  # folded matrices
    assert all(
        weight.grad is not None for experts in int4.experts_of(model) for weight in experts.parameters()
    )
    assert torch.equal(model(ids).logits, plain) and not torch.allclose(seen, plain, atol=1e-4)
    others = {name: value.clone() for name, value in model.named_parameters() if ".experts." not in name}
    int4.round_experts(model)
    torch.testing.assert_close(model(ids).logits, seen, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(decoded, seen[:, -1], atol=1e-4, rtol=1e-4)
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


def test_an_expert_on_disk_takes_less_than_0_3_of_its_bytes_in_bf16(model):
    """What the disk has of the shipped shape: words, scales and shapes, with the part groups of 60 columns."""
    disk = int4.to_packed(to_disk_keys(model.state_dict()))
    packed = sum(value.nbytes for key, value in disk.items() if ".mlp.experts." in key)
    experts = sum(weight.numel() for one in int4.experts_of(model) for weight in one.parameters())
    assert 0.28 < packed / (2 * experts) <= 0.30


def test_the_format_can_be_another_one(model):
    """Two bits, and then the model as it was."""
    ids = torch.arange(24).view(2, 12)
    plain, two = model(ids).logits, partial(int4.rounded, bits=2)
    with int4.aware(model, two):
        seen = model(ids).logits
    assert torch.equal(model(ids).logits, plain)
    int4.round_experts(model, two)
    torch.testing.assert_close(model(ids).logits, seen, atol=1e-5, rtol=1e-5)
    assert len(model.model.layers[1].mlp.experts.up_proj[0, 0, :32].unique()) <= 4


def test_shared_experts_and_dense_layers_are_not_packed(model, tmp_path):
    model.save_pretrained(tmp_path, packed=True)
    from safetensors import safe_open

    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        packed = [key for key in file.keys() if key.endswith("weight_packed")]  # noqa: SIM118
    assert len(packed) == 3 * model.config.n_routed_experts
    assert all(".mlp.experts." in key for key in packed)


DAMAGES = (
    "no scale",
    "no shape",
    "another shape",
    "one number",
    "three numbers",
    "a table",
    "a packed shared expert",
)
SHAPES = {"another shape": [3, 1000], "one number": [16], "three numbers": [16, 32, 1], "a table": [[16, 32]]}


@pytest.mark.parametrize("damage", [*DAMAGES, "there twice"])
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
    elif damage in SHAPES:
        tensors[f"{name}_shape"] = torch.tensor(SHAPES[damage])
    elif damage == "there twice":
        tensors[name] = torch.zeros(tensors[f"{name}_shape"].tolist())
    else:
        tensors["model.layers.1.mlp.shared_experts.up_proj.weight_packed"] = tensors[f"{name}_packed"].clone()
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(BadFile, match="weight_packed") as error:
        KimiMini.from_pretrained(tmp_path)
    assert "\n" not in str(error.value)
