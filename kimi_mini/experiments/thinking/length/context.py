"""Hundreds of calls in a context of one size: what is hidden when it is full, and who was trained for that?

    python -m kimi_mini.experiments.thinking.length.context

Ways      old turns, the calls with their results; old results alone, as K2 Thinking does; all but the last turn;
          nothing. Each within the same budget of tokens.
Agents    the shipped one; one fine-tuned from it on windows that dropping old turns leaves; one on windows that hiding
          results leaves. Both see as many tokens, of dialogues whose calls bear numbers up to 360; every third passes
          a hundred, because 99 is where counting failed. They practise `follow`; what else they could is not measured.
Numbers   how many calls have an id that bears their number, counted over the whole dialogue.

One more row is not within the budget: results hidden in as much context as the model has positions. With the calls kept
a budget holds a certain number of them, here about 24 tokens each, and 300 need more than 7,000.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import fmean

from kimi_mini.agent.conversation import opening
from kimi_mini.agent.folder import load_agent, shipped_agent
from kimi_mini.base.command import in_one_line
from kimi_mini.base.evidence import Log, check_plan
from kimi_mini.base.paths import RUNS
from kimi_mini.evaluation.scoreboard import solve
from kimi_mini.experiments import harness
from kimi_mini.experiments.thinking import shared
from kimi_mini.experiments.thinking.length import tuning
from kimi_mini.experiments.thinking.length.calls import how_it_broke, numbers_of, tally
from kimi_mini.experiments.thinking.length.context_rows import (
    BUDGET,
    DROPPED,
    HIDDEN,
    KEPT,
    SHIPPED,
    TODAY,
    Part,
    difference,
    draw,
    numbered,
    passed,
    passed_tuned,
    rows_at,
)
from kimi_mini.experiments.thinking.length.typed import played
from kimi_mini.model.kimi import KimiMini
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training.batch import Example
from kimi_mini.worlds import WORLDS
from kimi_mini.worlds.registry import generate, held_out_tasks

WAYS = {
    "turns": "old turns dropped",
    "results": "old results hidden, calls kept (K2)",
    "all": "all but the last turn",
    "whole": "nothing hidden",
}
CALLS = {
    10: 12,
    30: 12,
    50: 12,
    100: 12,
    200: 25,
    300: 25,
}  # calls -> tasks a seed: 75 right ones are clear of 0.95
TRAINED_ON = (320, 640, 1024)  # budgets of the windows, in tokens
TOKENS, LONGEST, FIRST = 400_000, 60, 300
SCHEDULE = replace(tuning.SCHEDULE, peak=0.5)


def parts(positions: int) -> list[Part]:
    """What is measured; `positions`: all that the model has."""
    return [
        *(Part("shipped", TODAY, way) for way in WAYS),
        *(Part("shipped", BUDGET, way) for way in WAYS),
        *(Part("dropped", BUDGET, way) for way in WAYS),
        *(Part("hidden", BUDGET, way) for way in ("results", "whole")),
        Part("hidden", positions, "results"),
    ]


def main() -> None:
    """All parts of all seeds; write data/results/context.json and its figure."""
    args = harness.arguments(__doc__.splitlines()[0], checkpoint=shipped_agent())
    folder = RUNS / "context" if args.scale == 1 else harness.REHEARSAL / f"context_{args.scale:g}"
    weights = harness.fingerprint(args.checkpoint)
    log = Log("context", seeds=args.seeds, folder=args.folder, weights=weights)
    plan = {"scale": args.scale, "tokens": TOKENS, "calls": {str(n): k for n, k in CALLS.items()}}
    check_plan(folder, plan | {"weights": weights})
    for seed in args.seeds:
        for agent in ("shipped", "dropped", "hidden"):
            file = folder / f"{agent}_{seed}.json"
            part = log.part(file, lambda agent=agent, seed=seed: {"rows": rows_of(args, agent, seed)})
            for row in part["rows"]:
                log.row(**row)
    report(log)
    harness.finish(log, context=draw)


def rows_of(args, agent: str, seed: int) -> list[dict]:
    """Train an agent if it is one that is trained, and measure it in all of its parts."""
    model, tokenizer = load_agent(args.checkpoint)
    rows = []
    if agent != "shipped":
        way = {"dropped": "turns", "hidden": "results"}[agent]
        examples = tuning.until(int(TOKENS * args.scale), windows(tokenizer, way, seed))
        history = tuning.tune(model, examples, seed, SCHEDULE)
        learned = sum(int(example.mask.sum()) for example in examples)
        rows.append(
            dict(
                part="training",
                agent=agent,
                seed=seed,
                tokens=sum(history.tokens),
                learned=learned,
                loss=round(fmean(history.loss[-5:]), 5),
                seconds=round(history.seconds, 1),
            )
        )
    for part in parts(model.config.max_position_embeddings):
        if part.agent == agent:
            rows += measured(model, tokenizer, part, seed, args.scale)
    return rows


def windows(tokenizer: Tokenizer, way: str, seed: int) -> Iterator[list[Example]]:
    """Dialogues of an expert, cut as this way cuts a context; two of three begin with a high number."""

    def make(rng: random.Random, number: int) -> list[Example]:
        task = generate(rng, "follow", rng.randrange(2, LONGEST + 1))
        limits = Part("", rng.choice(TRAINED_ON), way).limits(LONGEST)
        first = rng.choice((0, rng.randrange(FIRST), rng.choice((100, 200, 300)) - rng.randrange(1, 12)))
        talk = opening(task)
        examples = played(talk, WORLDS[task.world].expert(task, rng), tokenizer, limits, first)
        talk.environment.close()
        return examples

    return tuning.forever(make, f"{seed}/context/{way}")


def measured(model: KimiMini, tokenizer: Tokenizer, part: Part, seed: int, scale: float) -> list[dict]:
    """One row for each number of calls; tasks of all of them are worked on together."""
    beyond = part.budget > BUDGET
    counts = {calls: max(2, int(tasks * scale / (2 if beyond else 1))) for calls, tasks in CALLS.items()}
    if scale < 1:
        counts = {calls: tasks for calls, tasks in counts.items() if calls <= 50}
    tasks = [task for calls, n in counts.items() for task in held_out_tasks("follow", [calls], n, seed)]
    done = solve(model, tokenizer, tasks, part.limits(max(counts)))
    rows = []
    for count in counts:
        own = [talk for talk in done if talk.task.level == count]
        breaks = [how_it_broke(talk, tokenizer) for talk in own]
        rows.append(
            dict(
                part="calls",
                agent=part.agent,
                way=part.way,
                budget=part.budget,
                seed=seed,
                calls=count,
                n=len(own),
                passed=sum(talk.verdict().passed for talk in own),
                finish=dict(Counter(talk.finish for talk in own)),
                how=dict(Counter(how for _, how in breaks)),
                right_calls=[made for made, _ in breaks],
                **_numbers([numbers_of(talk.messages) for talk in own]),
            )
        )
    for talk in done:
        talk.environment.close()
    shown = {row["calls"]: f"{row['passed']}/{row['n']}" for row in rows}
    print(f"seed {seed}, {part.agent}, {part.budget} tokens, {part.way}: {shown}", flush=True)
    return rows


def _numbers(dialogues: Sequence[list[int]]) -> dict:
    """Calls made, and how many bear their number."""
    found = tally(dialogues)
    return {key: found[key] for key in ("made", "numbered")}


def report(log: Log) -> None:
    """The claims; a rehearsal, which stops at 50 calls, has none."""
    if not rows_at(log.rows, SHIPPED, 300):
        return
    common = {"notebook": shared.NOTEBOOK, "figure": "figures/context.png"}
    card = {"source": "K2 Thinking model card (200-300 sequential calls, old tool results hidden)", **common}
    ids = {"source": "K2 report, appendix B (an id counts all calls of the dialogue)", **common}
    for calls in (200, 300):
        log.claim(
            f"context/{calls}_calls",
            claim=f"{calls} calls in a row in {TODAY} tokens, old turns dropped",
            floor=0.90,
            **card,
            **passed(log.rows, SHIPPED, calls),
        )
        log.claim(
            f"context/{calls}_numbers",
            claim=f"of {calls} calls in {BUDGET} tokens, fine-tuned on windows with high numbers: right ids",
            floor=0.95,
            **ids,
            **numbered(log.rows, DROPPED, calls),
        )
    log.claim(
        "context/tuned_200_calls",
        claim=f"the same agent: 200 calls in a row in {BUDGET} tokens, old turns dropped",
        floor=0.90,
        **card,
        **passed_tuned(log.rows, DROPPED, 200),
    )
    log.claim(
        "context/results_over_nothing",
        claim=f"30 calls in {BUDGET} tokens: what hiding results adds to hiding nothing",
        floor=0.50,
        **card,
        **difference(log.rows, HIDDEN, KEPT, 30),
    )
    log.claim(
        "context/results_against_turns",
        claim=f"100 calls in {BUDGET} tokens: hiding results is no worse than dropping turns",
        floor=-0.05,
        **card,
        **difference(log.rows, HIDDEN, DROPPED, 100),
    )


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
