"""Every safeguard of RL switched off, one at a time; and a recipe without any, at a higher rate.

    python -m kimi_mini.experiments.rl.safeguards

GUARDED has them all. An arm without one differs in that alone: same start, tasks, dice of the tasks, and seeds, which
were fixed before the run. The reward has a part that nobody should give, a little for each call; the two arms of the
cap have five times as much, so that an attempt which calls without end is worth more than a right one. Two more arms
have eight times the rate, one with all safeguards and one with none; when a run has collapsed, the rule of
`measures.collapsed` says, once from success while sampling, which may hide it, and once from held-out success, which
these arms and the guarded one measure before every update. Two arms have partial rollouts, of which no safeguard is
made, one of them in as many rounds more as it takes to learn from as many tokens. One has all safeguards and four times
the rounds: as many as ten minutes hold. The runs are kept in data/run, so that a command that was stopped goes on.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from statistics import fmean
from typing import Any

from matplotlib.figure import Figure

from kimi_mini.agent.folder import load_agent
from kimi_mini.base import processes
from kimi_mini.base.command import in_one_line, positive
from kimi_mini.base.evidence import Log
from kimi_mini.base.paths import RUNS
from kimi_mini.course.figures import rl as figures
from kimi_mini.experiments.harness import (
    SEEN,
    across,
    common_parser,
    finish,
    read,
    share_across,
    side_by_side,
)
from kimi_mini.experiments.rl import collapse
from kimi_mini.experiments.rl.shared import (
    JOINT,
    KINDS,
    LIMITS,
    START,
    Job,
    measure,
    run,
    sorted_rows,
    values,
)
from kimi_mini.training.rl.config import RLConfig

VERDICT, CUT_OFF, CALLS, MANY = ("verdict", 1.0), ("budget", 0.5), ("calls", 0.1), ("calls", 0.5)
GUARDED = RLConfig(
    objective="k2.5",
    lr=5e-4,
    adamw_lr=2e-4,
    tasks=KINDS,
    prioritised=True,
    rounds=16,
    prompts=8,
    temperature=(1.0, 0.7),
    ptx_tokens=1024,
    reward=(VERDICT, CALLS, CUT_OFF),
    budget=95.0,
    least_moderate=0.0,
    limits=LIMITS,
)
FASTER, TASKS = 8, 60  # times the rate; held out, a family
SEGMENT = 64  # tokens an attempt may write a round, of partial rollouts
LONGER = 20  # rounds of partial rollouts that learn no fewer tokens than GUARDED in its own
BAR = 0.85  # asked of success after RL
PLACE = {"figure": "figures/rl_safeguards.png", "notebook": "07_joint_reinforcement_learning.ipynb"}


@dataclass(frozen=True)
class Guard:
    """A safeguard: what switches it off, the measure that it is there for, and whether more of that is better.

    floor: what the difference with - without (the other way round where less is better) is to exceed.
    both: what both arms have that the guarded recipe has not.
    """

    off: dict[str, Any]
    measure: str = "success"
    more: bool = True
    floor: float = 0.0
    source: str = "K2 report 3.2.3"
    says: str = ""
    both: dict[str, Any] = field(default_factory=dict)


GUARDS = {
    "PTX": Guard({"ptx": 0.0}, "kept", says="keeps what RL does not train"),
    "cap": Guard(
        {"cap": 1e3}, says="keeps a reward of calls from winning", both={"reward": (VERDICT, MANY, CUT_OFF)}
    ),
    "budget": Guard(
        {"budget": None, "reward": (VERDICT, CALLS)}, "tokens", more=False, says="keeps answers short"
    ),
    "temperature decay": Guard({"temperature": (1.0, 1.0)}, says="raises success"),
    "tau": Guard({"tau": 0.0}, "kl", more=False, source="K2.5 report, Eq. 1", says="keeps the policy near"),
    "mask": Guard({"clip": (20.0, 20.0)}, source="K2.5 report, Eq. 1", says="raises success"),
    "zero-signal filter": Guard(
        {"zero_signal": True}, floor=-0.02, source="DAPO (arXiv 2503.14476)", says="costs no success"
    ),
    "prioritised sampling": Guard({"prioritised": False}, source="k1.5 report 2.3.4", says="raises success"),
}
NONE = {name: value for guard in GUARDS.values() for name, value in guard.off.items()}
FAST = {"lr": FASTER * GUARDED.lr, "adamw_lr": FASTER * GUARDED.adamw_lr}
ALL_LONGER, MINUTES = "all, four times as long", 10
PARTIAL, PARTIAL_LONGER = "all, partial rollouts", "all, partial rollouts, longer"
ARMS: dict[str, RLConfig] = {
    "all": GUARDED,
    ALL_LONGER: replace(GUARDED, rounds=4 * GUARDED.rounds),
    **{f"with {name}": replace(GUARDED, **guard.both) for name, guard in GUARDS.items() if guard.both},
    **{f"without {name}": replace(GUARDED, **guard.both, **guard.off) for name, guard in GUARDS.items()},
    "all, faster": replace(GUARDED, **FAST),
    "none, faster": replace(GUARDED, **NONE, **FAST),
    PARTIAL: replace(GUARDED, segment_tokens=SEGMENT),
    PARTIAL_LONGER: replace(GUARDED, segment_tokens=SEGMENT, rounds=LONGER),
}
MEASURES = {"success": 100, "kept": 100, "pass@8": 100, "tokens": 1, "entropy": 1, "kl": 1}  # shown times


def parser(description: str) -> argparse.ArgumentParser:
    """The options of an experiment of RL."""
    options = common_parser(description, start=START)
    options.add_argument("--processes", type=positive, default=processes.default_count())
    return options


def scaled(config: RLConfig, scale: float) -> RLConfig:
    """The same with fewer rounds; and smaller ones, where that alone is not enough."""
    if scale == 1:
        return config
    return replace(
        config, rounds=max(2, int(config.rounds * scale)), prompts=max(4, int(config.prompts * scale))
    )


def main() -> None:
    """Run every arm from every seed; write data/results/rl_safeguards.json."""
    args = read(parser(__doc__.splitlines()[0]))
    tasks = max(4, int(TASKS * args.scale))
    log = Log("rl_safeguards", seeds=args.seeds, folder=args.folder, config=str(GUARDED))
    start, tokenizer = load_agent(args.start)
    before = measure(start, start, tokenizer, tasks)
    log.row(arm="before", seed=None, **before)
    jobs = [
        Job(
            arm,
            seed,
            scaled(config, args.scale),
            tasks,
            args.start,
            each_round=min(tasks, collapse.EACH_ROUND) if arm in collapse.DATED else 0,
        )
        for seed in args.seeds
        for arm, config in ARMS.items()
    ]
    for row in side_by_side(jobs, RUNS / f"rl_safeguards_{args.scale:g}.json", args.processes, run, log):
        log.row(**row, **collapse.dates(row["rounds"]))
        said(log.rows[-1])
    report(log)
    finish(log, rl_safeguards=draw, rl_collapse=collapse.draw)


def said(row: dict) -> None:
    """One line about a run."""
    numbers = " ".join(f"{name} {row[name]:.3f}" for name in MEASURES)
    print(f"{row['arm']:30s} seed {row['seed']}  {numbers}  collapsed {row['collapsed']}", flush=True)


def effect(rows: Sequence[dict], name: str, measured: str) -> dict:
    """With a safeguard less without it, on the same tasks: {value, low, high} over seeds."""
    guarded = f"with {name}" if GUARDS[name].both else "all"
    pairs = zip(values(rows, guarded, measured), values(rows, f"without {name}", measured), strict=True)
    return across([on - off for on, off in pairs])


def report(log: Log) -> None:
    """What every safeguard does for what it is there for, what RL wins and loses, and how often runs collapse."""
    for name, guard in GUARDS.items():
        found = effect(log.rows, name, guard.measure)
        if not guard.more:
            found = {"value": -found["value"], "low": turned(found["high"]), "high": turned(found["low"])}
        what = (
            f"{name} {guard.says} ({guard.measure}, {'with - without' if guard.more else 'without - with'})"
        )
        ends = [values(log.rows, arm, guard.measure) for arm in ("before", "all", f"without {name}")]
        what += at_the_ceiling(ends) if guard.measure == "kept" else ""
        log.claim(f"safeguards/{name}", claim=what, source=guard.source, floor=guard.floor, **found, **PLACE)
    claim_success(log)
    claim_forgetting(log)
    collapse.claims(log, PLACE)
    claim_partial(log)


def at_the_ceiling(ends: Sequence[Sequence[float]]) -> str:
    """A remark where a measure is 1 in all of these runs: what it may have lost does not show there."""
    return "; 1.00 in every run: a ceiling, which tells no arms apart" if min(map(min, ends)) == 1 else ""


def claim_success(log: Log) -> None:
    """Of the families that RL has and that began below the bar, success as sampled with all safeguards; and what four
    times the rounds reach, forget and take."""
    (before,) = sorted_rows(log.rows, "before")
    claim = partial(log.claim, source="this project", **PLACE)
    runs = {"bar": ("all", f"joint RL{SEEN}"), "longer": (ALL_LONGER, "four times the rounds")}
    for name, (arm, what) in runs.items():
        rows = sorted_rows(log.rows, arm)
        for family in JOINT if rows else ():
            if (began := before["sampled"][family]) < BAR:
                says = f"success of {family}, as sampled, from {began:.2f} before, after {what}"
                ends = share_across([row["sampled"][family] for row in rows])
                claim(f"safeguards/{name}/{family}", claim=says, floor=BAR, **ends)
    if rows:
        says, spent = "seconds of these rounds on one core", across([row["seconds"] for row in rows])
        claim("safeguards/longer/seconds", claim=says, floor=60 * MINUTES, at_most=True, **spent)


def claim_forgetting(log: Log) -> None:
    """What is lost of the families that RL has not, at both rates; and at the higher one, of the worst of them."""
    (before,) = sorted_rows(log.rows, "before")
    slow, fast = (
        "RL with PTX forgets nothing elsewhere",
        "at eight times the rate RL with PTX forgets nothing",
    )
    for arm, says in (
        ("all", f"{slow}: families that RL has not, after - before"),
        (ALL_LONGER, f"{slow}, in four times the rounds: families that RL has not, after - before"),
        ("without PTX", "nor without PTX: families that RL has not, after - before"),
        ("all, faster", f"{fast}: families that RL has not, after - before{SEEN}"),
        ("none, faster", f"nor without any safeguard, at that rate: the same, after - before{SEEN}"),
    ):
        if not (ends := values(log.rows, arm, "kept")):
            continue
        says += at_the_ceiling([[before["kept"]], ends])
        _forgotten(log, arm, says, [value - before["kept"] for value in ends])
    rows = sorted_rows(log.rows, "all, faster")
    lost = {name: [row["elsewhere"][name] - one for row in rows] for name, one in before["elsewhere"].items()}
    worst = min(lost, key=lambda name: fmean(lost[name]))
    says = f"{fast}: the worst of {len(lost)} families that RL has not ({worst}), after - before{SEEN}"
    _forgotten(log, "all, faster/worst", says, lost[worst])


def _forgotten(log: Log, name: str, says: str, lost: Sequence[float]) -> None:
    source, found = "K2 report 3.2.3 (PTX)", across(lost)
    log.claim(f"safeguards/forgetting/{name}", claim=says, source=source, floor=-0.02, **found, **PLACE)


def claim_partial(log: Log) -> None:
    """What attempts that go on in the next round cost: in the same rounds, and with as many tokens to learn from."""
    same = "partial rollouts cost no success (success, with - without)"
    learned = {arm: _learned(log.rows, arm) for arm in ("all", PARTIAL_LONGER)}
    share = min((a / b for b, a in zip(*learned.values())), default=None)
    more = "" if share is None else f", at least {share:.2f} of its tokens"
    longer = f"the same in {LONGER} rounds against {GUARDED.rounds}{more}{SEEN}"
    for name, arm, says in (("", PARTIAL, same), ("/longer", PARTIAL_LONGER, longer)):
        about = {"claim": says, "source": "K2 report 3.3; k1.5 report 2.6.2", "floor": -0.02, **PLACE}
        ends = values(log.rows, arm, "success")
        if not ends:
            log.later(f"safeguards/partial rollouts{name}", **about)
            continue
        gaps = [on - off for on, off in zip(ends, values(log.rows, "all", "success"), strict=True)]
        log.claim(f"safeguards/partial rollouts{name}", **about, **across(gaps))


def _learned(rows: Sequence[dict], arm: str) -> list[float]:
    """Tokens that the attempts of all rounds wrote, seeds in order. Without segments every attempt of a round
    ends in it, so that their mean says as much."""
    each = GUARDED.prompts * GUARDED.attempts
    return [row.get("learned", each * sum(row["rounds"]["tokens"])) for row in sorted_rows(rows, arm)]


def turned(value: float | None) -> float | None:
    """The negative, of a number that may be missing."""
    return None if value is None else -value


def draw(log: dict) -> Figure:
    """With - without, a panel a measure."""
    effects = {
        f"{name} (x 100)" if factor > 1 else name: {
            guard: {
                key: None if one is None else factor * one
                for key, one in effect(log["rows"], guard, name).items()
            }
            for guard in GUARDS
        }
        for name, factor in MEASURES.items()
    }
    return figures.safeguards(effects, "What each safeguard changes: with it - without it")


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
