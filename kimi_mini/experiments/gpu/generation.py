"""Tokens a second of writing: greedy generation, and a batch of rollouts as RL samples them."""

from __future__ import annotations

from kimi_mini.experiments.gpu import timing
from kimi_mini.experiments.gpu.sheet import Row, Sheet
from kimi_mini.experiments.gpu.site import Site
from kimi_mini.inference.generation import generate
from kimi_mini.model.kimi import KimiMini

CASES = {"greedy, one row": (1, 0.0), "greedy, 32 rows": (32, 0.0), "rollouts, 256 rows": (256, 1.0)}


def writing(site: Site, model: KimiMini, rows: int, temperature: float) -> Row:
    """A prompt of 64 tokens a row, and 128 new ones (8 and 8 in a rehearsal)."""
    site.clear()
    prompt, new = site.pick((64, 128), (8, 8))
    ids = timing.text_of_a_step(site, prompt, rows * prompt).to(site.device)
    action = lambda: generate(model, ids, new, temperature, eos_token_id=[])
    (seconds,) = timing.times(site, action, rounds=site.pick(3, 1), warm=1)
    middle, fast, slow = timing.quartiles(seconds)
    row = {name: rows * new / value for name, value in (("", middle), ("_low", slow), ("_high", fast))}
    return {f"tokens_per_second{name}": value for name, value in row.items()} | {"rows": rows, "new": new}


def measure(site: Site) -> Sheet:
    """Every case at preset mini, in fp32 and in bf16."""
    sheet, model = Sheet(site, "generation"), timing.fresh(site, site.config("mini"))
    for label in ("fp32", "bf16"):
        model = model.bfloat16() if label == "bf16" else model
        for case, (rows, temperature) in CASES.items():
            rows = site.pick(rows, min(rows, 4))
            sheet.once(
                f"{case}, {label}",
                lambda rows=rows, t=temperature, model=model: writing(site, model, rows, t),
            )
    return sheet
