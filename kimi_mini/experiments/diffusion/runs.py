"""Two models of one start on the same examples: one learns to refine, the other to write from left to right.

Both see the same plan of examples in the same steps, with the same optimizer and schedule. An example is one turn and
all that stood before it: a sum, a product, a chain, a repair, or a call of a tool. Of the sums and products a share
ASKED is learned as a whole, the user's words too: such a row can be filled in from behind, and what was asked is told
by the work. The canvas of the one that refines has LENGTH tokens behind the question; unused room holds <|im_end|>.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from kimi_mini.agent.folder import load_agent, save_agent
from kimi_mini.base.files import read_json, write_json
from kimi_mini.inference.diffusion import mask_token
from kimi_mini.model.kimi import KimiMini
from kimi_mini.pipeline.plan import Plan, Schedule
from kimi_mini.pipeline.shared import Bar, note_of, trained
from kimi_mini.text.habits import Habits
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training import sft
from kimi_mini.training.batch import Batch, Example, micro_batches, token_losses
from kimi_mini.training.diffusion import canvases, hide, refined_losses
from kimi_mini.training.synthesis import Source, passed_only, synthesise, trajectory, wanted

LENGTH = 48  # tokens of a canvas; longer turns are left out
LEVELS = {"add": (2, 3, 4), "times": (2, 3, 4), "chain": (2, 3, 4), "repair": (1,), "follow": (1, 2, 3)}
SHARES = {"add": 0.36, "times": 0.44, "chain": 0.06, "repair": 0.06, "follow": 0.08}
WHOLE = {"add": 60, "times": 60, "chain": 77, "repair": 174, "follow": 154}  # tokens of a trajectory, about
SUMS = ("add", "times")
ARMS = ("refining", "writing")
ASKED = 0.15  # share of rows in which the user's words are learned as well
PASSES = 1.5


@dataclass(frozen=True)
class Recipe:
    """What decides the weights. tokens: of the examples, without canvases' room; blocks: share of micro-batches whose
    noise is that of a block (see `hide`); families: keys of LEVELS, in the proportions of SHARES."""

    tokens: int = 7_000_000
    step_tokens: int = 4096
    micro_tokens: int = 2048
    peak: float = 1.0
    blocks: float = 0.25
    families: tuple[str, ...] = tuple(LEVELS)

    def shares(self) -> dict[str, float]:
        """family -> its share of the tokens; together 1."""
        whole = sum(SHARES[family] for family in self.families)
        return {family: SHARES[family] / whole for family in self.families}

    def scaled(self, scale: float) -> Recipe:
        """The same with fewer tokens."""
        return Recipe(**asdict(self) | {"tokens": max(2 * self.step_tokens, int(self.tokens * scale))})


def whole(example: Example, tokenizer: Tokenizer) -> Example:
    """The same with the user's words learned, too: from behind the <|im_middle|> of the user's turn to the end."""
    user = int(np.flatnonzero(example.ids == tokenizer.special["<|im_user|>"])[0])
    start = user + int(np.flatnonzero(example.ids[user:] == tokenizer.special["<|im_middle|>"])[0]) + 1
    return Example(example.ids, np.arange(len(example.ids)) >= start)


def turns_of(example: Example) -> list[Example]:
    """One example for each turn that fits a canvas: all that stood before it, and the turn, which is learned."""
    steps = np.diff(example.mask.astype(np.int8), prepend=0, append=0)
    starts, stops = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
    return [
        Example(example.ids[:stop], np.arange(stop) >= start)
        for start, stop in zip(starts, stops)
        if stop - start <= LENGTH
    ]


def canvas_of(example: Example, tokenizer: Tokenizer, asked: bool = False) -> Example:
    """The example of one turn as a canvas of LENGTH tokens behind the question; asked: the user's words stand on it."""
    longer = whole(example, tokenizer) if asked else example
    more = int(longer.mask.sum() - example.mask.sum())
    return canvases(longer, tokenizer.token_id("<|im_end|>"), size=LENGTH + more)[0]


def pools_of(tokenizer: Tokenizer, recipe: Recipe, seed: int) -> sft.Pools:
    """Turns of training tasks of the recipe's families, enough for its tokens read PASSES times."""
    made = {}
    for family, share in recipe.shares().items():
        source = Source(family, "think", share, LEVELS[family], length=WHOLE[family])
        count = wanted(source, recipe.tokens, PASSES)
        made[source] = passed_only(list(synthesise(tokenizer, source, count, seed, mistakes=0.0)))
    pools = sft.pools_of(made)
    return {key: [turn for one in examples for turn in turns_of(one)] for key, examples in pools.items()}


def held_out(tokenizer: Tokenizer, family: str, count: int, seed: int) -> list[Example]:
    """The expert's turns for held-out tasks, level after level."""
    levels = LEVELS[family]
    names = [(f"held out/{seed}/{family}/{i}", levels[i % len(levels)]) for i in range(count)]
    whole_ones = [trajectory(tokenizer, name, family, level, "think", 0.0, True) for name, level in names]
    return [turn for one in whole_ones for turn in turns_of(one.example)]


def batches(
    arm: str,
    examples: Sequence[Example],
    model: KimiMini,
    tokenizer: Tokenizer,
    recipe: Recipe,
    rng: np.random.Generator,
    sums: Sequence[bool] | None = None,
) -> list[Batch]:
    """A step's micro-batches for one of ARMS; both learn the same of the `sums` whole (of all examples, if None)."""
    asked = (rng.random(len(examples)) < ASKED) & (True if sums is None else np.array(sums))
    if arm == "writing":
        rows = [
            whole(example, tokenizer) if all_of_it else example for example, all_of_it in zip(examples, asked)
        ]
        return micro_batches(rows, recipe.micro_tokens)
    rows = [canvas_of(example, tokenizer, all_of_it) for example, all_of_it in zip(examples, asked)]
    rows.sort(key=lambda row: len(row.ids))
    size = max(1, recipe.micro_tokens // max(len(row.ids) for row in rows))
    parts = [rows[start : start + size] for start in range(0, len(rows), size)]
    kinds = ["block" if rng.random() < recipe.blocks else "count" for _ in parts]
    return [hide(part, mask_token(model), rng, kind) for part, kind in zip(parts, kinds)]


def tokens_of(arm: str, pools: sft.Pools, steps: Sequence[Sequence[tuple]]) -> int:
    """Tokens that an arm reads in all: a canvas has LENGTH of them, whatever its turn has."""
    if arm == "writing":
        return sft.tokens_of(pools, steps)
    examples = (pools[key][index] for step in steps for key, index in step)
    return sum(len(one.ids) - int(one.mask.sum()) + LENGTH for one in examples)


def learned(
    arm: str, start: Path, recipe: Recipe, seed: int, folder: Path, title: str = ""
) -> tuple[KimiMini, Tokenizer, dict]:
    """The model of one arm and what is noted of its training; trained unless `folder` holds it. A run that was stopped
    goes on from its last state."""
    kept = folder / f"{arm}-{seed}"
    note = kept.with_suffix(".json")
    if note.is_file():
        return *load_agent(kept), read_json(note)
    model, tokenizer = load_agent(start)
    plan = Plan(seed=seed, step_tokens=recipe.step_tokens, micro_tokens=recipe.micro_tokens)
    pools = pools_of(tokenizer, recipe, seed)
    steps = sft.make_plan(pools, recipe.tokens, recipe.step_tokens, seed, ramp=(0.0, 0.1))

    def data(step: int) -> list[Batch]:
        examples = [pools[key][index] for key, index in steps[step]]
        sums = [source.family in SUMS for (source, _), _ in steps[step]]
        return batches(arm, examples, model, tokenizer, recipe, np.random.default_rng([seed, step]), sums)

    schedule = Schedule(peak=recipe.peak, decay_fraction=0.5, floor=0.02)
    losses: Callable = refined_losses if arm == "refining" else token_losses
    state = folder / f"{arm}-{seed}.pt"
    with Bar(tokens_of(arm, pools, steps), title) as bar:
        history = trained(
            model, plan, data, len(steps), schedule, state_file=state, progress=bar, losses=losses
        )
    save_agent(model, kept, Habits.load(start))
    spent = {
        "examples": sft.tokens_of(pools, steps),
        "processor_seconds": round(history.processor_seconds, 1),
    }
    done = note_of(history) | spent
    write_json(note, done)
    state.unlink()
    return model, tokenizer, done
