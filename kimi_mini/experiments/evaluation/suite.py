"""The mini benchmarks: what each shipped agent makes of them, at once, after a thought, and several times over.

Arms
    base, tuned, final, reader    every benchmark, greedily, after a thought
    final_taught, reader_taught   the same of the agents that were taught later what no run trains (`taught`)
    reflex                        the final agent answers at once, where training shows that it can be done
    best of 4                     of four sampled repairs the first whose public tests pass (mini-SWE, mini-Code)
    majority of 4                 of four sampled answers the most frequent (mini-Math)

A benchmark is claimed for the agent that it is meant for. What nobody was trained for reads 0.0 and stays; beside it
stands the agent that was taught it, with the same floor.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from matplotlib.figure import Figure

from kimi_mini.agent.conversation import CUT_OFF, Conversation
from kimi_mini.agent.folder import load_agent
from kimi_mini.base.command import in_one_line
from kimi_mini.base.evidence import Log
from kimi_mini.base.files import read_json
from kimi_mini.base.intervals import bootstrap
from kimi_mini.base.paths import CHECKPOINTS, RUNS
from kimi_mini.course.figures import evaluation
from kimi_mini.evaluation import scoreboard
from kimi_mini.evaluation.benchmarks import BENCHMARKS, measured, real
from kimi_mini.evaluation.benchmarks.store import FOLDER
from kimi_mini.evaluation.benchmarks.suite import Way
from kimi_mini.evaluation.benchmarks.table import SEED, Benchmark
from kimi_mini.experiments import harness
from kimi_mini.worlds.base import final_answer

NOTEBOOK, FIGURE = "09_evaluation.ipynb", "figures/suite.png"
ATTEMPTS = 4
MATH, MINUTES = 0.80, 12  # success on all of mini-Math; the whole suite for one agent
KEPT = ("value", "low", "high", "n", "tokens", "seconds")


def by_tests(group: Sequence[Conversation]) -> Conversation:
    """The first attempt whose public tests pass, else the first."""
    return scoreboard.best_of([group])[0]


def by_vote(group: Sequence[Conversation]) -> Conversation:
    """The first attempt with the most frequent answer; one that gave none, or was cut off in it, has no vote."""
    answers = [None if one.finish in CUT_OFF else final_answer(one.messages) for one in group]
    votes = Counter(answer for answer in answers if answer)
    return group[answers.index(votes.most_common(1)[0][0])] if votes else group[0]


class Arm(NamedTuple):
    """An agent, a way to work, and the benchmarks that are worked on."""

    name: str
    agent: str
    way: Way
    benchmarks: Sequence[str]


EVERY = tuple(BENCHMARKS)
AGENTS = ("base", "tuned", "final", "reader", "final_taught", "reader_taught")
ARMS = (
    *(Arm(agent, agent, Way(), EVERY) for agent in AGENTS),
    Arm("reflex", "final", Way(False), tuple(name for name, one in BENCHMARKS.items() if one.reflex)),
    Arm("best of 4", "final", Way(True, ATTEMPTS, by_tests), ("mini_swe", "mini_code")),
    Arm("majority of 4", "final", Way(True, ATTEMPTS, by_vote), ("mini_math",)),
)


def main() -> None:
    """Measure all arms; write data/results/suite.json and the figures suite.png and real_scores.png."""
    args = harness.arguments(__doc__.splitlines()[0], seeds=(SEED,))
    log = Log("suite", seeds=args.seeds, folder=args.folder)
    log.more["weights"] = {name: harness.fingerprint(CHECKPOINTS / name) for name in AGENTS}
    most = None if args.scale >= 1 else max(4, int(200 * args.scale))
    boards = {arm.name: measure(log, arm, most) for arm in ARMS}
    for arm in ARMS:
        for part, entry in boards[arm.name].items():
            log.row(arm=arm.name, agent=arm.agent, part=part, **{key: entry[key] for key in KEPT})
    report(log, boards)
    harness.finish(log, suite=draw, real_scores=draw_real)


def measure(log: Log, arm: Arm, most: int | None) -> dict[str, dict]:
    """The board of an arm, with the outcome of every task; kept benchmark by benchmark, so that a stopped experiment
    goes on. What is kept is of the same weights and the same tasks."""
    weights = harness.fingerprint(CHECKPOINTS / arm.agent)
    agent, board = None, {}
    for name in arm.benchmarks:
        sums = read_json(FOLDER / "checksums.json")[name][:12]
        file = RUNS / "suite" / f"{arm.name}-{name}-{most}-{weights}-{sums}.json".replace(" ", "_")
        if not file.is_file():
            agent = agent or load_agent(CHECKPOINTS / arm.agent)
        work = partial(
            measured, *(agent or ()), BENCHMARKS[name], most, arm.way
        )  # called where there is no file
        found = log.part(file, work)
        board |= found
        print(
            f"{arm.name}, {name}:",
            {part: round(entry["value"], 3) for part, entry in found.items()},
            flush=True,
        )
    return board


# ---- the report ----------------------------------------------------------------------------------------------


def report(log: Log, boards: dict[str, dict[str, dict]]) -> None:
    """Rows of the scoreboard, and the claims."""
    log.more["scoreboard"] = {
        f"suite/{row}": row_of(boards, benchmark, row)
        for benchmark in BENCHMARKS.values()
        for row in boards[benchmark.agent]
        if row.split("/")[0] == benchmark.name
    }
    for benchmark in BENCHMARKS.values():
        for part in benchmark.parts:
            if part.floor is not None:
                claim_part(log, boards, benchmark, part.name, benchmark.agent, part.floor)
                if part.taught:
                    claim_part(log, boards, benchmark, part.name, part.taught, part.floor)
    math = BENCHMARKS["mini_math"]
    for agent in (math.agent, math.parts[-1].taught):
        claim_part(log, boards, math, "", agent, MATH)
    claim_minutes(log)
    for name, arm in (("mini_swe/one file", "best of 4"), ("mini_math", "majority of 4")):
        log.claim(
            f"suite/{name}/{arm}",
            claim=f"{name}: {arm} over one greedy attempt, on the same tasks",
            source="K2 report, table 3 (multiple attempts)",
            floor=0.0,
            notebook=NOTEBOOK,
            figure=FIGURE,
            **gain(boards[arm], boards["final"], name),
        )


def claim_part(
    log: Log, boards: dict[str, dict[str, dict]], benchmark: Benchmark, part: str, agent: str, floor: float
) -> None:
    """What an agent makes of a part of a benchmark, or of all of it: part ""."""
    row = f"{benchmark.name}/{part}".rstrip("/")
    entry = boards[agent][row]
    log.claim(
        f"suite/{row}" if agent == benchmark.agent else f"suite/taught/{row}",
        claim=f"{benchmark.title}, {part or 'all of it'}: the {agent} agent, at the first attempt",
        source=f"article (how K2 performs: {benchmark.like})",
        floor=floor,
        notebook=NOTEBOOK,
        figure=FIGURE,
        **{key: entry[key] for key in ("value", "low", "high")},
    )


def claim_minutes(log: Log) -> None:
    """What the whole suite takes."""
    for agent in AGENTS[2:]:
        spent = sum(row["seconds"] for row in log.rows if row["arm"] == agent and "/" in row["part"])
        log.claim(
            f"suite/{agent}/minutes",
            claim=f"minutes of one core for the whole suite: the {agent} agent",
            source="this project",
            value=spent / 60,
            floor=MINUTES,
            at_most=True,
            notebook=NOTEBOOK,
        )


def row_of(boards: dict[str, dict[str, dict]], benchmark: Benchmark, row: str) -> dict:
    """A row of the scoreboard."""
    entry = boards[benchmark.agent][row]
    says = f"{benchmark.title}, {row.partition('/')[2] or 'all of it'}: the {benchmark.agent} agent"
    numbers = (entry["value"], entry["low"], entry["high"], entry["n"])
    return harness.entry(*numbers, [SEED], says, main="/" not in row or len(benchmark.parts) == 1)


def gain(more: dict[str, dict], one: dict[str, dict], name: str) -> dict:
    """Difference of two arms on the same tasks of a benchmark or a part, with a bootstrap interval over tasks."""

    def passed(board: dict[str, dict]) -> list[bool]:
        parts = [part for part in board if part == name or part.startswith(f"{name}/")]
        return [bool(task[1]) for part in parts for task in board[part].get("tasks", [])]

    pairs = zip(passed(more), passed(one), strict=True)
    return dict(zip(("value", "low", "high"), bootstrap([a - b for a, b in pairs])))


def draw(log: dict) -> Figure:
    """Success of every arm on every part."""
    found: dict[str, dict[str, dict]] = {}
    for row in log["rows"]:
        name, _, part = row["part"].partition("/")
        if part:
            found.setdefault(f"{BENCHMARKS[name].title}: {part}", {})[row["arm"]] = row
    floors = {f"{b.title}: {part.name}": part.floor for b in BENCHMARKS.values() for part in b.parts}
    return evaluation.board(found, floors, "The mini benchmarks: held-out tasks solved")


def draw_real(log: dict) -> Figure:
    """The reports' numbers beside ours."""
    said, minis = {}, {}
    for name, benchmark in BENCHMARKS.items():
        scores = [score for score in real.imitated(name) if score.model in evaluation.FAMILIES]
        if scores:
            said[benchmark.like] = {score.model: score.value for score in scores}
            rows = {(row["arm"], row["part"]): row for row in log["rows"]}
            minis[benchmark.like] = {
                f"{part.name}, taught" if part.taught else part.name: rows[
                    part.taught or benchmark.agent, f"{name}/{part.name}"
                ]
                for part in benchmark.parts
            }
    titles = {benchmark.like: benchmark.title for benchmark in BENCHMARKS.values()}
    return evaluation.real(said, minis, titles)


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
