"""Checkers for the exercises of notebook 03 (MuonClip)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from kimi_mini.course.exercises.base import Checked, Hint, checker, close, numbers, value_of

# -- the size of an update -----------------------------------------------------------------------------

SHAPES = ((96, 96), (144, 48), (48, 144), (16, 60, 96), (16, 96, 60), (200, 12, 20))
WRONG_SCALES = (
    (lambda s: 0.2, "an orthogonal matrix has root mean square 1/sqrt(max(out, in)), not 1"),
    (
        lambda s: max(1, s[-2] / s[-1]) ** 0.5,
        "that is the first Muon's factor: it keeps the spectral size, and AdamW's "
        "learning rate no longer fits",
    ),
    (lambda s: 0.2 * max(s) ** 0.5, "for a stack (E, out, in) the number of experts is no side of a matrix"),
    (
        lambda s: 0.2 * max(torch.Size(s[:-1]).numel(), s[-1]) ** 0.5,
        "the experts of a stack are separate matrices: E * out is the shape in memory",
    ),
    (
        lambda s: 0.2 * min(s[-2:]) ** 0.5,
        "count again how many entries share the energy: U V^T has min(out, in) "
        "singular values of 1 and out * in entries",
    ),
    (lambda s: max(s[-2:]) ** 0.5, "that gives a root mean square of 1; AdamW's usual update has 0.2"),
)


@checker
def check_scale(function: Callable[[tuple[int, ...]], float]) -> Checked:
    """function(shape) is the factor that gives an orthogonalised update of shape (..., out, in) an RMS of 0.2."""
    given = []
    for shape in SHAPES:
        value = value_of(function, shape)
        given.append(float(numbers(value, (), "return one number")))
    fits = lambda rule: all(abs(value - rule(shape)) < 1e-4 for value, shape in zip(given, SHAPES))
    if fits(lambda shape: 0.2 * max(shape[-2:]) ** 0.5):
        return Checked(True, "0.2 sqrt(max(out, in)): one learning rate now serves Muon and AdamW")
    for rule, hint in WRONG_SCALES:
        if fits(rule):
            return Checked(False, hint)
    # nan is wrong too
    wrong = [(s, v) for s, v in zip(SHAPES, given) if not abs(v - 0.2 * max(s[-2:]) ** 0.5) < 1e-4]
    shape, value = wrong[0]
    rms = value / max(shape[-2:]) ** 0.5
    return Checked(False, f"shape {shape}: {value:.4g} gives an update with a root mean square of {rms:.3g}")


# -- who gets which optimizer --------------------------------------------------------------------------

PARAMETERS = (  # (name, shape, Muon?, hint)
    (
        "model.embed_tokens.weight",
        (1024, 96),
        False,
        "a row of the embedding belongs to one token: it is a table",
    ),
    (
        "lm_head.weight",
        (1024, 96),
        False,
        "the head is a table too, one row a token, although it is a matrix product",
    ),
    ("model.embed_tokens.weight", (163_840, 7168), False, "K2's embedding: a table of any length is a table"),
    ("model.norm.weight", (96,), False, "a vector has no singular values"),
    ("model.layers.1.self_attn.kv_a_layernorm.weight", (48,), False, "a vector has no singular values"),
    ("model.layers.0.mlp.gate_proj.weight", (240, 96), True, "a hidden matrix: what Muon is for"),
    (
        "model.layers.1.mlp.gate.weight",
        (16, 96),
        True,
        "the router is a hidden matrix as well (Moonlight, figure 4)",
    ),
    ("model.layers.1.mlp.experts.up_proj", (16, 60, 96), True, "a stack of 16 experts is 16 hidden matrices"),
    ("model.layers.2.self_attn.kv_b_proj.weight", (144, 48), True, "a hidden matrix: what Muon is for"),
    (
        "model.layers.9.self_attn.o_proj.weight",
        (7168, 8192),
        True,
        "a hidden matrix, K2's: size makes no table of it",
    ),
)


@checker
def check_split(function: Callable[[str, tuple[int, ...]], bool]) -> Checked:
    """function(name, shape) is whether Muon gets the parameter (otherwise AdamW)."""
    for name, shape, right, hint in PARAMETERS:
        value = value_of(function, name, shape)
        muon = numbers(value, (), "return True or False")
        if muon.isnan():
            raise Hint("return True or False, not nan")
        if bool(muon) != right:
            return Checked(False, f"{name} {shape} goes to {'Muon' if right else 'AdamW'}: {hint}")
    return Checked(True, f"{len(PARAMETERS)} parameters sorted, stacks of experts and the router among them")


# -- what QK-Clip looks at -----------------------------------------------------------------------------

SCALE = 0.25


def _evidence() -> tuple[list[Tensor], list[Tensor]]:
    """Two micro-batches: raw q k^T (B, H, T, T), and which tokens are real (B, T)."""
    generator = torch.Generator().manual_seed(0)
    raw = [torch.randn(size, 4, 6, 6, generator=generator) for size in (2, 1)]
    valid = [torch.ones(2, 6, dtype=torch.bool), torch.ones(1, 6, dtype=torch.bool)]
    raw[0][0, 0, 3, 1], raw[0][1, 1, 4, 4], raw[1][0, 2, 5, 0] = 40.0, 24.0, 16.0  # the maxima of three heads
    raw[0][0, 1, 1, 4], raw[1][0, 0, 2, 1] = 90.0, -200.0  # a pair from the future; a large negative logit
    valid[0][1, 5] = False
    raw[0][1, 2, 5, 3] = 70.0  # a query that is padding
    for scores in raw:
        scores[:, 3] = -2 - scores[:, 3].abs()  # the fourth head: every logit is negative
    return raw, valid


def _largest(
    raw: list[Tensor],
    valid: list[Tensor],
    scale: float = SCALE,
    causal: bool = True,
    padding: bool = True,
    sign: bool = True,
    nothing: float = -torch.inf,
    batches: Callable = lambda maxima: maxima.amax(0),
) -> Tensor:
    maxima = []
    for scores, real in zip(raw, valid):
        hidden = torch.ones(6, 6, dtype=torch.bool).triu(1) if causal else torch.zeros(6, 6, dtype=torch.bool)
        hidden = hidden | (~real[:, None, :, None] if padding else torch.zeros_like(real)[:, None, :, None])
        scores = scores if sign else scores.abs()
        maxima.append((scores * scale).masked_fill(hidden, nothing).amax((0, 2, 3)))
    return batches(torch.stack(maxima))


WRONG_EVIDENCE = (
    (dict(scale=1.0), "the logit is what enters the softmax: multiply by the scale"),
    (
        dict(causal=False),
        "a pair from the future counts: those logits are masked and never reach the softmax",
    ),
    (dict(padding=False), "a query that is padding counts: it is no part of the batch"),
    (dict(sign=False), "the report takes the signed maximum: a large negative logit does no harm"),
    (
        dict(nothing=0.0),
        "a head with negative logits alone gets 0: hide pairs with -inf and begin at -inf, not at 0",
    ),
    (dict(batches=lambda maxima: maxima.mean(0)), "take the maximum over micro-batches, not the mean"),
    (
        dict(batches=lambda maxima: maxima[-1]),
        "the maximum of the last micro-batch alone: keep the earlier ones",
    ),
    (
        dict(batches=lambda maxima: maxima.amax().expand(4)),
        "one number for all heads: then innocent heads are cut too",
    ),
)


@checker
def check_evidence(function: Callable[[list[Tensor], list[Tensor], float], Tensor]) -> Checked:
    """function(raw, valid, scale): largest softmax input of each head, (H,), over all micro-batches.

    raw: q k^T of each micro-batch (B, H, T, T); valid: which tokens are real (B, T); a query sees itself and the past.
    """
    raw, valid = _evidence()
    value = value_of(function, [scores.clone() for scores in raw], [real.clone() for real in valid], SCALE)
    given = numbers(value, (4,), "return one number a head, a tensor of shape (H,)")
    if close(given, _largest(raw, valid)):
        return Checked(
            True, f"S = {[round(x, 2) for x in given.tolist()]}: one number a head, nothing hidden"
        )
    for mistake, hint in WRONG_EVIDENCE:
        if close(given, _largest(raw, valid, **mistake)):
            return Checked(False, hint)
    right = _largest(raw, valid).tolist()
    return Checked(
        False, f"heads give {[round(x, 2) for x in given.tolist()]}, want {[round(x, 2) for x in right]}"
    )


# -- what QK-Clip cuts ---------------------------------------------------------------------------------

PARTS = ("query nope", "query rope", "key nope", "shared rope key", "value")


@checker
def check_cut(function: Callable[[float], Sequence[float]]) -> Checked:
    """function(gamma): factors on the rows of one head for PARTS, so that all its logits shrink by gamma."""
    for gamma in (0.25, 0.81, 1.0):
        value = value_of(function, gamma)
        factors = numbers(value, (5,), "return five factors, for " + ", ".join(PARTS))
        q_nope, q_rope, k_nope, k_rope, values = factors.tolist()
        same = lambda a, b: abs(a - b) < 1e-4
        if not same(values, 1):
            return Checked(False, "values are not in the logits: leave their rows alone")
        if not same(k_rope, 1):
            return Checked(False, "the rope key is shared: shrink it and every other head pays")
        if not same(q_rope, gamma):
            return Checked(
                False,
                f"gamma = {gamma}: the rope part of the logit shrinks by {q_rope:.3g}; its key is "
                "not ours, so the query has to carry all of gamma",
            )
        if not same(q_nope * k_nope, gamma):
            return Checked(
                False, f"gamma = {gamma}: the nope part of the logit shrinks by {q_nope * k_nope:.3g}"
            )
        if not same(q_nope, k_nope):
            return Checked(
                False, "right for the logits; but share the cut evenly, so that neither side shrinks alone"
            )
    return Checked(True, "every logit of the head times gamma, no other head touched")
