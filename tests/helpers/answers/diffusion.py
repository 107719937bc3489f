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
