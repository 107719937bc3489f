"""The policy objectives: each has the gradient of its source, and none that of a neighbour."""

import math
from dataclasses import replace

import pytest
import torch

from kimi_mini.training.rl import config as config_
from kimi_mini.training.rl import objective
from kimi_mini.training.rl.config import RLConfig
from kimi_mini.training.rl.objective import OBJECTIVES, Scale, Written

LENGTHS = [3, 9, 5, 4, 7, 2, 6, 8]
REWARDS = [[1.0, 0.0, -0.5, 1.0], [0.0, 0.0, 1.0, 0.0]]
SCALE = Scale(attempts=8, tokens=sum(LENGTHS), longest=50)
CLIPS = {"gspo": (0.05, 0.07), "cispo": (1.0, 0.2), "k2.5": (0.25, 0.3)}  # where about half of the tokens are


def drawn(seed=0):
    """Two groups of four attempts, as if the policy had moved on since."""
    draw = torch.Generator().manual_seed(seed)
    attempt = torch.repeat_interleave(torch.arange(8), torch.tensor(LENGTHS))
    old = -2 * torch.rand(len(attempt), generator=draw, dtype=torch.float64)
    new = (old + 0.3 * torch.randn(len(attempt), generator=draw, dtype=torch.float64)).requires_grad_()
    return Written(new, old, attempt, 8)


def config_of(name):
    return RLConfig(objective=name, tau=0.7, clip=CLIPS.get(name))


def loss_of(name, written, rewards=REWARDS, config=None, rule=None):
    rule = OBJECTIVES[name] if rule is None else rule
    gain = rule.advantage(torch.tensor(rewards, dtype=torch.float64)).flatten()
    return rule(written, gain, SCALE, config or config_of(name))


def gradient_of(name, written, **more):
    return torch.autograd.grad(loss_of(name, written, **more), written.new)[0]


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name != "reinforce"])
@pytest.mark.parametrize("worth", [0.1, 0.3, 0.7, 0.9])
def test_a_group_whose_attempts_are_all_worth_the_same_says_nothing(name, worth):
    """Not even by the rounding of its mean, which a division by the deviation of nothing makes large."""
    gains = OBJECTIVES[name].advantage(torch.tensor([[worth] * 8, [0.0] * 7 + [worth]]))
    assert (gains[0] == 0).all() and (gains[1] != 0).all()


# ---- the same by hand: what stands before grad log pi of token t in attempt i ---------------------------------


def advantage(name, i):
    group, r = REWARDS[i // 4], REWARDS[i // 4][i % 4]
    mean = sum(group) / 4
    if name == "reinforce":
        return r
    if name == "rloo":
        return r - (sum(group) - r) / 3
    if name in ("grpo", "gspo", "cispo"):
        return (r - mean) / math.sqrt(sum((other - mean) ** 2 for other in group) / 4)
    return r - mean


def surrogate(ratio, gain, low, high):
    """d/d log pi of - min(ratio A, clip(ratio) A)."""
    moved = ratio > 1 + high if gain > 0 else ratio < 1 - low
    return 0.0 if moved else -ratio * gain


def coefficient(name, x, each, a):
    """Of a token with log-ratio x, in an attempt with the log-ratios `each` and advantage a."""
    (low, high), tokens, length = CLIPS.get(name, (0.2, 0.2)), sum(LENGTHS), len(each)
    clipped = surrogate(math.exp(x), a, low, high)
    return {
        "k2": -(a - 0.7 * sum(each)) / tokens,
        "k2.5": ((-math.exp(x) * a if -low <= x <= high else 0.0) + 2 * 0.7 * x) / tokens,
        "reinforce": -a / tokens,
        "rloo": -a / tokens,
        "ppo": clipped / tokens,
        "grpo": clipped / length / 8,
        "dr_grpo": clipped / 50 / 8,
        "gspo": surrogate(math.exp(sum(each) / length), a, low, high) / length / 8,
        "cispo": -min(math.exp(x), 1 + high) * a / tokens,
    }[name]


def by_hand(name, written):
    ratios = [[] for _ in range(8)]
    for i, new, old in zip(written.attempt.tolist(), written.new.tolist(), written.old.tolist()):
        ratios[i].append(new - old)
    found = [coefficient(name, x, each, advantage(name, i)) for i, each in enumerate(ratios) for x in each]
    return torch.tensor(found, dtype=torch.float64)


def check(name, rule=None, seed=0):
    written = drawn(seed)
    measured = gradient_of(name, written, rule=rule)
    torch.testing.assert_close(measured, by_hand(name, written), rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_gradient_is_that_of_the_source(name, seed):
    check(name, seed=seed)


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name != "cispo"])  # whose weights are held
def test_the_gradient_is_the_slope_of_the_loss(name):
    written = drawn(1)
    torch.autograd.gradcheck(lambda new: loss_of(name, replace(written, new=new)), (written.new,), eps=1e-7)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_no_objective_is_another_one(name):
    """Each under the advantage and the clip of its neighbours: RLOO alone is REINFORCE's loss."""
    for other in OBJECTIVES:
        if other != name:
            with pytest.raises(AssertionError):
                check(name, OBJECTIVES[other])


def rule(name, **changes):
    return replace(OBJECTIVES[name], **changes)


def by_sign(w, gain, scale, tau, clip):
    return (tau * w.log_ratio**2).sum() / scale.tokens + objective.ppo(
        w, gain, scale, tau, (1 - math.exp(-clip[0]), math.exp(clip[1]) - 1)
    )


def per_sequence(w, gain, scale, tau, clip):
    each = tau * w.log_ratio**2 - w.log_ratio.clamp(-clip[0], clip[1]).exp() * gain[w.attempt]
    return (w.summed(each) / w.lengths()).sum() / scale.attempts


def largest(w, gain, scale, tau, clip):
    ratio = w.log_ratio.exp()
    a = gain[w.attempt]
    return -torch.maximum(ratio * a, ratio.clamp(1 - clip[0], 1 + clip[1]) * a).sum() / scale.tokens


def through_the_weight(w, gain, scale, tau, clip):
    return -(w.log_ratio.exp().clamp(max=1 + clip[1]) * gain[w.attempt] * w.new).sum() / scale.tokens


def product_of_ratios(w, gain, scale, tau, clip):
    return objective.clipped(w.summed(w.log_ratio), gain, clip).sum() / scale.attempts


def of_several_tasks(rewards):
    return rewards - rewards.mean()


MUTANTS = {
    "k2.5: a mask by the sign of the advantage": ("k2.5", rule("k2.5", loss=by_sign)),
    "k2.5: tokens normalised per sequence": ("k2.5", rule("k2.5", loss=per_sequence)),
    "k2.5: no mask": ("k2.5", rule("k2.5", loss=lambda *args: objective.k25(*args[:4], (99.0, 99.0)))),
    "k2: a baseline over several prompts": ("k2", rule("k2", advantage=of_several_tasks)),
    "k2: divided by the standard deviation": ("k2", rule("k2", advantage=objective.standardised)),
    "reinforce: a baseline": ("reinforce", rule("reinforce", advantage=objective.advantages)),
    "rloo: itself in its baseline": ("rloo", rule("rloo", advantage=objective.advantages)),
    "ppo: the larger of the two": ("ppo", rule("ppo", loss=largest)),
    "ppo: no clip": ("ppo", rule("ppo", loss=lambda *args: objective.ppo(*args[:4], (0.99, 99.0)))),
    "grpo: not divided": ("grpo", rule("grpo", advantage=objective.advantages)),
    "grpo: the mean of all tokens": ("grpo", rule("grpo", loss=objective.ppo)),
    "dr_grpo: the mean over each attempt": ("dr_grpo", rule("dr_grpo", loss=objective.grpo)),
    "gspo: the product of the ratios": ("gspo", rule("gspo", loss=product_of_ratios)),
    "gspo: a ratio a token": ("gspo", rule("gspo", loss=objective.grpo)),
    "cispo: a gradient through the weight": ("cispo", rule("cispo", loss=through_the_weight)),
    "cispo: clipped tokens dropped": ("cispo", rule("cispo", loss=objective.ppo)),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_wrong_version_is_found_out(mutant):
    with pytest.raises(AssertionError):
        check(*MUTANTS[mutant])


# ---- what tells neighbours apart ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_bonus_for_all_attempts_changes_nothing_but_reinforce(name):
    written = drawn()
    more = [[reward + 3 for reward in group] for group in REWARDS]
    same = torch.allclose(gradient_of(name, written), gradient_of(name, written, rewards=more))
    assert same is (name != "reinforce")


@pytest.mark.parametrize("name", OBJECTIVES)
def test_rewards_twice_as_large_change_nothing_where_they_are_standardised(name):
    written = drawn()
    twice = [[2 * reward for reward in group] for group in REWARDS]
    same = torch.allclose(gradient_of(name, written), gradient_of(name, written, rewards=twice), rtol=1e-4)
    assert same is (name in ("grpo", "gspo", "cispo"))


def test_a_far_token_has_a_gradient_or_none():
    """A token three times as likely as when it was sampled, in an attempt that was right, and in one that was wrong."""
    written, gain = drawn(), torch.tensor([1.0, -1.0] * 4, dtype=torch.float64)
    new = (written.old + math.log(3)).requires_grad_()
    far = replace(written, new=new)

    def moved(name):
        rule, config = replace(OBJECTIVES[name], clip=(0.2, 0.2)), RLConfig(objective=name, tau=1e-9)
        gradient = torch.autograd.grad(rule(far, gain, SCALE, config), new)[0]
        return bool(gradient[0].abs() > 1e-4), bool(gradient[3].abs() > 1e-4)  # of attempts 0 and 1

    assert (
        moved("k2.5") == (False, False) and moved("ppo") == (False, True) and moved("cispo") == (True, True)
    )


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_step_may_be_cut_into_batches(name):
    """The losses of two halves are that of the whole: they are divided by what the whole step has."""
    w = drawn()
    whole, gain = gradient_of(name, w), OBJECTIVES[name].advantage(torch.tensor(REWARDS).double()).flatten()
    total = 0.0
    for half in (range(4), range(4, 8)):
        of = (w.attempt >= half[0]) & (w.attempt <= half[-1])
        part = Written(w.new[of], w.old[of], w.attempt[of] - half[0], 4)
        total = total + OBJECTIVES[name](part, gain[half[0] : half[-1] + 1], SCALE, config_of(name))
    torch.testing.assert_close(torch.autograd.grad(total, w.new)[0], whole)


# ---- the config -----------------------------------------------------------------------------------------------


def test_the_names_are_one_list():
    assert tuple(OBJECTIVES) == config_.OBJECTIVES
    assert all(f"    {name} " in objective.__doc__ for name in OBJECTIVES)


def test_a_config_says_what_each_number_means():
    text = str(RLConfig(objective="gspo"))
    assert text.startswith("objective       gspo ") and "cap             1.0" in text and "Limits(" in text
    assert len(text.splitlines()) == len(vars(RLConfig())) + 1


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"objective": "trpo"}, "no objective 'trpo'; choose one of: k2, k2.5"),
        ({"temperature": (1.0, 0.0)}, "temperatures above 0"),
        ({"clip": (0.2, -0.1)}, "clip is two numbers above 0"),
        ({"reward": (("charm", 1.0),)}, "no reward 'charm'; choose from: verdict"),
        ({"budget": 0.0}, "budget is a percentile"),
        ({"cap": 0.0}, "cap must be above 0"),
        ({"clip": (0.2,)}, "clip is two numbers above 0"),
        ({"tau": 0.0}, "not with k2, which divides by it"),
        ({"objective": "k2.5", "tau": -0.1}, "tau is a number above 0"),
        ({"tau": float("nan")}, "tau is a number above 0"),
        ({"objective": "rloo", "attempts": 1}, "2 or more with rloo"),
        ({"attempts": 0}, "attempts is 1 or more"),
        ({"rounds": 0}, "rounds is 1 or more, not 0"),
        ({"prompts": 0}, "prompts is 1 or more, not 0"),
        ({"updates": -1}, "updates is 1 or more, not -1"),
        ({"tasks": ()}, "there are none"),
        ({"loops": 1}, "loops is 2 or more, or 0"),
        ({"loops": -3}, "loops is 2 or more, or 0"),
    ],
)
def test_what_cannot_be_is_refused(wrong, says):
    with pytest.raises(ValueError, match=says) as refused:
        RLConfig(**wrong)
    assert "\n" not in str(refused.value)


def test_what_divides_by_nothing_is_allowed():
    assert (
        RLConfig(objective="k2.5", tau=0.0).tau == 0.0
        and RLConfig(objective="grpo", attempts=1).attempts == 1
    )
