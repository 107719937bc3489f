"""Experts as padded batches: against the readable version in fp64 and fp32, with loads that a router may produce."""

import pytest
import torch

from kimi_mini.model.kernels import padded, reference
from kimi_mini.model.kernels.padded import TILE, padded_experts, slots


def case(n, e, k, h, width, dtype, loads="even", seed=0):
    """x, indices, weights and the experts; every float takes a gradient."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(n, e, generator=generator)
    if loads == "two do all":
        scores[:, :k] += 99
    elif loads == "uneven":
        scores += torch.linspace(-2, 2, e)
    indices = scores.topk(k, -1).indices

    def draw(*sizes, size):
        return (torch.randn(*sizes, generator=generator) * size).to(dtype).requires_grad_()

    weights = (torch.rand(n, k, generator=generator) + 0.1).requires_grad_()
    experts = draw(e, width, h, size=0.3), draw(e, width, h, size=0.3), draw(e, h, width, size=0.3)
    return [draw(n, h, size=1.0), indices, weights, *experts]


CASES = [
    dict(n=200, e=16, k=3, h=96, width=60),
    dict(n=130, e=16, k=3, h=96, width=60, loads="uneven"),
    dict(n=70, e=12, k=2, h=40, width=33, loads="two do all"),
    dict(n=64, e=5, k=5, h=32, width=64),
    dict(n=1, e=6, k=1, h=7, width=9),
]


def results(kernel, arguments, dtype=None):
    """Output and all gradients in fp64, of a fixed random sum of the output."""
    leaves = [
        x.detach().to(dtype or x.dtype).requires_grad_() if x.is_floating_point() else x for x in arguments
    ]
    out = kernel(*leaves)
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(9))
    out.backward(upstream.bfloat16().to(out.dtype))
    return [out.detach().double(), *(x.grad.double() for x in leaves if x.is_floating_point())]


def check_fp32(kernel):
    for sizes in CASES:
        arguments = case(**sizes, dtype=torch.float32)
        for ours, truth in zip(
            results(kernel, arguments),
            results(reference.routed_experts, arguments, torch.float64),
            strict=True,
        ):
            torch.testing.assert_close(ours, truth, atol=1e-5 * max(1.0, truth.abs().max().item()), rtol=1e-5)


def test_in_fp32_it_is_the_readable_version():
    check_fp32(padded_experts)


NAMES = ("output", "x", "weights", "gate_proj", "up_proj", "down_proj")


def check_bf16(kernel):
    """Relative errors against fp64 on the same bf16 inputs: a few roundings of 2^-9 = 0.2% each."""
    for sizes in CASES[:-1]:  # a single token's gradient may be all cancellation
        arguments = case(**sizes, dtype=torch.bfloat16)
        ours = results(kernel, arguments)
        truth = results(reference.routed_experts, arguments, torch.float64)
        for name, a, b in zip(NAMES, ours, truth, strict=True):
            error = ((a - b).norm() / b.norm()).item()
            assert error < 0.012, f"{name} is off by {error:.3f} in {sizes}"


def test_in_bf16_it_is_off_by_a_few_roundings():
    check_bf16(padded_experts)


def test_two_runs_are_equal_bit_for_bit():
    arguments = case(**CASES[1], dtype=torch.bfloat16)
    first, second = (results(padded_experts, arguments) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second))


WRONG = {
    "the rows that fill have a share": (
        "share = out.new_zeros(len(token))",
        "share = out.new_ones(len(token))",
    ),
    "experts in their own order": ("[order]  # (E, 2 wide, deep)", "  # (E, 2 wide, deep)"),
    "gradients in the order of the loads": ("back_in_order = order.argsort()", "back_in_order = order"),
    "gate and up swapped in the gradient": ("d_gate, d_up, d_down = (", "d_up, d_gate, d_down = ("),
    "no weights backward": ("d_out.mul_(share[:, None])", "pass"),
    "weights of another row": ("[places].to(weights.dtype)", "[places.flip(1)].to(weights.dtype)"),
    "silu without its slope": (
        "torch.ops.aten.silu_backward.grad_input(d_hidden.mul_(up), gate, grad_input=d_both[:, :wide])",
        "torch.mul(d_hidden.mul_(up), gate.sigmoid(), out=d_both[:, :wide])",
    ),
    "busiest expert of a group cut off": ("each = filled_up(sorted_loads[first])", "each = filled_up(1)"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_versions_are_caught(kind):
    with open(padded.__file__) as file:
        source = file.read()
    right, wrong = WRONG[kind]
    assert source.count(right) == 1
    names = {}
    exec(compile(source.replace(right, wrong), "wrong", "exec"), names)
    with pytest.raises((AssertionError, IndexError, RuntimeError)):
        check_fp32(names["padded_experts"])


@pytest.mark.parametrize("sizes", CASES)
def test_products_have_whole_tiles_and_little_is_filled_in(monkeypatch, sizes):
    shapes, real = [], torch.bmm

    def seen(a, b, **options):
        shapes.extend([a.shape[1:], b.shape[1:]])
        return real(a, b, **options)

    monkeypatch.setattr(torch, "bmm", seen)
    results(padded_experts, case(**sizes, dtype=torch.bfloat16))
    assert shapes and all(size % TILE == 0 for shape in shapes for size in shape)


def test_every_choice_has_a_row_of_its_own_and_busy_experts_share_a_group():
    indices = case(n=2048, e=64, k=4, h=8, width=8, dtype=torch.float32)[1]
    places, token, order, groups = slots(indices, 64)
    assert len(places.unique()) == places.numel() and torch.equal(
        token[places], torch.arange(2048)[:, None].expand(-1, 4)
    )
    assert sorted(order.tolist()) == list(range(64)) and len(groups) == padded.GROUPS
    assert len(token) < 1.35 * places.numel()
    owner = torch.empty(len(token), dtype=torch.long).fill_(-1)
    for members, span in groups:
        owner[span] = order[members].repeat_interleave(
            (span.stop - span.start) // (members.stop - members.start)
        )
    assert torch.equal(owner[places], indices)
