"""Why not MQA? Latent attention and its rivals with equally many cached numbers a token and layer.

A cache is what a long context costs. All four keep 64 numbers a token and layer; they differ in what they do with them:

    MHA    4 heads, each with a key and a value of 8 numbers of its own
    GQA    2 groups; a group's two heads share a key and a value of 16
    MQA    all 4 heads share one key and one value of 32
    MLA    all 4 heads expand their own keys and values, of 32, out of one latent of 48 and a rotated key of 16

Each has 4 query heads in 3 dense layers of the nano's width, and sees the same recall drills, then the same text and
needles, from random weights. Measured: loss on held-out chapters, and needles found at five depths of a window.
The cache is equal and the parameters are not: MLA's expansion costs weights, which the log counts.
Sources: DeepSeek-V2 report, section 2.1 and appendix D (MLA against MHA, GQA, MQA); Shazeer 2019 (MQA); Ainslie
2023 (GQA).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from kimi_mini.base.command import in_one_line
from kimi_mini.base.evidence import Log
from kimi_mini.course.figures import attention
from kimi_mini.experiments.attention import needle_runs
from kimi_mini.experiments.harness import across, arguments, finish
from kimi_mini.model import kernels
from kimi_mini.model.config import KimiConfig
from kimi_mini.model.kimi import KimiMini, evaluating
from kimi_mini.model.layers import Linear
from kimi_mini.model.rope import apply_rope
from kimi_mini.text import needles
from kimi_mini.training.batch import Example, collate
from kimi_mini.training.loop import evaluate_loss

CACHED, HEADS = 64, 4
ARMS = {"MHA": 4, "GQA": 2, "MQA": 1, "MLA": None}  # groups that have a key and a value of their own
LENGTH = 128  # tokens of a window
DRILL_TOKENS, TOKENS = 1_200_000, 600_000  # the drills end when their loss is below 0.3
QUESTIONS, WINDOWS = 40, 64  # a depth; windows of held-out text
NOTEBOOK = "02_latent_attention_long_context.ipynb"


class GroupedAttention(nn.Module):
    """Causal attention in which `groups` key-value heads serve all query heads: MHA, GQA or MQA. Stands in for MLA."""

    def __init__(self, config: KimiConfig, groups: int):
        super().__init__()
        self.groups, self.d = groups, config.qk_rope_head_dim
        self.q_proj = Linear(config.hidden_size, HEADS * self.d)
        self.k_proj = Linear(config.hidden_size, groups * self.d)
        self.v_proj = Linear(config.hidden_size, groups * self.d)
        self.o_proj = Linear(HEADS * self.d, config.hidden_size)
        for linear in self.children():
            nn.init.normal_(linear.weight, std=config.initializer_range)

    def forward(self, x: Tensor, rotation: Tensor, *_, **__) -> Tensor:
        """x (B, T, h), rotation (1, T, d/2) complex -> (B, T, h)."""
        q = apply_rope(self.q_proj(x).unflatten(-1, (HEADS, self.d)), rotation[:, :, None])  # (B, T, H, d)
        # (B, T, G, d)
        k = apply_rope(self.k_proj(x).unflatten(-1, (self.groups, self.d)), rotation[:, :, None])
        v = self.v_proj(x).unflatten(-1, (self.groups, self.d))
        k, v = (each.repeat_interleave(HEADS // self.groups, dim=2) for each in (k, v))  # (B, T, H, d)
        q, k, v = (each.transpose(1, 2) for each in (q, k, v))  # (B, H, T, d)
        out, _ = kernels.causal_attention(q, k, v, self.d**-0.5, track=False)
        return self.o_proj(out.transpose(1, 2).flatten(2))


def build(arm: str, seed: int) -> KimiMini:
    """The small dense model with the attention of one arm, from random weights."""
    torch.manual_seed(seed)
    groups = ARMS[arm]
    width = {} if groups is None else {"qk_rope_head_dim": CACHED // (2 * groups)}
    shape = dict(
        vocab_size=1152, first_k_dense_replace=3, num_attention_heads=HEADS, num_key_value_heads=HEADS
    )
    model = KimiMini(KimiConfig.preset("nano", **shape, **width))
    if groups is not None:
        for layer in model.model.layers:
            layer.self_attn = GroupedAttention(model.config, groups)
    return model


def cached_numbers(model: KimiMini) -> int:
    """Numbers that one layer keeps for one token."""
    attn = model.model.layers[0].self_attn
    return 2 * attn.groups * attn.d if isinstance(attn, GroupedAttention) else model.config.latent_dim


def train(model: KimiMini, text: np.ndarray, seed: int, scale: float) -> dict[str, float]:
    """Drills until they are learned, then text and needles; what it took."""
    drill = needle_runs.fit(
        model,
        lambda rng: needle_runs.drill_examples(rng, text),
        (seed, 0),
        int(DRILL_TOKENS * scale),
        until=0.3,
    )
    mixed = needle_runs.fit(
        model, lambda rng: needle_runs.examples(rng, text, LENGTH), (seed, 1), int(TOKENS * scale)
    )
    return {
        "drill_tokens": sum(drill.tokens),
        "drill_loss": float(np.mean(drill.loss[-10:])),
        "tokens": sum(mixed.tokens),
        "seconds": round(drill.seconds + mixed.seconds, 1),
    }


@torch.no_grad()
def needles_found(model: KimiMini, text: np.ndarray, seed: int, count: int) -> list[float]:
    """Share of needles found at each depth of a window, over `count` held-out haystacks a depth."""
    rng, found = np.random.default_rng([seed, 7]), []
    for depth in needle_runs.DEPTHS:
        asked = [needles.question(rng, text, LENGTH, needle_runs.SYMBOLS, depth) for _ in range(count)]
        with evaluating(model):
            logits = model(torch.from_numpy(np.stack([question.ids for question in asked]))).logits[:, -1]
        answers = logits.argmax(-1).tolist()
        found.append(float(np.mean([a == question.answer for a, question in zip(answers, asked)])))
    return found


def text_loss(model: KimiMini, text: np.ndarray, count: int) -> float:
    """Nats a token on `count` windows, evenly spread over held-out text."""
    starts = np.linspace(0, len(text) - LENGTH, count).astype(int)
    rows = [Example(text[start : start + LENGTH], np.ones(LENGTH, bool)) for start in starts]
    return evaluate_loss(model, [collate(rows[i : i + 16]) for i in range(0, count, 16)])


def main() -> None:
    """Train every arm at every seed; write data/results/rivals.json and its figure."""
    args = arguments(__doc__.splitlines()[0])
    log = Log("rivals", seeds=args.seeds, folder=args.folder, cached_numbers=CACHED)
    training, validation = needle_runs.book_tokens()
    for seed in args.seeds:
        for arm in ARMS:
            model = build(arm, seed)
            cost = train(model, training, seed, args.scale)
            found = needles_found(model, validation, seed, max(4, int(QUESTIONS * args.scale)))
            loss = text_loss(model, validation, max(16, int(WINDOWS * args.scale)))
            weights = sum(p.numel() for p in model.model.layers[0].self_attn.parameters())
            log.row(seed=seed, arm=arm, loss=loss, found=found, attention_parameters=weights, **cost)
            print(f"seed {seed} {arm}: {loss:.3f} nats, needles {np.mean(found):.3f} {found}", flush=True)
    report(log)
    finish(log, rivals=draw)


def differences(rows: Sequence[dict], measure: str, rival: str) -> list[float]:
    """MLA against a rival, one number a seed: nats saved, or needles more."""

    def of(arm: str) -> list[float]:
        return [float(np.mean(row[measure])) for row in rows if row["arm"] == arm]

    pairs = zip(of("MLA"), of(rival))
    return [theirs - ours if measure == "loss" else ours - theirs for ours, theirs in pairs]


def report(log: Log) -> None:
    """A claim a rival and measure: MLA's advantage with the same cache."""
    words = {"loss": "saves so many nats a token of text", "found": "finds so many more of the needles"}
    for rival in [arm for arm in ARMS if arm != "MLA"]:
        for measure, what in words.items():
            found = across(differences(log.rows, measure, rival))
            log.claim(
                f"rivals/{rival}/{measure}",
                claim=f"with equally many cached numbers, latent attention {what} against {rival}",
                source="DeepSeek-V2 report, appendix D",
                floor=0.0,
                figure="figures/rivals.png",
                notebook=NOTEBOOK,
                **found,
            )


def draw(log: dict) -> Figure:
    """Loss and needles of every arm, a dot a seed."""
    rows = log["rows"]
    of = lambda measure: {
        arm: [float(np.mean(row[measure])) for row in rows if row["arm"] == arm] for arm in ARMS
    }
    return attention.rivals(of("loss"), of("found"), log["cached_numbers"])


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
