"""Twice the attention heads: what does it buy in loss, and what does it cost at a long context?

K2 has 64 heads where DeepSeek-V3 has 128. Its report: doubling the heads (from one a layer to two) lowers the loss by
0.5 to 1.2% at equal tokens, and costs 83% more FLOPs of inference at 128k tokens. Here the nano, which has 3 layers,
with 3 and with 6 heads of the same width, on the same text in the same order; and K2's FLOPs, counted from its config.
"""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.figure import Figure

from kimi_mini.base.command import in_one_line
from kimi_mini.base.evidence import Log
from kimi_mini.course.figures import attention, style
from kimi_mini.experiments.harness import across, arguments, finish
from kimi_mini.model.config import KimiConfig
from kimi_mini.model.kimi import KimiMini
from kimi_mini.pipeline.plan import Plan
from kimi_mini.text import corpus
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training.batch import Batch, in_turn, text_batch
from kimi_mini.training.loop import History, evaluate_loss, train
from kimi_mini.training.optim.schedule import wsd

HEADS = (3, 6)
TOKENS, WINDOW, HELD_OUT = 600_000, 256, 64
CONTEXT = 131_072
NOTEBOOK = "02_latent_attention_long_context.ipynb"


def main() -> None:
    """Train both at every seed and count K2's FLOPs; write data/results/heads.json and its figure."""
    args = arguments(__doc__.splitlines()[0])
    log = Log("heads", seeds=args.seeds, folder=args.folder, tokens=int(TOKENS * args.scale), k2=k2_flops())
    training, validation = windows()
    held_out = [text_batch(validation[start : start + 16]) for start in range(0, HELD_OUT, 16)]
    for seed in args.seeds:
        for heads in HEADS:
            config = KimiConfig.preset("nano", num_attention_heads=heads)
            model, history = train_on_text(config, training, seed, int(TOKENS * args.scale))
            loss, count = evaluate_loss(model, held_out), config.count_parameters()
            log.row(
                seed=seed,
                heads=heads,
                loss=loss,
                seconds=history.seconds,
                tokens=sum(history.tokens),
                activated=count.activated_without_embeddings,
            )
            print(f"seed {seed}, {heads} heads: {loss:.4f} nats a token, {history.seconds:.0f} s", flush=True)
    report(log)
    finish(log, heads=draw)


def windows() -> tuple[np.ndarray, np.ndarray]:
    """Training and validation windows (N, WINDOW) of Moby-Dick and a part of the standard library."""
    return corpus.windows(Tokenizer.load(), corpus.default_documents(1_500_000), WINDOW)


def train_on_text(
    config: KimiConfig, training: np.ndarray, seed: int, tokens: int
) -> tuple[KimiMini, History]:
    """A model from random weights on `tokens` tokens; a seed decides its weights and the order of the text."""
    torch.manual_seed(seed)
    model, plan = KimiMini(config), Plan()
    steps, chosen = (max(2, tokens // plan.step_tokens), in_turn(training, plan.step_tokens // WINDOW, seed))

    def data(step: int) -> list[Batch]:
        return [text_batch(part) for part in np.array_split(chosen(step), 2)]

    def progress(step: int, history: History) -> None:
        if step % 25 == 24:
            print(f"  step {step + 1}/{steps}: loss {np.mean(history.loss[-10:]):.3f}", flush=True)

    history = train(
        model,
        plan.optimizer.build(model),
        data,
        steps,
        bias_rate=plan.bias_rate,
        progress=progress,
        schedule=lambda step: wsd(step, steps, min(20, steps // 4), decay_fraction=0.5),
    )
    return model, history


def k2_flops() -> list[dict[str, float]]:
    """Forward FLOPs of one token of K2 at some contexts, with its 64 heads and with 128 of the same width."""
    found = []
    for context in (4096, 8192, 16384, 32768, 65536, CONTEXT):
        few, many = (
            KimiConfig.preset("k2", num_attention_heads=heads, num_key_value_heads=heads).flops_per_token(
                context
            )
            for heads in (64, 128)
        )
        found.append({"context": context, "64": few, "128": many, "more": many / few - 1})
    return found


def report(log: Log) -> None:
    """The claims."""

    def losses(heads: int) -> np.ndarray:
        return np.array([row["loss"] for row in log.rows if row["heads"] == heads])

    shared = {
        "notebook": NOTEBOOK,
        "figure": "figures/heads.png",
        "source": "K2 report 2.3 (0.5 to 1.2%; +83%)",
    }
    gain = across(100 * (1 - losses(HEADS[1]) / losses(HEADS[0])))
    log.claim(
        "heads/loss",
        claim="twice the heads lower the validation loss at equal tokens by so many per cent",
        floor=0.5,
        **shared,
        **gain,
    )
    log.claim(
        "heads/flops",
        claim="twice the heads cost K2 so many per cent more FLOPs a token at 128k",
        floor=83,
        value=100 * log.more["k2"][-1]["more"],
        seeds=[],
        **shared,
    )


@style.styled
def draw(log: dict) -> Figure:
    """Left: loss of every seed, a line joins the two models of a seed. Right: K2's FLOPs against context."""
    losses = {seed: [row["loss"] for row in log["rows"] if row["seed"] == seed] for seed in log["seeds"]}
    return attention.heads_study(losses, HEADS, log["k2"])


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
