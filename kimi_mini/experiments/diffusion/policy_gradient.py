"""A biased and an unbiased policy gradient of a model that refines: against the exact one, and in RL.

First a toy, so short that the exact gradient can be summed over all orders and texts: how far is each estimator from it
as samples grow? Then RL on short texts (see `texts`) whose checksum must hold and whose two facts must agree, from a
model that learned texts of which only some keep each: success, distinct right texts, KL to the start, by each of
the estimators. One that looks once at a text has rounds to spare for the same number of forward passes: it gets them.
"""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path

import numpy as np

from kimi_mini.base.command import in_one_line
from kimi_mini.base.evidence import Log
from kimi_mini.base.paths import RUNS
from kimi_mini.experiments.diffusion import drawings, texts, toy
from kimi_mini.experiments.harness import across, arguments, finish, share_across
from kimi_mini.training.diffusion.estimators import at_a_glance, by_steps, by_the_bound

REWARD = ("checksum", "facts")
UNBIASED, GLANCE, BOUND = "by steps", "at a glance", "by the bound"
LOOKS = {UNBIASED: 4, GLANCE: 1, BOUND: 4}  # forward passes over a text in learning
ESTIMATORS = {
    UNBIASED: partial(by_steps, count=4),
    GLANCE: at_a_glance,
    BOUND: partial(by_the_bound, count=4),
}
ONE_LOOK = {UNBIASED: partial(by_steps, count=1), GLANCE: at_a_glance, BOUND: partial(by_the_bound, count=1)}
ROUNDS, TASKS, LAST = 80, 30, 8  # rounds of RL; contexts of a measurement; rounds that success is a mean of
SAMPLES, TOYS = (1, 10, 100, 1_000, 10_000, 100_000), (0, 1, 2, 3, 4)
LATER = "(a row added when the log had been seen)"
WHERE = dict(notebook="11_diffusion.ipynb", figure="figures/diffusion_rl.png")


def main() -> None:
    """Measure the toy, run RL; write data/results/diffusion_rl.json."""
    args = arguments(__doc__.splitlines()[0])
    log = Log("diffusion_rl", seeds=args.seeds, folder=args.folder)
    log.more["toy"] = toy_errors(TOYS if args.scale >= 1 else TOYS[:2])
    rounds, tasks = max(4, int(ROUNDS * args.scale)), max(4, int(TASKS * args.scale))
    for seed in args.seeds:
        for name in ESTIMATORS:
            log.row(**arm(log, name, seed, rounds, tasks, max(20, int(texts.STEPS * args.scale))))
    report(log)
    finish(log, diffusion_rl=drawings.policy_gradients)


def toy_errors(seeds) -> dict:
    """Estimator -> what `toy.errors` says, a list over toys."""
    models = [toy.toy_model(seed) for seed in seeds]
    return {
        name: [toy.errors(model, estimator, SAMPLES) for model in models]
        for name, estimator in ONE_LOOK.items()
    }


def arm(log: Log, name: str, seed: int, rounds: int, tasks: int, steps: int) -> dict:
    """RL by one estimator: its rounds, and what was measured before and after. Read, if it has been run already."""
    folder = RUNS / "diffusion_texts"
    file = folder / f"rl_{name.replace(' ', '_')}_{seed}_{rounds}_{tasks}_{steps}.json"
    return log.part(file, lambda: reinforced(name, seed, rounds, tasks, steps, folder))


def reinforced(name: str, seed: int, rounds: int, tasks: int, steps: int, folder: Path) -> dict:
    """RL by one estimator, run now from the model that `folder` holds or that is learned now."""
    begun = texts.start(True, seed, steps, folder)
    model, way = copy.deepcopy(begun), texts.refining_by(ESTIMATORS[name])
    whole = texts.LENGTH + LOOKS[UNBIASED]
    longer = -(-rounds * whole // (texts.LENGTH + LOOKS[name]))  # as many forward passes as the others
    before = texts.measured(begun, begun, way, REWARD, seed, tasks)
    course = texts.by_rl(model, way, longer, seed, REWARD, share=False)
    after = texts.measured(model, begun, way, REWARD, seed, tasks)
    found = dict(name=name, seed=seed, rollouts=rounds, before=before, after=after)
    found |= dict(rounds=[one._asdict() for one in course.rounds], kept_rounds=longer)
    print(f"seed {seed} {name:13s} {before['right']:.2f} -> {after['right']:.2f}", flush=True)
    return found


def success(row: dict, rounds: int) -> float:
    """Share of right texts in the last rounds of the first `rounds`."""
    return float(np.mean([one["right"] for one in row["rounds"][max(0, rounds - LAST) : rounds]]))


def of(log: Log, name: str, value) -> list[float]:
    """A number of every seed's run by one estimator."""
    return [value(row) for row in log.rows if row["name"] == name]


def report(log: Log) -> None:
    """The claims."""
    biases(log)
    for name in ESTIMATORS:
        after = share_across(of(log, name, lambda row: row["after"]["right"]))
        before = np.mean(of(log, name, lambda row: row["before"]["right"]))
        says = f"RL {name} takes texts that are right in {before:.0%} of all cases to 80%, as sampled"
        slug = name.replace(" ", "_")
        source = "article (outlook: diffusion and RL)"
        log.claim(
            f"diffusion/rl/{slug}",
            claim=says,
            source=source,
            floor=0.8,
            headline=name == UNBIASED,
            **after,
            **WHERE,
        )
    variety(log)
    rivals(log)


def biases(log: Log) -> None:
    """What is left of the toy's distances when nothing is left to chance: over toys, and in each of them."""
    for name, limit, at_most in ((UNBIASED, 0.03, True), (GLANCE, 0.05, False), (BOUND, 0.05, False)):
        off = across([one["bias"] for one in log.more["toy"][name]])
        says = f"the mean gradient {name} is {'the exact one' if at_most else 'another one than the exact'}"
        log.claim(
            f"diffusion/bias/{name.replace(' ', '_')}",
            claim=f"{says}: its distance, relative to the gradient (toy with every order summed)",
            source="Black et al. 2305.13301" if at_most else "d1, 2504.12216; own derivation",
            floor=limit,
            at_most=at_most,
            seeds=range(len(log.more["toy"][name])),
            **off,
            **WHERE,
        )
    for name in (GLANCE, BOUND):
        found = [one["bias"] for one in log.more["toy"][name]]
        log.claim(
            f"diffusion/bias/{name.replace(' ', '_')}/each",
            claim=f"in each of {len(found)} toys the mean gradient {name} is another one than the exact: the smallest "
            f"of the distances {LATER}",
            source="own derivation",
            value=min(found),
            floor=0.05,
            seeds=range(len(found)),
            **WHERE,
        )


def variety(log: Log) -> None:
    """Distinct right texts under the unbiased gradient, after RL less before: their number, and as a share of the
    right ones."""
    whole = lambda found: found["distinct"]
    share = lambda found: found["distinct"] / max(texts.ALIKE * found["right"], 1e-9)
    for key, what, value, floor in (
        ("distinct", "distinct right texts of 16", whole, 0.0),
        ("distinct_share", "distinct texts among the right ones of 16, as a share", share, -0.05),
    ):
        log.claim(
            f"diffusion/rl/by_steps/{key}",
            claim=f"RL {UNBIASED} keeps variety: {what}, after less before {LATER}",
            source="article (outlook: diffusion and RL)",
            floor=floor,
            **across(of(log, UNBIASED, lambda row, value=value: value(row["after"]) - value(row["before"]))),
            **WHERE,
        )


def rivals(log: Log) -> None:
    """The unbiased estimator less each of the others: at equal rollouts, at equal forward passes, and in variety."""
    measures = {
        "rollouts": ("success at equal rollouts", lambda row: success(row, row["rollouts"])),
        "passes": ("success at equal forward passes", lambda row: success(row, len(row["rounds"]))),
        "distinct": ("distinct right texts of 16", lambda row: row["after"]["distinct"]),
    }
    for name in (GLANCE, BOUND):
        for key, (what, value) in measures.items():
            pairs = zip(of(log, UNBIASED, value), of(log, name, value))
            log.claim(
                f"diffusion/rl/steps_less_{name.split()[-1]}/{key}",
                claim=f"the unbiased gradient is ahead of the one {name}: {what}, difference",
                source="own comparison",
                floor=0.0,
                **across([one - other for one, other in pairs]),
                **WHERE,
            )


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
