"""Ten wordings read once, or one wording read ten times? Questions about facts that were read but never asked.

An early checkpoint, as in the K2 report: a small model that has read about other people in many wordings and answered
questions about them. It goes on with pages about new people, in three arms with the same number of tokens:

    raw 10 epochs            the pages as they stand, ten times
    1 rephrasing, 10 epochs  each page rewritten once, read ten times
    10 rephrasings, 1 epoch  each page rewritten ten times, each read once

In every arm the same questions about one half of the new people are trained beside the text. Measured are questions
about the other half: their facts stood in the text, nobody ever asked. The rewriter errs on purpose in a tenth of its
chunks; the fidelity check decides what is kept. The step of 512 tokens was chosen in a trial of one of the seeds.

It matters what the checkpoint has read before. If no page of its reading was raw, the raw arm meets a manner that is
new to it, and loses for that reason too. So there are three checkpoints a seed, with a raw page in 0, 1 of 6 (each
wording as often as any other: the one that counts) and 1 of 2. One difference stays: a rewriter repeats names where a
raw page says "she".
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kimi_mini.base.command import in_one_line
from kimi_mini.base.evidence import Log
from kimi_mini.course.figures import style
from kimi_mini.experiments import harness
from kimi_mini.experiments.harness import arguments
from kimi_mini.experiments.pretraining.fact_pages import (
    GROUP,
    pages,
    question,
    questions,
    recital,
    text_example,
    vocabulary,
)
from kimi_mini.experiments.pretraining.reading import (
    STEP_TOKENS,
    checkpoint,
    epochs_of,
    learn,
    right,
    steps_of,
    wordings,
)
from kimi_mini.text import planted_errors, rephrase

# SimpleQA accuracy of an early K2, per cent (K2 report, table 1)
REPORT = {"raw": 23.76, "one": 27.39, "ten": 28.94}
ARMS = {"raw": "raw, 10 epochs", "one": "1 rephrasing, 10 epochs", "ten": "10 rephrasings, 1 epoch"}
EPOCHS = 10
KNOWN, NEW = 500, 120  # people of the checkpoint, people of the arms
BASE_TOKENS = 600_000
ARM_RATE = 1.0  # of the recipe's learning rates
SEEDS = range(6)  # checkpoints differ much in how well they answer what was never asked
RAW_EVERY = {"none": 0, "one in six": 6, "half": 2}  # of the pages that the checkpoint reads
COUNTS = "one in six"


def run_seed(log: Log, seed: int, raw: str, scale: float) -> None:
    """One checkpoint, then all arms from it; a row of the log each."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    tokenizer = vocabulary()
    known = rephrase.people(max(30, int(KNOWN * scale)), rng)
    new = rephrase.people(max(12, int(NEW * scale)), rng, frozenset(person.name for person in known))
    asked, held = new[::2], new[1::2]
    start = checkpoint(tokenizer, known, int(BASE_TOKENS * scale), RAW_EVERY[raw], rng)
    texts, trained = pages(new), questions(tokenizer, asked)
    total = EPOCHS * sum(
        len(example.ids) for example in [*(text_example(tokenizer, t) for t in texts), *trained]
    )
    for arm in ("before", *ARMS):
        model, count = copy.deepcopy(start), Counter()
        if arm != "before":
            own = np.random.default_rng([seed, 1])
            epochs = epochs_of(wordings(arm, texts, own, count), trained, tokenizer, own)
            steps = steps_of(epochs, total, STEP_TOKENS["arm"])
            count["tokens"] = sum(len(example.ids) for step in steps for example in step)
            count["seconds"] = round(learn(model, steps, ARM_RATE))
        by_attribute = {
            key: right(model, [question(tokenizer, p, key) for p in held]) for key in rephrase.QUESTIONS
        }
        by_heart = [recital(tokenizer, person, key) for person in held for key in rephrase.QUESTIONS]
        found = {
            "never_asked": float(np.mean(list(by_attribute.values()))),
            "asked": right(model, trained),
            "recited": right(model, by_heart),
        }
        log.row(seed=seed, raw_pages=raw, arm=arm, **found, by_attribute=by_attribute, **count)
        shown = ", ".join(f"{key} {value:.3f}" for key, value in found.items())
        print(f"seed {seed}, raw pages {raw}, {arm:>6}: {shown}", flush=True)


def catch_rates(log: Log, seed: int, count: int) -> None:
    """Errors of every kind planted in `count` rewritten pages: how many the check sees, and the cheap one beside it."""
    rng = np.random.default_rng(seed)
    texts = pages(rephrase.people(GROUP * count, rng))
    versions = [(text, rephrase.rewrite(text, rng, check=False)[0]) for text in texts]
    for kind in ("none", *planted_errors.ERRORS):
        planted = [
            (text, new if kind == "none" else planted_errors.plant(new, kind, rng)) for text, new in versions
        ]
        planted = [(text, new) for text, new in planted if new is not None]
        log.row(
            seed=seed,
            error=kind,
            planted=len(planted),
            refused=sum(bool(rephrase.problems(text, new)) for text, new in planted),
            refused_by_words=sum(not rephrase.same_words(text, new) for text, new in planted),
        )


def main() -> None:
    """All seeds; write data/results/rephrasing.json and its figure."""
    args = arguments(__doc__.splitlines()[0], seeds=SEEDS)
    log = Log("rephrasing", seeds=args.seeds, folder=args.folder, report=REPORT)
    for seed in args.seeds:
        catch_rates(log, seed, max(30, int(330 * args.scale)))
        for raw in RAW_EVERY:
            run_seed(log, seed, raw, args.scale)
    report(log)
    harness.finish(log, rephrasing=draw)


def scores(rows: Sequence[dict], arm: str, key: str = "never_asked", raw: str = COUNTS) -> list[float]:
    """One number a seed."""
    return [row[key] for row in rows if row.get("arm") == arm and row["raw_pages"] == raw]


def caught(rows: Sequence[dict], kind: str, key: str = "refused") -> tuple[int, int]:
    """(refused, planted) of a kind of error over all seeds."""
    found = [row for row in rows if row.get("error") == kind]
    return sum(row[key] for row in found), sum(row["planted"] for row in found)


def report(log: Log) -> None:
    """The claims."""
    claim = partial(log.claim, notebook="04_pretraining.ipynb", figure="figures/rephrasing.png")
    says = "facts read in ten wordings answer more questions than ten times in one, equal tokens"
    gains = {
        ("ten", "raw", COUNTS, 0.10): says,
        ("ten", "raw", "half", 0.10): f"{says}, when half of what was read before was raw",
        ("ten", "raw", "none", 0.10): f"{says}, when nothing that was read before was raw",
        ("ten", "one", COUNTS, 0.0): "ten rephrasings read once beat one rephrasing read ten times",
        ("one", "raw", COUNTS, 0.0): "one rephrasing read ten times beats the raw text read ten times",
    }
    for (better, worse, raw, floor), says in gains.items():
        pairs = zip(scores(log.rows, better, raw=raw), scores(log.rows, worse, raw=raw))
        gain, where = harness.across([a - b for a, b in pairs]), "" if raw == COUNTS else f"_{raw}_raw"
        source = f"K2 report 2.2, table 1 ({REPORT[better]} against {REPORT[worse]})"
        claim(f"rephrasing/{better}_over_{worse}{where}", claim=says, floor=floor, source=source, **gain)
    source = "K2 report 2.2 (fidelity check)"
    worst = min(planted_errors.ERRORS, key=lambda kind: np.divide(*caught(log.rows, kind)))
    found = harness.rate(*caught(log.rows, worst))
    says = f"rewrites with a planted error refused (worst kind: {worst})"
    claim("rephrasing/check_catches", claim=says, floor=0.99, source=source, **found)
    found = harness.rate(*caught(log.rows, "none"))
    more = {"claim": "faithful rewrites refused", "source": source}
    claim("rephrasing/check_refuses", floor=0.01, at_most=True, **found, **more)


@style.styled
def draw(log: dict) -> Figure:
    """Left: questions never asked, ours beside the report's. Right: what the checks catch."""
    fig, axes = style.figure(13, 5.2, 1, 3, width_ratios=(3, 2.2, 3))
    ours, theirs, check = axes[0]
    _draw_answers(ours, theirs, log["rows"])
    _draw_check(check, log["rows"])
    fig.legend(loc="outside lower center", ncols=5)
    return fig


def _draw_answers(ours: Axes, theirs: Axes, rows: Sequence[dict]) -> None:
    above = {"xytext": (0, 6), "textcoords": "offset points", "ha": "center"}
    for place, (arm, colour) in enumerate(zip(ARMS, (style.ORANGE, style.SKY, style.BLUE))):
        for group, raw in enumerate(RAW_EVERY):
            values, x = [100 * value for value in scores(rows, arm, raw=raw)], group + 0.28 * (place - 1)
            ours.bar(x, np.mean(values), color=colour, width=0.26, label=arm if group == 0 else None)
            ours.plot([x] * len(values), values, "o", color=style.BLACK, markersize=4)
            ours.annotate(f"{np.mean(values):.0f}", (x, max(values)), **above)
        theirs.bar(place, REPORT[arm], color=colour, width=0.7)
        theirs.annotate(f"{REPORT[arm]:.1f}", (place, REPORT[arm]), **above)
    ours.set_xticks(range(len(RAW_EVERY)), RAW_EVERY)
    ours.set(ylim=(0, 105), ylabel="right answers (%)", xlabel="raw among the pages read before")
    ours.set_title("Ours: facts read, never asked")
    theirs.set_xticks(range(3), ["raw\nx 10", "1 new\nx 10", "10 new\nx 1"])
    theirs.set(xlim=(-0.6, 2.6), ylim=(0, 36), xlabel="wordings x epochs", ylabel="SimpleQA (%)")
    theirs.set_title("K2 report")
    for ax in (ours, theirs):
        ax.grid(axis="x", visible=False)


def _draw_check(ax: Axes, rows: Sequence[dict]) -> None:
    kinds = list(planted_errors.ERRORS)
    for shift, key, colour, name in (
        (-0.2, "refused", style.GREEN, "facts compared"),
        (0.2, "refused_by_words", style.GREY, "only words compared"),
    ):
        shares = [100 * np.divide(*caught(rows, kind, key)) for kind in kinds]
        ax.barh(np.arange(len(kinds)) + shift, shares, height=0.38, color=colour, label=name)
    ax.set_yticks(range(len(kinds)), kinds)
    ax.invert_yaxis()
    ax.set(xlabel="planted errors caught (%)", xlim=(0, 102), title="Fidelity check")
    ax.grid(axis="y", visible=False)


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
