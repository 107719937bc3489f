"""Checkers of notebook 07: what they call right is what the package trains with."""

import torch

from kimi_mini.course.exercises import rl as ex
from kimi_mini.training.rl.config import RLConfig
from kimi_mini.training.rl.objective import OBJECTIVES, Scale, Written


def gradient(name, ratios, attempt, gain, count, tokens, **config):
    new = ratios.flatten().clone().requires_grad_()
    written = Written(new, torch.zeros_like(new), attempt, count)
    loss = OBJECTIVES[name](written, gain, Scale(count, tokens, 50), RLConfig(tau=ex.TAU, **config))
    return torch.autograd.grad(loss, new)[0]


def test_k2_is_the_package_s_objective_times_two_tau():
    gain = OBJECTIVES["k2"].advantage(ex.REWARDS).flatten()
    found = gradient("k2", ex.RATIOS, torch.arange(15), gain, 15, 15).view(3, 5)

    def by_package(rewards, log_ratio, tau):
        return 2 * tau * found

    assert ex.check_k2(by_package)


def test_k25_is_the_package_s_objective():
    gain = ex.GAINS[[0, 2, 8, 11]]
    found = gradient("k2.5", ex.TOKENS, ex.ATTEMPT, gain, 4, len(ex.TOKENS), clip=(ex.LOW, ex.HIGH))
    checked = ex.check_k25(lambda *arguments: found)
    assert checked and "PPO would move 4 more" in checked.text, checked
