"""The oneDNN products against plain ones: values, gradients, odd row counts, repeatability."""

import pytest
import torch
import torch.nn.functional as F

from kimi_mini.model import kernels
from kimi_mini.model.kernels.linear import FEWEST_ROWS, grain, is_fast, outer, product
from kimi_mini.model.layers import Linear

ROWS = [1, FEWEST_ROWS - 1, FEWEST_ROWS, 129, 1000, 2500]


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize(("inputs", "outputs"), [(96, 60), (16, 200)])
def test_values_and_gradients_equal_plain_ones(rows, inputs, outputs):
    torch.manual_seed(0)
    layer, x = Linear(inputs, outputs), torch.randn(rows, inputs)
    upstream = torch.randn(rows, outputs)
    results = []
    for forward in (layer, lambda x: F.linear(x, layer.weight)):
        layer.zero_grad()
        leaf = x.clone().requires_grad_()
        out = forward(leaf)
        out.backward(upstream)
        results.append((out.detach(), leaf.grad, layer.weight.grad))
    for ours, plain in zip(*results):
        torch.testing.assert_close(ours, plain, atol=1e-4, rtol=1e-4)


def test_both_engines_are_as_exact():
    """Full fp32, no bf16 or tf32 behind our back: errors against fp64 are of the same size."""
    torch.manual_seed(0)
    x, weight = torch.randn(512, 96), torch.randn(240, 96)
    exact = x.double() @ weight.double().t()
    error, plain = ((y - exact).abs().max() for y in (product(x, weight), F.linear(x, weight)))
    assert error < 2 * plain + 1e-6


def test_rounding_to_bfloat16_would_be_caught():
    torch.manual_seed(0)
    x, weight = torch.randn(512, 96), torch.randn(240, 96)
    exact = x.double() @ weight.double().t()
    rounded = (x.bfloat16() @ weight.bfloat16().t()).double()
    assert (rounded - exact).abs().max() > 100 * (F.linear(x, weight) - exact).abs().max()


def test_views_and_leading_dimensions():
    torch.manual_seed(0)
    layer, x = Linear(24, 32), torch.randn(2, 3, 100, 24)
    torch.testing.assert_close(layer(x), F.linear(x, layer.weight))
    turned = torch.randn(24, 150).t()
    torch.testing.assert_close(layer(turned), F.linear(turned, layer.weight))
    torch.testing.assert_close(product(x.flatten(0, 2), layer.weight), layer(x).flatten(0, 2))
    torch.testing.assert_close(
        outer(torch.ones(1, 1).expand(200, 8), x.flatten(0, 2)[:200]),
        x.flatten(0, 2)[:200].sum(0).expand(8, -1),
        atol=1e-4,
        rtol=1e-4,
    )


def test_few_shapes_are_compiled():
    """Each shape costs a millisecond once: all row counts up to 4096 fall on few multiples, and none loses much."""
    wholes = {rows - rows % grain(rows) for rows in range(FEWEST_ROWS, 4097)}
    assert len(wholes) <= 60
    assert all(rows % grain(rows) <= rows / 8 for rows in range(128, 4097))


def test_the_same_bits_every_time():
    torch.manual_seed(0)
    x, weight = torch.randn(700, 96), torch.randn(60, 96)
    assert torch.equal(product(x, weight), product(x, weight))
    assert torch.equal(outer(product(x, weight), x), outer(product(x, weight), x))


def test_other_devices_dtypes_and_few_rows_take_the_plain_road():
    layer = Linear(16, 8)
    x = torch.randn(200, 16)
    assert not is_fast(x.double()) and not is_fast(x.to("meta")) and not is_fast(x[:5])
    with kernels.using(linear="reference"):
        torch.testing.assert_close(layer(x), F.linear(x, layer.weight), atol=0, rtol=0)
