"""MXFP4 of routed experts: bit for bit what torchao keeps, and a gradient that passes through."""

import pytest
import torch
from torchao.prototype.mx_formats.mx_tensor import MXTensor

from kimi_mini import KimiConfig, KimiMini
from kimi_mini.model.compact import int4, mxfp4

NUMBERS = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
TIES = [
    0.25,
    0.75,
    1.25,
    1.75,
    2.5,
    3.5,
    5.0,
    6.0,
    7.99,
]  # what lies between two numbers, the last one, what is above
KEPT = [0.0, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0, 6.0, 6.0]


def draw(shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def group(values):
    """One group that holds these; a 4 among them or more makes its scale 1."""
    return torch.tensor(values + [0.0] * (32 - len(values)))[None]


CASES = {
    "normal": draw((60, 96)),
    "wide": draw((50, 96)) * 10.0 ** torch.arange(-25, 25)[:, None],
    "ties": group(TIES),
    "their opposites": group([-value for value in TIES]),
    "scales up to a power of two": draw((1, 32)).clamp(-1, 1) * 3.999 / 4,
}


@pytest.mark.parametrize("name", CASES)
def test_it_keeps_what_torchao_keeps(name):
    weight = CASES[name].contiguous()
    theirs = MXTensor.to_mx(weight, torch.float4_e2m1fn_x2, 32)
    assert torch.equal(mxfp4.scales(weight), theirs.scale.float())
    assert torch.equal(mxfp4.rounded(weight), theirs.dequantize(torch.float32))


def test_ties_go_to_the_even_number_and_what_is_too_large_to_six():
    assert mxfp4.rounded(group(TIES))[0, : len(TIES)].tolist() == KEPT


def test_its_numbers_stay():
    assert torch.equal(mxfp4.rounded(group(NUMBERS)), group(NUMBERS))


def test_a_scale_holds_for_32_columns_of_one_row():
    weight = torch.full((2, 64), 1e-3)
    weight[0, :32] = 1.0
    torch.testing.assert_close(mxfp4.rounded(weight), weight, rtol=0.2, atol=0)


def test_a_group_of_zeros_and_one_that_is_not_full():
    assert mxfp4.rounded(torch.zeros(2, 32)).eq(0).all()
    weight = draw((7, 33))
    whole = torch.nn.functional.pad(weight, (0, 31))
    assert torch.equal(mxfp4.rounded(weight), mxfp4.rounded(whole)[:, :33])


def test_the_gradient_passes_through_as_if_nothing_was_rounded():
    weight, upstream = draw((4, 64)).requires_grad_(), draw((4, 64), 2)
    (mxfp4.rounded(weight) * upstream).sum().backward()
    assert torch.equal(weight.grad, upstream)


def test_a_model_that_is_aware_computes_with_what_is_kept_of_its_routed_experts_alone():
    torch.manual_seed(0)
    model = KimiMini(KimiConfig.preset("nano", num_hidden_layers=2, initializer_range=0.1)).eval()
    ids, before = torch.arange(24).view(2, 12), {name: p.clone() for name, p in model.named_parameters()}
    with torch.no_grad(), int4.aware(model, mxfp4.rounded):
        seen = model(ids).logits
    int4.round_experts(model, mxfp4.rounded)
    assert torch.allclose(model(ids).logits, seen, atol=1e-5)
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {f"model.layers.1.mlp.experts.{name}_proj" for name in ("gate", "up", "down")}
