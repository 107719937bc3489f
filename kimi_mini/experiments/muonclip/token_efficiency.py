"""Learning per token: how much MuonClip needs to reach the loss at which tuned AdamW ends.

Ways to train the same nano (see token_runs): MuonClip, which has one rate for matrices and one for the tables; AdamW
with one rate, as it is mostly used; AdamW with two rates, a harder rival; AdamW in transformers' code.
Every point is a whole run with its own schedule (WSD, down to zero over the last 65%), so that losses of different
budgets can be compared; gradients are clipped at 1 everywhere; weight decay 0.1, betas (0.9, 0.95).
Rates are tuned by doubling and halving each until all neighbours are worse, with a seed of their own: AdamW's, in
either code, at every budget, MuonClip's at the middle one and for its longest run.
The validation loss of an AdamW run is looked up on the curve of the MuonClip runs of the same seed (straight in
log tokens and log loss): the tokens at which it is reached, divided by the budget, is the ratio.

Seconds are tokens times the median time of a step, so that a pause of the machine counts for nothing. Each way takes
its step whole or in two halves, whichever its first steps showed to be faster. data/run/ keeps every finished run.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from matplotlib.figure import Figure

from kimi_mini.base.command import in_one_line
from kimi_mini.base.errors import KimiError
from kimi_mini.base.evidence import Log
from kimi_mini.base.markdown import with_interval
from kimi_mini.base.paths import RUNS
from kimi_mini.course.figures import style
from kimi_mini.experiments.harness import across, arguments, finish
from kimi_mini.experiments.muonclip.token_runs import (
    ADAMW,
    MUONCLIP,
    PLAN,
    STEP_TOKENS,
    TRANSFORMERS,
    TWO_RATES,
    UNBALANCED,
    Rates,
    Runs,
    tuned,
)
from kimi_mini.training.machine.placement import keep_freed_memory

BUDGETS = (200_000, 400_000, 800_000)  # tokens of the AdamW runs
SHORTER = (0.2, 0.4, 0.8, 1.6, 3.2)  # budgets of the MuonClip runs, in units of the first one
START = {
    MUONCLIP: (PLAN.optimizer.lr, PLAN.optimizer.adamw_lr),
    ADAMW: (0.004, 0.004),
}  # rates where tuning begins
MOONLIGHT = 0.519
LEAST_SCALE = 0.1  # below, runs of different budgets would be equally long
COLOURS = {MUONCLIP: style.BLUE, ADAMW: style.ORANGE, TWO_RATES: style.RED, TRANSFORMERS: style.GREY}


def tune(runs: Runs, scaled: Callable[[int], int], log: Log) -> dict[str, dict[int, Rates]]:
    """way -> {budget: its rates} for all runs to make; what was tried goes into the log."""

    def best(way: str, budget: int, start: Rates) -> Rates:
        rates, tried = tuned(way, scaled(budget), runs, start)
        log.more["tuning"] += [entry for entry in tried if entry not in log.more["tuning"]]
        return rates

    middle, longest = BUDGETS[1], round(BUDGETS[0] * SHORTER[-1])
    start = best(ADAMW, middle, START[ADAMW])
    rates = {
        way: {budget: best(way, budget, start) for budget in BUDGETS}
        for way in (ADAMW, TWO_RATES, TRANSFORMERS)
    }
    ours = best(MUONCLIP, middle, START[MUONCLIP])
    rates[MUONCLIP] = {round(BUDGETS[0] * share): ours for share in SHORTER} | {
        longest: best(MUONCLIP, longest, ours)
    }
    rates[UNBALANCED] = rates[TRANSFORMERS]
    log.more["rates"] = rates
    print("tuned:", rates, flush=True)
    return rates


# ---- what follows from the runs ------------------------------------------------------------------------------


def tokens_to(loss: float, curve: Sequence[dict]) -> float:
    """Where a curve of runs reaches `loss`: straight in log tokens and log loss, also beyond its ends."""
    curve = sorted(curve, key=lambda entry: entry["tokens"])
    x, y = np.log([entry["tokens"] for entry in curve]), np.log([entry["loss"] for entry in curve])
    # the last point that is still above
    lower = int(np.clip(np.sum(y > np.log(loss)) - 1, 0, len(curve) - 2))
    slope = (x[lower + 1] - x[lower]) / (y[lower + 1] - y[lower])
    return float(np.exp(x[lower] + slope * (np.log(loss) - y[lower])))


def is_measured(loss: float, curve: Sequence[dict]) -> bool:
    """Whether runs of a curve lie on both sides of `loss`: beyond them `tokens_to` only guesses."""
    losses = [entry["loss"] for entry in curve]
    return min(losses) <= loss <= max(losses)


def power_law(entries: Sequence[dict]) -> tuple[float, float]:
    """a and b of loss = a * tokens^-b, by least squares in logarithms."""
    slope, intercept = np.polyfit(
        np.log([e["tokens"] for e in entries]), np.log([e["loss"] for e in entries]), 1
    )
    return float(np.exp(intercept)), float(-slope)


def compared(rows: Sequence[dict], seeds: Sequence[int]) -> list[dict]:
    """For every seed, reference and budget: tokens and seconds of MuonClip to the reference's loss, as shares."""
    found = []
    for seed in seeds:
        ours = [entry for entry in rows if entry["seed"] == seed and entry["way"] == MUONCLIP]
        step = float(np.median([entry["step_seconds"] for entry in ours]))
        for other in (entry for entry in rows if entry["seed"] == seed and entry["way"] != MUONCLIP):
            share = tokens_to(other["loss"], ours) / other["tokens"]
            found.append(
                dict(
                    seed=seed,
                    reference=other["way"],
                    budget=other["asked"],
                    tokens=share,
                    seconds=share * step / other["step_seconds"],
                )
            )
    return found


def over(
    found: Sequence[dict],
    reference: str,
    name: str,
    seeds: Sequence[int],
    mean: Callable = np.mean,
    **where: float,
) -> dict:
    """One number a seed (the mean over its budgets, or one of them), with its interval."""
    values = []
    for seed in seeds:
        wanted = dict(seed=seed, reference=reference, **where)
        values.append(float(mean([entry[name] for entry in found if entry.items() >= wanted.items()])))
    return across(values)


def differences(rows: Sequence[dict], way: str, budget: int, seeds: Sequence[int]) -> list[float]:
    """Loss of `way` minus that of our AdamW without the bias rule (at the rate of transformers), one number a seed."""
    loss = {(row["way"], row["seed"]): row["loss"] for row in rows if row["asked"] == budget}
    return [loss[way, seed] - loss[UNBALANCED, seed] for seed in seeds]


def report(log: Log, seeds: Sequence[int]) -> None:
    """Claims, shares at each budget, and the power laws."""
    found = compared(log.rows, seeds)
    budgets = sorted({entry["budget"] for entry in found})
    claim_shares(log, found, seeds, budgets[-1])
    trials = log.more.get("tuning", [])
    trained = sum(run["step_seconds"] * run["tokens"] / STEP_TOKENS for run in (*log.rows, *trials))
    runs = [entry for entry in log.rows if entry["seed"] in seeds]
    laws = {way: power_law([entry for entry in runs if entry["way"] == way]) for way in COLOURS}
    log.more |= dict(
        training_seconds=round(trained),  # of all runs; `seconds` counts only those of the last call
        by_budget={
            f"{name} {budget}": over(found, ADAMW, name, seeds, budget=budget)
            for budget in budgets
            for name in ("tokens", "seconds")
        },
        compared=found,
        above_unbalanced={
            f"{way} {budget}": across(differences(log.rows, way, budget, seeds))
            for way in (ADAMW, TRANSFORMERS)
            for budget in budgets
        },
        laws=laws,
        law_ratio=law_ratio(laws, budgets[-1]),
    )


def claim_shares(log: Log, found: Sequence[dict], seeds: Sequence[int], largest: int) -> None:
    """MuonClip's tokens and seconds as shares of its rivals', over all budgets and at the largest alone."""
    claim = partial(log.claim, figure="figures/token_efficiency.png", notebook="04_pretraining.ipynb")
    alone = ("_at_the_largest_budget", {"budget": largest}, "largest budget alone")
    parts = (("", {}, "mean of three budgets"), alone)
    rivals = (
        (ADAMW, "pretraining", "tuned AdamW"),
        (TWO_RATES, "pretraining/two_rates", "AdamW with two tuned rates"),
    )
    asked = (("tokens", 0.65, "Moonlight 3.2 (0.519)"), ("seconds", 0.75, "this project"))
    for (way, key, rival), (name, floor, source), (suffix, where, said) in itertools.product(
        rivals, asked, parts
    ):
        share = over(found, way, name, seeds, **where)
        says = f"{name} that MuonClip needs to reach the loss of {rival}, as a share ({said})"
        more = {"source": source, "headline": f"{key}/{name}{suffix}" == "pretraining/two_rates/tokens"}
        claim(f"{key}/{name}{suffix}", claim=says, floor=floor, at_most=True, **share, **more)
    inverse = lambda shares: 1 / np.mean(shares)
    for suffix, where, said in parts:
        faster = over(found, TRANSFORMERS, "seconds", seeds, mean=inverse, **where)
        says = f"times faster to a loss, in seconds, than transformers' DeepseekV3 with AdamW ({said})"
        claim(f"pretraining/transformers{suffix}", claim=says, source="this project", floor=2.5, **faster)


def law_ratio(laws: dict[str, tuple[float, float]], budget: float) -> float:
    """Share of `budget` at which MuonClip's law has the loss of AdamW's, as Moonlight compares them."""
    (a, b), (c, d) = laws[ADAMW], laws[MUONCLIP]
    return float((c / (a * budget**-b)) ** (1 / d) / budget)


@style.styled
def draw(log: dict) -> Figure:
    """Validation loss against tokens and against seconds, mean of the seeds with their range."""
    fig, axes = style.figure(11, 4.8, 1, 2, sharey=True)
    for way, colour in COLOURS.items():
        runs = [entry for entry in log["rows"] if entry["way"] == way and entry["seed"] in log["seeds"]]
        budgets = sorted({entry["tokens"] for entry in runs})
        losses = [[entry["loss"] for entry in runs if entry["tokens"] == budget] for budget in budgets]
        step = np.median([entry["step_seconds"] for entry in runs])
        for ax, x in zip(axes[0], (np.array(budgets) / 1e6, np.array(budgets) / STEP_TOKENS * step)):
            ax.plot(x, [np.mean(group) for group in losses], "o-", color=colour, label=way)
            ax.fill_between(x, list(map(min, losses)), list(map(max, losses)), color=colour, alpha=0.2)
            ax.set_xscale("log")
    for ax, ticks in zip(axes[0], ((0.1, 0.2, 0.4, 0.8), (5, 10, 20, 40, 80))):
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.minorticks_off()
    axes[0, 0].set(xlabel="tokens (millions)", ylabel="validation loss (nats a token)", title="Per token")
    axes[0, 1].set(xlabel="seconds (one thread)", title="Per second")
    axes[0, 0].legend()
    return fig


def main() -> None:
    """Tune each way, train with every seed, compare; write data/results/token_efficiency.json and its figure."""
    args = arguments(__doc__.splitlines()[0])
    if args.scale < LEAST_SCALE:
        raise KimiError(f"--scale must be {LEAST_SCALE} or more here: the shortest run is one step already")
    keep_freed_memory()
    scaled = lambda tokens: int(tokens * args.scale)
    runs = Runs(RUNS / f"token_efficiency_{args.scale:g}.json")
    log = Log("token_efficiency", seeds=args.seeds, folder=args.folder, tuning=[])
    rates = tune(runs, scaled, log)
    for seed in args.seeds:
        for way, by_budget in rates.items():
            for budget, best in by_budget.items():
                log.row(**runs.get(way, best, scaled(budget), seed))
    report(log, args.seeds)
    finish(log, token_efficiency=draw)
    for claim in log.claims:
        print(f"{claim['name']}: {with_interval(claim)} floor {claim['floor']}: {claim['verdict']}")
    print(f"power laws: {log.more['laws']}, ratio {log.more['law_ratio']:.3f} (Moonlight {MOONLIGHT})")


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
