"""Can an agent of this size learn what it scores nothing on? Six families that no run trains, taught to shipped agents.

    python -m kimi_mini.experiments.evaluation.taught

Arms
    final     the agent after RL, which calculates and knows code, is taught `project`, `write`, `define` and `solve`
    reader    the agent that copies words it has never seen is taught `hops` and `line`, whose names are all invented
    replay    `final` again, as many tokens of what it knows and nothing else: what teaching costs is the difference

Each is fine-tuned on what teachers do (`teachers`) at tasks that are not held out, on exercise sheets (`sheets`) and on
a replay of what it knows, and measured on held-out tasks, before and after, other ones for every seed. Which agent
learns what and how fast was chosen on seeds 10 and 11, which are not reported. Each seed is kept in data/run/taught/.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from time import perf_counter

from matplotlib.figure import Figure

from kimi_mini import worlds
from kimi_mini.agent import loop
from kimi_mini.agent.conversation import opening
from kimi_mini.agent.folder import load_agent, save_agent
from kimi_mini.agent.policy import Script
from kimi_mini.base.command import in_one_line
from kimi_mini.base.evidence import Log
from kimi_mini.base.files import read_json, write_json
from kimi_mini.base.paths import CHECKPOINTS, RUNS
from kimi_mini.course.figures import scores
from kimi_mini.evaluation import scoreboard
from kimi_mini.experiments import harness
from kimi_mini.experiments.evaluation import teachers
from kimi_mini.experiments.evaluation.sheets import SHEETS
from kimi_mini.experiments.verifiers.shared import pools
from kimi_mini.model.kimi import KimiMini
from kimi_mini.pipeline import finetune
from kimi_mini.pipeline.plan import Finetune, Plan, Schedule
from kimi_mini.text.habits import Habits
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training import sft, synthesis
from kimi_mini.training.batch import Example
from kimi_mini.training.synthesis import Source
from kimi_mini.worlds import WORLDS
from kimi_mini.worlds.registry import FAMILIES, held_out_tasks
from kimi_mini.worlds.rows import LIMITS

NOTEBOOK = "09_evaluation.ipynb"
RATE, PASSES, SHEET = 0.75, 1.5, 450  # SHEET: tokens of an exercise sheet, about
LENGTHS = {  # of a dialogue; of `line` of each of its answers
    "project": 460,
    "write": 245,
    "define": 140,
    "solve": 60,
    "hops": 690,
    "line": 420,
}
EXAMS = {  # family -> levels, tasks, what it is, floor
    "project": ((2, 3), 100, "mini-SWE, projects of two and three files", None),
    "write": ((1, 2, 3, 4), 200, "mini-Code, functions of one to four lines", 0.50),
    "define": ((6, 7, 8), 200, "mini-Math, six to eight definitions", 0.80),
    "solve": ((1, 2, 3), 200, "mini-Math, linear equations", 0.80),
    "hops": ((2, 3, 4), 200, "mini-Search, two to four documents", 0.60),
    "line": ((1, 2, 3), 200, "mini-Telecom, whole calls", 0.60),
}
KNOWN = {"repair": (2, 3, 4), "chain": (6, 7, 8), "follow": (4, 5), "ask": (1, 2)}  # what it could do before
KNOWN_TASKS, FORGOTTEN = 60, -0.05


@dataclass(frozen=True)
class Arm:
    """An agent and what it is taught.

    shares: of the tokens, by family; sheets: the same of exercise sheets; replay: the share of what it knows already,
    of which `plain` in the worlds whose surface is always the same; known: what it could do before; most_seeds: of
    those that are asked for; rate: of the learning rates of the plan.
    """

    agent: str
    tokens: int
    shares: dict[str, float]
    sheets: dict[str, float]
    replay: float
    known: tuple[str, ...]
    exams: tuple[str, ...] = ()
    plain: float = 1.0
    most_seeds: int = 3
    rate: float = RATE


ARMS = {
    "final": Arm(
        "final",
        4_000_000,
        {"project": 0.12, "write": 0.18, "define": 0.28, "solve": 0.08},
        {"define": 0.08},
        0.26,
        ("repair", "chain", "follow"),
        ("project", "write", "define", "solve"),
    ),
    "reader": Arm(
        "reader",
        4_000_000,
        {"hops": 0.26, "line": 0.30},
        {"hops": 0.08, "line": 0.10},
        0.26,
        ("repair", "follow", "ask"),
        ("hops", "line"),
        plain=0.5,
    ),
    "replay": Arm("final", 4_000_000, {}, {}, 1.0, ("repair", "chain", "follow"), most_seeds=1),
}

SHIPPED = {
    "final": "final_taught",
    "reader": "reader_taught",
}  # arm -> its agent of seed 0, in data/checkpoints


# ---- what is taught ------------------------------------------------------------------------------------------


def sources(arm: Arm) -> list[Source]:
    """What an arm is taught, each with its share of the tokens."""
    shown = [
        Source(name, "think", share, tuple(FAMILIES[name].levels), LENGTHS[name])
        for name, share in arm.shares.items()
    ]
    return shown + [Source(name, "sheet", share, (1,), SHEET) for name, share in arm.sheets.items()]


def lessons(tokenizer: Tokenizer, source: Source, count: int, seed: int) -> sft.Pools:
    """`count` sheets, or what the teacher does at `count` tasks that are not held out, levels in turn; only what passes
    is kept. Of a dialogue with several answers each is an example."""
    found: sft.Pools = {}
    for index in range(count):
        rng = random.Random(f"{seed}/taught/{source.mode}/{source.family}/{index}")
        level = source.levels[index % len(source.levels)]
        found.setdefault((source, level), []).extend(lesson(tokenizer, source, level, rng))
    return found


def lesson(tokenizer: Tokenizer, source: Source, level: int, rng: random.Random) -> list[Example]:
    """The examples of one sheet or of one task."""
    if source.mode == "sheet":
        return [synthesis.sheet_of(tokenizer, SHEETS[source.family](rng))]
    played = opening(worlds.generate(rng, source.family, level))
    loop.converse(Script(lambda conversation: teachers.teach(conversation.task, rng)), [played])
    examples = synthesis.chains(tokenizer, played) if played.verdict().passed else []
    played.environment.close()
    return examples


def curriculum(tokenizer: Tokenizer, arm: Arm, tokens: int, seed: int) -> sft.Pools:
    """All that is taught, and the replay."""
    found: sft.Pools = {}
    for source in sources(arm):
        found |= lessons(tokenizer, source, synthesis.wanted(source, tokens, PASSES, mistakes=0.0), seed)
    return found | pools(tokenizer, replayed(arm), tokens // 2, seed, mistakes=0.0)


def replayed(arm: Arm) -> list[Source]:
    """What an arm knows already, each with its share of the tokens."""
    return [replace(one, share=one.share * arm.replay) for one in synthesis.mixture(arm.plain)]


def taught(arm: Arm, tokens: int, seed: int) -> tuple[KimiMini, Tokenizer, dict]:
    """An agent that was fine-tuned on the curriculum, and how it went."""
    model, tokenizer = load_agent(CHECKPOINTS / arm.agent)
    schedule = Schedule(peak=arm.rate, decay_start=0.35)
    plan = Plan(seed=seed, finetune=Finetune(tokens=tokens, schedule=schedule))
    history = finetune.tune(model, curriculum(tokenizer, arm, tokens, seed), plan, title=f"seed {seed}")
    spent = {"tokens": sum(history.tokens), "seconds": round(history.seconds, 1)}
    return model, tokenizer, spent | {"loss": history.loss[-1]}


# ---- what is measured ----------------------------------------------------------------------------------------


def solved(model: KimiMini, tokenizer: Tokenizer, name: str, levels: Sequence[int], count: int, seed: int):
    """Greedy success at `count` held-out tasks of a family, level by level: {level: share}."""
    rows = [row.limits for row in WORLDS[FAMILIES[name].world].rows if row.family == name]
    limits = rows[0] if WORLDS[FAMILIES[name].world].varied else LIMITS
    found: dict[str, list[bool]] = {}
    for played in scoreboard.solve(model, tokenizer, held_out_tasks(name, levels, count, seed), limits):
        found.setdefault(str(played.task.level), []).append(played.verdict().passed)
        played.environment.close()
    return {level: fmean(passed) for level, passed in sorted(found.items())}


def measured(model: KimiMini, tokenizer: Tokenizer, arm: Arm, scale: float, seed: int, exams: float = 1.0):
    """Success at the exams of an arm, of whose tasks a share `exams` is taken, and at what it could do before:
    {family: {level: share}}."""
    found = {}
    for name in arm.exams:
        levels, count, *_ = EXAMS[name]
        found[name] = solved(
            model, tokenizer, name, levels, max(len(levels), int(count * scale * exams)), seed
        )
    for name in arm.known:
        count = max(len(KNOWN[name]), int(KNOWN_TASKS * scale))
        found[name] = solved(model, tokenizer, name, KNOWN[name], count, seed)
    return found


def place(name: str, seed: int, scale: float) -> Path:
    """The folder of a seed of an arm."""
    return RUNS / "taught" / f"{name}-{int(ARMS[name].tokens * scale)}-{seed}"


def one(name: str, seed: int, scale: float) -> tuple[list[dict], float]:
    """A seed of an arm, before and after: measured now, or read from its folder; and what an earlier start took."""
    arm, folder, began = ARMS[name], place(name, seed, scale), perf_counter()
    tokens = int(arm.tokens * scale)
    asked = {"arm": repr(arm), "scale": scale, "weights": harness.fingerprint(CHECKPOINTS / arm.agent)}
    file = folder / "measured.json"
    if file.is_file() and (kept := read_json(file))["asked"] == asked:
        return kept["rows"], kept["took"]
    before = measured(*load_agent(CHECKPOINTS / arm.agent), arm, scale, seed, 0.25)
    model, tokenizer, done = taught(arm, tokens, seed)
    save_agent(model, folder / "agent", Habits.load(CHECKPOINTS / arm.agent))
    rows = [
        {"arm": name, "seed": seed, "taught": False, "success": before},
        {
            "arm": name,
            "seed": seed,
            "taught": True,
            **done,
            "success": measured(model, tokenizer, arm, scale, seed),
        },
    ]
    write_json(file, {"asked": asked, "rows": rows, "took": round(perf_counter() - began, 1)})
    return rows, 0.0


def main() -> None:
    """Every seed of every arm; write data/results/taught.json and its figure."""
    parser = harness.common_parser(__doc__.splitlines()[0])
    parser.add_argument("--arms", choices=ARMS, nargs="+", default=list(ARMS))
    args = harness.read(parser)
    weights = {arm.agent: harness.fingerprint(CHECKPOINTS / arm.agent) for arm in ARMS.values()}
    log = Log("taught", seeds=args.seeds, folder=args.folder, weights=weights)
    log.more["arms"] = {name: asdict(arm) for name, arm in ARMS.items()}
    for name in args.arms:
        for seed in args.seeds[: ARMS[name].most_seeds]:
            rows, earlier = one(name, seed, args.scale)
            log.earlier += earlier
            for row in rows:
                log.row(**row)
                print(row, flush=True)
            log.rows[-1]["weights"] = harness.fingerprint(place(name, seed, args.scale) / "agent")
    report(log)
    harness.finish(log, taught=draw)


def by_family(log: Log, arm: str, after: bool) -> dict[str, list[float]]:
    """Family -> success, one number a seed; levels count alike."""
    rows = [row["success"] for row in log.rows if row["arm"] == arm and row["taught"] is after]
    return {name: [fmean(row[name].values()) for row in rows] for name in rows[0]}


def report(log: Log) -> None:
    """Scoreboard rows, and a claim for each floor and for what each arm forgot."""
    board, where = {}, {"figure": "figures/taught.png", "notebook": NOTEBOOK, "source": "this project"}
    for name in dict.fromkeys(row["arm"] for row in log.rows):
        arm = ARMS[name]
        before, after = by_family(log, name, False), by_family(log, name, True)
        for family in arm.exams:
            _, count, says, floor = EXAMS[family]
            says = f"{says}: the agent {arm.agent}, taught"
            board[f"taught/{family}"] = harness.row(after[family], log.seeds, count, says, main=True)
            if floor is not None:
                told = harness.share_across(after[family])
                log.claim(f"taught/{family}", claim=says, floor=floor, **told, **where)
        lost = {known: [b - a for a, b in zip(before[known], after[known])] for known in arm.known}
        seeds = log.seeds[: arm.most_seeds]
        for known, gaps in lost.items():
            says = f"{known}, {name} after less before"
            told = harness.across(gaps).values()
            board[f"kept/{name}/{known}"] = harness.entry(*told, KNOWN_TASKS, seeds, says) | {"gap": True}
        if arm.exams:
            every = [fmean(seed) for seed in zip(*lost.values())]
            claim = f"the agent {arm.agent}, taught, keeps what it could do ({', '.join(arm.known)}), after less before"
            log.claim(f"taught/kept/{name}", claim=claim, floor=FORGOTTEN, **harness.across(every), **where)
    log.more["scoreboard"] = board


def draw(log: dict) -> Figure:
    """Success on every exam, with the spread over seeds."""
    title, gains = "Worlds that no run trains, after they were taught", "What it could do before, afterwards"
    return scores.scoreboard(log["scoreboard"], title, gains=gains)


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
