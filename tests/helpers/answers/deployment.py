"""Right and plausible wrong answers to the exercises of notebook 10."""

import torch

from kimi_mini.course.exercises import deployment as ex
from kimi_mini.model.compact import int4


def quantise_with(most=lambda g: g.abs().amax(-1), steps=7.5, whole=torch.round, low=-8, high=7, guard=True):
    def quantise(w):
        groups = w.reshape(w.shape[0], -1, 32)
        scale = most(groups) / steps
        divisor = torch.where(scale > 0, scale, torch.ones_like(scale)) if guard else scale
        return whole(groups / divisor[..., None]).clamp(low, high).reshape(w.shape), scale

    return quantise


def in_loops(w):
    codes, scales = w.clone(), torch.zeros(w.shape[0], w.shape[1] // 32)
    for row in range(w.shape[0]):
        for group in range(w.shape[1] // 32):
            part = w[row, 32 * group : 32 * group + 32]
            scale = part.abs().max() / 7.5
            scales[row, group] = scale
            for column, x in enumerate(part):
                code = round(float(x / scale)) if scale > 0 else 0
                codes[row, 32 * group + column] = max(-8, min(7, code))
    return codes.to(torch.int8), scales


def down_the_columns(w):
    scale = w.reshape(2, -1, w.shape[1]).abs().amax(0) / 7.5
    return (w.reshape(2, -1, w.shape[1]) / scale).round().clamp(-8, 7).reshape(w.shape), scale


def transposed(w):
    codes, scale = quantise_with()(w)
    return codes, scale.T


def kept(w):
    return int4.dequantise(*int4.quantise(w)), int4.quantise(w)[1]


def by_gain(success, cost, budget):
    """A step up at a time, the one with the most gain a cent."""
    chosen = [min((0, 1, 2), key=lambda m: (c[m], -s[m])) for s, c in zip(success, cost)]
    left = budget - sum(c[m] for c, m in zip(cost, chosen))
    while True:
        steps = [
            ((s[m] - s[now]) / max(c[m] - c[now], 1e-9), kind, m, c[m] - c[now])
            for kind, (s, c, now) in enumerate(zip(success, cost, chosen))
            for m in (0, 1, 2)
            if s[m] > s[now] and 0 <= c[m] - c[now] <= left
        ]
        if not steps:
            return chosen
        _, kind, chosen[kind], more = max(steps)
        left -= more


def exact(success, cost, budget):
    found = {0: (0.0, [])}
    for s, c in zip(success, cost):
        following = {}
        for spent, (sum_, chosen) in found.items():
            for m in (0, 1, 2):
                if spent + c[m] <= budget:
                    following[spent + c[m]] = max(
                        following.get(spent + c[m], (-1, [])), (sum_ + s[m], [*chosen, m])
                    )
        found = following
    return max(found.values())[1]


def in_order(success, cost, budget):
    """The best mode for each kind while there is money for it."""
    chosen, left = [], budget - sum(min(c) for c in cost)
    for s, c in zip(success, cost):
        m = max((0, 1, 2), key=lambda m: (s[m], -c[m]) if c[m] - min(c) <= left else (-1, 0))
        chosen.append(m)
        left -= c[m] - min(c)
    return chosen


def by_gain_from_reflex(success, cost, budget):
    """Never sees that a thought may be cheaper."""
    chosen, left = [0] * len(cost), budget - sum(c[0] for c in cost)
    if left < 0:
        return exact(success, cost, budget)
    for _, kind in sorted(
        ((s[0] - s[2]) / (c[2] - c[0]), kind) for kind, (s, c) in enumerate(zip(success, cost))
    ):
        if cost[kind][2] - cost[kind][0] <= left:
            chosen[kind], left = 2, left - cost[kind][2] + cost[kind][0]
    return chosen


def a_threshold(success, cost, budget):
    """Thinking for whatever reflex fails, the remote one for the rest, and no look at the money."""
    return [0 if s[0] > 0.8 else 1 if s[1] > 0.8 else 2 for s in success]


def cheapest(success, cost, budget):
    return [min((0, 1, 2), key=lambda m: c[m]) for c in cost]


def without_the_fourth(success, cost, budget):
    chosen = exact(success, cost, budget)
    return [1 if kind == 3 and mode == 0 and budget in (49, 92) else mode for kind, mode in enumerate(chosen)]


class Endpoint:
    """A strict endpoint in ten lines, and careless ones."""

    def __init__(self, careless=""):
        self.careless, self.alive = careless, True

    def __call__(self, body):
        status, message = self.judge(body)
        if status != 200 and self.careless == "crashes":
            return 500, {}
        if "temperature" in message and self.careless == "dies":
            self.alive = False
        if status != 200 and self.careless == "silent":
            return status, {"detail": "no"}
        return (200, {}) if self.careless == "blind" else (status, {"error": {"message": message}})

    def judge(self, body):
        if not self.alive:
            return 503, "gone"
        if not isinstance(body, dict):
            return 400, "not JSON"
        if body.get("model") != "final":
            return 404, f"no model {body.get('model')!r}"
        if not isinstance(body.get("messages"), list) or not body["messages"]:
            return 400, "messages: a list with at least one message"
        if not isinstance(body.get("max_tokens", 1), int):
            return 422, "max_tokens: a whole number"
        if not 0 <= body.get("temperature", 1) <= 2:
            return 422, f"temperature: from 0 to 2, not {body['temperature']}"
        return 200, ""


def refusals(attack, careless=""):
    return ex.check_refusals(attack, Endpoint(careless))


def five():
    return [
        "{",
        *(
            ex.GOOD | bad
            for bad in ({"model": "x"}, {"messages": []}, {"max_tokens": "4"}, {"temperature": 9})
        ),
    ]


def careless(kind):
    def check(attack):
        return refusals(attack, kind)

    return check


RIGHT = [
    (refusals, five),
    (ex.check_quantise, quantise_with()),
    (ex.check_quantise, int4.quantise),
    (ex.check_quantise, in_loops),
    (ex.check_router, exact),
]
WRONG = [
    (ex.check_quantise, quantise_with(most=lambda g: g.amax(-1)), "a minus counts"),
    (ex.check_quantise, quantise_with(most=lambda g: (g.amax(-1) - g.amin(-1)) / 2), "not the span"),
    (ex.check_quantise, quantise_with(steps=7), "no code is ever -8"),
    (ex.check_quantise, quantise_with(steps=8), "code 8"),
    (ex.check_quantise, quantise_with(steps=15), "each sign"),
    (
        ex.check_quantise,
        quantise_with(most=lambda g: g.abs().amax((1, 2), keepdim=True)[..., 0].expand(g.shape[:2])),
        "not for the row",
    ),
    (
        ex.check_quantise,
        quantise_with(most=lambda g: g.abs().max().expand(g.shape[:2])),
        "not for the matrix",
    ),
    (ex.check_quantise, quantise_with(low=-7), "-8 is one of them"),
    (ex.check_quantise, quantise_with(high=8), "these are not the codes|Clamp"),
    (ex.check_quantise, quantise_with(low=-99, high=99), "Clamp"),
    (ex.check_quantise, quantise_with(whole=torch.trunc), "cutting off"),
    (ex.check_quantise, quantise_with(whole=torch.floor), "not downwards"),
    (ex.check_quantise, quantise_with(low=0, high=15), "no zero point"),
    (ex.check_quantise, quantise_with(whole=lambda x: x), "whole numbers"),
    (ex.check_quantise, quantise_with(guard=False), "do not divide by it"),
    (ex.check_quantise, down_the_columns, "along a row"),
    (ex.check_quantise, transposed, "along a row"),
    (ex.check_quantise, kept, "whole numbers"),
    (ex.check_quantise, lambda w: quantise_with()(w)[0], "two things"),
    (
        ex.check_quantise,
        lambda w: (quantise_with()(w)[0], quantise_with()(w)[1].clamp(min=1e-5)),
        "a group of zeros is 0",
    ),
    (ex.check_router, by_gain, "a cent may leave fewer"),
    (ex.check_router, in_order, "a cent|more can be had|would help more"),
    (ex.check_router, by_gain_from_reflex, "dearer and worse without a thought"),
    (ex.check_router, a_threshold, "you spend"),
    (ex.check_router, cheapest, "whatever the budget"),
    (ex.check_router, lambda *_: [2] * 8, "you spend"),
    (ex.check_router, lambda *_: [0] * 8, "you spend"),  # 26 cents: the seventh kind is dearer so
    (ex.check_router, without_the_fourth, "worse than reflex|you spend"),
    (ex.check_router, lambda *_: [3] * 8, "a mode is 0"),
    (ex.check_router, lambda *_: [0] * 7, "one mode for each kind"),
    (ex.check_router, lambda s, c, b: exact(s, c, min(b, 217)), "money left"),
    (refusals, lambda: five()[:4], "at least 5"),
    (refusals, lambda: "{", "a list of bodies"),
    (refusals, lambda: [*five(), ex.GOOD], "breaks no rule"),
    (refusals, lambda: [ex.GOOD | {"temperature": 9 + n} for n in range(6)], "the same rule"),
    (refusals, lambda: [ex.GOOD | {"model": name} for name in ("a", "b", "c", "d", "e")], "the same rule"),
    (careless("blind"), five, "does not look"),
    (careless("crashes"), five, "Report it"),
    (careless("silent"), five, "without a reason"),
    (careless("dies"), five, "it did break"),
    (ex.check_refusals, five, "check_refusals(attack, send)"),
]
