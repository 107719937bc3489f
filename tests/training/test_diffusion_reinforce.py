"""RL of a refining model: what a step does to what was better and worse, what is left alone, and how far it moved."""

import copy

import numpy as np
import pytest
import torch
from tiny import tiny_model

from kimi_mini.inference.diffusion import Refined, Style, refine
from kimi_mini.training.diffusion.bound import refined_losses
from kimi_mini.training.diffusion.estimators import ESTIMATORS, Written, by_steps
from kimi_mini.training.diffusion.reinforce import (
    Prompt,
    Way,
    divergence,
    judged,
    logprobs,
    refining,
    reinforce,
    texts_of,
    weighted,
)

VOCAB, SIZE = 8, 4
MASK = VOCAB - 1


def model_of(seed=0):
    return tiny_model(seed, std=0.3, vocab_size=VOCAB).eval()


def ends_agree(text):
    return float(text[0] == text[-1])


def asked(count, canvas=(MASK,) * SIZE, reward=ends_agree):
    return [Prompt((1 + number % 3, 2), canvas, reward) for number in range(count)]


def written(model, count=6, seed=0):
    return refining(model, asked(count), seed)


def test_rewards_of_a_prompt_stand_together_and_right_texts_are_counted_once():
    texts = torch.tensor([[1, 2, 3, 1], [1, 2, 3, 1], [1, 2, 3, 4], [5, 2, 2, 5], [5, 2, 3, 5], [5, 6, 6, 4]])
    done = Refined(texts, torch.zeros_like(texts), torch.zeros(texts.shape), 1)
    prompts = asked(6)
    rewards, distinct = judged(prompts, Written.of([p.context for p in prompts], done, MASK), 3)
    assert rewards.tolist() == [[1, 1, 0], [1, 1, 0]]
    assert distinct == (1 + 2) / 2


@pytest.mark.parametrize("count", [1, 2, 4])
def test_an_estimator_that_looks_more_often_takes_no_larger_step(count):
    """Mutant: the mean over rows, which divides by the looks. Constant losses: the step's loss is the gains' mean."""
    model, gains = model_of(), torch.tensor([1.0, -1.0, 0.5, 0.0, 2.0, -0.5])
    batch = weighted(by_steps(written(model), np.random.default_rng(0), count), gains)
    of_texts = batch.weight.view(6, -1).sum(1) / batch.learned  # each text's share in the loss of a step
    torch.testing.assert_close(of_texts, gains * SIZE / (6 * SIZE))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_step_makes_the_better_likelier_than_the_worse(name):
    """Mutant: the sign of the advantage."""
    model, rng = model_of(), np.random.default_rng(0)
    texts = written(model, 16)
    gains = torch.tensor([1.0, -1.0] * 8)
    before = logprobs(model, texts)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
    for _ in range(4):
        batch = weighted(ESTIMATORS[name](texts, rng), gains)
        (refined_losses(model, batch).sum() / batch.learned).backward()
        optimizer.step()
        optimizer.zero_grad()
    moved = logprobs(model, texts) - before
    assert moved[gains > 0].mean() > moved[gains < 0].mean() + 0.02, moved


def test_a_reward_without_difference_teaches_nothing():
    """Mutant: no baseline, with which what is always right is learned again and again."""
    model = model_of()
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    course = reinforce(model, optimizer, lambda n: asked(4, reward=lambda text: 1.0), 2, group=3)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert [one.right for one in course.rounds] == [1.0, 1.0] and not course.loss


def test_a_step_does_not_depend_on_the_size_of_its_micro_batches():
    """Where most groups say nothing. Mutant: what is left out is left out of the mean, too."""

    def norm(rows):
        model = model_of()
        prompts = [*asked(4), *asked(28, reward=lambda text: 0.0)]
        done = reinforce(
            model, torch.optim.SGD(model.parameters(), 1e-6), lambda _: prompts, 1, group=8, rows=rows
        )
        return done.gradient_norm[0]

    assert norm(8) == pytest.approx(norm(1024), rel=1e-4) and norm(1024) > 0


def test_given_tokens_stay_and_are_not_learned():
    """All but one place given: only that one place may gain or lose."""
    model, canvas = model_of(), (3, MASK, 4, 5)
    texts = refining(model, asked(8, canvas), 0)
    assert all((text[0], *text[2:]) == (3, 4, 5) for text in texts_of(texts))
    for name, estimator in ESTIMATORS.items():
        batch = weighted(estimator(texts, np.random.default_rng(0)), torch.ones(8))
        assert (batch.weight != 0).sum(1).max() == 1 and (batch.weight[:, 3] != 0).all(), name


def test_log_probabilities_are_those_that_the_sampler_drew_by():
    model = model_of()
    contexts, canvas = [p.context for p in asked(5)], torch.full((5, SIZE), MASK)
    done = refine(model, contexts, canvas, Style("random", temperature=1.0), seed=3)
    found = logprobs(model, Written.of(contexts, done, MASK), rows=7)
    torch.testing.assert_close(found, done.logprobs.sum(1), atol=1e-3, rtol=1e-3)


def test_the_divergence_is_zero_at_the_start_and_grows():
    model, start = model_of(), model_of()
    assert abs(divergence(model, start, written(model))) < 1e-5
    with torch.no_grad():
        model.lm_head.weight.mul_(3)
    assert divergence(model, start, written(model, 64)) > 0.05


@pytest.mark.slow
def test_rl_finds_texts_whose_ends_agree():
    """From one in seven to most; the other model writes on as before."""
    model = model_of()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    course = reinforce(model, optimizer, lambda n: asked(8), 60, Way(), group=8)
    first, last = (np.mean([one.right for one in part]) for part in (course.rounds[:5], course.rounds[-5:]))
    assert first < 0.4 and last > 0.7, (first, last)
    assert course.rounds[0].looks == SIZE + 4
