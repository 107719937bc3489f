"""Can an agent of this size learn what it scores nothing on? Five worlds that no run trains, taught to a shipped agent.

    python -m kimi_mini.experiments.evaluation.taught

A shipped agent is fine-tuned on what its teachers do (`teachers`) at tasks of `project`, `write`, `search`, `algebra`
and `telecom` that are not held out, with a replay of what it knows, and measured on held-out tasks before and after.
Which agent, how fast and how long was chosen on other seeds than those that are reported. Each seed saves its agent
and its numbers in data/run/taught/, so that an experiment that was stopped goes on.
"""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

from matplotlib.figure import Figure

from kimi_mini import worlds
from kimi_mini.agent import loop
from kimi_mini.agent.conversation import opening
from kimi_mini.agent.folder import load_agent, save_agent
from kimi_mini.agent.policy import Script
from kimi_mini.base.command import above_zero, in_one_line
from kimi_mini.base.evidence import Log
from kimi_mini.base.files import read_json, write_json
from kimi_mini.base.paths import CHECKPOINTS, RUNS
from kimi_mini.course.figures import scores
from kimi_mini.experiments import harness
from kimi_mini.experiments.evaluation.teachers import teach
from kimi_mini.experiments.verifiers.shared import pools, success
from kimi_mini.model.kimi import KimiMini
from kimi_mini.pipeline import finetune
from kimi_mini.pipeline.plan import Finetune, Plan, Schedule
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training import sft, synthesis
from kimi_mini.training.synthesis import Source
from kimi_mini.worlds.registry import FAMILIES

SHARES = {"project": 0.2, "write": 0.15, "hops": 0.25, "define": 0.15, "solve": 0.05, "line": 0.1}
LENGTHS = {
    "project": 460,
    "write": 200,
    "hops": 640,
    "define": 220,
    "solve": 70,
    "line": 420,
}  # tokens, about
REPLAY = 0.1  # of the tokens: what the agent knows already
TOKENS, RATE, PASSES = 1_200_000, 0.75, 1.5
EXAMS = {  # family -> levels, tasks, what it is, floor
    "project": ((2, 3), 100, "mini-SWE, projects of two and three files", None),
    "write": ((1, 2, 3, 4), 200, "mini-Code, functions of one to four lines", 0.50),
    "define": ((6, 7, 8), 200, "mini-Math, six to eight definitions", 0.80),
    "solve": ((1, 2, 3), 200, "mini-Math, linear equations", None),
    "hops": ((2, 3, 4), 100, "mini-Search, two to four documents", 0.60),
    "line": ((1, 2, 3), 100, "mini-Telecom, whole calls", 0.60),
}
KEPT = {"repair": (2, 3, 4), "chain": (6, 7, 8), "follow": (4, 5)}  # what it could do before
KEPT_TASKS = 60
NOTEBOOK = "09_evaluation.ipynb"


def sources() -> list[Source]:
    """What is taught, each with its share of the tokens."""
    return [
        Source(name, "think", share, tuple(FAMILIES[name].levels), LENGTHS[name])
        for name, share in SHARES.items()
    ]


def lessons(tokenizer: Tokenizer, source: Source, count: int, seed: int) -> sft.Pools:
    """What the teacher does at `count` tasks that are not held out, levels in turn; only what passes is kept. Of a
    dialogue with several answers each is an example."""
    found: sft.Pools = {}
    for index in range(count):
        rng, level = (
            random.Random(f"{seed}/taught/{source.family}/{index}"),
            source.levels[index % len(source.levels)],
        )
        played = opening(worlds.generate(rng, source.family, level))
        loop.converse(Script(lambda conversation, rng=rng: teach(conversation.task, rng)), [played])
        if played.verdict().passed:
            found.setdefault((source, level), []).extend(synthesis.chains(tokenizer, played))
        played.environment.close()
    return found


def curriculum(tokenizer: Tokenizer, tokens: int, seed: int) -> sft.Pools:
    """All that is taught, and the replay."""
    found: sft.Pools = {}
    for source in sources():
        found |= lessons(tokenizer, source, synthesis.wanted(source, tokens, PASSES, mistakes=0.0), seed)
    old = [replace(one, share=one.share * REPLAY) for one in synthesis.SOURCES]
    return found | pools(tokenizer, old, tokens // 2, seed, mistakes=0.0)


def taught(start: Path, tokens: int, rate: float, seed: int) -> tuple[KimiMini, Tokenizer, dict]:
    """An agent that was fine-tuned on the curriculum from that checkpoint, and how it went."""
    model, tokenizer = load_agent(start)
    schedule = Schedule(peak=rate, decay_start=0.35)
    plan = Plan(seed=seed, finetune=Finetune(tokens=tokens, schedule=schedule))
    history = finetune.tune(model, curriculum(tokenizer, tokens, seed), plan, title=f"taught, seed {seed}")
    done = {"tokens": sum(history.tokens), "seconds": round(history.seconds, 1), "loss": history.loss[-1]}
    return model, tokenizer, done


def measured(model: KimiMini, tokenizer: Tokenizer, scale: float, seed: int) -> dict[str, float]:
    """Greedy success on the exams, and on what it could do before; the tasks are other ones for every seed."""
    found = {}
    for name, (levels, count, *_) in EXAMS.items():
        found[name] = harness.mean(
            success(model, tokenizer, name, levels, max(4, int(count * scale)), seed=seed)
        )
    for name, levels in KEPT.items():
        count = max(4, int(KEPT_TASKS * scale))
        found[name] = harness.mean(success(model, tokenizer, name, levels, count, seed=seed))
    return found


def one(start: Path, tokens: int, rate: float, seed: int, scale: float) -> dict:
    """A seed: trained and measured now, or read from its folder."""
    folder = RUNS / "taught" / f"{start.name}-{tokens}-{rate:g}-{seed}"
    file = folder / "measured.json"
    if file.is_file() and (kept := read_json(file)).get("scale") == scale:
        return kept
    model, tokenizer, done = taught(start, tokens, rate, seed)
    save_agent(model, folder / "agent")
    kept = {"scale": scale, **done, "success": measured(model, tokenizer, scale, seed)}
    write_json(file, kept)
    return kept


def untaught(start: Path, scale: float) -> dict[str, float]:
    """What the agent can do before it is taught: measured now, or read from its folder."""
    file = RUNS / "taught" / f"{start.name}-before-{scale:g}.json"
    if not file.is_file():
        write_json(file, measured(*load_agent(start), scale, 0))
    return read_json(file)


def main() -> None:
    """Every seed; write data/results/taught.json and its figure."""
    parser = harness.common_parser(__doc__.splitlines()[0], base=CHECKPOINTS / "final")
    parser.add_argument("--rate", type=above_zero, default=RATE, help="of the plan's own learning rates")
    parser.add_argument("--tokens", type=int, default=TOKENS, help="of a training, before --scale")
    args = harness.read(parser)
    log = Log("taught", seeds=args.seeds, folder=args.folder, weights=harness.fingerprint(args.base))
    before = untaught(args.base, args.scale / 4)
    log.row(arm="before", seed=0, success=before)
    print("before", before, flush=True)
    for seed in args.seeds:
        found = one(args.base, int(args.tokens * args.scale), args.rate, seed, args.scale)
        log.row(arm="taught", seed=seed, **found)
        print(f"seed {seed}", found, flush=True)
    report(log)
    harness.finish(log, taught=draw)


def by_family(log: Log, arm: str) -> dict[str, list[float]]:
    """Family -> success, one number a seed."""
    rows = [row["success"] for row in log.rows if row["arm"] == arm]
    return {name: [row[name] for row in rows] for name in rows[0]}


def report(log: Log) -> None:
    """Scoreboard rows before and after, and a claim for each floor."""
    after, board = by_family(log, "taught"), {}
    for name, (_, count, says, floor) in EXAMS.items():
        board[f"taught/{name}"] = harness.row(after[name], log.seeds, count, says, main=True)
        if floor is not None:
            claim = f"an agent of this size, taught, does {says}"
            where = {"figure": "figures/taught.png", "notebook": NOTEBOOK, "source": "this project"}
            log.claim(
                f"taught/{name}", claim=claim, floor=floor, **harness.share_across(after[name]), **where
            )
    for name in KEPT:
        board[f"taught/kept/{name}"] = harness.row(after[name], log.seeds, KEPT_TASKS, f"{name}, after")
    log.more["scoreboard"] = board


def draw(log: dict) -> Figure:
    """Success on every exam, with the spread over seeds."""
    return scores.scoreboard(log["scoreboard"], title="Worlds that no run trains, after they were taught")


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
