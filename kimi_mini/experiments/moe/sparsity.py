"""More experts at the same activated size: 8 to 256 of which a token visits 4, beside two dense models.

Every model with experts spends the same activated FLOPs (its router's included, so more experts see slightly fewer
tokens). Beside them a dense model of the same activated parameters, with the same FLOPs, and one that holds as many
parameters as the 64 experts, all of them always at work, with the same tokens. They read two things:

    text    Python, prose, arithmetic and tool calls; held-out loss
    facts   a table of 32 x 16 pairs of words and the word that each pair stands for, in random order: nothing to
            understand, everything to remember. The loss counts the third word alone.

    FLOPs saved by E experts = FLOPs that 8 experts need to reach a loss / FLOPs that E need to reach it

read off the smoothed training losses before the learning rate decays, at the loss that the worse of the two has then.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from kimi_mini.base.command import in_one_line
from kimi_mini.base.evidence import Log
from kimi_mini.course.figures import moe, style
from kimi_mini.evaluation.routing import losses, max_vio
from kimi_mini.experiments import harness
from kimi_mini.experiments.harness import arguments
from kimi_mini.experiments.moe import shared
from kimi_mini.model.config import KimiConfig

TOKENS = {"facts": 260_000, "text": 400_000}  # of the 8 experts; the others' follow from their FLOPs
STEP = shared.ROWS * shared.LENGTH
EXPERTS, CHOSEN, WIDTH = (8, 16, 32, 64, 128, 256), 4, 32
DENSE_TWIN = 64  # the dense model of the same total parameters is that of this many experts
DECAY = 0.3
FIRST, SECOND, THIRD = 32, 16, 64  # words of each place of a fact
FIRST_WORD = 300  # token id; what the tokens spell does not matter
K2_SAVED = {8: 1.0, 16: 1.69 / 1.39, 32: 1.69 / 1.15, 48: 1.69}  # sparsity -> FLOPs saved over sparsity 8


def arm(experts: int) -> KimiConfig:
    """A token visits CHOSEN experts and the shared one, whatever their number."""
    return shared.shape(experts, CHOSEN, moe_intermediate_size=WIDTH, intermediate_size=(CHOSEN + 1) * WIDTH)


def dense(width: int) -> KimiConfig:
    """The same model with an MLP of `width` in each of its layers."""
    layers = shared.SHAPE["num_hidden_layers"]
    return arm(8).replace(first_k_dense_replace=layers, intermediate_size=width)


ARMS: dict[str, KimiConfig] = {
    **{str(experts): arm(experts) for experts in EXPERTS},
    "dense, same activated": dense((CHOSEN + 1) * WIDTH),
    f"dense, as large as {DENSE_TWIN}": dense((CHOSEN + 1 + 2 * (DENSE_TWIN + 1)) * WIDTH // 3),
}


def main() -> None:
    """Every model with every seed on both readings; write data/results/sparsity.json and figures/sparsity.png."""
    args = arguments(__doc__.splitlines()[0])
    log = shared.begin(
        "sparsity",
        args,
        decay=DECAY,
        tokens={reading: int(tokens * args.scale) for reading, tokens in TOKENS.items()},
    )
    for seed in args.seeds:
        for reading, tokens in log.more["tokens"].items():
            material = read(reading, tokens, seed)
            for name, config in ARMS.items():
                row = measure(name, config, material, tokens, seed)
                log.row(seed=seed, reading=reading, arm=name, **row)
                said = f"loss {row['loss']:.4f} {row['tokens']:,} tokens {row['seconds']:.0f} s"
                print(f"seed {seed} {reading} {name:22s} {said}", flush=True)
    report(log)
    harness.finish(log, sparsity=draw)


# -- what is read --------------------------------------------------------------------------------------


def read(reading: str, tokens: int, seed: int) -> tuple[dict, dict, np.ndarray | None]:
    """(windows to train on, held-out windows, places that count) of a reading."""
    if reading == "text":
        return (*shared.texts(tokens, seed), None)
    table = np.random.default_rng(seed).integers(0, THIRD, (FIRST, SECOND))
    count = -(-tokens // shared.LENGTH)
    places = np.arange(shared.LENGTH) % 3 == 2
    return {"facts": facts(table, count, seed + 1)}, {"facts": facts(table, 48, seed + 2)}, places


def facts(table: np.ndarray, count: int, seed: int) -> np.ndarray:
    """`count` windows of random entries of the table: first word, second word, what they stand for. (count, LENGTH)."""
    rng = np.random.default_rng(seed)
    first, second = (rng.integers(0, words, (count, shared.LENGTH // 3 + 1)) for words in (FIRST, SECOND))
    words = np.stack([first, FIRST + second, FIRST + SECOND + table[first, second]], -1)  # (count, facts, 3)
    return (FIRST_WORD + words).reshape(count, -1)[:, : shared.LENGTH].astype(np.int32)


def flops(config: KimiConfig) -> int:
    """Activated FLOPs of training on one token."""
    return 3 * config.flops_per_token(shared.LENGTH // 2)


def measure(name: str, config: KimiConfig, material: tuple, tokens: int, seed: int) -> dict:
    """Train one model on its budget; the dense one of the same total takes the same tokens, not the same FLOPs."""
    windows, held_out, learned = material
    share = 1.0 if "large" in name else min(1.0, flops(ARMS["8"]) / flops(config))
    steps = max(10, int(share * tokens / STEP))
    done = shared.fit(config, windows, steps, seed, decay_fraction=DECAY, learned=learned)
    count, by_domain = config.count_parameters(), losses(done.model, held_out, learned)
    return {
        "loss": float(np.mean(list(by_domain.values()))),
        "by_domain": by_domain,
        "tokens": sum(done.history.tokens),
        "flops": sum(done.history.tokens) * flops(config),
        "seconds": done.history.seconds,
        "train_loss": [round(value, 4) for value in done.history.loss],
        "flops_per_token": flops(config),
        "total": count.total_without_embeddings,
        "activated": count.activated_without_embeddings,
        "max_vio": shared.last_fifth(max_vio(done.loads).max(-1)) if done.loads.size else None,
    }


# -- reading the rows ----------------------------------------------------------------------------------


def find(rows: Sequence[Mapping], reading: str, name: str) -> list[Mapping]:
    """The rows of one model, seed by seed."""
    return [row for row in rows if row["arm"] == name and row["reading"] == reading]


def smooth(values: Sequence[float], width: int = 15) -> np.ndarray:
    """Running mean over the last `width` steps."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - width, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def saved(row: Mapping, base: Mapping, decay: float) -> float:
    """FLOPs of `base` over FLOPs of `row` at the loss that the worse of the two has before the decay begins."""
    constant = [smooth(r["train_loss"])[: int((1 - decay) * len(r["train_loss"]))] for r in (row, base)]
    target = max(curve[-1] for curve in constant)
    steps = [int(np.argmax(curve <= target)) + 1 for curve in constant]
    return steps[1] * base["flops_per_token"] / (steps[0] * row["flops_per_token"])


def savings(log: Mapping, reading: str, base: str = "8") -> dict[str, list[float]]:
    """`saved` of every model against `base`, seed by seed."""
    found = {name: zip(find(log["rows"], reading, name), find(log["rows"], reading, base)) for name in ARMS}
    return {name: [saved(row, other, log["decay"]) for row, other in pairs] for name, pairs in found.items()}


def gain(rows: Sequence[Mapping], reading: str, name: str, base: str) -> list[float]:
    """How much lower the held-out loss of `name` is than that of `base`, in nats, seed by seed."""
    return [b["loss"] - a["loss"] for a, b in zip(find(rows, reading, name), find(rows, reading, base))]


def report(log: Log) -> None:
    """Five doublings of facts one by one, then the first three together, for text too; the dense model, the clock."""
    common = {
        "figure": "figures/sparsity.png",
        "notebook": shared.NOTEBOOK,
        "source": "K2 report 2.3 (sparsity scaling law)",
    }
    steps = [("facts", "one doubling", low, high) for low, high in itertools.pairwise(EXPERTS)]
    for reading, step, low, high in [
        *steps,
        *((reading, "three doublings", 8, 64) for reading in ("facts", "text")),
    ]:
        won = gain(log.rows, reading, str(high), str(low))
        said = f"{reading}, {step}: loss (nats) that {high} experts save over {low} at equal activated FLOPs"
        log.claim(f"sparsity/{reading}_{low}_to_{high}", claim=said, **shared.above_zero(won), **common)
    for reading in ("facts", "text"):
        won = gain(log.rows, reading, "64", "dense, same activated")
        said = f"{reading}: loss (nats) that 64 experts save over a dense model of the same activated size"
        log.claim(f"sparsity/{reading}_dense", claim=said, **shared.above_zero(won), **common)
    pairs = zip(find(log.rows, "text", "256"), find(log.rows, "text", "8"))
    slower = harness.ratio_across([row["seconds"] / base["seconds"] for row, base in pairs])
    says = "text: seconds of training of 256 experts over those of 8 at equal activated FLOPs"
    log.claim("sparsity/wall_clock", claim=says, floor=1.3, at_most=True, **slower, **common)


@style.styled
def draw(log: dict) -> Figure:
    """Facts and text: loss by number of experts (mean over seeds, 95% t interval), against seconds and over the tokens;
    for text the FLOPs saved beside K2's. Facts are learned in the decay, behind the point where a saving could be read
    off: there the loss over activated FLOPs stands in its place."""
    rows, parts = log["rows"], {}
    for reading in ("facts", "text"):
        losses = {name: [row["loss"] for row in find(rows, reading, name)] for name in ARMS}
        points = {name: harness.across(values) for name, values in losses.items()}
        seconds = {
            name: float(np.mean([row["seconds"] for row in find(rows, reading, name)])) for name in ARMS
        }
        ours = {experts / CHOSEN: harness.across(savings(log, reading)[str(experts)]) for experts in EXPERTS}
        curves = {name: curve(find(rows, reading, name)) for name in ARMS if name not in ("16", "32", "128")}
        parts[reading] = (points, seconds, None if reading == "facts" else ours, curves)
    return moe.sparsity(parts, K2_SAVED)


def curve(rows: Sequence[Mapping]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens read, activated FLOPs spent, and the training loss, mean over seeds, smoothed."""
    loss = np.mean([smooth(row["train_loss"]) for row in rows], 0)
    share = np.arange(1, len(loss) + 1) / len(loss)
    return share * rows[0]["tokens"], share * rows[0]["flops"], loss


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
