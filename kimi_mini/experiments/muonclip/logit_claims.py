"""What the runs of logit_growth say: the claims, and the tables of the notebook."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np

from kimi_mini.base.evidence import Log
from kimi_mini.experiments.harness import across, ratio_across
from kimi_mini.experiments.muonclip.logit_runs import SIZES

NOTEBOOK = "03_muonclip.ipynb"


def chosen(rows: Iterable[dict], arm: str, size: str | None = None) -> list[dict]:
    """The runs of an arm, of one size or both, by seed."""
    return [row for row in rows if row["arm"] == arm and size in (None, row["size"])]


def sizes_in(rows: Iterable[dict]) -> list[str]:
    """The model sizes that were run, in our order."""
    found = {row["size"] for row in rows}
    return [size for size in SIZES if size in found]


def arms_in(rows: Iterable[dict]) -> list[str]:
    """The arms that were run, in their order."""
    return list(dict.fromkeys(row["arm"] for row in rows))


def held(rows: Iterable[dict], seeds: Sequence[int], when: str) -> dict:
    """How well clipped heads stay at tau: "after_clip" (next step, new tokens), "late", or on the "same_tokens".

    {clips, within: share up to 1.05 tau, worst_by_seed: largest S / tau, 0 where nothing was clipped}
    """
    found = [(row["seed"], row[when]) for row in rows if row[when]["n"]]
    count = sum(after["n"] for _, after in found)
    inside = sum(after["n"] * after["within"] for _, after in found)
    worst = [max((after["worst"] for own, after in found if own == seed), default=0.0) for seed in seeds]
    return {"clips": count, "within": inside / count if count else 1.0, "worst_by_seed": worst}


def harm(rows: list[dict], arm: str, plain: str, size: str) -> dict[int, float]:
    """Seed -> validation loss of `arm` minus that of `plain`: same weights, same data, only tau differs. A seed in
    which one of them diverged is left out."""
    pairs = zip(chosen(rows, arm, size), chosen(rows, plain, size))
    return {
        a["seed"]: a["validation"] - b["validation"]
        for a, b in pairs
        if None not in (a["validation"], b["validation"])
    }


def report(log: Log) -> None:
    """The claims, each with the number asked of it; what else the runs say goes into `log.more`."""
    claim = partial(log.claim, notebook=NOTEBOOK, figure="figures/logit_growth.png", source="K2 report 2.1")
    rows = log.rows
    clipping = [row for row in rows if "MuonClip" in row["arm"]]
    found = {when: held(clipping, log.seeds, when) for when in ("after_clip", "late", "same_tokens")}
    for name, when, says in (
        ("held", "after_clip", "MuonClip: largest S/τ of any head at the step after its clip, worst seed"),
        (
            "held_same_tokens",
            "same_tokens",
            "the same on the tokens that triggered the clip, update included",
        ),
    ):
        worst = max(found[when]["worst_by_seed"]) or None  # no clip at all shows nothing
        claim(f"logits/{name}", claim=says, floor=1.05, at_most=True, value=worst)
    log.more["held"] = found
    for size in sizes_in(rows):
        hot = min(row["peak"] for row in chosen(rows, "hot Muon", size))
        says = f"plain Muon, hot: smallest peak of any seed ({size})"
        claim(f"logits/muon_passes_100_{size}", claim=says, floor=100.0, value=hot)
        claim_pair(claim, rows + log.more["pair"], size)
        claim_no_harm(claim, rows, size)
        log.more[f"change_of_loss_{size}"] = {"noise": noise(rows, size), **changes(rows, size)}
    log.more["table"] = table(rows)


def claim_pair(claim: Callable, rows: Sequence[dict], size: str) -> None:
    """Tuned Muon beside tuned AdamW: its peak over AdamW's, its loss minus AdamW's."""
    muon, adamw = (chosen(rows, arm, size) for arm in ("Muon", "AdamW"))
    claim = partial(claim, seeds=[row["seed"] for row in muon])
    found = ratio_across([one["peak"] / other["peak"] for one, other in zip(muon, adamw)])
    says, source = (
        f"tuned Muon's peak logit over tuned AdamW's ({size})",
        "K2 report 2.1 (the article says AdamW's)",
    )
    claim(f"logits/muon_over_adamw_{size}", claim=says, source=source, floor=1.0, **found)
    found = across(list(harm(muon + adamw, "Muon", "AdamW", size).values()))
    says = f"validation loss of tuned Muon minus that of tuned AdamW after the same steps ({size})"
    more = {"source": "Moonlight 3.2", "headline": size == "moe"}
    claim(f"logits/muon_loss_under_adamw_{size}", claim=says, floor=0.0, at_most=True, **found, **more)


def claim_no_harm(claim: Callable, rows: Sequence[dict], size: str) -> None:
    """A clip that never triggers changes no bit."""
    found = harm(rows, "MuonClip 100", "Muon", size)
    runs = chosen(rows, "MuonClip 100", size)
    quiet = [row["seed"] for row in runs if row["seed"] in found and not row["clips"]]
    if quiet:
        change = max(abs(found[seed]) for seed in quiet)
        more = {
            "claim": f"τ = 100 that never triggers changes nothing: loss, same bits ({size})",
            "source": "K2 report appendix D",
        }
        claim(f"logits/no_harm_{size}", value=change, floor=0.0, at_most=True, seeds=quiet, **more)


def changes(rows: Sequence[dict], size: str) -> dict[str, dict]:
    """Arm with a clip -> its loss minus that of the same without; an arm whose runs all diverged is left out."""
    hot = [arm for arm in arms_in(rows) if "hot" in arm and "Clip" in arm]
    plain = {arm: "hot AdamW" if "AdamW" in arm else "hot Muon" for arm in hot} | {"MuonClip 30": "Muon"}
    found = {arm: harm(rows, arm, other, size) for arm, other in plain.items()}
    return {arm: across(list(values.values())) for arm, values in found.items() if values}


def noise(rows: Sequence[dict], size: str) -> float:
    """Standard deviation of plain Muon's validation loss over seeds."""
    losses = [row["validation"] for row in chosen(rows, "Muon", size)]
    return float(np.std(losses, ddof=1)) if len(losses) > 1 else 0.0


def table(rows: list[dict]) -> list[dict]:
    """Means over seeds for every size and arm; what README and notebook print."""
    found = []
    for size in sizes_in(rows):
        for arm in arms_in(rows):
            runs = chosen(rows, arm, size)
            alive = [run for run in runs if run["validation"] is not None]
            found.append(
                {
                    "size": size,
                    "arm": arm,
                    **{key: runs[0][key] for key in ("lr", "table_lr", "decay", "tau")},
                    "peak": mean(runs, "peak"),
                    "validation": mean(alive, "validation") if alive else None,
                    "spikes": mean(runs, "spikes"),
                    "clips": mean(runs, "clips"),
                    "heads": mean(runs, "heads_ever_clipped"),
                    "diverged": len(runs) - len(alive),
                }
            )
    return found


def mean(runs: list[dict], key: str) -> float:
    """Mean of a number over runs."""
    return float(np.mean([run[key] for run in runs]))
