"""Trained on 64 tokens, used on 512: finding needles and reading text, with YaRN and without.

A small dense model with latent attention learns text and needles in windows of 64 tokens, after recall drills. Then its
positions are treated in one of three ways, with and without a short tune on windows of 512:

    as it was        positions beyond 64 mean angles that it never saw
    interpolation    every position divided by 8: no new angles, but neighbours stand an eighth as far apart
    YaRN             only pairs of the rotation that turn less than once in 64 tokens are divided by 8 (K2's hard step),
                     and the softmax is sharpened by mscale squared

Half of the haystacks in training ask for few needles, one of them at an end: where every needle is asked for, no window
is full of hay, and needles at its very start and end are missed.

Needles: success by depth and length. Text: loss by position. And one more arm, the best model seeing only the last 64
tokens, must fail on every needle outside of that window: a check of the test itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from matplotlib.figure import Figure

from kimi_mini.base.command import in_one_line
from kimi_mini.base.evidence import Log
from kimi_mini.course.figures import attention
from kimi_mini.experiments.attention.needle_runs import (
    DEPTHS,
    QUESTIONS,
    TRAINED,
    book_tokens,
    drill_examples,
    examples,
    fit,
    found,
    questions,
)
from kimi_mini.experiments.harness import SEEN, across, arguments, finish, rate, share_across
from kimi_mini.model.config import KimiConfig
from kimi_mini.model.kimi import KimiMini, evaluating
from kimi_mini.model.presets import YARN
from kimi_mini.model.rope import frequencies
from kimi_mini.text import corpus
from kimi_mini.training.batch import Batch, token_losses
from kimi_mini.training.loop import History

FACTOR = 8
LENGTHS = (64, 128, 256, 512)
CONFIG = KimiConfig.preset("nano", vocab_size=1152, first_k_dense_replace=3)  # the nano with all layers dense
DRILL_TOKENS, SHORT_TOKENS, TUNE_TOKENS = 1_600_000, 300_000, 700_000  # the first at most
KINDS = ("as it was", "interpolation", "YaRN")
BUCKET = 32  # positions averaged in the loss by position
WINDOWS = 48  # of text
NOTEBOOK = "02_latent_attention_long_context.ipynb"


def main() -> None:
    """Train, stretch, tune and measure; write data/results/long_context.json and its figures."""
    args = arguments(__doc__.splitlines()[0])
    log = Log("long_context", seeds=args.seeds, folder=args.folder, trained_length=TRAINED, factor=FACTOR)
    training, validation = book_tokens()
    for seed in args.seeds:
        model, histories = train_short(training, seed, args.scale)
        for stage, history in zip(("drill", "text and needles"), histories):
            note(log, seed, stage, history)
        for kind in KINDS:
            longer = stretched(model, kind)
            measure(log, longer, validation, seed, kind, False, args.scale)
            note(log, seed, f"tune, {kind}", tune(longer, training, seed, args.scale))
            measure(log, longer, validation, seed, kind, True, args.scale)
        measure_window(log, longer, validation, seed, args.scale)
    report(log)
    finish(log, long_context=draw, long_context_loss=draw_loss)


def note(log: Log, seed: int, stage: str, history: History) -> None:
    """What a training cost."""
    log.row(
        seed=seed, stage=stage, seconds=history.seconds, tokens=sum(history.tokens), loss=history.loss[-1]
    )


# -- training ------------------------------------------------------------------------------------------


def train_short(text: np.ndarray, seed: int, scale: float = 1.0) -> tuple[KimiMini, list[History]]:
    """A model from random weights that never sees a position beyond TRAINED: drills first, then text and needles."""
    torch.manual_seed(seed)
    model = KimiMini(CONFIG)
    mixture = partial(examples, text=text, length=TRAINED)
    first = fit(model, partial(drill_examples, text=text), (seed, 0), int(DRILL_TOKENS * scale), until=0.3)
    return model, [first, fit(model, mixture, (seed, 1), int(SHORT_TOKENS * scale))]


def tune(model: KimiMini, text: np.ndarray, seed: int, scale: float = 1.0) -> History:
    """A short tune, in place, on windows of TRAINED * FACTOR."""
    mixture = partial(examples, text=text, length=TRAINED * FACTOR)
    return fit(model, mixture, (seed, 2), int(TUNE_TOKENS * scale), rate=0.5)


# -- longer positions ----------------------------------------------------------------------------------


def stretched(model: KimiMini, kind: str, factor: int = FACTOR) -> KimiMini:
    """A copy of a model whose positions are treated in one of KINDS, weights unchanged."""
    scaling = {
        **YARN,
        "factor": float(factor),
        "original_max_position_embeddings": TRAINED,
        "beta_fast": 1.0,
        "beta_slow": 1.0,
    }
    copy = KimiMini(model.config.replace(rope_scaling=scaling if kind == "YaRN" else None))
    copy.load_state_dict(model.state_dict())
    if kind == "interpolation":
        angles = torch.outer(torch.arange(float(TRAINED * factor)), frequencies(copy.config) / factor)
        table = torch.polar(torch.ones_like(angles), angles)
        copy.rotation = lambda length, device: table[:length].to(device)
    return copy


# -- measuring -----------------------------------------------------------------------------------------


@torch.no_grad()
def loss_by_position(model: KimiMini, text: np.ndarray, count: int = WINDOWS) -> list[float]:
    """Mean loss in nats of plain text in each BUCKET of positions, over `count` windows of TRAINED * FACTOR tokens."""
    windows = corpus.pack(text, TRAINED * FACTOR)[:count].astype(np.int64)
    ids, every = torch.from_numpy(windows), torch.ones(windows.shape, dtype=torch.bool)
    with evaluating(model):
        losses = token_losses(model, Batch(ids, every, every)).view(len(ids), -1).mean(0)  # (length - 1,)
    return [part.mean().item() for part in losses.split(BUCKET)]


def measure(
    log: Log, model: KimiMini, text: np.ndarray, seed: int, kind: str, tuned: bool, scale: float
) -> None:
    """Needles at every length and depth, and the loss by position, of one arm."""
    count = max(4, int(QUESTIONS * scale))
    for length in LENGTHS:
        for depth in DEPTHS:
            right = found(model, questions(text, seed, length, depth, count))
            log.row(seed=seed, kind=kind, tuned=tuned, length=length, depth=depth, right=right, n=count)
    log.row(seed=seed, kind=kind, tuned=tuned, loss_by_position=loss_by_position(model, text))
    by_length = {length: round(success(log.rows, kind, tuned, length, seed), 2) for length in LENGTHS}
    print(f"seed {seed}, {kind}{', tuned' if tuned else ''}: {by_length}", flush=True)


def measure_window(log: Log, model: KimiMini, text: np.ndarray, seed: int, scale: float) -> None:
    """The last arm's model on needles outside of a window of TRAINED tokens."""
    length = TRAINED * FACTOR
    asked = [
        q for depth in DEPTHS for q in questions(text, seed, length, depth, max(4, int(QUESTIONS * scale)))
    ]
    outside = [question for question in asked if question.place <= length - TRAINED]
    log.row(seed=seed, window=TRAINED, right=found(model, outside, TRAINED), n=len(outside))


# -- reporting -----------------------------------------------------------------------------------------


def success(
    rows: Sequence[dict],
    kind: str,
    tuned: bool,
    length: int,
    seed: int | None = None,
    depth: float | None = None,
) -> float:
    """Share of needles found by an arm at a length: in one seed or all, at one depth or all."""
    chosen = [
        row
        for row in rows
        if "depth" in row
        and (row["kind"], row["tuned"], row["length"]) == (kind, tuned, length)
        and seed in (None, row["seed"])
        and depth in (None, row["depth"])
    ]
    return sum(row["right"] for row in chosen) / sum(row["n"] for row in chosen)


def report(log: Log) -> None:
    """The claims, all at eight times the trained length."""

    def rates(kind: str, tuned: bool) -> np.ndarray:
        return np.array([success(log.rows, kind, tuned, max(LENGTHS), seed) for seed in log.seeds])

    figure = "figures/long_context.png"
    claim = partial(log.claim, notebook=NOTEBOOK, figure=figure, source="K2 report 2.5")
    yarn, plain = rates("YaRN", True), rates("as it was", False)
    says = "needles found at 8 times the trained length, with YaRN and a short tune"
    more = {"source": "K2 report 2.5 (YaRN to 128k)", "headline": True}
    claim("long/yarn", claim=says, floor=0.90, **across(yarn), **more)
    claim_worst_depth(log, partial(claim, **more | {"headline": False}))
    says = "needles found there by the same model without any extension"
    claim("long/none", claim=says, floor=0.30, at_most=True, **across(plain))
    for name, kind, other in (
        ("interpolation", "interpolation", "plain interpolation"),
        ("tune_only", "as it was", "no extension"),
    ):
        more = {"claim": f"YaRN finds more than {other} after the same tune"}
        more["source"] = "YaRN paper (2309.00071)"
        claim(f"long/yarn_over_{name}", floor=0.0, **across(yarn - rates(kind, True)), **more)
    hidden = [row for row in log.rows if "window" in row]
    right, count = (sum(row[key] for row in hidden) for key in ("right", "n"))
    more = {"claim": "needles outside a window of 64 tokens found by the YaRN model"}
    more["source"] = "check of the test"
    claim("long/outside_window", floor=0.05, at_most=True, **rate(right, count), **more)


def claim_worst_depth(log: Log, claim: Callable) -> None:
    """The same needles where fewest are found: a mean over depths hides an end of the window."""

    def rates(depth: float) -> list[float]:
        return [success(log.rows, "YaRN", True, max(LENGTHS), seed, depth) for seed in log.seeds]

    worst = min(DEPTHS, key=lambda depth: np.mean(rates(depth)))
    says = f"the same at the worst of {len(DEPTHS)} depths ({worst:g} of the window){SEEN}"
    claim("long/yarn/worst", claim=says, floor=0.90, **share_across(rates(worst)))


def draw(log: dict) -> Figure:
    """Heat maps of success by depth and length: as trained, YaRN without a tune, then all kinds after the tune."""
    arms = {
        "no extension": ("as it was", False),
        "YaRN, no tune": ("YaRN", False),
        "only tuned at 512": ("as it was", True),
        "interpolation, tuned": ("interpolation", True),
        "YaRN, tuned": ("YaRN", True),
    }
    maps = {
        name: [[success(log["rows"], *arm, length, depth=depth) for length in LENGTHS] for depth in DEPTHS]
        for name, arm in arms.items()
    }
    return attention.needle_maps(maps, LENGTHS, DEPTHS, TRAINED)


def draw_loss(log: dict) -> Figure:
    """Loss of text by position, mean over seeds: untouched and untuned, and after the tune."""

    def curve(kind: str, tuned: bool) -> np.ndarray:
        return np.mean(
            [
                row["loss_by_position"]
                for row in log["rows"]
                if "loss_by_position" in row and (row["kind"], row["tuned"]) == (kind, tuned)
            ],
            0,
        )

    panels = {
        title: {kind: curve(kind, tuned) for kind in KINDS}
        for title, tuned in (("Before any tune", False), ("After the tune", True))
    }
    return attention.loss_by_position(panels, BUCKET, TRAINED)


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
