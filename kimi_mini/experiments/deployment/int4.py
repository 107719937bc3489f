"""Experts in four bits: rounded after training against trained with the rounding.

    python -m kimi_mini.experiments.deployment.int4 [--processes N]

The agent before RL is fine-tuned a little further, at a rate that ends in 0: plainly, and with experts that are read
as INT4, as MXFP4, or in 2 bits (a straight-through estimator). The same examples in the same order, from three seeds.
The plain one is then rounded to 4, 3 and 2 bits and to MXFP4. Of each: held-out rows of the scoreboard, greedily; the
loss on text; and along a hundred calls in a row that the plain one makes, how far the next token's distribution lies
from its own (KL from it, in nats), and how often another token would be the greedy one. Tokens are given there, and old
calls hidden: no token of a rounded model is read again, so this tells of the distance along the way, not of what errors
would add up to in a text of its own.

Beside it: the agent that reads, rounded, on rows that were held out in kind; and bytes on disk. A hundred tasks a row
and three seeds see no difference of a point; a claim about one is open unless it is far off.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from statistics import fmean

from kimi_mini.agent.folder import load_agent
from kimi_mini.base import processes
from kimi_mini.base.command import in_one_line, positive
from kimi_mini.base.evidence import Log
from kimi_mini.base.intervals import difference
from kimi_mini.base.paths import RUNS
from kimi_mini.course.figures.deployment import int4 as figures
from kimi_mini.experiments.deployment.int4_runs import AWARE, CALLS, FORMATS, READER, Job, sizes, work
from kimi_mini.experiments.harness import across, common_parser, fingerprint, finish, read, side_by_side
from kimi_mini.experiments.verifiers.shared import TUNED

POINT = 0.01


def main() -> None:
    """Train, round and measure from every seed; write data/results/int4.json and its figure."""
    options = common_parser(__doc__.splitlines()[0], base=TUNED)
    options.add_argument("--processes", type=positive, default=processes.default_count())
    args = read(options)
    log = Log("int4", seeds=args.seeds, folder=args.folder, weights=fingerprint(args.base))
    jobs = [Job("trained", seed, args.scale, args.base) for seed in args.seeds]
    jobs += [Job("reader", 0, args.scale, READER, name) for name in ("fp32", *FORMATS)]
    for found in side_by_side(jobs, RUNS / f"int4_{args.scale:g}.json", args.processes, work, log):
        for row in found["found"]:
            log.row(**row)
    log.more["bytes"] = sizes(load_agent(args.base)[0])
    report(log)
    finish(log, int4=figures.int4)


# ---- claims ------------------------------------------------------------------------------------------------


def differences(rows: Sequence[dict], name: str, training: str) -> dict[str, list[float]]:
    """Row of the scoreboard -> success in a format minus that of the plain fp32 model, one a seed."""
    picked = {
        (row["seed"], row["format"], row["training"]): row["success"]
        for row in rows
        if row["kind"] == "trained"
    }
    seeds = sorted({seed for seed, _, _ in picked})
    whole = {seed: picked[seed, "fp32", "plain"] for seed in seeds}
    return {
        key: [picked[seed, name, training][key] - whole[seed][key] for seed in seeds]
        for key in whole[seeds[0]]
    }


def reader(rows: Sequence[dict], name: str) -> tuple[int, int]:
    """(tasks solved, tasks) of the agent that reads in a format, all of its rows together."""
    (found,) = [row for row in rows if (row["kind"], row["format"]) == ("reader", name)]
    solved = sum(round(share * found["n"]) for share in found["success"].values())
    return solved, found["n"] * len(found["success"])


def report(log: Log) -> None:
    """The claims: what each format loses, rounded afterwards and trained with; bytes; drift; the agent that reads."""
    claim = partial(log.claim, figure="figures/int4.png", notebook="10_deployment.ipynb")
    card, ours = "K2 Thinking model card (INT4)", "this project"
    for name in AWARE:
        after, aware = (differences(log.rows, name, training) for training in ("plain", "aware"))
        worst = min(after, key=lambda row: fmean(after[row]))
        says = f"{name}, rounded afterwards: the row that loses most ({worst}), against fp32"
        claim(f"{name}/afterwards", claim=says, source=card, floor=-POINT, **across(after[worst]))
        losing = [row for row, values in after.items() if fmean(values) < -POINT]
        worst = min(losing or aware, key=lambda row: fmean(aware[row]))
        where = (
            f"of {len(losing)} rows on which rounding afterwards loses more than a point"
            if losing
            else "of all"
        )
        says = f"{name}, trained with it: the row that loses most ({worst}), {where}, against fp32"
        claim(f"{name}/aware", claim=says, source=card, floor=-POINT, **across(aware[worst]))
        if losing:
            gained = [fmean(aware[row][i] - after[row][i] for row in losing) for i in range(len(log.seeds))]
            says = f"{name}: what training with it wins back on those rows, in the mean"
            claim(f"{name}/won_back", claim=says, source=ours, floor=0.0, **across(gained))
    ratio = log.more["bytes"]["int4 experts"] / log.more["bytes"]["bf16 experts"]
    says = "bytes of packed experts on disk, of theirs in bf16"
    claim("int4/bytes", claim=says, source=card, floor=0.30, at_most=True, value=ratio)
    last, first = (
        [
            row["drift"]["kl"][part]
            for row in log.rows
            if (row["format"], row["training"]) == ("int4", "plain") and row["kind"] == "trained"
        ]
        for part in (-1, 0)
    )
    says = f"INT4, rounded afterwards: the error grows along {CALLS} calls, half as large again in the last tenth"
    grown = across([math.log(b / a) for b, a in zip(last, first)])  # a ratio has its interval in logarithms
    claim(
        "int4/drift",
        claim=f"{says} (KL from fp32 over that in the first; tokens given, old calls hidden)",
        source="notes on K2 Thinking's INT4",
        floor=1.5,
        **{key: None if value is None else math.exp(value) for key, value in grown.items()},
    )
    lost = dict(zip(("value", "low", "high"), difference(reader(log.rows, "int4"), reader(log.rows, "fp32"))))
    says = "INT4, rounded afterwards: the agent that reads, all tasks of its rows together, against fp32"
    says += " (interval over the tasks; added when the log had been seen)"
    claim("int4/reader", claim=says, source=card, floor=-POINT, seeds=[0], **lost)


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
