"""Reinforcement learning: the gradient is K2's and no other, only sampled tokens carry it, and rewards go up."""

import copy
import dataclasses
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import Typist, tiny_model
from tiny import typed as tokens_of

from kimi_mini import MuonClip, worlds
from kimi_mini.agent import loop
from kimi_mini.agent.conversation import training_rows
from kimi_mini.agent.policy import LocalPolicy
from kimi_mini.base.errors import KimiError
from kimi_mini.model.compact import int4
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training.batch import Example, collate, token_losses
from kimi_mini.training.rl import config as config_
from kimi_mini.training.rl import objective, rounds
from kimi_mini.training.rl import rewards as rewards_
from kimi_mini.training.rl.config import RLConfig
from kimi_mini.training.rl.curriculum import Curriculum
from kimi_mini.worlds.rows import Limits

SETTINGS = RLConfig(
    tasks=(("buy", 1),),
    rounds=2,
    prompts=3,
    attempts=4,
    updates=1,
    tau=0.5,
    ptx=0.0,
    limits=Limits(turn_tokens=12, turns=2, context=400),
)
TEMPERATURE = 0.9
CLIP = torch.nn.utils.clip_grad_norm_


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.load()


@pytest.fixture(autouse=True)
def unclipped(monkeypatch):
    """Gradients as they are: clipping their norm would hide a wrong factor."""
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda parameters, size: torch.tensor(1.0))


# ---- the objective --------------------------------------------------------------------------------------------

TAU = 0.7


def numbers(seed=0):
    """New and old log-probabilities of 8 attempts and their advantages."""
    draw = torch.Generator().manual_seed(seed)
    new = torch.randn(8, generator=draw, dtype=torch.float64).requires_grad_()
    old = new.detach() + 0.3 * torch.randn(8, generator=draw, dtype=torch.float64)
    rewards = (torch.rand(2, 4, generator=draw) < 0.5).double()
    rewards[0, 0], rewards[1, 1] = 1 - rewards[0, 1], -0.5
    return new, old, objective.advantages(rewards).flatten()


def k2_gradient(new, old, advantage, tau=TAU):
    """-(A - tau log ratio) of each attempt, averaged: what stands before its grad log pi."""
    return -(advantage - tau * (new.detach() - old)) / len(new)


def check_objective(loss_of):
    new, old, advantage = numbers()
    (gradient,) = torch.autograd.grad(loss_of(new, old, advantage, TAU), new)
    torch.testing.assert_close(gradient, k2_gradient(new, old, advantage))


def test_the_gradient_is_that_of_the_report():
    check_objective(objective.policy_loss)
    new, old, advantage = numbers()
    torch.autograd.gradcheck(lambda new: objective.policy_loss(new, old, advantage, TAU), (new,))


def test_its_minimum_is_where_the_log_ratio_is_the_advantage_over_tau():
    """The optimum of reward minus tau KL: pi is proportional to pi_old exp(r / tau)."""
    _, old, advantage = numbers()
    best = (old + advantage / TAU).requires_grad_()
    loss = objective.policy_loss(best, old, advantage, TAU)
    assert loss.item() == pytest.approx(0) and torch.autograd.grad(loss, best)[0].abs().max() < 1e-9


WRONG_OBJECTIVES = {
    "advantage over its standard deviation (GRPO)": lambda new, old, a, tau: objective.policy_loss(
        new, old, a / a.std(), tau
    ),
    "clipped ratio (PPO)": lambda new, old, a, tau: (
        -torch.minimum((new - old).exp() * a, (new - old).exp().clamp(0.8, 1.2) * a).mean()
    ),
    "no pull": lambda new, old, a, tau: -(a * new).mean(),
    "pull the wrong way": lambda new, old, a, tau: objective.policy_loss(new, old, a, -tau) * -1,
    "pull without tau": lambda new, old, a, tau: objective.policy_loss(new, old, a, 1.0),
    "the square without 2 tau": lambda new, old, a, tau: objective.policy_loss(new, old, a, tau) * 2 * tau,
    "reward without baseline": lambda new, old, a, tau: objective.policy_loss(new, old, a + 0.5, tau),
    "sum over attempts": lambda new, old, a, tau: objective.policy_loss(new, old, a, tau) * len(new),
}


@pytest.mark.parametrize("name", WRONG_OBJECTIVES)
def test_another_objective_is_found_out(name):
    with pytest.raises(AssertionError):
        check_objective(WRONG_OBJECTIVES[name])


def test_advantages_of_a_group_sum_to_zero():
    rewards = torch.tensor([[1.0, 0, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1], [1, -0.5, 0, 0]])
    gains = objective.advantages(rewards)
    torch.testing.assert_close(gains.sum(-1), torch.zeros(4), atol=1e-6, rtol=0)
    assert gains[0].tolist() == [0.5, -0.5, -0.5, 0.5] and not gains[1:3].any()
    assert gains.abs().max() <= 1.0 + 1e-6


# ---- rewards --------------------------------------------------------------------------------------------------


def typed(tokenizer, limits, family="buy", spell=None):
    task = worlds.generate(random.Random(0), family, 2)
    (conversation,) = loop.run(Typist(tokenizer, spell), tokenizer, [task], limits)
    return conversation


def total(conversation, **changes):
    return rewards_.reward(conversation, replace(SETTINGS, **changes))["total"]


def test_rewards_are_verdicts(tokenizer):
    right = typed(tokenizer, Limits(128, 8, 1024))
    assert rewards_.reward(right, SETTINGS) == {"verdict": 1.0, "budget": 0.0, "total": 1.0, "passed": 1.0}
    right.environment.state.execute("DELETE FROM orders")
    assert total(right) == 0.0


@pytest.mark.parametrize(
    ("finish", "turn_tokens", "turns", "room"),
    [("length", 16, 8, 900), ("turns", 64, 1, 900), ("context", 64, 8, 64)],
)
def test_an_attempt_over_its_budget_is_punished(tokenizer, finish, turn_tokens, turns, room):
    prompt = typed(tokenizer, Limits(turns=1)).prompt_length
    conversation = typed(tokenizer, Limits(turn_tokens, turns, prompt + room))
    assert conversation.finish == finish
    assert total(conversation) == -0.5 and total(conversation, reward=(("budget", 0.25),)) == -0.25
    assert total(conversation, reward=(("budget", 7.0),)) == -1.0, "no single attempt dominates"


def test_a_repair_without_an_end_is_punished(tokenizer):
    conversation = typed(tokenizer, Limits(128, 1, 1024), "repair")
    assert conversation.finish == "turns" and not conversation.verdict().passed  # although its tests pass
    assert total(conversation) == -0.5


def test_a_cap_binds_where_a_reward_has_no_limit(tokenizer):
    """Effort pays by the call: without a cap a wrong attempt of many calls is worth more than a right one, and with one
    of 1 at most as much. A cap above every reward changes nothing; the verdict is kept apart."""
    right = typed(tokenizer, Limits(128, 8, 1024))
    busy = typed(tokenizer, Limits(128, 8, 1024))
    busy.environment.state.execute("DELETE FROM orders")
    busy.calls = 40
    paid = {"reward": (("verdict", 1.0), ("calls", 0.1))}
    assert 4.1 > total(busy, cap=99.0, **paid) > 3.9 > total(right, cap=99.0, **paid) > 1
    assert total(busy, **paid) == total(right, **paid) == 1.0
    assert rewards_.reward(busy, replace(SETTINGS, **paid))["passed"] == 0.0


def test_a_rubric_says_more_than_a_verdict(tokenizer):
    """Ended, with declared tools and no false word, but the wrong state: three criteria of four."""
    conversation = typed(tokenizer, Limits(128, 8, 1024))
    conversation.environment.state.execute("DELETE FROM orders")
    assert total(conversation, reward=(("rubric", 1.0),)) == 0.75


@pytest.mark.parametrize(
    ("name", "arguments", "lost"),
    [
        ("buy", '{"item":"red fig","count":1}', 0.0),
        ("fly", '{"item":"red fig","count":1}', 0.5),
        ("buy", '{"item":"red fig"', 0.5),
        ("buy", '{"item":"red fig","count":"two"}', 0.5),
    ],
)
def test_calls_that_no_tool_takes_cost(tokenizer, name, arguments, lost):
    conversation = typed(tokenizer, Limits(128, 1, 1024))
    right = {"function": {"name": "buy", "arguments": '{"item":"red fig","count":1}'}}
    calls = [right, {"function": {"name": name, "arguments": arguments}}]
    conversation.messages = [{"role": "assistant", "content": None, "tool_calls": calls}]
    assert rewards_.reward(conversation, replace(SETTINGS, reward=(("format", 1.0),)))["format"] == -lost


def test_the_parts_are_one_list():
    assert (*rewards_.PARTS, "critic") == config_.PARTS
    assert all(f"    {name} " in rewards_.__doc__ for name in config_.PARTS)


# ---- the gradient of a round ----------------------------------------------------------------------------------


class Recorder:
    """In place of an optimizer: keeps the gradients of every step and moves nothing."""

    def __init__(self, model):
        self.model, self.steps = model, []

    def step(self):
        self.steps.append(torch.cat([flat(p) for p in self.model.parameters()]))

    def zero_grad(self, set_to_none=True):
        self.model.zero_grad(set_to_none=set_to_none)


def flat(parameter):
    return torch.zeros(parameter.numel()) if parameter.grad is None else parameter.grad.flatten().clone()


@pytest.fixture(scope="module")
def sampled(tokenizer):
    """Four attempts at each of three tasks, with tool calls, as if a random model had sampled them; and that model
    moved on a little, so that pi is no longer pi_old."""
    model, rng = tiny_model(), random.Random(0)
    groups = []
    for _ in range(3):
        task = worlds.generate(rng, "buy", 2)
        attempts = [Typist(tokenizer, babble(tokenizer, count)) for count in range(4)]
        groups.append([loop.run(typist, tokenizer, [task], Limits(128, 8, 1024))[0] for typist in attempts])
    for c in (c for group in groups for c in group):
        with torch.no_grad():
            logprobs = (model(torch.tensor([c.ids])).logits[0] / TEMPERATURE).log_softmax(-1)
        c.logprobs = [own * logprobs[t - 1, c.ids[t]].item() for t, own in enumerate(c.mask)]
        for number, (segment, start) in enumerate(zip(c.segments, c.turn_starts)):
            sampled = c.logprobs[start : start + len(segment.ids)]
            c.segments[number] = dataclasses.replace(segment, logprobs=sampled)
    torch.manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.02 * p.abs().mean() * torch.randn_like(p)
    return model, groups


def babble(tokenizer, count):
    """Typing with words too many in every thought: attempts of different lengths."""
    word = tokenizer.token_id("x")

    def spell(conversation, message):
        ids = tokens_of(tokenizer, message)
        return [ids[0], *[word] * 5 * count, *ids[1:]]

    return spell


def worth(total):
    """What `reward` says of an attempt that is worth so much."""
    return {"total": total, "passed": float(total > 0)}


def rewards_of(groups, seed=0):
    """Rewards drawn by lot; neither all equal nor balanced within any group, so that no advantage is 0."""
    rng = random.Random(seed)
    table = {}
    for group in groups:
        passed = rng.choice([1, 3])
        for place, conversation in enumerate(group):
            table[id(conversation)] = float(place < passed)
    return table


def literal_gradient(
    model, groups, rewards, tau=SETTINGS.tau, own=lambda c, t: c.mask[t], scale=lambda c: 1.0
):
    """The mean over all attempts of -(A - tau log ratio) grad log pi, one attempt and one token at a time; divided by
    the mean length of an attempt, the same number for all of them."""
    total, length = 0.0, sum(c.written for group in groups for c in group) / sum(map(len, groups))
    for group in groups:
        mean = sum(rewards[id(c)] for c in group) / len(group)
        for c in group:
            logits = model(torch.tensor([c.ids])).logits[0] / TEMPERATURE
            logprobs = logits.log_softmax(-1)
            new = sum(logprobs[t - 1, c.ids[t]] for t in range(1, len(c.ids)) if own(c, t)) * scale(c)
            old = sum(c.logprobs) * scale(c)  # what tools wrote has log-probability 0 there
            weight = rewards[id(c)] - mean - tau * (new.detach() - old)
            total = total - weight * new / sum(map(len, groups)) / length
    model.zero_grad(set_to_none=True)
    total.backward()
    gradient = torch.cat([flat(p) for p in model.parameters()])
    model.zero_grad(set_to_none=True)
    return gradient


@pytest.fixture
def gradient(sampled, monkeypatch):
    """What `update` gives its optimizer for rewards drawn by lot, and those rewards."""
    model, groups = sampled
    rewards = rewards_of(groups)
    monkeypatch.setattr(rounds, "reward", lambda c, config: worth(rewards[id(c)]))
    recorder = Recorder(model)
    rounds.update(model, recorder, groups, TEMPERATURE, SETTINGS)
    return recorder.steps[0], rewards


def test_a_round_moves_along_the_gradient_of_the_report(sampled, gradient):
    measured, rewards = gradient
    torch.testing.assert_close(measured, literal_gradient(*sampled, rewards), atol=5e-6, rtol=1e-3)


@pytest.mark.parametrize(
    "mutant",
    [
        {"own": lambda c, t: t >= c.prompt_length},  # what tools wrote is learned too
        {"own": lambda c, t: True},  # and the prompt
        {"scale": lambda c: 100 / c.written},  # mean over the tokens of each attempt in place of the sum
        {"tau": 0.0},  # no pull
    ],
    ids=["observations", "prompt", "mean over tokens", "no pull"],
)
def test_another_gradient_is_found_out(sampled, gradient, mutant):
    measured, rewards = gradient
    assert any(False in c.mask[c.prompt_length :] for group in sampled[1] for c in group), (
        "some tools were called"
    )
    wrong = literal_gradient(*sampled, rewards, **mutant)
    assert (measured - wrong).norm() > 0.02 * measured.norm()


def test_each_update_takes_its_share_of_the_prompts(sampled, monkeypatch):
    """Three updates on a prompt each have the gradients of the prompts by themselves."""
    model, groups = sampled
    rewards = rewards_of(groups)
    monkeypatch.setattr(rounds, "reward", lambda c, config: worth(rewards[id(c)]))
    recorder = Recorder(model)
    rounds.update(model, recorder, groups, TEMPERATURE, replace(SETTINGS, updates=3))
    for measured, group in zip(recorder.steps, groups, strict=True):
        torch.testing.assert_close(measured, literal_gradient(model, [group], rewards), atol=5e-6, rtol=1e-3)


def test_a_group_that_always_passes_says_nothing(sampled, monkeypatch):
    model, groups = sampled
    monkeypatch.setattr(rounds, "reward", lambda c, config: worth(1.0))
    recorder = Recorder(model)
    measured = rounds.update(model, recorder, groups, TEMPERATURE, SETTINGS)
    assert not recorder.steps[0].any()
    assert (measured.success, measured.reward, measured.moderate) == (1.0, 1.0, 0.0)


def test_examples_that_passed_hold_the_model_in_place(sampled, monkeypatch):
    """PTX: the mean loss of a token over all its batches, times its weight, is added to the gradient."""
    model, groups = sampled
    monkeypatch.setattr(rounds, "reward", lambda c, config: worth(0.0))
    examples = [Example(c.ids, c.mask) for group in groups for c in group[:2]]
    batches = [collate(examples[:1]), collate(examples[1:])]
    recorder = Recorder(model)
    rounds.update(model, recorder, groups, TEMPERATURE, replace(SETTINGS, ptx=0.3), batches)
    model.zero_grad()
    (0.3 * token_losses(model, collate(examples)).mean()).backward()
    want = torch.cat([flat(p) for p in model.parameters()])
    torch.testing.assert_close(recorder.steps[0], want, atol=1e-6, rtol=1e-3)
    model.zero_grad()


def test_logprobs_of_a_row_are_its_own(sampled):
    """What stands in the other rows of the batch does not matter."""
    model, groups = sampled
    examples = [Example(c.ids, c.mask) for group in groups for c in group]
    together, rows = objective.token_logprobs(model, collate(examples), TEMPERATURE)
    for row, example in enumerate(examples):
        alone, _ = objective.token_logprobs(model, collate([example]), TEMPERATURE)
        torch.testing.assert_close(alone, together[rows == row], atol=1e-4, rtol=1e-5)


# ---- rounds ---------------------------------------------------------------------------------------------------


def sample(config, tokenizer, seed, index):
    drawn = Curriculum().draw(config, seed, index)
    return rounds.sample_round(tiny_model(), tokenizer, config, drawn, seed, index)


def test_a_round_is_sampled_again_the_same(tokenizer):
    def words(seed, index):
        groups, temperature = sample(SETTINGS, tokenizer, seed, index)
        return [[c.ids for c in group] for group in groups], temperature

    assert words(0, 1) == words(0, 1)
    assert words(0, 1) != words(0, 0) and words(0, 1)[0] != words(1, 1)[0]


def test_a_round_has_k_attempts_at_each_of_p_training_tasks(tokenizer):
    settings = replace(SETTINGS, tasks=(("buy", 1), ("buy", 2)), prompts=6, rounds=5, temperature=(1.0, 0.6))
    groups, temperature = sample(settings, tokenizer, 0, 2)
    assert temperature == pytest.approx(0.8)
    assert [len(group) for group in groups] == [4] * 6
    assert all(len({c.task.key for c in group}) == 1 for group in groups)
    assert len({group[0].task.key for group in groups}) == 6
    assert [group[0].task.level for group in groups] == [1, 2] * 3
    assert not any(c.task.held_out for group in groups for c in group)
    assert any(len({tuple(c.ids) for c in group}) > 1 for group in groups), "attempts differ"


@pytest.mark.parametrize("prioritised", [False, True])
def test_rounds_can_be_continued(tokenizer, prioritised):
    """Rounds 0 to 3 in one go, or two and then the rest: the same measures and the same weights."""
    tasks = (("buy", 1), ("buy", 2), ("chain", 1))
    settings = replace(SETTINGS, rounds=3, updates=2, prioritised=prioritised, revisited=0.5, tasks=tasks)

    def optimizer_of(model):
        return MuonClip(model, lr=0.01, adamw_lr=0.01)

    whole = tiny_model()
    history = rounds.reinforce(whole, tokenizer, optimizer_of(whole), settings, seed=0)
    halves = tiny_model()
    optimizer = optimizer_of(halves)

    class PowerCut(Exception):
        pass

    def cut(index, measured):
        if index == 1:
            raise PowerCut

    with pytest.raises(PowerCut):
        rounds.reinforce(halves, tokenizer, optimizer, settings, seed=0, on_round=cut)
    rest = rounds.reinforce(halves, tokenizer, optimizer, settings, seed=0, done=history[:2])
    assert rest == history[2:]
    assert all(map(torch.equal, whole.state_dict().values(), halves.state_dict().values()))


@pytest.mark.parametrize("segment", [None, 8])
def test_in_int4_the_rounded_weights_sample_and_are_trained_on(tokenizer, segment):
    """The trainer gives what was sampled the probability that the sampler gave it; both read rounded experts, and the
    optimizer moves those that are not."""
    model, begun = tiny_model(), tiny_model()
    settings = replace(SETTINGS, int4=True, segment_tokens=segment, ptx=0.5, rounds=1)
    stored = copy.deepcopy(begun)
    int4.round_experts(stored)
    apart = []

    def watch(groups, temperature):
        rows = [training_rows(c) for group in groups for c in group]
        old = rounds.written_by(model, rows, temperature)
        apart.append(old.log_ratio.abs().max().item())
        if len(apart) == 1:
            torch.testing.assert_close(
                rounds.written_by(stored, rows, temperature).new, old.new, atol=1e-4, rtol=0
            )
            assert (rounds.written_by(begun, rows, temperature).new - old.new).abs().max() > 1e-2
        return {}

    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    batch = collate([Example(np.arange(20, dtype=np.int32), np.ones(20, bool))])
    rounds.reinforce(model, tokenizer, optimizer, settings, seed=0, ptx=lambda index: [batch], watch=watch)
    assert apart[0] < 1e-3
    pairs = zip(int4.experts_of(model), int4.experts_of(begun))
    assert all(not torch.equal(now.up_proj, then.up_proj) and now.reads is None for now, then in pairs)


@pytest.mark.slow
@pytest.mark.parametrize("name", objective.OBJECTIVES)
def test_rewards_go_up(tokenizer, monkeypatch, name):
    """A bandit: the first token of the answer is right when its id is even. It begins at one half."""
    right = lambda conversation: float(conversation.ids[conversation.prompt_length] % 2 == 0)
    monkeypatch.setattr(rounds, "reward", lambda c, config: worth(right(c)))
    settings = replace(
        SETTINGS,
        objective=name,
        tasks=(("chain", 1), ("chain", 2)),
        rounds=10,
        prompts=8,
        attempts=8,
        tau=0.1,
        updates=2,
        limits=Limits(turn_tokens=1, turns=1, context=200),
    )
    model = tiny_model()
    history = rounds.reinforce(model, tokenizer, MuonClip(model, lr=0.02, adamw_lr=0.02), settings, seed=0)
    assert 0.3 < history[0].success < 0.7
    assert history[-1].success > 0.9
    tasks = [worlds.generate(random.Random(7), "chain", 2) for _ in range(16)]
    done = loop.run(LocalPolicy(model, tokenizer, 1.0), tokenizer, tasks, settings.limits)
    assert sum(map(right, done)) >= 14, "on other tasks too"


# ---- the end of a run --------------------------------------------------------------------------------------


def check_end(learned):
    """Solved levels end a run; a level out of reach beside solved ones does not, nor does one that is half solved."""
    measured = dict(reward=0.0, tokens=100.0, temperature=1.0, successes=[])
    assert learned(rounds.Round(success=0.98, moderate=0.06, **measured), RLConfig())
    assert not learned(rounds.Round(success=0.98, moderate=0.2, **measured), RLConfig())
    assert not learned(
        rounds.Round(success=0.72, moderate=0.06, **measured), RLConfig()
    )  # two of three levels solved
    assert not learned(rounds.Round(success=0.0, moderate=0.0, **measured), RLConfig())


def test_rl_ends_when_all_is_solved_and_no_sooner():
    check_end(rounds.learned)


@pytest.mark.parametrize(
    "mutant",
    [
        lambda measured, settings: measured.moderate < settings.least_moderate,
        lambda measured, settings: measured.success > 0.5 and measured.moderate < settings.least_moderate,
        lambda measured, settings: measured.success > settings.solved,
    ],
)
def test_other_ends_are_found_out(mutant):
    with pytest.raises(AssertionError):
        check_end(mutant)


# ---- rounds that would go wrong without a word ----------------------------------------------------------------


def test_a_gradient_that_is_not_finite_stops_before_the_step(sampled, monkeypatch):
    """One -inf among the recorded log-probabilities turned every weight into NaN."""
    model, groups = sampled
    rewards = rewards_of(groups)
    monkeypatch.setattr(rounds, "reward", lambda c, config: worth(rewards[id(c)]))
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", CLIP)
    broken = next(c for group in groups for c in group if len({rewards[id(d)] for d in group}) > 1)
    (segment, *rest), before = broken.segments, [p.detach().clone() for p in model.parameters()]
    never = dataclasses.replace(segment, logprobs=[float("-inf"), *segment.logprobs[1:]])
    monkeypatch.setattr(broken, "segments", [never, *rest])
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    with pytest.raises(KimiError, match="gradient of an RL update is"):
        rounds.update(model, optimizer, groups, TEMPERATURE, replace(SETTINGS, updates=1))
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before))
    optimizer.zero_grad()


@pytest.mark.parametrize("temperature", [(1.0, 0.0), (0.0, 1.0), (-1.0, 1.0), (1.0, float("inf"))])
def test_a_temperature_without_probabilities_is_refused(temperature):
    with pytest.raises(ValueError, match="temperatures above 0"):
        replace(SETTINGS, temperature=temperature)


def test_the_temperature_goes_from_the_first_to_the_last():
    settings = replace(SETTINGS, rounds=5, temperature=(1.0, 0.6))
    found = [rounds.temperature_at(settings, index) for index in range(5)]
    assert found == pytest.approx([1.0, 0.9, 0.8, 0.7, 0.6])
    assert rounds.temperature_at(replace(settings, rounds=1), 0) == 1.0


def test_gradients_are_clipped(sampled, monkeypatch):
    model, groups = sampled
    rewards = {key: 100 * value for key, value in rewards_of(groups).items()}
    monkeypatch.setattr(rounds, "reward", lambda c, config: worth(rewards[id(c)]))
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", CLIP)
    recorder = Recorder(model)
    rounds.update(model, recorder, groups, TEMPERATURE, SETTINGS)
    assert recorder.steps[0].norm() == pytest.approx(1.0, abs=1e-3)


def test_every_update_of_a_round_is_held_in_place_by_ptx(sampled, monkeypatch):
    model, groups = sampled
    monkeypatch.setattr(rounds, "reward", lambda c, config: worth(0.0))  # nothing but PTX moves
    batch = collate([Example(groups[0][0].ids, groups[0][0].mask)])
    recorder = Recorder(model)
    rounds.update(model, recorder, groups, TEMPERATURE, replace(SETTINGS, updates=3, ptx=0.5), [batch])
    assert len(recorder.steps) == 3 and all(step.norm() > 0 for step in recorder.steps)


def test_every_round_has_other_tasks_and_other_dice(tokenizer):
    settings = replace(SETTINGS, prompts=2, tasks=(("buy", 2),))
    keys, words = [], []
    for index in range(3):
        groups, _ = sample(settings, tokenizer, 0, index)
        keys.append(tuple(group[0].task.key for group in groups))
        words.append(tuple(c.ids[c.prompt_length] for c in groups[0]))
    assert len(set(keys)) == 3 and len(set(words)) > 1


def test_rl_leaves_no_loads_for_the_next_training_and_closes_what_it_opened(tokenizer, monkeypatch):
    closed = []
    close = worlds.Environment.close
    monkeypatch.setattr(worlds.Environment, "close", lambda self: (closed.append(self), close(self)))
    model = tiny_model()
    optimizer = MuonClip(model, lr=0.01, adamw_lr=0.01)
    rounds.reinforce(model, tokenizer, optimizer, replace(SETTINGS, rounds=1), seed=0)
    assert len(closed) == SETTINGS.prompts * SETTINGS.attempts
    assert not model.statistics.loads.any() and torch.isinf(model.statistics.max_logits).all()


@pytest.mark.parametrize("finish", ["length", "turns", "context", "repeats"])
def test_a_cut_off_attempt_is_worth_the_same_to_all(tokenizer, finish):
    """The scoreboard counted verdicts that rewards punished."""
    (conversation,) = loop.run(
        Typist(tokenizer), tokenizer, [worlds.generate(random.Random(0), "buy", 2)], Limits(256, 9, 2048)
    )
    assert conversation.verdict().passed and total(conversation) == 1.0
    conversation.finish = finish
    assert not conversation.verdict().passed and "cut off" in conversation.verdict().evidence
    assert total(conversation) < 0


def test_groups_that_say_nothing_still_count(sampled, monkeypatch):
    """Three prompts, one of them solved in every attempt: the other two move the model by two thirds."""
    model, groups = sampled
    rewards = rewards_of(groups) | {id(c): 1.0 for c in groups[1]}
    monkeypatch.setattr(rounds, "reward", lambda c, config: worth(rewards[id(c)]))
    recorder = Recorder(model)
    rounds.update(model, recorder, groups, TEMPERATURE, SETTINGS)
    expected = literal_gradient(model, [groups[0], groups[2]], rewards) * 2 / 3
    torch.testing.assert_close(recorder.steps[0], expected, atol=5e-6, rtol=1e-3)


def test_the_same_task_is_attempted_with_other_dice_in_the_next_round(tokenizer, monkeypatch):
    task = worlds.generate(random.Random(0), "buy", 1)
    monkeypatch.setattr(worlds, "generate", lambda *given: task)
    settings = replace(SETTINGS, prompts=1, temperature=(1.0, 1.0))
    first, then = (sample(settings, tokenizer, 0, index)[0] for index in range(2))
    assert [c.ids for c in first[0]] != [c.ids for c in then[0]]


def test_rl_with_examples_leaves_no_loads(sampled, monkeypatch):
    """Passes over the examples count tokens, too."""
    model, groups = sampled
    monkeypatch.setattr(rounds, "reward", lambda c, config: worth(0.0))
    batch = collate([Example(groups[0][0].ids, groups[0][0].mask)])
    rounds.update(model, Recorder(model), groups, TEMPERATURE, replace(SETTINGS, ptx=0.5), [batch])
    assert not model.statistics.loads.any() and torch.isinf(model.statistics.max_logits).all()


def test_a_right_attempt_over_its_budget_is_worth_no_more_than_a_wrong_one(sampled, monkeypatch):
    """All attempts are right, and of different lengths: without a budget they say nothing, with one the long ones lose."""
    model, groups = sampled
    monkeypatch.setattr(rounds, "reward", lambda c, config: worth(1.0))
    config, budgets = replace(SETTINGS, budget=50.0), rounds.Budgets()
    first, then = Recorder(model), Recorder(model)
    measured = rounds.update(model, first, groups, TEMPERATURE, config, budgets=budgets)
    assert not first.steps[0].any() and measured.budgets == budgets.tokens
    half = sorted(c.written for group in groups for c in group)
    assert half[5] <= measured.budgets["buy"] <= half[6]
    measured = rounds.update(model, then, groups, TEMPERATURE, config, budgets=budgets, index=1)
    short = {id(c): float(c.written <= measured.budgets["buy"]) for group in groups for c in group}
    torch.testing.assert_close(then.steps[0], literal_gradient(model, groups, short), atol=5e-6, rtol=1e-3)
    assert measured.success == 1.0 and measured.reward == 0.5
