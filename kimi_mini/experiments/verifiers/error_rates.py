"""How often do the verifiers err? No model, only trajectories: 3,000 right and 3,000 wrong ones a world.

An adversary who knows every answer makes wrong trajectories that look right, and right ones that look unusual; each
world's verifier judges them, and beside it three verifiers that are not good enough and a rubric that also reads the
thoughts. An error is a wrong trajectory accepted or a right one refused.

One right kind is tried apart, because the shop's verifier is meant to refuse it: a chain of records with one of them
read twice. Its row and its claim show what that strictness costs.

What the numbers mean: rates over these kinds in equal parts, not over what a model does; a kind more that is always
refused makes the rate of its world smaller, so look at the rows, kind by kind, as well. A slip that happens to come out
right is counted as a false accept, because the work was wrong; no verifier that looks only at results can see it.
"""

from __future__ import annotations

from functools import partial
from itertools import groupby

from matplotlib.figure import Figure
from tqdm import tqdm

from kimi_mini.base.command import in_one_line
from kimi_mini.base.evidence import Log
from kimi_mini.course.figures import verifiers
from kimi_mini.evaluation import error_rates
from kimi_mini.experiments.harness import arguments, finish
from kimi_mini.worlds import WORLDS
from kimi_mini.worlds.shop.adversary import LOOKS_TWICE

COUNT = 3000  # right and as many wrong trajectories a world
NOTEBOOK = "06_the_verifier_economy.ipynb"


def main() -> None:
    """Measure every verifier in every world; write data/results/verifiers.json."""
    args = arguments(__doc__.splitlines()[0], seeds=(0,))
    count, seed = max(40, int(COUNT * args.scale)), args.seeds[0]
    log = Log("verifiers", seeds=[seed], folder=args.folder)
    log.more["summary"] = {}
    for world in tqdm(WORLDS, unit="world", leave=False, dynamic_ncols=True):
        for name, rates in error_rates.compared(world, count, seed=seed).items():
            for kind, rate in rates.items():
                log.row(world=world, verifier=name, kind=kind.name, right=kind.right, **rate.as_dict())
            accepted, refused = error_rates.false_accepts(rates), error_rates.false_rejects(rates)
            log.more["summary"][f"{world}/{name}"] = {
                "false_accepts": accepted.as_dict(),
                "false_rejects": refused.as_dict(),
            }
            tqdm.write(
                f"{world:7s} {name:18s} wrong accepted {accepted.value:6.2%}, right refused {refused.value:6.2%}"
            )
    strict = error_rates.error_rates("shop", max(40, count // 10), seed=seed, kinds=[LOOKS_TWICE])[
        LOOKS_TWICE
    ]
    log.more["summary"]["shop/looks at a record twice"] = {"false_rejects": strict.as_dict()}
    report(log)
    finish(log, verifiers=draw)


def report(log: Log) -> None:
    """The ledger's lines: both error rates of the worlds' own verifiers."""
    claim = partial(
        log.claim, floor=0.01, at_most=True, source="this project", figure="figures/verifiers.png"
    )
    rates = log.more["summary"]
    asked = {
        f"{world}/{error}": (f"{world}/world's verifier", error, f"the verifier of {world} {says}")
        for world in WORLDS
        for error, says in (
            ("false_accepts", "accepts at most 1% of wrong ones"),
            ("false_rejects", "refuses at most 1% of right ones"),
        )
    }
    says = "the verifier of shop refuses at most 1% of chains with one record read twice"
    asked["shop/looks_twice"] = ("shop/looks at a record twice", "false_rejects", says)
    for name, (of, error, says) in asked.items():
        measured = {key: rates[of][error][key] for key in ("value", "low", "high")}
        claim(f"verify/{name}", claim=says, notebook=NOTEBOOK, **measured)


def draw(log: dict) -> Figure:
    """How often each world's own verifier accepts a wrong trajectory: all kinds, and those that it did."""
    shown = []
    for world, rows in groupby(log["rows"], key=lambda row: row["world"]):
        kinds = [row for row in rows if row["verifier"] == "world's verifier" and not row["right"]]
        every = error_rates.total(error_rates.Rate(row["errors"], row["n"]) for row in kinds)
        shown.append(every.as_dict() | {"name": f"{world}: all {len(kinds)} kinds"})
        shown += [row | {"name": f"{world}: {row['kind']}"} for row in kinds if row["errors"]]
    return verifiers.error_rates(
        shown, title="Wrong trajectories that look right: how many are accepted", label="accepted"
    )


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
