"""Chains longer than any that it was trained on: 9 to 16 steps, trained 1 to 8. What helps, without more training?

as it is              the question as it stands
positions squeezed    every position divided by steps / 8, so that all distances lie in the trained range
YaRN                  the same for slow pairs of the rotation only; fast ones, which tell neighbours apart, stay. With a
                      soft ramp (beta 32 to 1, as DeepSeek-V3; K2 has a hard step) and without mscale, so that the
                      softmax is not sharpened by mscale squared, only rotated parts grow by 0.1 ln(factor) + 1
in windows of 8       the question is shown at most eight steps at a time; each answer starts the next window

The windows are context management for a question: what lies outside is hidden, and the loop around the model, not the
model, decides when to go on. It cuts text; every number comes from the model.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import replace

import torch
from matplotlib.figure import Figure

from kimi_mini.agent.folder import shipped_agent
from kimi_mini.base.command import in_one_line
from kimi_mini.base.evidence import Log
from kimi_mini.course.figures import scores, style
from kimi_mini.experiments import harness
from kimi_mini.experiments.harness import arguments
from kimi_mini.experiments.thinking import shared
from kimi_mini.inference.attempts.routed import write_in_batches
from kimi_mini.model.kimi import KimiMini
from kimi_mini.model.rope import RotationTable, frequencies
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.worlds import Task
from kimi_mini.worlds.registry import held_out_tasks

TRAINED = 8  # steps
STEPS, TASKS = (8, 9, 10, 11, 12, 16), 60  # tasks a seed
MEANS = ("as it is", "positions squeezed", "YaRN", "in windows of 8")


def main() -> None:
    """Every means at every length; write data/results/long_chains.json and its figure."""
    args = arguments(__doc__.splitlines()[0], checkpoint=shipped_agent())
    model, tokenizer, log = harness.begin("long_chains", args)
    count = max(4, int(TASKS * args.scale))
    for seed in args.seeds:
        for steps in STEPS:
            tasks = held_out_tasks("chain", [steps], count, seed)
            found = answers(model, tokenizer, [task.prompt for task in tasks], steps)
            for means, numbers in found.items():
                right = sum(number == task.data["answer"] for number, task in zip(numbers, tasks))
                log.row(seed=seed, means=means, steps=steps, n=count, right=right)
            print(
                f"seed {seed}, {steps} steps:",
                {row["means"]: row["right"] for row in log.rows[-4:]},
                flush=True,
            )
    report(log)
    harness.finish(log, long_chains=draw)


def answers(
    model: KimiMini, tokenizer: Tokenizer, prompts: Sequence[str], steps: int
) -> dict[str, list[int | None]]:
    """What each means answers to questions of `steps` steps."""
    factor = max(1.0, steps / TRAINED)
    models = (model, squeezed(model, factor), with_yarn(model, factor))
    found = [ask(each, tokenizer, prompts) for each in models] + [
        in_windows(model, tokenizer, prompts, TRAINED)
    ]
    return dict(zip(MEANS, found))


QUESTION = re.compile(r"Start with (\d+), (.+), end\. (.+)", re.DOTALL)


def ask(model: KimiMini, tokenizer: Tokenizer, prompts: Sequence[str]) -> list[int | None]:
    """The numbers that the model answers after a thought."""
    ids = [shared.prompt_ids(tokenizer, Task("chain", "chain", 0, prompt)) for prompt in prompts]
    turns = write_in_batches(model, tokenizer, ids)
    return [shared.number(turn, tokenizer) for turn in turns]


def in_windows(model: KimiMini, tokenizer: Tokenizer, prompts: Sequence[str], size: int) -> list[int | None]:
    """Ask for at most `size` steps at a time; the model's own answer is where the next window starts.

    Only the question's text is cut up: what is computed, and what is carried over, comes from the model.
    """
    parts = [QUESTION.fullmatch(prompt).groups() for prompt in prompts]
    values: list[int | None] = [int(start) for start, _, _ in parts]
    left = [steps.split(", ") for _, steps, _ in parts]
    while any(left):
        live = [i for i, steps in enumerate(left) if steps and values[i] is not None]
        asked = [f"Start with {values[i]:02d}, {', '.join(left[i][:size])}, end. {parts[i][2]}" for i in live]
        for i, value in zip(live, ask(model, tokenizer, asked)):
            values[i] = value if value is not None and value < 100 else None
        left = [steps[size:] for steps in left]
    return values


def squeezed(model: KimiMini, factor: float) -> KimiMini:
    """The same weights with all positions divided by `factor` (linear interpolation)."""
    other = copy.copy(model)  # shares every weight
    angles = torch.outer(torch.arange(2048.0), frequencies(model.config) / factor)
    table = torch.polar(torch.ones_like(angles), angles)
    other.rotation = lambda length, device: table[:length].to(device)
    return other


def with_yarn(model: KimiMini, factor: float) -> KimiMini:
    """The same weights under YaRN: fast pairs as they were, slow ones divided by `factor`."""
    other = copy.copy(model)
    scaling = {
        "type": "yarn",
        "factor": factor,
        "original_max_position_embeddings": 160,
        "beta_fast": 32,
        "beta_slow": 1,
    }
    other.rotation = RotationTable(replace(model.config, rope_scaling=scaling))
    return other


def success(rows: Sequence[dict], means: str, steps: int) -> dict:
    """Right answers of all seeds, as a rate with its interval."""
    chosen = [row for row in rows if row["means"] == means and row["steps"] == steps]
    return harness.rate(sum(row["right"] for row in chosen), sum(row["n"] for row in chosen))


def report(log: Log) -> None:
    """The claims: half again as long as the longest trained chain, without help and in windows, and twice as long."""
    common = {"notebook": shared.NOTEBOOK, "figure": "figures/long_chains.png", "source": "this project"}
    log.claim(
        "horizon/chain_12_windows",
        claim="chains of 12 steps (trained: 8), shown eight steps at a time",
        floor=0.80,
        **common,
        **success(log.rows, "in windows of 8", 12),
    )
    log.claim(
        "horizon/chain_16_windows",
        claim="chains of 16 steps, twice the longest trained, shown eight steps at a time",
        floor=0.90,
        **common,
        **success(log.rows, "in windows of 8", 16),
    )
    log.claim(
        "horizon/chain_12_as_is",
        claim="chains of 12 steps (trained: 8), without any help",
        floor=0.80,
        **common,
        **success(log.rows, "as it is", 12),
    )


@style.styled
def draw(log: dict) -> Figure:
    """Success against length, one line a means, side by side: equal curves would hide each other."""
    steps = sorted({row["steps"] for row in log["rows"]})
    series = {
        means: [{"length": n + aside, **success(log["rows"], means, n)} for n in steps]
        for means, aside in zip(MEANS, (-0.18, -0.06, 0.06, 0.18))
    }
    return scores.accuracy_by_length(
        series, chance=0.01, trained_to=TRAINED, xlabel="steps in the chain", title="Longer than trained"
    )


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
