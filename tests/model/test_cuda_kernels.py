"""The kernels for a GPU, on a CPU: FlexAttention with its refusals lifted, permutations, the head in chunks."""

import flex
import pytest
import torch
import torch.nn.functional as F

from kimi_mini.model import kernels
from kimi_mini.model.kernels import reference
from kimi_mini.model.kernels.cuda import attention, experts, head


def draw(*sizes, seed=0, size=1.0, dtype=torch.float32):
    return (torch.randn(*sizes, generator=torch.Generator().manual_seed(seed)) * size).to(dtype)


# ---- attention ---------------------------------------------------------------------------------------------


def arguments(length=256, padding=True, dtype=torch.float32):
    """Value width unlike key width; the padded queries have the largest logits."""
    q, k, v = (draw(2, 3, length, width, seed=i, size=1.5) for i, width in enumerate((8, 8, 12)))
    valid = torch.arange(length).expand(2, length) < torch.tensor([[length], [length // 2]])
    q[1, :, length // 2 :] *= 5
    return [x.to(dtype).requires_grad_() for x in (q, k, v)], 0.35, valid if padding else None


def check_flex(kernel, padding=True):
    """Output, maxima and gradients are those of the readable version."""
    leaves, scale, valid = arguments(padding=padding)
    found = []
    for version in (kernel, reference.causal_attention):
        out, maxima = version(*leaves, scale, valid)
        assert maxima.dtype == torch.float32 and not maxima.requires_grad
        found.append((out, maxima, *torch.autograd.grad(out, leaves, draw(*out.shape, seed=9))))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("padding", [False, True])
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_flex_attention_gives_what_the_readable_version_gives(monkeypatch, backend, padding):
    flex.lift(monkeypatch, backend)
    monkeypatch.setattr(kernels.attention, "causal_attention", None)  # it is no fall-back that is tested
    check_flex(attention.causal_attention, padding)


@pytest.mark.parametrize("mutant", ["padding counts", "not causal", "no scale"])
def test_wrong_masks_maxima_and_scales_are_caught(monkeypatch, mutant):
    flex.lift(monkeypatch)
    if mutant == "not causal":
        monkeypatch.setattr(attention, "_not_later", lambda batch, head, query, key: query >= 0)
    wrong = {
        "padding counts": lambda q, k, v, scale, valid: attention.causal_attention(q, k, v, scale),
        "not causal": attention.causal_attention,
        "no scale": lambda q, k, v, scale, valid: attention.causal_attention(q, k, v, 1.0, valid),
    }
    with pytest.raises(AssertionError):
        check_flex(wrong[mutant])


def test_the_mask_is_made_once_a_length(monkeypatch):
    flex.lift(monkeypatch)
    made = []
    honest = attention.create_block_mask
    monkeypatch.setattr(
        attention, "create_block_mask", lambda *given, **more: made.append(given[3]) or honest(*given, **more)
    )
    for length in (128, 256, 128):
        leaves, scale, valid = arguments(length)
        attention.causal_attention(*leaves, scale, valid)
    assert made == [128, 256]


def test_without_maxima_none_are_asked_for(monkeypatch):
    flex.lift(monkeypatch)
    leaves, scale, valid = arguments()
    assert attention.causal_attention(*leaves, scale, valid, track=False)[1] is None


@pytest.mark.parametrize(
    ("device", "length", "capability", "triton", "fits"),
    [
        ("cuda", 256, (8, 0), True, True),
        ("cuda", 256, (9, 0), True, True),
        ("cuda", 256, (7, 5), True, False),  # Turing
        ("cuda", 256, (9, 0), False, False),
        ("cuda", 200, (9, 0), True, False),
        ("mps", 256, None, True, False),
        ("cpu", 256, None, True, False),
    ],
)
def test_where_flex_attention_cannot_run_the_blocks_do(monkeypatch, device, length, capability, triton, fits):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(attention, "has_triton", lambda: triton)
    assert attention.can_fuse(length, torch.device(device)) is fits


@pytest.mark.parametrize("reason", ["device", "length", "dtype"])
def test_a_forced_fall_back_runs_and_is_exact(monkeypatch, reason):
    """No flex_attention is called, which would raise here."""
    if reason != "device":
        flex.lift(monkeypatch)
    monkeypatch.setattr(attention, "compiled_flex", None)
    length, dtype = (
        (200 if reason == "length" else 256),
        torch.float64 if reason == "dtype" else torch.float32,
    )
    leaves, scale, valid = arguments(length, dtype=dtype)
    for ours, theirs in zip(
        attention.causal_attention(*leaves, scale, valid), reference.causal_attention(*leaves, scale, valid)
    ):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_gpu_maxima_and_gradients_are_exact(dtype):
    """Against fp64 on the same numbers: maxima as fp32 sums are, the rest as the dtype is."""
    leaves, scale, valid = arguments(dtype=dtype)
    truth = [x.detach().double().requires_grad_() for x in leaves]
    there = [x.detach().cuda().requires_grad_() for x in leaves]
    assert attention.prepare(256, there[0].device) is not None, "FlexAttention does not run on this GPU"
    out, maxima = attention.causal_attention(*there, scale, valid.cuda())
    want, want_maxima = reference.causal_attention(*truth, scale, valid)
    torch.testing.assert_close(maxima.cpu(), want_maxima, atol=1e-5, rtol=1e-5)
    upstream = draw(*out.shape, seed=9)
    grads = torch.autograd.grad(out, there, upstream.to(out))
    wanted = torch.autograd.grad(want, truth, upstream.double())
    allowed = 2e-2 if dtype == torch.bfloat16 else 2e-3  # tf32 rounds to ten bits
    for ours, exact in zip((out, *grads), (want, *wanted)):
        assert (ours.cpu().double() - exact).abs().max() < allowed * exact.abs().max()


# ---- experts -----------------------------------------------------------------------------------------------


def test_the_plan_of_the_sorted_order():
    indices = torch.tensor([[3, 1], [1, 0], [3, 0]])
    order, places, ends = experts.sort_by_expert(indices, 5)
    assert order.tolist() == [3, 5, 1, 2, 0, 4] and ends.tolist() == [2, 4, 4, 6, 6]
    assert torch.equal(order[places.flatten()], torch.arange(6)) and ends.dtype == torch.int32


def test_nothing_is_scattered_or_counted(monkeypatch):
    """The experts' forward and backward pass compile as one graph; bincount or a bag would end it."""
    for function in ("embedding_bag", "index_add"):
        monkeypatch.setattr(F if function == "embedding_bag" else torch, function, None)
    monkeypatch.setattr(torch, "bincount", None)
    n, e, k, h, width = 40, 6, 2, 16, 8
    weights, indices = draw(n, e).sigmoid().topk(k)
    matrices = [draw(e, width, h, seed=2), draw(e, width, h, seed=3), draw(e, h, width, seed=4)]
    leaves = [x.bfloat16().requires_grad_() for x in (draw(n, h, seed=1), *matrices)]
    compiled = torch.compile(experts.routed_experts, fullgraph=True, backend="aot_eager", dynamic=False)
    found = []
    for kernel in (compiled, experts.routed_experts):
        out = kernel(leaves[0], indices, weights, *leaves[1:])
        found.append((out, *torch.autograd.grad(out, leaves, draw(n, h, seed=5, dtype=torch.bfloat16))))
    for ours, theirs in zip(*found):
        torch.testing.assert_close(ours, theirs, atol=0.02, rtol=0.02)


# ---- head --------------------------------------------------------------------------------------------------


def head_results(kernel, dtype=torch.float64, rows=50):
    hidden, weight = (
        draw(rows, 12, dtype=dtype).requires_grad_(),
        draw(30, 12, seed=1, dtype=dtype).requires_grad_(),
    )
    targets = torch.randint(0, 30, (rows,), generator=torch.Generator().manual_seed(0))
    losses = kernel(hidden, weight, targets)
    return losses, *torch.autograd.grad(losses, (hidden, weight), draw(rows, seed=3, dtype=losses.dtype))


def check_head(kernel, monkeypatch):
    """In fp64, several chunks, the last one short: losses and gradients of torch's own cross-entropy."""
    monkeypatch.setattr(head, "ENTRIES", 30 * 7)
    for ours, theirs in zip(head_results(kernel), head_results(reference.head_losses)):
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-12)


def test_the_head_in_chunks_equals_the_whole(monkeypatch):
    check_head(head.head_losses, monkeypatch)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("d_weight += d_logits.t()", "d_weight = d_logits.t()"),
        ("mul_(grad[part, None])", "mul_(grad[:1, None])"),
        ("-torch.ones_like", "0 * torch.ones_like"),
    ],
)
def test_wrong_heads_are_found_out(monkeypatch, old, new):
    with open(head.__file__, encoding="utf-8") as file:
        source = file.read()
    assert old in source
    wrong = {"__name__": "wrong"}
    exec(source.replace(old, new).replace("ENTRIES = 1 << 26", "ENTRIES = 30 * 7"), wrong)
    with pytest.raises(AssertionError):
        check_head(wrong["head_losses"], monkeypatch)


class Largest(torch.utils._python_dispatch.TorchDispatchMode):
    """Entries of the largest tensor that anything makes."""

    entries = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self.entries = max(self.entries, tensor.numel())
        return out


def largest(kernel):
    hidden, weight = draw(400, 8).requires_grad_(), draw(100, 8, seed=1).requires_grad_()
    with Largest() as seen:
        kernel(hidden, weight, torch.zeros(400, dtype=torch.int64)).sum().backward()
    return seen.entries


def test_the_logits_are_never_whole_in_memory(monkeypatch):
    monkeypatch.setattr(head, "ENTRIES", 100 * 30)
    assert largest(head.head_losses) <= 400 * 8  # no more than the hidden states
    assert largest(reference.head_losses) >= 400 * 100
