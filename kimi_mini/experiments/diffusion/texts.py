"""Short texts with three constraints, and two models of one size that write them: refining, and from left to right.

A context asks for a word at a place, "put moon at third :", and a text of nine tokens answers:

    red 3 2 sun fish moon rain 5 red
    |   |-| |----------------| |  |
    |   |   four words         |  a colour again: the same fact, which must agree with the first
    |   two digits             their sum: the checksum, which must hold
    a colour                   and the word that was asked for must stand at its place

Each of the three constraints is kept by a share of the training texts, independently of the others; in the rest it is
broken. The sum is a plain one: one modulo 5 tells nothing about either digit alone, and neither model learned it. So a
model that has learned these texts well keeps it that often, and rewards have something to find.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kimi_mini.base.files import replacing
from kimi_mini.inference.cache import LatentCache
from kimi_mini.inference.diffusion import Refined, mask_token
from kimi_mini.model import kernels
from kimi_mini.model.config import KimiConfig
from kimi_mini.model.kimi import KimiMini
from kimi_mini.pipeline.plan import Optimizer, Schedule
from kimi_mini.training.batch import Example, collate
from kimi_mini.training.diffusion.bound import Noised, hide, refined_losses
from kimi_mini.training.diffusion.estimators import Estimator, Written
from kimi_mini.training.diffusion.reinforce import (
    Course,
    Prompt,
    Way,
    divergence,
    judged,
    refining,
    reinforce,
    texts_of,
)
from kimi_mini.training.loop import History, train

COLOURS, DIGITS = ("red", "blue", "green", "black"), ("0", "1", "2", "3")
SUMS = (*DIGITS, "4", "5", "6")
WORDS, PLACES = ("sun", "moon", "fish", "rain", "tree", "bird"), ("first", "second", "third", "fourth")
VOCABULARY = (*COLOURS, *SUMS, *WORDS, *PLACES, "put", "at", ":", "[PAD]", "[MASK]")
ID = {word: number for number, word in enumerate(VOCABULARY)}
LENGTH, FIRST_WORD, CHECK, AGAIN = 9, 3, 7, 8  # tokens; places on the canvas
KINDS = ("checksum", "word", "facts")
SHAPE = dict(
    hidden_size=48,
    num_hidden_layers=2,
    num_attention_heads=3,
    num_key_value_heads=3,
    qk_nope_head_dim=8,
    qk_rope_head_dim=8,
    v_head_dim=16,
    kv_lora_rank=32,
    intermediate_size=128,
    moe_intermediate_size=32,
    n_routed_experts=4,
    num_experts_per_tok=2,
    max_position_embeddings=64,
)
ROWS, STEPS = 128, 900  # texts of a training step; steps
RL_RATE, TASKS, GROUP = 0.15, 16, 8  # of the optimizer's rates; contexts a round, texts each
ALIKE = 16  # texts for the same context, among which distinct ones are counted
SHARE = 0.7  # of the training texts, that keeps a constraint


def fresh(seed: int) -> KimiMini:
    """A model of the size of both, untrained."""
    torch.manual_seed(seed)
    return KimiMini(KimiConfig.preset("nano", vocab_size=len(VOCABULARY), **SHAPE))


def context_of(word: str, place: int) -> tuple[int, ...]:
    """The tokens of "put WORD at PLACE :"; place: 0 to 3."""
    return tuple(ID[token] for token in ("put", word, "at", PLACES[place], ":"))


def kept(context: Sequence[int], text: Sequence[int]) -> tuple[bool, bool, bool]:
    """Which of KINDS a text keeps."""
    digits = [VOCABULARY[token] for token in (*text[1:FIRST_WORD], text[CHECK])]
    numbers = all(digit in SUMS for digit in digits)
    place = PLACES.index(VOCABULARY[context[3]])
    return (
        numbers and sum(map(int, digits[:2])) == int(digits[2]),
        text[FIRST_WORD + place] == context[1],
        text[0] == text[AGAIN] and VOCABULARY[text[0]] in COLOURS,
    )


def draw(rng: np.random.Generator, shares: Sequence[float]) -> tuple[tuple[int, ...], list[int]]:
    """A context and a text, which keeps each of KINDS with its share."""
    word, place = WORDS[rng.integers(len(WORDS))], int(rng.integers(4))
    checks, stands, agree = rng.random(3) < shares
    digits = rng.integers(len(DIGITS), size=2)
    check = int(digits.sum() + (0 if checks else rng.integers(1, len(SUMS)))) % len(SUMS)
    others = [other for other in WORDS if other != word]
    words = [WORDS[rng.integers(len(WORDS))] for _ in PLACES]
    words[place] = word if stands else others[rng.integers(len(others))]
    colour = int(rng.integers(4))
    again = colour if agree else (colour + int(rng.integers(1, 4))) % 4
    tokens = [COLOURS[colour], *(str(digit) for digit in digits), *words, str(check), COLOURS[again]]
    return context_of(word, place), [ID[token] for token in tokens]


def example(rng: np.random.Generator, shares: Sequence[float]) -> Example:
    """A training text behind its context."""
    context, text = draw(rng, shares)
    return Example(np.array([*context, *text]), np.arange(len(context) + LENGTH) >= len(context))


def prompts(
    count: int,
    rng: np.random.Generator,
    given: Sequence[int] = (),
    wanted: Sequence[str] = KINDS,
    share: bool = True,
) -> list[Prompt]:
    """Contexts to write for. given: places of the canvas that hold tokens of a text that keeps everything. The reward
    is the share of `wanted` that is kept, or, without `share`, 1 if all of them are."""
    made = []
    for _ in range(count):
        context, text = draw(rng, (1, 1, 1))
        canvas = tuple(text[place] if place in given else len(VOCABULARY) - 1 for place in range(LENGTH))
        made.append(Prompt(context, canvas, _Reward(context, wanted, share)))
    return made


class _Reward:
    def __init__(self, context: Sequence[int], wanted: Sequence[str], share: bool):
        self.context, self.share = context, share
        self.places = [KINDS.index(name) for name in wanted]

    def __call__(self, text: Sequence[int]) -> float:
        found = kept(self.context, text)
        value = float(np.mean([found[place] for place in self.places]))
        return value if self.share else float(value == 1)


def taught(
    refines: bool, shares: Sequence[float], steps: int, seed: int, progress=None
) -> tuple[KimiMini, History]:
    """A model trained on `steps` steps of ROWS texts: by the bound of diffusion, or from left to right."""
    model, rng = fresh(seed), np.random.default_rng([seed, 1])

    def data(step: int) -> list[Noised]:
        examples = [example(rng, shares) for _ in range(ROWS)]
        if refines:
            return [hide(examples, mask_token(model), rng, by="count")]
        batch = collate(examples)
        clean, weight = batch.ids, batch.mask.float()
        return [Noised(ids=batch.ids, mask=batch.mask, valid=batch.valid, noisy=clean, weight=weight)]

    schedule = Schedule(decay_fraction=0.6, floor=0.02).over(steps)
    losses = refined_losses if refines else next_token_losses
    return model, train(
        model, Optimizer().build(model), data, steps, schedule, losses=losses, progress=progress
    )


def start(refines: bool, seed: int, steps: int, folder: Path, progress=None) -> KimiMini:
    """The model that both experiments start from, trained on texts of which SHARE keeps each constraint; it is trained
    once, and kept in `folder`."""
    file = folder / f"{'refining' if refines else 'left_to_right'}_{seed}_{steps}.pt"
    if file.is_file():
        model = fresh(seed)
        model.load_state_dict(torch.load(file, weights_only=True))
        return model
    model, _ = taught(refines, (SHARE,) * len(KINDS), steps, seed, progress)
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as part:
        torch.save(model.state_dict(), part)
    return model


def next_token_losses(model: KimiMini, batch: Noised) -> Tensor:
    """weight * -log p(token | the tokens before it), of every token with a weight, as `refined_losses` gives them."""
    hidden = model.hidden_states(batch.ids, valid=batch.valid)[:, :-1]
    learned, weight = batch.weight[:, 1:] != 0, batch.weight[:, 1:]
    losses = kernels.head_losses(hidden[learned], model.lm_head.weight[:-1], batch.ids[:, 1:][learned])
    return weight[learned] * losses


@torch.no_grad()
def left_to_right(model: KimiMini, asked: Sequence[Prompt], seed: int) -> Written:
    """Texts written token by token at temperature 1; what is given stands when its turn comes, unseen until then."""
    dice, rows = torch.Generator().manual_seed(seed), len(asked)
    contexts, ids = [prompt.context for prompt in asked], torch.tensor([prompt.canvas for prompt in asked])
    free = ids == mask_token(model)
    cache = LatentCache(model.config, rows, len(contexts[0]) + LENGTH, "cpu", model.lm_head.weight.dtype)
    hidden = model.hidden_states(torch.tensor(contexts), cache=cache.extend([len(contexts[0])] * rows))
    for place in range(LENGTH):
        chances = model.lm_head(hidden[:, -1])[:, :-1].float().softmax(-1)
        drawn = torch.multinomial(chances, 1, generator=dice)[:, 0]
        ids[:, place] = torch.where(free[:, place], drawn, ids[:, place])
        hidden = model.hidden_states(ids[:, place : place + 1], cache=cache.extend([1] * rows))
    when = torch.where(free, torch.arange(LENGTH), -1)
    done = Refined(ids, when, torch.zeros(ids.shape), LENGTH)
    return Written.of(contexts, done, mask_token(model))


def as_written(written: Written, rng: np.random.Generator) -> Noised:
    """The log-probability of a text written from left to right, in one look and exact."""
    return written.noised(torch.zeros_like(written.written), written.written)


WRITING = Way(left_to_right, as_written, as_written, next_token_losses)


def refining_by(estimator: Estimator) -> Way:
    """The way of the model that refines, by one of the estimators."""
    return Way(refining, estimator)


def by_rl(
    model: KimiMini, way: Way, rounds: int, seed: int, reward: Sequence[str], share: bool, progress=None
) -> Course:
    """`rounds` rounds of RL over `model`, in place: TASKS contexts a round, GROUP texts each."""
    plan = Optimizer()
    optimizer = replace(plan, lr=plan.lr * RL_RATE, adamw_lr=plan.adamw_lr * RL_RATE).build(model)

    def asked(number: int) -> list[Prompt]:
        return prompts(TASKS, np.random.default_rng([seed, 3, number]), wanted=reward, share=share)

    return reinforce(model, optimizer, asked, rounds, way, GROUP, seed, progress=progress)


def measured(
    model: KimiMini, begun: KimiMini, way: Way, reward: Sequence[str], seed: int, tasks: int
) -> dict:
    """Of new contexts, ALIKE texts each: what is kept; distinct right texts of them, mean over contexts; KL to the
    start. And what is kept when checksum and second colour are given: "given"."""
    rng, group = np.random.default_rng([seed, 4]), ALIKE
    asked = [p for p in prompts(tasks, rng, wanted=reward, share=False) for _ in range(group)]
    texts = way.write(model, asked, seed)
    rewards, distinct = judged(asked, texts, group)
    told = [p for p in prompts(tasks, rng, given=(CHECK, AGAIN)) for _ in range(group)]
    return {
        "kept": shares_kept(asked, texts_of(texts)),
        "right": rewards.mean().item(),
        "distinct": distinct,
        "kl": divergence(model, begun, texts, way),
        "given": shares_kept(told, texts_of(way.write(model, told, seed))),
    }


def shares_kept(asked: Sequence[Prompt], texts: Sequence[Sequence[int]]) -> dict[str, float]:
    """Of KINDS, and of all three together ("all"): the share of texts that keep it."""
    found = np.array([kept(prompt.context, text) for prompt, text in zip(asked, texts)])
    return dict(zip(KINDS, found.mean(0).tolist())) | {"all": float(found.all(1).mean())}
