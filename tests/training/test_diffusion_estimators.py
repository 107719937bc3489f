"""Policy gradients of a refining model against the exact one, all orders and texts summed: which estimator is biased?"""

from itertools import permutations, product

import numpy as np
import pytest
import torch
from tiny import tiny_model

from kimi_mini.inference.diffusion import Refined, Style, blank, refine
from kimi_mini.model import kernels
from kimi_mini.model.kernels.both_ways import both_ways
from kimi_mini.training.diffusion.bound import refined_losses, reweighted
from kimi_mini.training.diffusion.estimators import ESTIMATORS, Written, by_steps

CONTEXT, SIZE, TOKENS = [1, 2], 2, 3  # of a vocabulary of four: three tokens and [MASK]
MASK = 3


def model_of(seed=0):
    torch.manual_seed(seed)
    made = tiny_model(vocab_size=4, std=0.5)
    with torch.no_grad():
        made.lm_head.weight.mul_(2)
    return made.eval()


def reward(text):
    """Both tokens have to agree: neither is right by itself."""
    return float(text[0] == text[1]) + 0.2 * (text[0] == 0)


def logprobs(model, canvas):
    """(L, V - 1), with gradients."""
    ids = torch.tensor([CONTEXT + list(canvas)])
    marked = torch.tensor([[False] * (len(CONTEXT) - 1) + [True] * (SIZE + 1)])
    with kernels.using(attention=both_ways(marked)):
        return model(ids).logits[0, len(CONTEXT) - 1 : -1, :MASK].log_softmax(-1)


def gradient(model, loss):
    return torch.cat(
        [
            g.flatten()
            for g in torch.autograd.grad(loss, list(model.parameters())[:1] + [model.lm_head.weight])
        ]
    )


def exact(model):
    """The gradient of the expected reward: every order is as likely as any other."""
    total = 0.0
    for order in permutations(range(SIZE)):
        for text in product(range(TOKENS), repeat=SIZE):
            canvas, chance = [MASK] * SIZE, 0.0
            for place in order:
                chance = chance + logprobs(model, canvas)[place, text[place]]
                canvas[place] = text[place]
            total = total + chance.exp() * reward(text) / 2
    return gradient(model, total)


def expected(model, name, draws=1):
    """The mean gradient that an estimator gives, over all orders and texts with their chances: no sampling but its own."""
    total, rng = 0.0, np.random.default_rng(0)
    for order in permutations(range(SIZE)):
        for text in product(range(TOKENS), repeat=SIZE):
            canvas, chance, when = [MASK] * SIZE, 0.0, [0] * SIZE
            for step, place in enumerate(order):
                chance += logprobs(model, canvas)[place, text[place]].item()
                canvas[place], when[place] = text[place], step
            done = Refined(torch.tensor([text]), torch.tensor([when]), torch.zeros(1, SIZE), SIZE)
            for _ in range(draws):
                batch = ESTIMATORS[name](Written.of([CONTEXT], done, MASK), rng)
                worth = torch.full((len(batch.ids),), np.exp(chance) * reward(text) / 2 / draws)
                total = total - gradient(model, refined_losses(model, reweighted(batch, worth)).sum())
    return total


def error(found, wanted):
    return ((found - wanted).norm() / wanted.norm()).item()


def test_by_steps_is_the_exact_gradient():
    model = model_of()
    assert error(expected(model, "by steps"), exact(model)) < 1e-3


@pytest.mark.parametrize("name", ["at a glance", "by the bound"])
def test_the_others_are_biased(name):
    """Also with many draws: more of the same does not help."""
    model = model_of()
    assert error(expected(model, name, draws=8), exact(model)) > 0.1


def test_some_of_the_steps_are_unbiased_too():
    """One step in place of both, weighted by two: the same on average."""
    model, rng = model_of(), np.random.default_rng(0)
    done = refine(model, [CONTEXT] * 6, blank(model, 6, SIZE), Style("random", temperature=1.0), seed=1)
    written = Written.of([CONTEXT] * 6, done, MASK)
    whole = gradient(model, refined_losses(model, by_steps(written, rng, SIZE)).sum())
    parts = (
        sum(gradient(model, refined_losses(model, by_steps(written, rng, 1)).sum()) for _ in range(300)) / 300
    )
    assert error(parts, whole) < 0.12
    heavy = by_steps(written, rng, 1).weight
    assert heavy.max() == SIZE and (heavy.sum(1) == SIZE).all()


def test_losses_by_steps_are_what_the_sampler_said():
    """Several tokens a step, contexts of several lengths, given tokens: minus the log-probabilities of the writing."""
    model = tiny_model(std=0.4).eval()
    contexts, canvas = [[3, 5, 9], [4, 4], [8, 8, 2]], blank(model, 3, 6)
    canvas[:, 1] = 7
    done = refine(model, contexts, canvas, Style("random", at_once=2, temperature=1.0), seed=3)
    written = Written.of(contexts, done, 1023)
    batch = by_steps(written, np.random.default_rng(0), count=99)
    losses = torch.zeros_like(batch.weight)
    losses[batch.weight != 0] = refined_losses(model, batch).detach()
    torch.testing.assert_close(losses.sum(1).view(3, -1).sum(1), -done.logprobs.sum(1), atol=1e-3, rtol=1e-3)
    assert not batch.weight[(written.when < 0).repeat_interleave(done.steps, 0)].any(), (
        "what was given is not learned"
    )


@pytest.mark.parametrize("name", ESTIMATORS)
def test_nothing_that_was_given_or_padded_is_learned(name):
    model = tiny_model(std=0.4).eval()
    canvas = blank(model, 2, 4)
    canvas[:, 0] = 7
    done = refine(model, [[3, 5, 9], [4, 4]], canvas, Style("random", temperature=1.0))
    batch = ESTIMATORS[name](Written.of([[3, 5, 9], [4, 4]], done, 1023), np.random.default_rng(0))
    learned = batch.weight != 0
    assert not (learned & ~batch.mask).any() and not (learned & (batch.ids == 7)).any()
    assert (batch.noisy[learned] == 1023).all() and (batch.noisy[~batch.mask] == batch.ids[~batch.mask]).all()


def test_masks_drawn_anew_make_up_for_how_few_they_are():
    """Whatever number is masked, a row's weights add up to the tokens of its text; over all rows to once the text."""
    canvas = blank(model_of(), 1, 8)
    texts = Refined(canvas * 0, torch.arange(8)[None], torch.zeros(1, 8), 8)
    weight = ESTIMATORS["by the bound"](
        Written.of([CONTEXT], texts, MASK), np.random.default_rng(0), 400
    ).weight
    torch.testing.assert_close(weight.sum(1), torch.full((400,), 8 / 400))
    assert len(set((weight > 0).sum(1).tolist())) == 8, "from one to all of them"
    torch.testing.assert_close(weight.sum(0)[2:], torch.ones(8), atol=0.35, rtol=0)
