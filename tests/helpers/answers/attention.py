"""Right and plausible wrong answers to the exercises of notebook 02."""

import math

import torch

from kimi_mini.course.exercises import attention as ex


def absorb(q, w):
    return torch.einsum("bhtn,hnr->bhtr", q, w)


def turn(x, theta):
    d = x.shape[1]
    angles = torch.outer(torch.arange(len(x)), theta ** (-torch.arange(0, d, 2) / d))
    a, b = x[:, ::2], x[:, 1::2]
    return torch.stack(
        [a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()], -1
    ).flatten(1)


def break_even(c):
    absorbed, naive = 2 * c.kv_lora_rank + c.qk_rope_head_dim, c.qk_head_dim + c.v_head_dim
    expansion, t = c.kv_lora_rank * (c.qk_nope_head_dim + c.v_head_dim), 0
    while (t + 1) * absorbed < (t + 1) * naive + expansion:
        t += 1
    return t


def yarn(d, theta, length, factor):
    freqs = [theta ** (-2 * i / d) for i in range(d // 2)]
    return [f if f * length / (2 * math.pi) >= 1 else f / factor for f in freqs]


def induction(ids, weights):
    best, where = -1.0, None
    for layer in range(weights.shape[0]):
        for head in range(weights.shape[1]):
            score = 0.0
            for t in range(len(ids)):
                score += sum(weights[layer, head, t, j + 1].item() for j in range(t) if ids[j] == ids[t])
            if score > best:
                best, where = score, (layer, head)
    return where


def half_way(ids, weights):
    """Right where every token comes twice, half of the text apart; never looks at the tokens."""
    half = len(ids) // 2
    t = torch.arange(half, len(ids))
    scores = weights[:, :, t, t - half + 1].sum(-1)
    return divmod(int(scores.argmax()), scores.shape[1])


def five_back(ids, weights):
    return divmod(int(weights.diagonal(-5, 2, 3).sum(-1).argmax()), weights.shape[1])


RIGHT = [
    (ex.check_absorb, absorb),
    (ex.check_turn, turn),
    (ex.check_break_even, break_even),
    (ex.check_yarn, yarn),
    (ex.check_induction, induction),
]


def halves(x, theta):
    d = x.shape[1]
    angles = torch.outer(torch.arange(len(x)), theta ** (-torch.arange(0, d, 2) / d))
    a, b = x.chunk(2, 1)
    return torch.cat([a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()], 1)


def rounded_share(d, theta, length, factor):
    """The step in the right place for K2, as a fixed share of the pairs: wrong elsewhere."""
    freqs = [theta ** (-2 * i / d) for i in range(d // 2)]
    return [f if i < 0.625 * len(freqs) else f / factor for i, f in enumerate(freqs)]


WRONG = [
    (ex.check_absorb, lambda q, w: q @ w[0], "same one"),
    (ex.check_absorb, lambda q, w: q @ w.sum(0), "own head"),
    (ex.check_absorb, lambda q, w: torch.einsum("bhtn,hnr->btr", q, w), "shape"),
    (ex.check_absorb, lambda q, w: -absorb(q, w), "numbers"),
    (ex.check_turn, halves, "neighbours"),
    (ex.check_turn, lambda x, theta: turn(x, -1) if theta < 0 else x, "as it was"),
    (ex.check_turn, lambda x, theta: turn(x.flip(0), theta).flip(0), "differ"),
    (ex.check_turn, lambda x, theta: turn(torch.cat([x[:1], x]), theta)[1:], "from 0"),
    (ex.check_break_even, lambda c: 0, "making keys and values"),
    (ex.check_break_even, lambda c: break_even(c) + 1, "fewer"),
    (ex.check_break_even, lambda c: 170, "you get 170"),
    (ex.check_yarn, lambda d, t, n, f: [t ** (-2 * i / d) for i in range(d // 2)], "nothing has changed"),
    (ex.check_yarn, lambda d, t, n, f: [t ** (-2 * i / d) / f for i in range(d // 2)], "interpolation"),
    (ex.check_yarn, rounded_share, "how often"),
    (ex.check_yarn, lambda d, t, n, f: yarn(d, t, n, 1 / f), "divide"),
    (
        ex.check_yarn,
        lambda d, t, n, f: [x if x * n >= 1 else x / f for x in (t ** (-2 * i / d) for i in range(d // 2))],
        "2 pi",
    ),
    (ex.check_induction, lambda ids, w: (0, 1), "one further"),
    (ex.check_induction, lambda ids, w: (0, 0), "before it"),
    (ex.check_induction, lambda ids, w: (1, 0), "other weights"),
    (ex.check_induction, half_way, "unequal distances"),
    (ex.check_induction, five_back, "unequal distances"),
    (ex.check_induction, lambda ids, w: (5, 5), "no head"),
]
