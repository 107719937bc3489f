"""How to keep experts busy: nothing, two bias rules, a sequence-wise loss; what shared expert and gate factor add.

Six models of the same size see the same tokens in the same order, per seed:

    none        nothing is done
    sign        DeepSeek's bias rule        b += rate * sign(mean load - load)
    centred     Moonshot's bias rule        the same step minus its mean over experts
    loss        no bias; alpha * sequence-wise balance loss is minimised with the language loss
    no shared   as sign; the shared expert becomes one more routed one, and every token chooses one more
    factor 1    as sign; routed_scaling_factor 1 in place of Moonlight's Monte-Carlo

MaxVio is that of a step, worst layer, averaged over the last fifth of the run; an expert is dead when it gets less than
a hundredth of its share over that fifth. Loss is held out, the mean over four domains.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from matplotlib.figure import Figure

from kimi_mini.base.command import in_one_line
from kimi_mini.base.evidence import Log
from kimi_mini.course.figures import moe, style
from kimi_mini.evaluation.routing import dead, losses, max_vio
from kimi_mini.experiments import harness
from kimi_mini.experiments.harness import arguments
from kimi_mini.experiments.moe import shared

TOKENS, STEP = 400_000, shared.ROWS * shared.LENGTH
RATE, ALPHA = 0.01, 0.03
EXPERTS, CHOSEN = 16, 3
ARMS: dict[str, dict] = {
    "none": {"rate": 0.0},
    "sign": {},
    "centred": {"rule": "centred"},
    "loss": {"rate": 0.0, "alpha": ALPHA},
    "no shared": {"experts": EXPERTS + 1, "chosen": CHOSEN + 1, "n_shared_experts": 0},
    "factor 1": {"routed_scaling_factor": 1.0},
}
RULES = ("none", "sign", "centred", "loss")
TRAINING = {"rate", "rule", "alpha"}


def main() -> None:
    """Every arm with every seed; write data/results/balance.json and figures/balance.png."""
    args = arguments(__doc__.splitlines()[0])
    tokens = int(TOKENS * args.scale)
    log = shared.begin("balance", args, tokens=tokens, rate=RATE, alpha=ALPHA)
    for seed in args.seeds:
        windows, held_out = shared.texts(tokens, seed)
        for arm, settings in ARMS.items():
            row = measure(arm, settings, windows, held_out, max(10, tokens // STEP), seed)
            log.row(seed=seed, arm=arm, **row)
            said = f"loss {row['loss']:.4f} MaxVio {row['max_vio']:.2f} dead {row['dead']}"
            print(f"seed {seed} {arm:10s} {said}", flush=True)
    report(log)
    harness.finish(log, balance=draw)


def measure(arm: str, settings: Mapping, windows: Mapping, held_out: Mapping, steps: int, seed: int) -> dict:
    """Train one arm and say what came out."""
    training = {"rate": RATE} | {key: value for key, value in settings.items() if key in TRAINING}
    config = shared.shape(
        **{"experts": EXPERTS, "chosen": CHOSEN}
        | {key: value for key, value in settings.items() if key not in TRAINING}
    )
    done = shared.fit(config, windows, steps, seed, **training)
    by_domain = losses(done.model, held_out)
    late = done.loads[-max(1, steps // 5) :].sum(0)  # (L, E) over the last fifth
    vio = max_vio(done.loads).max(-1)  # (steps,) worst layer
    spread = np.abs(
        np.stack([r.e_score_correction_bias.numpy() for r in done.model.routers()]).mean(-1)
    ).max()
    return {
        "loss": float(np.mean(list(by_domain.values()))),
        "by_domain": by_domain,
        "train_loss": shared.thinned(done.history.loss),
        "max_vio": shared.last_fifth(vio),
        "max_vio_of_fifth": float(max_vio(late).max()),
        "dead": int(dead(late).sum()),
        "max_vio_curve": shared.thinned(vio),
        "idle_curve": shared.thinned((done.loads == 0).sum((1, 2))),
        "load": np.sort(late, -1)[:, ::-1].tolist(),
        "bias_mean": float(spread),
        "rms": output_rms(done.model, held_out),
        "activated": config.count_parameters().activated_without_embeddings,
        "total": config.count_parameters().total_without_embeddings,
        "seconds": done.history.seconds,
    }


def output_rms(model, held_out: Mapping[str, np.ndarray]) -> dict[str, float]:
    """RMS of what the routed experts and the shared expert add to the residual stream, mean over MoE layers."""
    seen: dict[str, list[float]] = {"routed": [], "shared": []}
    model = copy.deepcopy(model)
    for layer in model.model.layers:
        if layer.routed:
            parts = {"routed": layer.mlp.experts, "shared": layer.mlp.shared_experts}
            for name, part in parts.items():
                if part is not None:
                    part.register_forward_hook(
                        lambda m, i, out, name=name: seen[name].append(out.square().mean().sqrt().item())
                    )
    losses(model, held_out)
    return {name: float(np.mean(values)) for name, values in seen.items() if values}


def of(rows: Sequence[Mapping], arm: str, key: str) -> list[float]:
    """One number of an arm, seed by seed."""
    return [row[key] for row in rows if row["arm"] == arm]


def paired(rows: Sequence[Mapping], arm: str, other: str) -> list[float]:
    """Held-out loss of `arm` over that of `other` with the same seed and tokens, minus 1."""
    return [a / b - 1 for a, b in zip(of(rows, arm, "loss"), of(rows, other, "loss"))]


def by_domain(rows: Sequence[Mapping], arm: str, other: str) -> dict[str, list[float]]:
    """`paired` of each domain."""
    pairs = list(zip(of(rows, arm, "by_domain"), of(rows, other, "by_domain")))
    return {name: [a[name] / b[name] - 1 for a, b in pairs] for name in pairs[0][0]}


def report(log: Log) -> None:
    """Balance with either rule, no dead expert, at next to no price in loss; shared expert and gate factor beside."""
    common = {"figure": "figures/balance.png", "notebook": shared.NOTEBOOK}
    rules = {
        "sign": ("DeepSeek's bias rule", "DeepSeek-V3 report 2.1.2"),
        "centred": ("Moonshot's centred bias rule", "Moonlight report appendix C"),
    }
    for arm, (name, source) in rules.items():
        claim = partial(log.claim, source=source, at_most=True, **common)
        vio = harness.across(of(log.rows, arm, "max_vio"))
        says = f"{name} keeps MaxVio of a step low (last fifth)"
        claim(f"moe/maxvio_{arm}", claim=says, floor=0.35, headline=arm == "sign", **vio)
        dead = max(of(log.rows, arm, "dead"))
        claim(f"moe/dead_{arm}", claim=f"{name} leaves no expert dead", floor=0, value=dead)
        price = harness.across(paired(log.rows, arm, "none"))
        says = f"{name} costs at most 1% of the unbalanced loss"
        claim(f"moe/price_{arm}", claim=says, floor=0.01, **price)
        prices = by_domain(log.rows, arm, "none")
        worst = max(prices, key=lambda domain: np.mean(prices[domain]))
        says = f"{says}, in each of {len(prices)} domains (worst: {worst}){harness.SEEN}"
        claim(f"moe/price_{arm}/worst", claim=says, floor=0.01, **harness.across(prices[worst]))
    for arm, part, source in (
        ("no shared", "a shared expert", "DeepSeek-V3 report 2.1.2"),
        ("factor 1", "the gate factor", "Moonlight report appendix C"),
    ):
        said = f"{part} lowers the loss at equal activated parameters (loss without it over loss with it, minus 1)"
        won = shared.above_zero(paired(log.rows, arm, "sign"))
        log.claim(f"moe/{arm.replace(' ', '_')}", claim=said, source=source, **won, **common)


@style.styled
def draw(log: dict) -> Figure:
    """MaxVio over tokens, how load is spread at the end, and what each way costs in loss."""
    rows = log["rows"]
    curves = {arm: np.mean(of(rows, arm, "max_vio_curve"), 0) for arm in RULES}
    load = {
        arm: np.mean([np.mean(load, 0) / np.mean(load) for load in of(rows, arm, "load")], 0) for arm in RULES
    }
    price = {arm: harness.across([100 * x for x in paired(rows, arm, "none")]) for arm in RULES[1:]}
    return moe.balance(curves, load, price, log["tokens"])


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
