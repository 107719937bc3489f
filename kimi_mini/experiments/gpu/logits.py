"""Attention logits beyond a laptop: AdamW, Muon and MuonClip at mini (three seeds) and midi (one), with tuned rates.

Rates come from a grid at mini on a seed that is not among the results, in runs of half the length; midi takes mini's.
MuonClip has Muon's rates. Its tau is K2's 100, or half of what Muon reached in the grid where that is less: in a run of
minutes nothing may pass 100.
"""

from __future__ import annotations

from kimi_mini.experiments.gpu import runs
from kimi_mini.experiments.gpu.sheet import Row, Sheet
from kimi_mini.experiments.gpu.site import Site

SECONDS = {"mini": 130, "midi": 80}
TAU = 100.0
OPTIMIZERS = ("adamw", "muon", "muonclip")


def measure(site: Site) -> Sheet:
    """The grid, then every optimizer at every size and seed."""
    sheet, mini = Sheet(site, "logits", runs.SEEDS), site.config("mini")
    grid = 2 * len(runs.RATES["muon"]) * len(runs.TABLE_RATES)
    plan = {"mini": grid / 2 + len(OPTIMIZERS) * len(runs.SEEDS), "midi": len(OPTIMIZERS)}
    steps = {}
    for size, count in plan.items():
        pace = sheet.once(f"pace {size}", lambda size=size: {"seconds": runs.pace(site, site.config(size))})
        steps[size] = runs.steps_in(site, SECONDS[size], count, pace["seconds"])
    half = max(2, steps["mini"] // 2)
    best = {name: runs.tuned(sheet, site, "mini", mini, name, half) for name in runs.RATES}
    tau = min(TAU, best["muon"]["peak"] / 2)

    def run(size: str, optimizer: str, seed: int) -> Row:
        rates = best["adamw" if optimizer == "adamw" else "muon"] | {"size": size}
        cap = {"tau": tau} if optimizer == "muonclip" else {}
        setting = runs.like(rates, seed, steps[size], **cap)
        return sheet.once(
            f"{size}, {optimizer}, seed {seed}", lambda: runs.train_one(site, site.config(size), setting)
        )

    found = {(name, seed): run("mini", name, seed) for seed in runs.SEEDS for name in OPTIMIZERS}
    for name in OPTIMIZERS:
        run("midi", name, 0)
    times = [found["muon", seed]["peak"] / found["adamw", seed]["peak"] for seed in runs.SEEDS]
    sheet.claim("gpu/logits", *runs.over_seeds(times, ratios=True))
    cost = [runs.minus(found["muonclip", seed], found["muon", seed]) for seed in runs.SEEDS]
    sheet.claim("gpu/clip", *runs.over_seeds(cost))
    return sheet
