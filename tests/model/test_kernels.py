"""Kernels: every fast version against the readable one, forward and backward; bf16 against fp64; the context."""

import threading
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from kimi_mini import KimiConfig, KimiMini
from kimi_mini.model import kernels
from kimi_mini.model.kernels import experts, reference
from kimi_mini.model.kernels.attention import BLOCK as BLOCKS

BLOCK = BLOCKS["cpu"]


def draw(*sizes, seed=0, size=1.0):
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(seed)) * size


# ---- cases: (arguments, which of them get a gradient) ------------------------------------------------------


def attention_case(t, b=2, h=3, d_qk=8, d_v=12, padding=False):
    """Large enough for sharp softmaxes, value width unlike key width; padded queries with larger logits."""
    q, k, v = draw(b, h, t, d_qk, size=1.5), draw(b, h, t, d_qk, seed=1, size=1.5), draw(b, h, t, d_v, seed=2)
    valid = torch.arange(t).expand(b, t) < torch.tensor([[t], [max(1, t // 2)]]) if padding else None
    if padding:
        q[1, :, max(1, t // 2) :] *= 5
    return [q, k, v, 0.35, valid], (0, 1, 2)


def experts_case(n, e=16, k=4, h=24, width=20, skewed=False):
    """Widths of 20 and 24 numbers go through grouped_mm, others through the loop over experts."""
    scores = draw(n, e)
    if skewed:  # k experts take everything, the others nothing
        scores[:, torch.arange(k) * 3 + 1] += 99
    values, indices = scores.topk(k, -1, sorted=False)
    weights = [draw(*sizes, seed=3, size=0.4) for sizes in ((e, width, h), (e, width, h), (e, h, width))]
    weights[1] = weights[1].flip(1)
    return [draw(n, h, seed=4), indices, values.sigmoid(), *weights], (0, 2, 3, 4, 5)


def norm_case(*sizes):
    return [draw(*sizes, size=3), 1 + draw(sizes[-1], seed=1), 1e-3], (0, 1)


def linear_case(*rows, inputs=96, outputs=60):
    return [draw(*rows, inputs), draw(outputs, inputs, seed=1)], (0, 1)


def head_case(n, h=12, vocabulary=40):
    targets = torch.randint(0, vocabulary, (n,), generator=torch.Generator().manual_seed(2))
    return [draw(n, h), draw(vocabulary, h, seed=1), targets], (0, 1)


CASES = {
    "attention": [
        *(attention_case(t) for t in (1, 5, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 37)),
        *(attention_case(t, padding=True) for t in (7, BLOCK + 20)),
        attention_case(3 * BLOCK, b=1, h=1, d_v=3),
        attention_case(30, d_qk=5, d_v=1),
    ],
    "experts": [
        *(experts_case(n) for n in (1, 23, 300)),
        experts_case(50, skewed=True),
        experts_case(40, e=5, k=1),
        experts_case(40, h=7, width=6),
        experts_case(3, e=5, k=5, h=6, width=10),
    ],
    "norm": [norm_case(5), norm_case(2, 3, 96), norm_case(1, 7, 1), norm_case(2, 0, 4)],
    "linear": [
        *(linear_case(rows) for rows in (1, 63, 64, 129, 1000)),
        linear_case(2, 150, inputs=7, outputs=130),
        linear_case(3, 2, 100, inputs=16, outputs=1),
    ],
    "head": [head_case(0), head_case(1), head_case(70), head_case(5, vocabulary=1)],
}


def results(kernel, arguments, learned, dtype=torch.float32):
    """Output, maxima if there are any, and the gradients of a random sum of the output; all in fp64."""
    copies = [x.to(dtype) if isinstance(x, torch.Tensor) and x.is_floating_point() else x for x in arguments]
    leaves = [copies[i].detach().clone().requires_grad_() for i in learned]
    for i, leaf in zip(learned, leaves):
        copies[i] = leaf
    out = kernel(*copies)
    out, *maxima = out if isinstance(out, tuple) else (out,)
    out.backward(draw(*out.shape, seed=9).to(dtype))
    grads = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves]
    assert out.dtype == dtype and all(grad.dtype == dtype for grad in grads)
    assert all(m.dtype == torch.float32 and not m.requires_grad for m in maxima)
    return [x.detach().double() for x in (out, *maxima, *grads)]


def check(name, kernel):
    """The kernel gives what the readable version gives, on every case."""
    for arguments, learned in CASES[name]:
        ours, theirs = (results(f, arguments, learned) for f in (kernel, kernels.TABLE[name].reference))
        for a, b in zip(ours, theirs, strict=True):
            largest = max(1.0, b.abs().max().item()) if b.numel() else 1.0
            torch.testing.assert_close(a, b, atol=4e-6 * largest, rtol=1e-5)


@pytest.mark.parametrize("version", ["cpu", "cuda"])
@pytest.mark.parametrize("name", kernels.TABLE)
def test_every_version_equals_the_readable_one(name, version):
    """All run on any device, so the slot for GPUs is tried here as well."""
    check(name, getattr(kernels.TABLE[name], version))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", kernels.TABLE)
def test_a_gpu_gives_what_the_readable_version_gives_on_a_cpu(name):
    kernel = on_gpu(kernels.TABLE[name].cuda)
    check(name, kernel)
    if name == "attention":
        check_bf16(kernel)


def on_gpu(kernel):
    """The kernel on arguments that are moved there; what it returns comes back."""

    def moved(*arguments):
        out = kernel(*(x.cuda() if isinstance(x, torch.Tensor) else x for x in arguments))
        return tuple(x.cpu() for x in out) if isinstance(out, tuple) else out.cpu()

    return moved


# ---- wrong kernels -----------------------------------------------------------------------------------------


def first_block_dropped(q, k, v, scale, valid=None):
    out, maxima = kernels.causal_attention(q, k, v, scale, valid)
    if q.shape[2] > BLOCK:
        late, _ = kernels.causal_attention(q[:, :, BLOCK:], k[:, :, BLOCK:], v[:, :, BLOCK:], scale)
        out = torch.cat([out[:, :, :BLOCK], late], 2)
    return out, maxima


def attention_from(logits, v, seen=None):
    seen = logits if seen is None else seen
    hidden = reference.after_query(v.shape[2], v)
    weights = logits.masked_fill(hidden, -torch.inf).softmax(-1)
    return weights @ v, seen.detach().masked_fill(hidden, -torch.inf).amax((0, 2, 3))


WRONG = {
    "attention": {
        "first block dropped": first_block_dropped,
        "maxima without the scale": lambda q, k, v, scale, valid=None: (
            kernels.causal_attention(q, k, v, scale)[0],
            kernels.causal_attention(q, k, v, 1.0, valid)[1],
        ),
        "maxima with padding": lambda q, k, v, scale, valid=None: kernels.causal_attention(q, k, v, scale),
        "maxima of all pairs": lambda q, k, v, scale, valid=None: (
            kernels.causal_attention(q, k, v, scale)[0],
            (q @ k.mT * scale).detach().amax((0, 2, 3)),
        ),
        "scale by the width": lambda q, k, v, scale, valid=None: (
            kernels.causal_attention(q, k, v, q.shape[-1] ** -0.5)[0],
            kernels.causal_attention(q, k, v, scale, valid)[1],
        ),
        "no gradient for keys": lambda q, k, v, scale, valid=None: kernels.causal_attention(
            q, k.detach(), v, scale, valid
        ),
        "not causal": lambda q, k, v, scale, valid=None: (
            (q @ k.mT * scale).softmax(-1) @ v,
            kernels.causal_attention(q, k, v, scale, valid)[1],
        ),
    },
    "experts": {
        "choices in another order": lambda x, i, w, *p: kernels.routed_experts(x, i.flip(1), w, *p),
        "experts in another order": lambda x, i, w, *p: kernels.routed_experts(
            x, i, w, *(m.flip(0) for m in p)
        ),
        "gate and up swapped": lambda x, i, w, g, u, d: kernels.routed_experts(x, i, w, u, g, d),
        "not weighted": lambda x, i, w, *p: kernels.routed_experts(x, i, torch.ones_like(w), *p),
        "one expert short": lambda x, i, w, *p: kernels.routed_experts(x, i[:, 1:], w[:, 1:], *p),
        "no gradient for gates": lambda x, i, w, *p: kernels.routed_experts(x, i, w.detach(), *p),
        "no gradient for tokens": lambda x, i, w, *p: kernels.routed_experts(x.detach(), i, w, *p),
    },
    "norm": {
        "mean taken away": lambda x, w, eps: kernels.rms_norm(x - x.mean(-1, keepdim=True), w, eps),
        "eps outside the root": lambda x, w, eps: x / (x.square().mean(-1, keepdim=True).sqrt() + eps) * w,
        "another eps": lambda x, w, eps: kernels.rms_norm(x, w, 1e-6),
        "factor without gradient": lambda x, w, eps: (
            x * (x.square().mean(-1, keepdim=True) + eps).rsqrt().detach() * w
        ),
        "weight without gradient": lambda x, w, eps: kernels.rms_norm(x, w.detach(), eps),
    },
    "linear": {
        "last rows lost": lambda x, w: F.linear(x, w) * (torch.arange(x.shape[-2])[:, None] < 1000 - 8),
        "no gradient for the weight": lambda x, w: kernels.linear(x, w.detach()),
        "rounded to bf16": lambda x, w: kernels.linear(x.bfloat16().float(), w),
    },
    "head": {
        "mean in place of each": lambda x, w, t: kernels.head_losses(x, w, t).mean().expand(len(t)),
        "one target for all": lambda x, w, t: kernels.head_losses(x, w, t[:1].expand(len(t))),
        "no gradient for the weight": lambda x, w, t: kernels.head_losses(x, w.detach(), t),
        "no gradient for the hidden states": lambda x, w, t: kernels.head_losses(x.detach(), w, t),
    },
}


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name, kinds in WRONG.items() for kind in kinds])
def test_wrong_kernels_are_caught(name, kind):
    with pytest.raises(AssertionError):
        check(name, WRONG[name][kind])


@pytest.mark.parametrize("width", [20, 6, 7])
def test_the_loop_that_stands_in_for_grouped_mm_takes_experts_in_their_order(width, monkeypatch):
    """Widths that are no multiple of 16 bytes; experts of unlike sizes, one of them empty."""
    rows, weight = draw(30, width), draw(4, 9, width, seed=1)
    ends = torch.tensor([7, 7, 20, 30], dtype=torch.int32)
    by_hand = torch.cat([rows[a:b] @ w.T for (a, b), w in zip(((0, 7), (7, 7), (7, 20), (20, 30)), weight)])
    torch.testing.assert_close(experts.grouped_linear(rows, weight, ends), by_hand)
    monkeypatch.setattr(F, "grouped_mm", None)  # the loop, then, or a TypeError
    with pytest.raises(AssertionError):
        torch.testing.assert_close(experts.grouped_linear(rows, weight.flip(0), ends), by_hand)


# ---- other properties of attention -------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["reference", "cpu"])
def test_gradients_by_finite_differences(version):
    leaves = [x.double().requires_grad_() for x in attention_case(5, b=1, h=1, d_qk=2, d_v=3)[0][:3]]
    with kernels.using(attention=version):
        torch.autograd.gradcheck(lambda *qkv: kernels.causal_attention(*qkv, 0.5)[0], leaves)


def test_two_runs_are_equal_bit_for_bit():
    case = attention_case(BLOCK + 9)
    assert all(
        torch.equal(a, b) for a, b in zip(*(results(kernels.causal_attention, *case) for _ in range(2)))
    )


@pytest.mark.parametrize(("query", "key"), [(3, 10), (BLOCK + 1, BLOCK + 20)])
@pytest.mark.parametrize("version", ["reference", "cpu"])
def test_an_infinite_logit_behind_the_mask_does_no_harm(version, query, key):
    """A later key may overflow for an earlier query, which must not look at it."""
    q, k, v, scale, _ = attention_case(BLOCK + 30)[0]
    k[:, :, key], q[:, :, query] = 1e20, 1e20
    q[:, :, key:] *= 1e-20
    with kernels.using(attention=version):
        out, maxima = kernels.causal_attention(q, k, v, scale)
    assert (q @ k.mT).isinf().any()  # the case is one
    assert out.isfinite().all() and maxima.isfinite().all()


# ---- bf16 --------------------------------------------------------------------------------------------------


def errors(kernel, case, truth_of):
    """Largest error of output and gradients in bf16 against fp64 on the same bf16 inputs, over the largest entry."""
    arguments, learned = case
    rounded = [
        x.bfloat16() if isinstance(x, torch.Tensor) and x.is_floating_point() else x for x in arguments
    ]
    truth = results(truth_of, rounded, learned, torch.float64)
    ours = results(kernel, rounded, learned, torch.bfloat16)
    return [((a - b).abs().max() / b.abs().max()).item() for a, b in zip(ours, truth, strict=True)]


def loud(t=150):
    """Attention logits up to about 170, where neighbouring bf16 numbers are 1 apart."""
    (q, k, v, _, _), learned = attention_case(t, d_qk=32, d_v=32)
    return [4 * q, 4 * k, v, 32**-0.5], learned


def sdpa(q, k, v, scale):
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)


def check_bf16(attention):
    """As exact as torch's own fused attention; the maxima exact as fp32 sums are."""
    out, maxima, *grads = errors(attention, loud(), reference.causal_attention)
    theirs, *their_grads = errors(sdpa, loud(), sdpa)
    assert maxima < 1e-6, f"maxima are off by {maxima:.1e}"
    names = ("output", "gradient of q", "gradient of k", "gradient of v")
    for name, ours, yardstick in zip(names, (out, *grads), (theirs, *their_grads), strict=True):
        assert ours < 2 * yardstick, f"{name} {ours:.1e}, torch's {yardstick:.1e}"


@pytest.mark.parametrize("version", kernels.Versions._fields)
def test_bf16_attention_is_as_exact_as_torchs(version):
    check_bf16(getattr(kernels.TABLE["attention"], version))


def rounded_logits(q, k, v, scale):
    """Mutant: logits in bf16 before softmax and maximum."""
    return attention_from((q @ k.mT).float() * scale, v.float(), None)


def test_bf16_logits_are_caught():
    def attention(q, k, v, scale):
        out, maxima = rounded_logits(q, k, v, scale)
        return out.to(v.dtype), maxima

    with pytest.raises(AssertionError, match="maxima are off"):
        check_bf16(attention)

    def only_softmax(q, k, v, scale):
        return attention(q, k, v, scale)[0], kernels.causal_attention(q, k, v, scale)[1]

    with pytest.raises(AssertionError, match="output"):
        check_bf16(only_softmax)


@pytest.mark.parametrize("name", ["experts", "norm", "linear"])
def test_bf16_is_as_exact_as_the_readable_version(name):
    for case in CASES[name]:
        if case[0][0].numel():
            ours = errors(kernels.TABLE[name].cpu, case, kernels.TABLE[name].reference)
            theirs = errors(kernels.TABLE[name].reference, case, kernels.TABLE[name].reference)
            for mine, yardstick in zip(ours, theirs, strict=True):
                assert mine < 2 * yardstick + 4e-3  # a bf16 number is off by 4e-3 at most


def check_cast_then_weight(norm):
    """Hugging Face's order: rounded to bf16 first, then multiplied by the weight, which may be fp32."""
    (x, weight, eps), _ = norm_case(64, 96)
    x = x.bfloat16()
    unit = (x.float() * (x.float().square().mean(-1, keepdim=True) + eps).rsqrt()).bfloat16()
    for w in (weight.bfloat16(), weight):
        out = norm(x, w, eps)
        assert out.dtype == torch.bfloat16
        assert (
            out == (unit * w).bfloat16()
        ).float().mean() > 0.999  # a sum in another order may round otherwise


@pytest.mark.parametrize("version", ["reference", "cpu"])
def test_the_norm_rounds_before_it_multiplies_by_the_weight(version):
    check_cast_then_weight(getattr(kernels.TABLE["norm"], version))


def test_a_norm_that_multiplies_before_it_rounds_is_caught():
    def late(x, weight, eps):
        return kernels.rms_norm(x.float(), weight.float(), eps).to(x.dtype)

    with pytest.raises(AssertionError):
        check_cast_then_weight(late)


# ---- the context -------------------------------------------------------------------------------------------


def chosen():
    return {name: kernels._version(name, torch.zeros(1)) for name in kernels.TABLE}


CPU = {name: versions.cpu for name, versions in kernels.TABLE.items()}
REFERENCE = {name: versions.reference for name, versions in kernels.TABLE.items()}


def test_the_device_chooses_unless_the_context_does():
    assert chosen() == CPU
    on_gpu = SimpleNamespace(is_cuda=True)
    assert all(kernels._version(name, on_gpu) is kernels.TABLE[name].cuda for name in kernels.TABLE)
    with kernels.using("reference"):
        assert chosen() == REFERENCE
        assert kernels._version("attention", on_gpu) is reference.causal_attention
    assert chosen() == CPU


def test_contexts_nest_and_end_with_an_error():
    with kernels.using("reference", linear="cpu"):
        with pytest.raises(KeyError), kernels.using(norm="cpu", attention=sdpa):
            assert chosen() == {**REFERENCE, "linear": CPU["linear"], "norm": CPU["norm"], "attention": sdpa}
            raise KeyError
        assert chosen() == {**REFERENCE, "linear": CPU["linear"]}
    assert chosen() == CPU


def test_a_thread_has_its_own_choice():
    seen = []
    with kernels.using("reference"):
        thread = threading.Thread(target=lambda: seen.append(chosen()))
        thread.start(), thread.join()
    assert seen == [CPU]


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (dict(everywhere="fast"), "no version 'fast' .* reference, cpu, cuda or a function"),
        (dict(attention="triton"), "no version 'triton' of kernel 'attention'"),
        (dict(atention="cpu"), "no kernel 'atention': there are attention, experts, norm, linear"),
        (dict(norm=None), "no version None"),
    ],
)
def test_a_wrong_name_lists_the_right_ones(choice, message):
    with pytest.raises(ValueError, match=message), kernels.using(**choice):
        pass
    assert chosen() == CPU


def test_a_model_runs_on_what_is_chosen():
    """Every layer goes through the table: training step on either version gives the same, and each is called."""
    config = KimiConfig.preset("nano", vocab_size=64, q_lora_rank=24)
    ids = torch.randint(0, 64, (2, 70), generator=torch.Generator().manual_seed(0))
    calls = dict.fromkeys(kernels.TABLE, 0)

    def counting(name):
        def kernel(*arguments):
            calls[name] += 1
            return kernels.TABLE[name].reference(*arguments)

        return kernel

    found = []
    for choice in ({}, {name: counting(name) for name in kernels.TABLE}):
        torch.manual_seed(0)
        model = KimiMini(config)
        with kernels.using(**choice):
            logits = model(ids).logits
            logits.square().mean().backward()
        grads = torch.cat([p.grad.flatten() for p in model.parameters()])
        found.append((logits.detach(), grads, model.statistics.max_logits, model.statistics.loads))
    for ours, theirs in zip(*found):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    layers, moe = config.num_hidden_layers, config.num_hidden_layers - config.first_k_dense_replace
    # a layer: two block norms and two latent norms; five products of attention and three of an MLP
    assert calls == dict(attention=layers, experts=moe, norm=4 * layers + 1, linear=8 * layers + 1, head=0)
