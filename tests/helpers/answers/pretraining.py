"""Right and plausible wrong answers to the exercises of notebook 04."""

import functools
import hashlib
import random
import re

import numpy as np
import torch

from kimi_mini.course.exercises import pretraining as ex


def schedule(step, total, warmup, decay):
    if step < warmup:
        return (step + 1) / warmup
    return min(1.0, (total - step) / decay)


def step_loss(sums, counts):
    return sum(sums) / sum(counts)


def number(name):
    return int(hashlib.md5(name.encode()).hexdigest(), 16) / 2**128


def held_out(name, share):
    return number(name) < share


def utilisation(config, window, speed, rate):
    return 3 * config.flops_per_token(window / 2) * speed / rate


def join(ranks):
    learned = sum(rank["learned"] for rank in ranks)
    return {
        "loss": sum(rank["loss"] for rank in ranks) / learned,
        "gradient": [sum(column) / learned for column in zip(*(rank["gradient"] for rank in ranks))],
        "load": [sum(column) for column in zip(*(rank["load"] for rank in ranks))],
        "max_logit": max(rank["max_logit"] for rank in ranks),
    }


def as_arrays(make):
    """The right answer of `join` in numpy's or torch's numbers."""
    return lambda ranks: {name: make(value) for name, value in join(ranks).items()}


def in_place(ranks):
    """Right, and the first rank's own lists hold the sums afterwards."""
    first, *others = ranks
    for rank in others:
        for name in ("gradient", "load"):
            for index, value in enumerate(rank[name]):
                first[name][index] += value
        first["loss"], first["learned"] = first["loss"] + rank["loss"], first["learned"] + rank["learned"]
    return {
        "loss": first["loss"] / first["learned"],
        "gradient": [g / first["learned"] for g in first["gradient"]],
        "load": first["load"],
        "max_logit": max(rank["max_logit"] for rank in ranks),
    }


class Digits:
    """A number of the name, as an object that can be called."""

    def __call__(self, name, share):
        return hash(sum(ord(letter) * 31**place for place, letter in enumerate(name))) % 9973 / 9973 < share


RIGHT = [
    (ex.check_schedule, schedule),
    (ex.check_step_loss, step_loss),
    (ex.check_held_out, held_out),
    (ex.check_utilisation, utilisation),
    (ex.check_join, join),
    (ex.check_join, as_arrays(np.array)),
    (ex.check_join, as_arrays(torch.tensor)),
    (ex.check_join, in_place),
    (ex.check_schedule, lambda *given: np.float32(schedule(*given))),
    (ex.check_held_out, Digits()),
    (ex.check_held_out, lambda name, share: np.bool_(held_out(name, share))),
    (ex.check_step_loss, lambda sums, counts: torch.tensor(sums).sum() / sum(counts)),
]


def changed(**other):
    return lambda ranks: {**join(ranks), **{name: rule(ranks) for name, rule in other.items()}}


def first_folder(name, share):
    return number(name.split("/")[1]) < share


def by_number(name, share):
    return int(re.search(r"(\d+)\D*$", name)[1]) % 20 < share * 20


def other_side(name, share):
    return number(f"{name} {share}") < share


def pythons_hash(name, share):
    return hash(name) % 10000 < share * 10000


def warm_too_long(step, total, warmup, decay):
    return (step + 1) / max(warmup, 1) if step <= warmup else schedule(step, total, warmup, decay)


def without_a_warmup(step, total, warmup, decay):
    return (step + 1) / warmup if step <= warmup else schedule(step, total, warmup, decay)


def falls_late(step, total, warmup, decay):
    """Stays at 1 for the first half of the decay, then jumps onto the line."""
    factor = schedule(step, total, warmup, decay)
    return factor if step < warmup or factor <= 0.5 else 1.0


def by_load(ranks):
    routed = sum(sum(rank["load"]) for rank in ranks)
    return join([{**rank, "learned": routed / len(ranks)} for rank in ranks])


def of_two(ranks):
    a, b = ranks
    return join([a, b])


WRONG = [
    (ex.check_held_out, pythons_hash, "hashlib"),
    (ex.check_held_out, lambda name, share: hash(("seed", name)) % 10000 < share * 10000, "hashlib"),
    (ex.check_held_out, lambda name, share: pythons_hash(name, share), "hashlib"),
    (
        ex.check_held_out,
        functools.partial(lambda size, name, share: hash(name) % size < share * size, 997),
        "hashlib",
    ),
    (ex.check_held_out, lambda name, share: "yes", "True or False"),
    (
        ex.check_join,
        lambda ranks: {name.replace("load", "laod"): v for name, v in join(ranks).items()},
        "return a dict",
    ),
    (
        ex.check_join,
        lambda ranks: {"loss": 1, "gradient": [1], "load": [1], "logit": 1, "more": 1},
        "return a dict",
    ),
    (
        ex.check_schedule,
        lambda s, t, w, d: min(1, (s + 1) / w, (t - s) / d),
        "warmup 0, decay 10: your function raised Zero",
    ),
    (ex.check_schedule, lambda s, t, w, d: s / w if s < w else min(1, (t - s) / d), "factor 0"),
    (ex.check_schedule, lambda s, t, w, d: (s + 1) / w if s < w else min(1, (t - s - 1) / d), "one after"),
    (ex.check_schedule, lambda s, t, w, d: (s + 1) / w if s < w else (t - s) / t, "stable"),
    (ex.check_schedule, lambda s, t, w, d: 2e-4 * schedule(s, t, w, d), "2e-05"),
    (ex.check_schedule, warm_too_long, "from step `warmup` on"),
    (ex.check_schedule, without_a_warmup, "from step `warmup` on"),
    (
        ex.check_schedule,
        lambda s, t, w, d: schedule(s, t, w, d) if s > w else min(1, (s + 1) / w),
        "step 0 of 50, warmup 0, decay 10: your function raised Zero",
    ),
    (ex.check_schedule, falls_late, "last `decay` updates"),
    (ex.check_schedule, lambda s, t, w, d: "1", "factor, not"),
    (
        ex.check_step_loss,
        lambda sums, counts: sum(s / c for s, c in zip(sums, counts)) / len(sums),
        "mean of means",
    ),
    (ex.check_step_loss, lambda sums, counts: sum(sums) / len(sums), "over tokens"),
    (ex.check_step_loss, lambda sums, counts: sum(sums), "divide"),
    (ex.check_held_out, lambda name, share: random.random() < share, "asked twice"),
    (ex.check_held_out, lambda name, share: True, "100.0% are held out"),
    (ex.check_held_out, first_folder, "held out"),
    (ex.check_held_out, by_number, "for 'moby-dick/chapter-one-one-one' your function raised"),
    (ex.check_held_out, other_side, "5%"),
    (ex.check_utilisation, lambda c, w, s, r: c.flops_per_token(w / 2) * s / r, "three times"),
    (ex.check_utilisation, lambda c, w, s, r: 3 * c.flops_per_token(w) * s / r, "half of the window"),
    (ex.check_utilisation, lambda c, w, s, r: 6 * c.count_parameters().total * s / r, "every expert"),
    (ex.check_utilisation, lambda c, w, s, r: 100 * utilisation(c, w, s, r), "per cent"),
    (
        ex.check_join,
        changed(max_logit=lambda ranks: sum(rank["max_logit"] for rank in ranks)),
        "nobody's logit",
    ),
    (ex.check_join, changed(max_logit=lambda ranks: ranks[0]["max_logit"]), "not the first"),
    (ex.check_join, changed(max_logit=lambda ranks: ranks[-1]["max_logit"]), "not the last"),
    (ex.check_join, by_load, "once for each of its experts"),
    (ex.check_join, of_two, "with 3 ranks your function raised ValueError"),
    (
        ex.check_join,
        changed(loss=lambda ranks: sum(r["loss"] / r["learned"] for r in ranks) / 2),
        "mean of means",
    ),
    (ex.check_join, changed(load=lambda ranks: ranks[0]["load"]), "add the loads"),
    (ex.check_join, changed(gradient=lambda ranks: [40.0, 8.0]), "learned tokens of all"),
    (ex.check_join, changed(gradient=lambda ranks: [0.5, 0.3]), "gradients first"),
    (ex.check_join, lambda ranks: {"loss": 1.0}, "return a dict"),
    (ex.check_join, lambda ranks: 3, "return a dict"),
]
