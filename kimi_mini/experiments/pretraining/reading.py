"""What the models of rephrasing read, in which steps, and what they answer afterwards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from kimi_mini import KimiConfig
from kimi_mini.experiments.pretraining.fact_pages import pages, questions, text_example
from kimi_mini.model.kimi import KimiMini, evaluating
from kimi_mini.pipeline.plan import Optimizer, Plan
from kimi_mini.text import planted_errors, rephrase
from kimi_mini.text.rephrase import Person
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training.batch import Example, collate, micro_batches
from kimi_mini.training.loop import train
from kimi_mini.training.optim.schedule import wsd

STEP_TOKENS = {"base": 2048, "arm": 512}
SLIP = 0.1  # of the chunks that the rewriter gets wrong


def slipping(share: float) -> rephrase.Writer:
    """The rewriter, with one planted error in a share of its chunks."""

    def write(chunk: str, context: str, rng: np.random.Generator) -> str:
        text = rephrase.write_chunk(chunk, context, rng)
        if rng.random() < share:
            return planted_errors.plant(text, str(rng.choice(sorted(planted_errors.ERRORS))), rng) or text
        return text

    return write


def wordings(arm: str, raw: list[str], rng: np.random.Generator, count: Counter) -> Callable[[], list[str]]:
    """What an arm reads in each epoch. `count` keeps how many chunks were kept and how many refused."""

    def again() -> list[str]:
        done = [rephrase.rewrite(page, rng, slipping(SLIP)) for page in raw]
        count["kept"] += sum(len(rephrase.chunks(page)) for page in raw)
        count["refused"] += sum(refused for _, refused in done)
        return [text for text, _ in done]

    once = again() if arm == "one" else raw
    return again if arm == "ten" else lambda: once


def epochs_of(
    texts: Callable[[], Sequence[str]], asked: list[Example], tokenizer: Tokenizer, rng: np.random.Generator
) -> Iterator[list[Example]]:
    """Epoch after epoch: what `texts` gives now, with the questions among it, in random order."""
    while True:
        examples = [text_example(tokenizer, text) for text in texts()] + asked
        yield [examples[i] for i in rng.permutation(len(examples))]


def steps_of(epochs: Iterator[Sequence[Example]], total: int, size: int) -> list[list[Example]]:
    """Steps of about `size` tokens, `total` tokens together, from epoch after epoch of examples."""
    steps, now, done, count = [], [], 0, 0
    for epoch in epochs:
        for example in epoch:
            now.append(example)
            count += len(example.ids)
            if count >= size:
                steps.append(now)
                done, now, count = done + count, [], 0
            if done >= total:
                return steps
    return steps


def learn(model: KimiMini, steps: list[list[Example]], rate: float, warmup: int = 10) -> float:
    """Train on the steps; seconds."""
    plan, count = Plan(), len(steps)
    optimizer = Optimizer(rate * plan.optimizer.lr, rate * plan.optimizer.adamw_lr).build(model)
    history = train(
        model,
        optimizer,
        lambda step: micro_batches(steps[step], plan.micro_tokens),
        count,
        lambda step: wsd(step, count, min(warmup, count // 4), decay_start=count // 2),
        bias_rate=plan.bias_rate,
    )
    loss, tokens = np.mean(history.loss[-10:]), sum(history.tokens)
    print(f"   {len(steps)} steps, {tokens:,} tokens, {history.seconds:.0f} s, loss {loss:.3f}", flush=True)
    return history.seconds


def checkpoint(
    tokenizer: Tokenizer, known: Sequence[Person], tokens: int, raw_every: int, rng: np.random.Generator
) -> KimiMini:
    """The nano after reading about `known` people and all questions about them: every `raw_every`-th page as it stands
    (0: none), the others in new words each time."""
    model = KimiMini(KimiConfig.preset("nano", vocab_size=tokenizer.vocab_size))

    def texts() -> list[str]:
        order = [known[i] for i in rng.permutation(len(known))]
        is_raw = [raw_every and place % raw_every == 0 for place in range(len(order))]
        return [page if raw else rephrase.rewrite(page, rng)[0] for page, raw in zip(pages(order), is_raw)]

    epochs = epochs_of(texts, questions(tokenizer, known), tokenizer, rng)
    learn(model, steps_of(epochs, tokens, STEP_TOKENS["base"]), 1.0)
    return model


@torch.no_grad()
def right(model: KimiMini, examples: Sequence[Example]) -> float:
    """Share of examples whose learned tokens are all what the model would have said."""
    found = []
    with evaluating(model):
        for start in range(0, len(examples), 256):
            batch = collate(examples[start : start + 256])
            best = model(batch.ids, valid=batch.valid).logits[:, :-1].argmax(-1)  # (B, T - 1)
            found += ((best == batch.ids[:, 1:]) | ~batch.mask[:, 1:]).all(1).tolist()
    return sum(found) / len(found)
