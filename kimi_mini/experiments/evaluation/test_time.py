"""Test-time compute at equal tokens: votes, verifiers, heavy mode, revisions and thoughts, on repairs and on chains.

Two suites on which one sampled attempt is right now and then. Repairs at temperature 1, as trained. Chains of six to
eight steps at temperature 1.5: at 1 the agent makes too few mistakes to choose among, and beyond the trained lengths
nothing else; so the mistakes on chains are the temperature's. (One greedy attempt at a chain is nearly always right,
and is drawn beside the others.) For verifiers two harder sets of repairs: longer functions than trained, and
temperature 1.5.

What an arm costs is what the model wrote for it. Heavy mode's last turn is written by a copy that has learned to
aggregate (and to revise) from the agent's own attempts at training tasks: greedily, as a vote takes the most frequent
answer too, and once more at the temperature of the attempts. The vote that it is compared with has more attempts for
the same tokens, of the agent or of the copy itself. A revision is compared with new attempts of the same copy; both
stop when the public tests pass.

How long and how fast the copy is taught was changed after a first run on seeds 0 to 2 had been seen. The seeds here
were not looked at before that was fixed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from time import perf_counter

from tqdm import tqdm

from kimi_mini.agent.folder import load_agent, save_agent, shipped_agent
from kimi_mini.base.command import in_one_line
from kimi_mini.base.evidence import Log, check_plan
from kimi_mini.base.files import read_json, write_json
from kimi_mini.base.intervals import bootstrap
from kimi_mini.base.paths import RUNS
from kimi_mini.experiments import harness
from kimi_mini.experiments.evaluation import arms
from kimi_mini.experiments.evaluation.aggregation import TOKENS, Suite, taught
from kimi_mini.experiments.evaluation.test_time_figure import draw
from kimi_mini.inference.attempts import best_of, lucky, majority, surest
from kimi_mini.inference.attempts.budget import chosen_by
from kimi_mini.model.kimi import KimiMini
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.worlds.registry import held_out_tasks

SEEDS = (3, 4, 5)
SUITES = {"repair": Suite("repair", (2, 3, 4), 1.0), "chains": Suite("chain", (6, 7, 8), 1.5)}
HARDER = {"repair, longer": Suite("repair", (5, 6), 1.0), "repair, hot": Suite("repair", (2, 3, 4), 1.5)}
SIZES, HEAVY, ROUNDS, BUDGETS = (1, 2, 4, 8, 16), (1, 3, 7, 15), (1, 2, 4), (16, 32, 48, 64)
TASKS, OWN = 80, 10  # held-out tasks a seed; attempts of the copy at each
AT = 7  # attempts before the aggregation, in the claims
OF_THE_COPY = ("heavy", "heavy, sampled", "revision")  # arms in which a copy writes that each seed teaches
GAIN = 8  # attempts for the verifier, in the claims
NOTEBOOK = "09_evaluation.ipynb"


def main() -> None:
    """Teach a copy in every seed, try all arms; write data/results/test_time.json and its figure."""
    args = harness.arguments(__doc__.splitlines()[0], seeds=SEEDS, checkpoint=shipped_agent())
    model, tokenizer, log = harness.begin("test_time", args)
    folder = RUNS / ("test_time" if args.scale == 1 else f"test_time_{args.scale:g}")
    check_plan(
        folder, {"scale": args.scale, "weights": log.more["weights"], "tasks": TASKS, "tokens": TOKENS}
    )
    log.more |= {"pairs": [], "examples": {}, "seconds": 0.0}
    for seed in args.seeds:
        kept = folder / f"seed-{seed}.json"
        if not kept.is_file():
            began = perf_counter()
            learner = pupil(model, tokenizer, folder / f"copy-{seed}", seed, args.scale)
            part = measured(model, learner, tokenizer, seed, args.scale)
            write_json(kept, part | {"seconds": perf_counter() - began})
        part = read_json(kept)
        log.rows += part["rows"]
        log.more["pairs"] += part["pairs"]
        log.more["examples"] |= part["examples"]
        log.more["seconds"] = round(log.more["seconds"] + part["seconds"], 1)
        for row in part["rows"]:
            if row["attempts"] in (1, GAIN, AT):
                print(
                    f"seed {seed}, {row['suite']}: {row['arm']} {row['attempts']}",
                    row["success"],
                    row["tokens"],
                )
    report(log)
    harness.finish(log, test_time=draw)


def pupil(model: KimiMini, tokenizer: Tokenizer, folder: Path, seed: int, scale: float) -> KimiMini:
    """The copy that aggregates and revises: as an earlier run left it in `folder`, or taught now."""
    if not (folder / "config.json").is_file():
        save_agent(taught(model, tokenizer, list(SUITES.values()), seed, scale), folder)
    return load_agent(folder)[0]


def measured(model: KimiMini, learner: KimiMini, tokenizer: Tokenizer, seed: int, scale: float) -> dict:
    """All arms in one seed: {"rows", "pairs", "examples"}."""
    count = max(32, int(TASKS * scale))
    books, examples = [], {}
    for name, suite in tqdm((SUITES | HARDER).items(), unit="suite", desc=f"seed {seed}", leave=False):
        tasks, most = (
            held_out_tasks(suite.family, suite.levels, count, seed),
            GAIN if name in HARDER else max(SIZES),
        )
        groups = arms.attempts_at(model, tokenizer, tasks, most, suite.temperature, seed)
        books.append(arms.Book(name, seed))
        among(books[-1], groups, [size for size in SIZES if size <= most], tested=suite.family == "repair")
        if name in SUITES:
            own = arms.attempts_at(learner, tokenizer, tasks, OWN, suite.temperature, arms.own_seed(seed))
            trial = arms.Trial(suite, seed, tokenizer, tasks, model, learner, groups, own)
            examples[name] = by_the_model(books[-1], trial)
    rows, pairs = ([entry for book in books for entry in getattr(book, what)] for what in ("rows", "pairs"))
    return {"rows": rows, "pairs": pairs, "examples": examples}


def by_the_model(book: arms.Book, trial: arms.Trial) -> list[dict]:
    """The arms in which the model has to write more than attempts; a few of its aggregations."""
    alone = [[[one] for one in each] for each in zip(*trial.own)]
    book.row(
        "the copy alone",
        1,
        arms.mean_of([chosen_by(lucky, some) for some in alone]),
        arms.read_by(trial.own, 1),
    )
    examples = arms.heavily(book, trial, HEAVY)
    if trial.suite.family == "repair":
        arms.revising(book, trial, ROUNDS)
    arms.budgeted(book, trial, BUDGETS)
    return examples[:3]


def among(book: arms.Book, groups: arms.Groups, sizes: Sequence[int], tested: bool) -> None:
    """The choices among the same attempts, against each other, and against one attempt."""
    arms.choices(book, groups, sizes, tested)
    some = [group[:GAIN] for group in groups]
    vote, sure = chosen_by(majority, some), chosen_by(surest, some)
    book.pair("surest", "majority", GAIN, sure, vote)
    book.gain("majority", GAIN, vote, chosen_by(lucky, some))
    if tested:
        best = chosen_by(best_of, some)
        book.pair("best by public tests", "majority", GAIN, best, vote)
        book.gain("best by public tests", GAIN, best, chosen_by(lucky, some))


# ---- claims ------------------------------------------------------------------------------------------------


def difference(pairs: Sequence[dict], suite: str, arm: str, against: str, attempts: int) -> dict:
    """Mean difference over the tasks of all seeds: {value, low, high}. Where the copy writes, which each seed teaches
    anew, a t interval over seeds; among one agent's attempts only tasks differ: a bootstrap over them."""
    wanted = (suite, arm, against, attempts)
    by_seed = [
        pair["differences"]
        for pair in pairs
        if (pair["suite"], pair["arm"], pair["against"], pair["attempts"]) == wanted
    ]
    found = [value for differences in by_seed for value in differences]
    if not found:  # nothing that could be compared at equal tokens
        return {"value": None, "low": None, "high": None}
    if arm in OF_THE_COPY:
        return harness.across([fmean(differences) for differences in by_seed])
    if len(set(found)) == 1:
        return dict.fromkeys(("value", "low", "high"), found[0])
    return dict(zip(("value", "low", "high"), bootstrap(found)))


def report(log: Log) -> None:
    """The claims."""

    def claim(
        name: str, says: str, floor: float, suite: str, arm: str, against: str, attempts: int, **more
    ) -> None:
        found = difference(log.more["pairs"], suite, arm, against, attempts)
        common = {"figure": "figures/test_time.png", "notebook": NOTEBOOK, "source": "this project"}
        log.claim(f"test_time/{name}", claim=says, floor=floor, **found, **common | more)

    report_source = {"source": "K2 report (multiple attempts, internal scorer)"}
    gain = f"best of {GAIN} by public tests raises {{}} by 15 points over one attempt"
    sets = {
        "repair": "mini-SWE (one file)",
        "repair, longer": "repairs longer than trained",
        "repair, hot": "mini-SWE (one file) at temperature 1.5",
    }
    for suite, what in sets.items():
        key = suite.replace("repair, ", "")
        arm = "best by public tests"
        headline = {"headline": suite == "repair"}
        claim(
            f"gain_{key}",
            gain.format(what),
            0.15,
            suite,
            arm,
            "one attempt",
            GAIN,
            **report_source | headline,
        )
    for suite in SUITES:
        card = {"source": "K2 Thinking model card (heavy mode)"}
        says = f"heavy mode over {AT} attempts beats a majority vote at equal tokens ({suite})"
        claim(f"heavy_{suite}", says, 0.0, suite, "heavy", "majority", AT, **card)
        says = f"heavy mode over {AT} attempts beats a vote over attempts of the very copy that aggregates ({suite})"
        claim(f"heavy_own_{suite}", says, 0.0, suite, "heavy", "its own majority", AT, **card)
        says = f"heavy mode over {AT} attempts, its last turn sampled, beats a vote at equal tokens ({suite})"
        claim(f"heavy_sampled_{suite}", says, 0.0, suite, "heavy, sampled", "majority", AT, **card)
        says = f"the most probable of {GAIN} attempts beats a majority vote, at equal tokens ({suite})"
        claim(f"surest_{suite}", says, 0.0, suite, "surest", "majority", GAIN)
    for rounds in ROUNDS[:2]:
        says = (
            f"up to {rounds} revisions after failed public tests beat new attempts, at equal tokens (repair)"
        )
        claim(f"revision_{rounds}", says, 0.0, "repair", "revision", "new attempts", rounds)


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
