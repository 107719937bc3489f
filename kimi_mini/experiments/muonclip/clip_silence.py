"""Does QK-Clip fall silent by itself, and what silences it? Runs at a constant rate, long enough to see.

In K2 some heads were clipped during the first 70,000 of about 231,000 steps and none after that, long before the
learning rate fell. Here the dense model of `logit_growth` at a good rate, tau 30, and a rate that never falls, so that
silence cannot come from there. Three ways:

    clip                 weight decay 0.1, as in K2
    clip, no decay       the same without weight decay
    decay, no clip       weight decay alone: do the logits come down by themselves?

Runs are kept and read back as in `logit_growth`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from matplotlib.figure import Figure

from kimi_mini.base.command import in_one_line
from kimi_mini.base.evidence import Log
from kimi_mini.course.figures import muonclip, style
from kimi_mini.experiments import harness
from kimi_mini.experiments.harness import arguments
from kimi_mini.experiments.muonclip import logit_growth, logit_runs
from kimi_mini.experiments.muonclip.logit_claims import NOTEBOOK, chosen
from kimi_mini.experiments.muonclip.logit_growth import LOW_TAU, OFF
from kimi_mini.experiments.muonclip.logit_runs import Setting, train_one

STEPS = 2500
RATE, TABLE_RATE, DECAY = 1e-2, 4e-3, 0.1
# (decay, tau)
ARMS = {"clip": (DECAY, LOW_TAU), "clip, no decay": (0.0, LOW_TAU), "decay, no clip": (DECAY, OFF)}
COLOURS = {"clip": style.BLUE, "clip, no decay": style.ORANGE, "decay, no clip": style.RED}
K2_SHARE = 70_000 / 231_000  # of K2's training had passed when its last head was clipped
LATEST, HARM = 0.5, 0.02  # at most this share of ours; nats that the clip may cost


def main() -> None:
    """Every way at every seed; write data/results/clip_silence.json and its figure."""
    args = arguments(__doc__.splitlines()[0])
    log = Log(
        "clip_silence",
        seeds=args.seeds,
        folder=args.folder,
        tau=LOW_TAU,
        k2_share=K2_SHARE,
        step_tokens=logit_runs.WINDOW_TOKENS * logit_runs.STEP_WINDOWS,
    )
    steps = max(30, int(STEPS * args.scale))
    for seed in args.seeds:
        for arm, (decay, tau) in ARMS.items():
            record = train_one(
                Setting("dense", "muon", RATE, TABLE_RATE, decay, tau, seed, steps, falls=False)
            )
            log.row(arm=arm, **record)
            last = record["last_clip_step"] or "none"
            print(
                logit_growth.line(record, f"seed {seed}, {arm}") + f", last clip at step {last}", flush=True
            )
    log.more["training_seconds"] = round(sum(row["seconds"] for row in log.rows))
    report(log)
    harness.finish(log, clip_silence=draw)


def last_clips(rows: Sequence[dict], arm: str) -> list[float]:
    """Of every seed: after which share of the run its last head was clipped; 0 when none was."""
    return [(row["last_clip_step"] or 0) / row["steps"] for row in chosen(rows, arm)]


def report(log: Log) -> None:
    """The claims: silence in every seed, after clips; none without decay; what decay does alone; and the price."""
    claim = partial(log.claim, notebook=NOTEBOOK, figure="figures/clip_silence.png", source="this project")
    shares = last_clips(log.rows, "clip")
    latest = max(shares) if all(shares) else None  # a seed without a clip has nothing to fall silent
    more = {"source": "K2 report 2.1", "floor": LATEST, "at_most": True}
    says = (
        f"share of a run at a constant rate after which no head is clipped, latest seed (K2 {K2_SHARE:.2f})"
    )
    claim("silence/last_clip", claim=says, value=latest, **more)
    endless = min(last_clips(log.rows, "clip, no decay"))
    says = "without weight decay the clips go on: share of a run up to the last one, earliest seed"
    claim("silence/not_without_decay", claim=says, floor=0.9, value=endless)
    ends = [row["max_logit"][-1] / log.more["tau"] for row in chosen(log.rows, "decay, no clip")]
    says = "weight decay without a clip: largest logit at the end over τ, worst seed"
    claim("silence/decay_alone", claim=says, floor=1.0, at_most=True, value=max(ends))
    pairs = zip(chosen(log.rows, "clip"), chosen(log.rows, "decay, no clip"))
    found = harness.across([clip["validation"] - plain["validation"] for clip, plain in pairs])
    more = {"source": "K2 report appendix D", "floor": HARM, "at_most": True}
    says = "validation loss (nats) that the clip costs after it has fallen silent"
    claim("silence/no_harm", claim=says, **found, **more)


@style.styled
def draw(log: dict) -> Figure:
    """Left: the largest logit; right: heads clipped in a step. Mean of the seeds, and their spread."""
    curves = {
        key: logit_growth.curves(log["rows"], "dense", ARMS, key) for key in ("max_logit", "clipped_heads")
    }
    titles = {"max_logit": "The largest logit", "clipped_heads": "Heads clipped in a step (of 16)"}
    panels = {titles[key]: lines for key, lines in curves.items()}
    return muonclip.bands(panels, ["attention logit", "heads"], [False, False], COLOURS, [(log["tau"],), ()])


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
