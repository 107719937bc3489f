"""Are the kernels for a GPU exact? Outputs, maxima and gradients beside the readable versions in fp64, on the same
numbers. An error is a share of the largest entry."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kimi_mini.experiments.gpu.sheet import Row, Sheet
from kimi_mini.experiments.gpu.site import Site
from kimi_mini.model.kernels import TABLE

ALLOWED = {torch.float32: 2e-3, torch.bfloat16: 2e-2}  # tf32 keeps ten bits, bf16 seven
ALLOWED_MAXIMA = 1e-5  # their sums are fp32, whatever the arguments are

Case = tuple[list[Tensor], Callable[[Callable, list[Tensor]], tuple[Tensor, Tensor | None]]]


def cases(site: Site) -> dict[str, Case]:
    """Kernel -> its arguments that have gradients, fp64, in the sizes of mini; and how it is called with them."""
    config, generator = site.config("mini"), torch.Generator().manual_seed(0)
    rows, length, tokens = 2, site.pick(1024, 128), site.pick(4096, 64)
    heads, width = config.num_attention_heads, config.hidden_size

    def draw(*sizes: int) -> Tensor:
        return torch.randn(*sizes, generator=generator, dtype=torch.float64).to(site.device)

    attention = [draw(rows, heads, length, size) for size in (*[config.qk_head_dim] * 2, config.v_head_dim)]
    valid = torch.arange(length).expand(rows, length) < torch.tensor([[length], [length // 2]])
    valid = valid.to(site.device)
    weights, indices = draw(tokens, config.n_routed_experts).sigmoid().topk(config.num_experts_per_tok)
    inner, experts = config.moe_intermediate_size, config.n_routed_experts
    matrices = [draw(experts, *shape) * width**-0.5 for shape in ((inner, width),) * 2 + ((width, inner),)]
    targets = torch.randint(config.vocab_size, (tokens,), generator=generator).to(site.device)
    return {
        "attention": (attention, lambda kernel, x: kernel(*x, config.qk_head_dim**-0.5, valid)),
        "experts": (
            [draw(tokens, width), *matrices],
            lambda kernel, x: (kernel(x[0], indices, weights.to(x[0].dtype), *x[1:]), None),
        ),
        "norm": ([draw(tokens, width), draw(width)], lambda kernel, x: (kernel(*x, 1e-6), None)),
        "head": (
            [draw(tokens, width), draw(config.vocab_size, width) * width**-0.5],
            lambda kernel, x: (kernel(*x, targets), None),
        ),
    }


def results(kernel: Callable, case: Case, leaves: list[Tensor]) -> dict[str, Tensor]:
    """Output, maxima if there are any, and the gradients of all leaves, on the CPU in fp64."""
    leaves = [leaf.detach().requires_grad_() for leaf in leaves]
    out, maxima = case[1](kernel, leaves)
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    grads = torch.autograd.grad(out, leaves, upstream.to(out))
    found = {"output": out, **{f"gradient {index}": grad for index, grad in enumerate(grads)}}
    if maxima is not None:
        found["maxima"] = maxima
    return {name: tensor.detach().double().cpu() for name, tensor in found.items()}


def errors(kernel: str, case: Case, dtype: torch.dtype) -> Row:
    """The largest error of each result, and the worst of them as a share of what is allowed."""
    leaves = [leaf.to(dtype) for leaf in case[0]]
    ours = results(TABLE[kernel].cuda, case, leaves)
    exact = results(TABLE[kernel].reference, case, [leaf.double() for leaf in leaves])
    found = {
        name: ((ours[name] - truth).abs().max() / truth.abs().max()).item() for name, truth in exact.items()
    }
    limits = {name: ALLOWED_MAXIMA if name == "maxima" else ALLOWED[dtype] for name in found}
    return {"worst": max(found[name] / limits[name] for name in found), **found}


def measure(site: Site) -> Sheet:
    """Every kernel in both formats."""
    sheet = Sheet(site, "exactness")
    for kernel, case in cases(site).items():
        for dtype in ALLOWED:
            name = f"{kernel}, {str(dtype).removeprefix('torch.')}"
            sheet.once(name, lambda kernel=kernel, case=case, dtype=dtype: errors(kernel, case, dtype))
    sheet.claim("gpu/exactness", max(row["worst"] for row in sheet.log.rows))
    return sheet
