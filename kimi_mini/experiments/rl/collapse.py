"""When a run of RL has collapsed: the rule of `measures.collapsed`, on success while sampling and on held-out success.

What is sampled may hide a collapse: tasks that are half solved are drawn more often, and the temperature falls. So some
arms of `safeguards` try held-out tasks before every update, too, always the same ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from matplotlib.figure import Figure

from kimi_mini.base.evidence import Log
from kimi_mini.base.intervals import difference
from kimi_mini.course.figures import rl as figures
from kimi_mini.experiments.harness import SEEN, across
from kimi_mini.experiments.rl.shared import sorted_rows, values
from kimi_mini.training.rl.measures import collapsed

DATED = ("all", "all, faster", "none, faster")  # arms that try held-out tasks before every update
EACH_ROUND = 15  # of them, a family


def dates(rounds: dict[str, list[float]]) -> dict[str, int | None]:
    """The round, from 0, in which the rule fires on either measure; None where it does not, or nothing was measured."""
    found = {"collapsed": "success", "dated": "held_out"}
    return {name: collapsed(rounds[told]) if told in rounds else None for name, told in found.items()}


# measure, arm, what is claimed, share of the seeds, at most
CLAIMS = (
    (
        "collapse",
        "none, faster",
        "without safeguards, at a higher rate, the rule of collapse fires",
        1.0,
        False,
    ),
    ("dated", "none, faster", "without safeguards, at a higher rate, held-out success collapses", 1.0, False),
    (
        "dated",
        "all, faster",
        "with all of them, at the same rate, the rule fires on held-out success in no seed (it falls all the same)",
        0.0,
        True,
    ),
    ("dated", "all", "with all of them, at their own rate, held-out success collapses in no seed", 0.0, True),
)


def claims(log: Log, place: dict[str, str]) -> None:
    """In how many seeds the rule fires at the higher rate, without and with safeguards, and what success does."""
    place = place | {"figure": "figures/rl_collapse.png", "source": "this project"}
    for measure, arm, says, floor, at_most in CLAIMS:
        fired = values(log.rows, arm, "collapsed" if measure == "collapse" else measure)
        says = f"{says}: share of the seeds{on(fired)}{SEEN if measure == 'dated' else ''}"
        share = fmean(date is not None for date in fired)
        log.claim(
            f"safeguards/{measure}/{arm}", claim=says, value=share, floor=floor, at_most=at_most, **place
        )
    bare, guarded = (values(log.rows, arm, "dated") for arm in ("none, faster", "all, faster"))
    fired = [(sum(date is not None for date in dates), len(dates)) for dates in (bare, guarded)]
    fewer = dict(zip(("value", "low", "high"), difference(*fired)))
    says = f"safeguards prevent the collapse: share of the seeds in which the rule fires, none - all{SEEN}"
    log.claim("safeguards/prevented", claim=says, floor=0.0, **fewer, **place)
    (before,) = values(log.rows, "before", "success")
    for arm, whose in (("none, faster", "without safeguards"), ("all, faster", "with all of them")):
        lost = across([value - before for value in values(log.rows, arm, "success")])
        says = f"held-out success does not fall at the higher rate, {whose}: after - before{SEEN}"
        log.claim(f"safeguards/faster/{arm}", claim=says, floor=-0.02, **lost, **place)
    pairs = zip(values(log.rows, "all, faster", "success"), values(log.rows, "none, faster", "success"))
    gain, says = across([on - off for on, off in pairs]), "held-out success at the higher rate: all - none"
    log.claim("safeguards/together", claim=says, floor=0.0, **gain, **place | {"source": "article"})


def on(dates: Sequence[int | None]) -> str:
    """When each seed has collapsed, in brackets; nothing where none has."""
    when = ", ".join("-" if date is None else str(date + 1) for date in dates)
    return f" (round {when})" if any(date is not None for date in dates) else ""


def draw(log: dict) -> Figure:
    """Success, entropy and KL over the rounds, of the arms at the higher rate and of the guarded one; a cross where
    held-out success has collapsed."""
    runs = {arm: [row["rounds"] for row in sorted_rows(log["rows"], arm)] for arm in DATED}
    marks = {arm: [row["dated"] for row in sorted_rows(log["rows"], arm)] for arm in DATED}
    panels = {
        "held_out": "success on held-out tasks",
        "success": "success while sampling",
        "entropy": "entropy (nats)",
        "kl": "KL to the start (nats)",
    }
    return figures.over_rounds(
        runs, panels, marks, title="Eight times the rate, with all safeguards and with none"
    )
