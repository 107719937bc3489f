"""Right and plausible wrong answers to the exercises of notebook 01."""

import numpy as np
import torch

from kimi_mini.course.exercises import moe as ex


def route(scores, bias, k, factor):
    indices = (scores + bias).topk(k).indices
    weights = scores.gather(1, indices)
    return indices, factor * weights / weights.sum(1, keepdim=True)


def update(bias, load, rate):
    step = torch.sign(load.mean() - load)
    return bias + rate * (step - step.mean())


def information(counts):
    joint = counts / counts.sum()
    apart = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    seen = joint > 0
    return (joint[seen] * np.log2(joint[seen] / apart[seen])).sum()


RIGHT = [(ex.check_route, route), (ex.check_centred_update, update), (ex.check_information, information)]


def routed(choose, weigh, normalise=True, factor=True):
    def wrong(scores, bias, k, f):
        sums = {"score": scores, "biased": scores + bias}
        indices = sums[choose].topk(k).indices
        weights = sums[weigh].gather(1, indices)
        if normalise:
            weights = weights / weights.sum(1, keepdim=True)
        return indices, weights * (f if factor else 1.0)

    return wrong


def over_all(scores, bias, k, factor):
    indices = (scores + bias).topk(k).indices
    return indices, factor * scores.gather(1, indices) / scores.sum(1, keepdim=True)


WRONG = [
    (ex.check_route, routed("biased", "biased"), "leaks"),
    (ex.check_route, routed("score", "score"), "no say"),
    (ex.check_route, routed("biased", "score", normalise=False), "sum to the factor"),
    (ex.check_route, routed("biased", "score", factor=False), "factor is missing"),
    (ex.check_route, over_all, "not by that of all"),
    (ex.check_route, lambda s, b, k, f: route(s.softmax(-1), b, k, f), "three lines"),
    (ex.check_route, lambda s, b, k, f: route(s, b, k + 1, f), "k experts"),
    (ex.check_route, lambda s, b, k, f: route(s, b, k, f)[0], "two tensors"),
    (ex.check_route, lambda s, b, k, f: (1, 2), "two tensors"),
    (ex.check_centred_update, lambda b, load, r: b + r * torch.sign(load.mean() - load), "DeepSeek's"),
    (ex.check_centred_update, lambda b, load, r: 2 * b - update(b, load, r), "wrong way"),
    (ex.check_centred_update, lambda b, load, r: update(b, load, r) - b, "not the step"),
    (ex.check_centred_update, lambda b, load, r: b + r * (load.mean() - load), "not by its size"),
    (ex.check_centred_update, lambda b, load, r: update(b, load, r) - b.mean(), "centre the step"),
    (ex.check_centred_update, lambda b, load, r: 0.0, "a number for each expert"),
    (ex.check_information, lambda c: information(c) * np.log(2), "nats"),
    (ex.check_information, lambda c: -information(c), "sign"),
    (ex.check_information, lambda c: information(c) * c.sum(), "not by its count"),
    (ex.check_information, lambda c: float("nan"), "0 log 0"),
    (ex.check_information, lambda c: -(c[c > 0] / c.sum() * np.log2(c[c > 0] / c.sum())).sum(), ""),
    (ex.check_information, lambda c: c, "one number"),
]
