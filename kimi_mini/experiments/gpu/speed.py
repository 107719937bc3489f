"""Tokens a second of a training step, optimizer included: ours, its dense twin, transformers; and MFU, memory, the cost
of the maxima, and whether the default choice of step and micro-batch is a good one.

MFU counts useful work alone (`training.machine.flops`) and is a share of what the card multiplies here in bf16.
"""

from __future__ import annotations

from kimi_mini.experiments.deployment.compared import dense_twin
from kimi_mini.experiments.gpu import timing
from kimi_mini.experiments.gpu.sheet import Row, Sheet
from kimi_mini.experiments.gpu.site import Site
from kimi_mini.model import kernels
from kimi_mini.model.config import KimiConfig

GRID = (
    (32_768, None),
    (65_536, None),
    (131_072, 32_768),
    (262_144, 131_072),
)  # tokens of a step, and at once
SMALL_GRID = ((512, 256),)


def ours(
    site: Site, config: KimiConfig, rate: float, step: int | None = None, micro: int | None = None, **more
) -> Row:
    """A row of our step: of the default choice, or of `step` tokens, `micro` at once."""
    site.clear()
    choice = site.choice(config)
    if step is None:
        step, micro = choice.step_tokens, choice.micro_tokens
    ids = timing.text_of_a_step(site, choice.window, step)
    action = timing.our_step(site, timing.fresh(site, config), ids, micro, **more)
    (seconds,) = timing.times(site, action, rounds=site.pick(20, 2), warm=site.pick(8, 1))
    return timing.speed(site, config, ids, seconds, rate) | {"micro_tokens": micro or step}


def maxima(site: Site, config: KimiConfig) -> Row:
    """Seconds of a step with the maxima over those without: the median of pairs taken in turn, and quartiles."""
    site.clear()
    choice = site.choice(config)
    ids = timing.text_of_a_step(site, choice.window, choice.step_tokens)
    tracked = timing.our_step(site, timing.fresh(site, config), ids, choice.micro_tokens)
    bare = kernels.using(attention=timing.untracked)(tracked)
    pairs = timing.times(site, tracked, bare, rounds=site.pick(20, 2), warm=site.pick(3, 1))
    middle, low, high = timing.quartiles([with_ / without for with_, without in zip(*pairs)])
    return {"ratio": middle, "low": low, "high": high, "rounds": len(pairs[0])}


def theirs(site: Site, config: KimiConfig, rate: float, setting: str) -> Row:
    """A row of transformers' step on the tokens of ours."""
    site.clear()
    choice = site.choice(config)
    ids = timing.text_of_a_step(site, choice.window, choice.step_tokens)
    found = timing.transformers_times(site, config, ids, setting, rounds=site.pick(8, 1))
    seconds = found.pop("seconds", None)
    return found if seconds is None else timing.speed(site, config, ids, seconds, rate) | found


def measure(site: Site) -> Sheet:
    """All rows, and the claims about them."""
    sheet, mini, midi = Sheet(site, "speed"), site.config("mini"), site.config("midi")
    rate = sheet.once("matmul", lambda: {"flops": site.rate()})["flops"]
    default = sheet.once("mini", lambda: ours(site, mini, rate))
    grid = [default]
    for step, micro in site.pick(GRID, SMALL_GRID):
        name = f"mini, {step:,} tokens, {micro or step:,} at once"
        grid.append(sheet.once(name, lambda step=step, micro=micro: ours(site, mini, rate, step, micro)))
    sheet.once("mini, AdamW", lambda: ours(site, mini, rate, adamw=True))
    sheet.once("mini, dense twin", lambda: ours(site, dense_twin(mini), rate))
    cost = sheet.once("mini, with the maxima / without", lambda: maxima(site, mini))
    rivals = [
        sheet.once(f"mini, transformers, {setting}", lambda s=setting: theirs(site, mini, rate, s))
        for setting in timing.SETTINGS
    ]
    large = sheet.once("midi", lambda: ours(site, midi, rate))
    sheet.once("midi, dense twin", lambda: ours(site, dense_twin(midi), rate))
    with timing.forced_balance():  # what the learned router costs
        for name, config in (("mini", mini), ("midi", midi)):
            sheet.once(f"{name}, forced balance", lambda config=config: ours(site, config, rate))

    for name, row in (("mini", default), ("midi", large)):
        sheet.claim(f"gpu/mfu-{name}", row["mfu"], row["mfu_low"], row["mfu_high"])
    sheet.claim("gpu/transformers", *ratio(default, best(rivals)))
    sheet.claim("gpu/maxima", cost["ratio"], cost["low"], cost["high"])
    sheet.claim("gpu/peak", default["peak_bytes"] / 1e9)
    sheet.claim("gpu/default", *ratio(default, best(grid)))
    return sheet


def best(rows: list[Row]) -> Row | None:
    """The fastest row, if any was measured."""
    return max((row for row in rows if "mfu" in row), key=lambda row: row["tokens_per_second"], default=None)


def ratio(row: Row, other: Row | None) -> tuple[float | None, float | None, float | None]:
    """Tokens a second of one over those of another: of the medians, and of opposite quartiles."""
    if other is None:
        return None, None, None
    name = "tokens_per_second"
    low, high = (f"{name}_{end}" for end in ("low", "high"))
    return row[name] / other[name], row[low] / other[high], row[high] / other[low]
