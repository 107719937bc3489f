"""Right and plausible wrong answers to the exercises of notebook 03."""

import numpy as np
import torch

from kimi_mini.course.exercises import muonclip as ex


def scale(shape):
    return 0.2 * max(shape[-2:]) ** 0.5


def split(name, shape):
    return len(shape) >= 2 and "embed_tokens" not in name and "lm_head" not in name


def evidence(raw, valid, factor):
    maxima = []
    for scores, real in zip(raw, valid):
        length = scores.shape[-1]
        hidden = torch.ones(length, length, dtype=torch.bool).triu(1) | ~real[:, None, :, None]
        maxima.append((scores * factor).masked_fill(hidden, -torch.inf).amax((0, 2, 3)))
    return torch.stack(maxima).amax(0)


def cut(gamma):
    return gamma**0.5, gamma, gamma**0.5, 1, 1


RIGHT = [(ex.check_scale, scale), (ex.check_split, split), (ex.check_evidence, evidence), (ex.check_cut, cut)]


RIGHT += [
    (ex.check_scale, lambda shape: np.float32(scale(shape))),
    (ex.check_cut, lambda g: np.array(cut(g))),
    (ex.check_split, lambda name, shape: np.bool_(split(name, shape))),
]


def multiplied(raw, valid, factor):
    """Hidden pairs times 0, not -inf."""
    kept = [torch.ones(6, 6).tril() * real[:, None, :, None] for real in valid]
    return torch.stack([(r * k * factor).amax((0, 2, 3)) for r, k in zip(raw, kept)]).amax(0)


WRONG = [
    (ex.check_scale, lambda s: float("nan"), "root mean square"),
    (ex.check_split, lambda name, shape: len(shape) >= 2 and max(shape) < 1000, "o_proj"),
    (ex.check_split, lambda name, shape: float("nan"), "True or False"),
    (ex.check_scale, lambda s: 0.2, "root mean square"),
    (ex.check_scale, lambda s: 0.2 * max(s) ** 0.5, "number of experts is no side"),
    (ex.check_scale, lambda s: max(1, s[-2] / s[-1]) ** 0.5, "first Muon"),
    (
        ex.check_scale,
        lambda s: 0.2 * max(s[-2] * (s[0] if len(s) > 2 else 1), s[-1]) ** 0.5,
        "separate matrices",
    ),
    (ex.check_scale, lambda s: max(s[-2:]) ** 0.5, "0.2"),
    (ex.check_scale, lambda s: 1.0, "gives an update"),
    (ex.check_split, lambda name, shape: len(shape) >= 2, "table"),
    (ex.check_split, lambda name, shape: len(shape) >= 2 and "embed" not in name, "head"),
    (ex.check_split, lambda name, shape: len(shape) >= 2 and shape[0] != 1024, "of any length"),
    (ex.check_split, lambda name, shape: len(shape) == 2 and split(name, shape), "stack"),
    (ex.check_split, lambda name, shape: split(name, shape) and "mlp.gate." not in name, "router"),
    (ex.check_evidence, lambda raw, valid, f: evidence(raw, valid, 1), "scale"),
    (ex.check_evidence, lambda raw, valid, f: evidence(raw[-1:], valid[-1:], f), "last micro-batch"),
    (
        ex.check_evidence,
        lambda raw, valid, f: evidence(raw, [torch.ones_like(v) for v in valid], f),
        "padding",
    ),
    (ex.check_evidence, lambda raw, valid, f: evidence([r.abs() for r in raw], valid, f), "signed"),
    (ex.check_evidence, lambda raw, valid, f: evidence(raw, valid, f).max().expand(4), "innocent"),
    (ex.check_evidence, lambda raw, valid, f: evidence(raw, valid, f).clamp(min=0), "-inf"),
    (ex.check_evidence, multiplied, "-inf"),
    (
        ex.check_evidence,
        lambda raw, valid, f: torch.stack([(r * f).amax((0, 2, 3)) for r in raw]).amax(0),
        "want",
    ),
    (ex.check_cut, lambda g: (g**0.5, g**0.5, g**0.5, g**0.5, 1), "shared"),
    (ex.check_cut, lambda g: (g**0.5, g**0.5, g**0.5, 1, 1), "carry all of gamma"),
    (ex.check_cut, lambda g: (g, g, g, 1, 1), "nope part"),
    (ex.check_cut, lambda g: (g**0.5, g, g**0.5, 1, g), "values"),
    (ex.check_cut, lambda g: (g, g, 1, 1, 1), "evenly"),
]
