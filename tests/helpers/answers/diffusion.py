"""Right and plausible wrong answers to the exercises of notebook 11."""

import torch

from kimi_mini.course.exercises import diffusion as ex


def places(sure, masked, block, at_once):
    first = int(masked.nonzero()[0]) // block
    own = masked & (torch.arange(len(masked)) // block == first)
    count = min(at_once, int(own.sum()))
    return sure.masked_fill(~own, -1).topk(count).indices.tolist()


def too_many(sure, masked, block, at_once):
    first = int(masked.nonzero()[0]) // block
    own = masked & (torch.arange(len(masked)) // block == first)
    return sure.masked_fill(~own, -1).topk(min(at_once, block)).indices.tolist()


RIGHT = [
    (ex.check_bound, lambda a, b, c, d: 0.5 * (a + d) + 0.5 * (b + c)),
    (ex.check_places, places),
    (ex.check_writing, lambda losses, when: -losses[when, torch.arange(6)][when >= 0].sum()),
    (ex.check_reward, lambda text: ex.keeps_sum(text) + ex.keeps_place(text)),
    (ex.check_reward, lambda text: 2.0 * ex.keeps_sum(text) + 0.5 * ex.keeps_place(text)),
]
WRONG = [
    (ex.check_bound, lambda a, b, c, d: (a + b) / 3 + (c + d) / 6, "1/t"),
    (ex.check_bound, lambda a, b, c, d: a + b, "glance"),
    (ex.check_bound, lambda a, b, c, d: a + d, "left to right"),
    (ex.check_bound, lambda a, b, c, d: b + c, "right to left"),
    (ex.check_bound, lambda a, b, c, d: c + d, "first"),
    (ex.check_bound, lambda a, b, c, d: (a + b + c + d) / 4, "whole text"),
    (ex.check_bound, lambda a, b, c, d: a + b + c + d, "1/2"),
    (ex.check_bound, lambda a, b, c, d: a, "not 2.000"),
    (ex.check_places, lambda s, m, b, k: s.topk(k).indices, "written already"),
    (ex.check_places, lambda s, m, b, k: ex.next_places(s, m, b, k, anywhere=True), "block"),
    (ex.check_places, lambda s, m, b, k: m.nonzero().flatten()[:k].tolist(), "left to right"),
    (ex.check_places, lambda s, m, b, k: ex.next_places(s, m, b, k, least=True), "least certain"),
    (ex.check_places, too_many, "masked ["),
    (ex.check_writing, lambda a, w: a[w, torch.arange(6)][w >= 0].sum(), "sign"),
    (ex.check_writing, lambda a, w: -a[0][w >= 0].sum(), "glance"),
    (ex.check_writing, lambda a, w: -a[w.clamp(0), torch.arange(6)].sum(), "given tokens"),
    (
        ex.check_writing,
        lambda a, w: -a[(w + 1).clamp(max=len(a) - 1), torch.arange(6)][w >= 0].sum(),
        "too late",
    ),
    (ex.check_writing, lambda a, w: -a[w, torch.arange(6)][w >= 0].mean(), "mean over tokens"),
    (
        ex.check_writing,
        lambda a, w: -sum(row[w >= step].sum() for step, row in enumerate(a)),
        "put down, not",
    ),
    (
        ex.check_writing,
        lambda a, w: -sum(r[w >= s].sum() / max(1, (w >= s).sum()) for s, r in enumerate(a)),
        "bound",
    ),
    (ex.check_writing, lambda a, w: 0.0, "not 0.000"),
    (ex.check_reward, lambda text: float(ex.keeps_sum(text) and ex.keeps_place(text)), "climb"),
    (ex.check_reward, lambda text: float(ex.keeps_place(text)), "keeps both"),
    (ex.check_reward, lambda text: text.count(7), "keeps both"),
    (
        ex.check_reward,
        lambda text: ex.keeps_sum(text) + ex.keeps_place(text) + text[0] / 10,
        "each of them the same",
    ),
    (ex.check_reward, lambda text: float("nan"), "nan"),
]
