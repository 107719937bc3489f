"""A mixture of experts against a dense model of the same activated parameters, at preset mini: validation loss after
the same tokens, and after the same seconds. Three seeds; each has its rate from a grid on a seed of its own."""

from __future__ import annotations

from kimi_mini.experiments.deployment.compared import dense_twin
from kimi_mini.experiments.gpu import runs
from kimi_mini.experiments.gpu.sheet import Row, Sheet
from kimi_mini.experiments.gpu.site import Site

SECONDS = 150
TABLES = runs.TABLE_RATES[-1:]


def measure(site: Site) -> Sheet:
    """The grids, then both models on every seed, the dense one for as many tokens and for as many seconds."""
    sheet, mini = Sheet(site, "dense", runs.SEEDS), site.config("mini")
    configs = {"moe": mini, "dense": dense_twin(mini)}
    pace = {
        name: sheet.once(f"pace {name}", lambda config=config: {"seconds": runs.pace(site, config)})
        for name, config in configs.items()
    }
    times = pace["moe"]["seconds"] / pace["dense"]["seconds"]  # as many steps of the dense one take as long
    units = (1 + 1 / times) * (len(runs.RATES["muon"]) / 2 + len(runs.SEEDS)) + len(runs.SEEDS)
    steps = runs.steps_in(site, SECONDS, units, pace["moe"]["seconds"])
    best = {
        name: runs.tuned(sheet, site, name, config, "muon", max(2, steps // 2), TABLES)
        for name, config in configs.items()
    }

    def run(name: str, seed: int, length: int, how: str) -> Row:
        setting = runs.like(best[name], seed, length)
        return sheet.once(f"{name}, {how}, seed {seed}", lambda: runs.train_one(site, configs[name], setting))

    for how, length in (("tokens", steps), ("seconds", max(2, round(steps * times)))):
        gaps = [
            runs.minus(run("dense", seed, length, f"equal {how}"), run("moe", seed, steps, "all"))
            for seed in runs.SEEDS
        ]
        sheet.claim(f"gpu/moe-{how}", *runs.over_seeds(gaps))
    return sheet
