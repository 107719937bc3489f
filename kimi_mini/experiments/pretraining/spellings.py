"""A name has two spellings if the space before it is in its first token: who copies it out of a sentence?

A model learns nothing but to copy: a page holds results of tools, each with a name in it, and behind each result the
name again, in quotation marks. Half of the results are JSON, which has the name in quotation marks, too; half are
plain sentences ("the sequel is amber coast"), where a space stands before it. Two arms, the same model, steps and
tokens a step: the tokenizer takes the space into the word, as K2's does, or sets it apart; both have learned their 1024
tokens from the same text. Measured: names of words that nobody has seen, copied without fault.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from functools import cache, partial
from statistics import fmean

import numpy as np
import torch
from matplotlib.figure import Figure

from kimi_mini.base.command import in_one_line
from kimi_mini.base.evidence import Log
from kimi_mini.course.figures import style
from kimi_mini.experiments import harness
from kimi_mini.experiments.pretraining.vocabulary import real_text
from kimi_mini.model.kimi import KimiMini
from kimi_mini.pipeline import shared
from kimi_mini.pipeline.plan import Plan, Schedule
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training.batch import Batch, shared_batches
from kimi_mini.training.synthesis import sheet_of
from kimi_mini.worlds.base import Sheet
from kimi_mini.worlds.desk.application import form, written
from kimi_mini.worlds.desk.language.words import names, word

ARMS = {"attached": False, "apart": True}
STEPS, LINES, PAGES = 500, 14, 40  # of training; results on a page; pages of held-out names a seed
KINDS = ("json", "plain")
SCHEDULE = Schedule(decay_start=0.5)


@cache
def vocabulary(apart: bool) -> Tokenizer:
    """1024 tokens learned from real text alone."""
    return Tokenizer.train(real_text(), 1024, apart)


def page(rng: random.Random, held_out: bool = False) -> tuple[Sheet, list[str]]:
    """A page, and the kind of each of its results: plain and JSON in turn."""
    pieces: Sheet = []
    for place, name in enumerate(names(rng, LINES, held_out)):
        while (("{json}" in (drawn := form(rng))) + place) % 2:
            pass
        result = written(drawn, word(rng), word(rng), name)
        pieces += [(f"\n{result}\n", False), (f'now "{name}"', True)]
    return pieces, [KINDS[(place + 1) % 2] for place in range(LINES)]


def batches(tokenizer: Tokenizer, plan: Plan, step: int) -> list[Batch]:
    """The pages of a step, as many as it has tokens for."""
    rng, examples = random.Random(f"{plan.seed}/{step}"), []
    while sum(len(example.ids) for example in examples) < plan.step_tokens:
        examples.append(sheet_of(tokenizer, page(rng)[0]))
    return shared_batches(examples, plan.micro_tokens)


def spans(mask: np.ndarray) -> Iterator[slice]:
    """The runs of learned tokens."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(int), [0]])))
    yield from (slice(*edge) for edge in edges.reshape(-1, 2))


@torch.no_grad()
def copied(model: KimiMini, tokenizer: Tokenizer, pages: int, seed: int) -> dict[str, float]:
    """Share of held-out names of each kind of which every token is the most likely one."""
    rng, right = random.Random(f"held out/{seed}"), {kind: [] for kind in KINDS}
    for _ in range(pages):
        pieces, kinds = page(rng, held_out=True)
        ids, mask = sheet_of(tokenizer, pieces)
        said = model(torch.from_numpy(ids[None].astype(np.int64))).logits[0].argmax(-1).numpy()
        for kind, span in zip(kinds, spans(mask), strict=True):
            right[kind].append(bool((said[span.start - 1 : span.stop - 1] == ids[span]).all()))
    return {kind: fmean(found) for kind, found in right.items()}


def run_arm(log: Log, arm: str, seed: int, scale: float) -> None:
    """Train one model from random weights and measure it."""
    plan, tokenizer = Plan(seed=seed), vocabulary(ARMS[arm])
    model, steps = shared.first_model(plan), max(2, int(STEPS * scale))
    with shared.Bar(steps * plan.step_tokens, f"seed {seed}, {arm}") as bar:
        history = shared.trained(
            model, plan, lambda step: batches(tokenizer, plan, step), steps, SCHEDULE, progress=bar
        )
    found = copied(model.eval(), tokenizer, max(2, int(PAGES * scale)), seed)
    log.row(seed=seed, arm=arm, seconds=history.seconds, tokens=sum(history.tokens), **found)
    print(f"seed {seed}, {arm:>8}: plain {found['plain']:.3f}, JSON {found['json']:.3f}", flush=True)


def main() -> None:
    """All seeds; write data/results/spellings.json and its figure."""
    args = harness.arguments(__doc__.splitlines()[0])
    log = Log("spellings", seeds=args.seeds, folder=args.folder, steps=STEPS)
    for seed in args.seeds:
        for arm in ARMS:
            run_arm(log, arm, seed, args.scale)
    report(log)
    harness.finish(log, spellings=draw)


def by_arm(rows: Sequence[dict], arm: str, key: str) -> list[float]:
    """One number a seed."""
    return [row[key] for row in rows if row["arm"] == arm]


def report(log: Log) -> None:
    """The claims."""
    claim = partial(
        log.claim, notebook="05_tools_and_the_agent_loop.ipynb", figure="figures/spellings.png", source="ours"
    )
    for kind, where in (("plain", "out of a sentence"), ("json", "out of JSON")):
        apart, attached = (by_arm(log.rows, arm, kind) for arm in ("apart", "attached"))
        gap = harness.across([a - b for a, b in zip(apart, attached)])
        says = f"new names copied {where}, spaces apart minus spaces in the word, at equal tokens"
        claim(f"spellings/{kind}", claim=says, floor=0.0, headline=kind == "plain", **gap)
    whole = harness.share_across(by_arm(log.rows, "apart", "plain"))
    claim("spellings/apart", claim="new names copied out of a sentence, spaces apart", floor=0.9, **whole)


@style.styled
def draw(log: dict) -> Figure:
    """Names copied out of JSON and out of sentences, by arm; a mark a seed."""
    fig, ((ax,),) = style.figure(7.5, 4.6, 1, 1)
    for place, (arm, colour) in enumerate(zip(ARMS, (style.RED, style.BLUE))):
        for number, kind in enumerate(KINDS):
            values, at = by_arm(log["rows"], arm, kind), number + (place - 0.5) * 0.36
            label = ("space in the word's first token", "space apart")[place] if number == 0 else None
            ax.bar(at, 100 * fmean(values), 0.34, color=colour, alpha=0.55, label=label)
            ax.plot([at] * len(values), [100 * value for value in values], "o", color=colour)
    ax.set_xticks((0, 1), ('JSON\n{"sequel":"amber coast"}', "a sentence\nthe sequel is amber coast"))
    ax.set(ylim=(0, 103), ylabel="new names copied (%)", title="A name with two spellings")
    ax.legend(loc="upper right")
    return fig


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
