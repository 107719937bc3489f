"""Checkers for the exercises of notebook 02 (multi-head latent attention and long context)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from kimi_mini.course.exercises.base import Checked, checker, close, known_mistake, numbers, value_of
from kimi_mini.model.config import KimiConfig
from kimi_mini.model.presets import YARN
from kimi_mini.model.rope import apply_rope, frequencies, rotations


@checker
def check_absorb(function: Callable[[Tensor, Tensor], Tensor]) -> Checked:
    """function(q_nope (B, H, T, d_n), w_uk (H, d_n, r)) is the query in latent space, (B, H, T, r)."""
    random = torch.Generator().manual_seed(0)
    q, w = torch.randn(2, 3, 4, 5, generator=random), torch.randn(3, 5, 7, generator=random)
    value = numbers(value_of(function, q.clone(), w.clone()), (2, 3, 4, 7))
    right = torch.einsum("bhtn,hnr->bhtr", q, w)
    wrong = {
        "every head has a matrix of its own; yours used the same one for all": q @ w[0],
        "every head has a matrix of its own; yours used their mean": q @ w.mean(0),
        "a query meets its own head's matrix only; yours summed over all heads": q @ w.sum(0),
    }
    if not close(value, right):
        return Checked(
            False,
            known_mistake(value, wrong, close) or "right shape, wrong numbers: sum over d_n, head by head",
        )
    latents = torch.randn(2, 6, 7, generator=random)
    keys = torch.einsum("bsr,hnr->bhsn", latents, w)
    gap = (value.float() @ latents[:, None].transpose(-1, -2) - q @ keys.transpose(-1, -2)).abs().max()
    return Checked(True, f"scores against latents equal scores against keys, to {gap:.0e}: no key was made")


def _halves(x: Tensor, rotation: Tensor) -> Tensor:
    """The other convention: pairs (x_i, x_{i + d/2})."""
    turned = torch.view_as_real(torch.complex(*x.chunk(2, -1)) * rotation)
    return torch.cat([turned[..., 0], turned[..., 1]], -1)


@checker
def check_turn(function: Callable[[Tensor, float], Tensor]) -> Checked:
    """function(x (T, d), theta) is x with neighbouring pairs turned by their angle at positions 0 .. T-1."""
    for width, theta in ((2, 50000.0), (16, 50000.0), (8, 100.0)):
        config = KimiConfig.preset("nano", qk_rope_head_dim=width, rope_theta=theta)
        x, rotation = torch.randn(9, width, generator=torch.Generator().manual_seed(1)), rotations(config, 9)
        value = numbers(value_of(function, x.clone(), theta), x.shape)
        double = torch.polar(torch.ones(9, width // 2), 2 * rotation.angle())
        squared = torch.polar(
            torch.ones(9, width // 2),
            torch.outer(torch.arange(9.0), theta ** -(torch.arange(width // 2) / width)),
        )
        wrong = {
            "pairs are neighbours, (x0, x1), (x2, x3); yours are (x0, x_{d/2}), as in other models": _halves(
                x, rotation
            ),
            "that turns backwards: (a, b) becomes (a cos - b sin, a sin + b cos)": apply_rope(
                x, rotation.conj()
            ),
            "that is x as it was": x,
            "your angles are twice as large": apply_rope(x, double),
            "the exponent is -2 i / d for pair i: there are d / 2 pairs": apply_rope(x, squared),
            "positions count from 0: the first token is not turned": apply_rope(x, rotations(config, 10)[1:]),
        }
        if not close(value, apply_rope(x, rotation)):
            return Checked(
                False,
                known_mistake(value, wrong, close)
                or f"for width {width} and theta {theta:g} the numbers differ",
            )
    return Checked(True, "and a score now depends on the distance alone")


@checker
def check_break_even(function: Callable[[KimiConfig], int]) -> Checked:
    """function(config): the most new tokens for which absorbed attention takes fewer multiply-adds than naive."""
    for name in ("k2", "nano", "mini"):
        c = KimiConfig.preset(name)
        value = value_of(function, c)
        r, rope, nope, v = c.kv_lora_rank, c.qk_rope_head_dim, c.qk_nope_head_dim, c.v_head_dim

        def most(absorbed: int, naive: int, expansion: int) -> int:
            """Largest t with t * absorbed < t * naive + expansion."""
            return (expansion - 1) // (absorbed - naive) if absorbed > naive else -1

        right = most(2 * r + rope, nope + rope + v, r * (nope + v))
        wrong = {
            "making keys and values is what naive attention pays before any query: r (d_n + d_v)": 0,
            "the absorbed form meets the latent twice: once for the score, once for the context": most(
                r + rope, nope + rope + v, r * (nope + v)
            ),
            "values are made from the latent too: r (d_n + d_v)": most(
                2 * r + rope, nope + rope + v, r * nope
            ),
            "the head count cancels: both forms pay for every head": most(
                2 * r + rope, nope + rope + v, r * (nope + v) * c.num_attention_heads
            ),
            "fewer, not as many": right + 1,
        }
        if value != right:
            hint = known_mistake(value, wrong)
            return Checked(
                False, hint or f"for {name} you get {value!r}; count one head and one cached token"
            )
    return Checked(True, "K2 absorbs chunks of up to 170 tokens; longer prompts are read in the naive form")


@checker
def check_yarn(function: Callable[[int, float, int, float], Sequence[float]]) -> Checked:
    """function(d, theta, length, factor): K2's angles per position, d / 2 of them.

    Pairs that turn less than once in `length` tokens are slowed down by `factor`, the others stay.
    """
    for d, theta, length, factor in (
        (64, 50000.0, 4096, 32.0),
        (16, 50000.0, 64, 8.0),
        (32, 10000.0, 2048, 4.0),
    ):
        scaling = {
            **YARN,
            "factor": factor,
            "original_max_position_embeddings": length,
            "beta_fast": 1,
            "beta_slow": 1,
        }
        config = KimiConfig.preset("nano", qk_rope_head_dim=d, rope_theta=theta, rope_scaling=scaling)
        right, plain = frequencies(config).double(), frequencies(config.replace(rope_scaling=None)).double()
        value = numbers(value_of(function, d, theta, length, factor), (d // 2,))
        wrong = {
            "nothing has changed: the slow pairs have to be slowed down": plain,
            "that divides all of them, which is plain interpolation: leave the fast pairs": plain / factor,
            "the other way round: the fast pairs stay, the slow ones are divided": torch.where(
                right == plain, plain / factor, plain
            ),
            "divide: a longer context needs slower pairs": torch.where(right == plain, plain, plain * factor),
            "a full turn is 2 pi": torch.where(plain * length < 1, plain / factor, plain),
        }
        if not torch.allclose(value, right, rtol=1e-4, atol=0):
            same = lambda value, known: torch.allclose(value, known.double(), rtol=1e-4, atol=0)
            first = int((value / right - 1).abs().gt(1e-4).nonzero()[0])
            own = f"for d={d}, length={length} pair {first} is {value[first]:.3g}; how often does it turn?"
            return Checked(False, known_mistake(value, wrong, same) or own)
    return Checked(True, "a hard step: for K2 pairs 0 to 19 stay, 20 to 31 are 32 times slower")


ALIKE = [3, 1, 4, 8, 5, 9, 3, 1, 4, 8, 5, 9]  # six tokens that come twice, always six places apart
MIXED = [3, 1, 3, 4, 8, 1, 5, 9, 4, 5, 9, 8]  # and two, three, four, five or seven places apart


def _looks(ids: Sequence[int]) -> Tensor:
    """The weights of four heads: one looks at what came behind the same token's earlier place, the others nearby."""
    weights = torch.full((2, 2, 12, 12), 0.01)
    for t, token in enumerate(ids):
        earlier = ids.index(token)  # t itself if there is none
        weights[0, 0, t, max(t - 1, 0)] = 0.9  # the token before
        weights[0, 1, t, earlier] = 0.8  # the same token, earlier
        weights[1, 0, t, min(earlier + 1, t)] = 0.7  # what came behind it: induction
        weights[1, 1, t, t] = 0.95  # itself
        for head in range(4):
            weights[head // 2, head % 2, t, t + 1 :] = 0
    return weights / weights.sum(-1, keepdim=True)


@checker
def check_induction(function: Callable[[list[int], Tensor], Any]) -> Checked:
    """function(ids (T,), weights (L, H, T, T)): (layer, head) that looks most at what came behind the same token."""
    value = value_of(function, list(ALIKE), _looks(ALIKE))
    try:
        layer, head = (int(number) for number in value)
    except (TypeError, ValueError):
        return Checked(False, "return a layer and a head, two numbers")
    wrong = {
        "that head looks at the token before it; it is what an induction head reads from": (0, 0),
        "that head looks at the same token; look one further, at what came behind it": (0, 1),
        "that head looks at itself": (1, 1),
    }
    if (layer, head) != (1, 0):
        return Checked(
            False, known_mistake((layer, head), wrong) or f"there is no head {head} in layer {layer}"
        )
    again = value_of(function, list(MIXED), torch.flip(_looks(MIXED), (0, 1)))
    if tuple(int(number) for number in again) != (0, 1):
        hint = (
            "right here, but not for other weights, of tokens at unequal distances: go by `ids` and `weights`"
        )
        return Checked(False, hint)
    return Checked(True, "layer 1, head 0: find the token's earlier place, look one further, copy")
