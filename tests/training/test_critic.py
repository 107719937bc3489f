"""The critic reads a rubric and what was said and done, never a verdict; it learns from pairs, and judges before it
learns; what a reward takes of it lies between 0 and 1."""

import copy
import random

import numpy as np
import pytest
import torch
from tiny import Typist, tiny_model

from kimi_mini import MuonClip, worlds
from kimi_mini.agent import loop
from kimi_mini.base.errors import KimiError
from kimi_mini.text import chat
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training.batch import Example, collate
from kimi_mini.training.rl import critic as critic_
from kimi_mini.training.rl import rewards, rounds
from kimi_mini.training.rl.config import RLConfig
from kimi_mini.training.rl.critic import Critic, CriticReward, Pair
from kimi_mini.training.rl.pairs import pairs_of, reports, style_pair, verified_pair
from kimi_mini.training.rl.styles import MANNERS, TRUTHS, Style, dress, report
from kimi_mini.worlds.rows import Limits


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.load()


@pytest.fixture
def critic(tokenizer):
    """With a head that says something: it starts at 0."""
    found = Critic(tiny_model(), tokenizer)
    torch.nn.init.normal_(found.model.lm_head.weight, std=0.3)
    return found


def bought(tokenizer, seed=0):
    task = worlds.generate(random.Random(seed), "buy", 1)
    (conversation,) = loop.run(Typist(tokenizer), tokenizer, [task], Limits(128, 8, 1024))
    return conversation


def spoil(conversation):
    """The same words over another state: its verdict changes, and nothing that was said."""
    assert conversation.verdict().passed
    conversation.environment.state.execute("DELETE FROM orders")
    assert not conversation.verdict().passed
    return conversation


def optimizer_of(critic):
    return MuonClip(critic.model, lr=0.01, adamw_lr=0.01)


# ---- what it reads --------------------------------------------------------------------------------------------


def check_blind(critic, tokenizer):
    conversation = bought(tokenizer)
    read = critic.reads(conversation, ["right"])
    rubric = chat.encode(tokenizer, [{"role": "system", "content": "right"}])[0]
    said = conversation.ids[conversation.ids.index(tokenizer.special["<|im_user|>"]) :]
    assert read == (said + rubric, [len(said + rubric) - 1])
    before = critic.score([conversation], "right")
    assert critic.reads(spoil(conversation), ["right"]) == read
    assert torch.equal(critic.score([conversation], "right"), before)


def test_it_reads_the_conversation_and_the_rubric_and_no_verdict(critic, tokenizer):
    check_blind(critic, tokenizer)


@pytest.mark.parametrize(
    "leak",
    [
        lambda c: str(c.verdict().passed),
        lambda c: c.verdict().evidence,
        lambda c: str(rewards.reward(c, RLConfig())["total"]),
        lambda c: str(rewards.reward(c, RLConfig(reward=(("rubric", 1.0),)))["rubric"]),
    ],
)
def test_a_critic_that_is_told_is_found_out(critic, tokenizer, leak, monkeypatch):
    blind = critic.reads

    def told(conversation, rubrics):
        ids, ends = blind(conversation, rubrics)
        more = tokenizer.encode(leak(conversation))
        return more + ids, [end + len(more) for end in ends]

    monkeypatch.setattr(critic, "reads", told)
    with pytest.raises(AssertionError):
        check_blind(critic, tokenizer)


def test_a_verdict_beside_the_tokens_is_found_out(critic, tokenizer, monkeypatch):
    """The right tokens, but a score that was told."""
    scores = critic.scores
    told = lambda asked: scores(asked) + torch.tensor([float(c.verdict().passed) for c, _ in asked])
    monkeypatch.setattr(critic, "scores", told)
    with pytest.raises(AssertionError):
        check_blind(critic, tokenizer)


def test_an_experts_messages_are_read_as_the_tokens_that_a_model_writes(critic, tokenizer):
    sampled = bought(tokenizer)
    played = loop.play(sampled.task, random.Random(0))
    assert not played.ids and critic.reads(played, ["right"]) == critic.reads(sampled, ["right"])


def test_a_score_does_not_depend_on_who_stands_beside(critic, tokenizer):
    some = [bought(tokenizer, seed) for seed in range(3)]
    some[1].ids = some[1].ids + some[0].ids  # of another length
    alone = torch.cat([critic.score([one], "right", "brief") for one in some])
    together = critic.score(some, "right", "brief")
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(together[:, 0], critic.score(some, "right"), atol=1e-5, rtol=1e-4)
    assert together.shape == (3, 2) and len(set(together.flatten().tolist())) == 6


def test_it_feels_what_the_policy_finds_improbable(critic, tokenizer):
    """The policy of before: the critic's own steps do not change it."""
    conversation = bought(tokenizer)
    before = critic.score([conversation], "right")
    with torch.no_grad():
        critic.model.surprised.fill_(1.0)
    felt = critic.score([conversation], "right")
    batch = collate([Example(*(np.array(one) for one in (conversation.ids, conversation.mask)))])
    logprobs = tiny_model().eval()(batch.ids).logits[0, :-1].log_softmax(-1)
    losses = -logprobs.gather(-1, batch.ids[0, 1:, None])[:, 0]
    torch.testing.assert_close(critic.surprise(batch)[0, 1:], losses.clamp(max=critic_.SURPRISE))
    assert felt != before and not critic.surprise(batch)[0, 0]
    assert not any(p.requires_grad for p in critic.policy.parameters())


# ---- what it learns -------------------------------------------------------------------------------------------


def said(tokenizer, word, seed):
    """A short conversation whose only quality is a word."""
    task = worlds.Task("chain", "add", 1, f"Add {seed} and 2, end.", {"answer": seed + 2})
    conversation = loop.opening(task)
    conversation.messages.append({"role": "assistant", "content": f"{word} {seed + 2}"})
    return conversation


def opposite_pairs(tokenizer, seeds):
    """Under one rubric a "yes" is better, under the other one a "now"."""
    pairs = []
    for seed in seeds:
        yes, now = said(tokenizer, "yes", seed), said(tokenizer, "now", seed)
        pairs += [Pair(yes, now, {"right": True, "brief": False}), Pair(now, yes, {"brief": True})]
    return pairs


def learn(critic, tokenizer):
    pairs = opposite_pairs(tokenizer, range(10, 22))
    critic_.train_critic(critic, optimizer_of(critic), pairs, steps=40, each=6)
    return critic_.accuracy(critic, opposite_pairs(tokenizer, range(30, 38)))


def test_it_learns_what_is_better_under_each_rubric(critic, tokenizer):
    found = learn(critic, tokenizer)
    assert found.keys() == {"right", "brief"} and min(found.values()) > 0.9
    assert not critic.model.statistics.loads.any(), "its loads are not those of the next training"
    yes, now = said(tokenizer, "yes", 50), said(tokenizer, "now", 50)
    scores = critic.score([yes, now], "right"), critic.score([yes, now], "brief")
    assert scores[0][0] > scores[0][1] and scores[1][0] < scores[1][1]


def test_without_its_rubric_it_cannot_know_both(critic, tokenizer, monkeypatch):
    reads = critic.reads
    monkeypatch.setattr(critic, "reads", lambda said, rubrics: reads(said, ["any"] * len(rubrics)))
    assert min(learn(critic, tokenizer).values()) < 0.6


def test_pairs_the_other_way_round_teach_the_opposite(critic, tokenizer, monkeypatch):
    loss = critic_.pair_loss
    monkeypatch.setattr(critic_, "pair_loss", lambda better, worse: loss(worse, better))
    assert max(learn(critic, tokenizer).values()) < 0.1


def test_the_loss_is_that_of_bradley_and_terry():
    better, worse = torch.tensor([2.0, -1.0]).requires_grad_(), torch.tensor([0.5, 1.0]).requires_grad_()
    loss = critic_.pair_loss(better, worse)
    chances = 1 / (1 + (-(better - worse)).exp())
    torch.testing.assert_close(loss, -chances.log().mean())
    loss.backward()
    torch.testing.assert_close(better.grad, -(1 - chances.detach()) / 2)
    torch.testing.assert_close(worse.grad, -better.grad)


def test_a_draw_is_half_right(critic, tokenizer):
    torch.nn.init.zeros_(critic.model.lm_head.weight)
    assert critic_.accuracy(critic, opposite_pairs(tokenizer, range(3))) == {"right": 0.5, "brief": 0.5}


# ---- what a reward takes --------------------------------------------------------------------------------------

SCORES = torch.tensor([[3.0, -1.0, 0.0, 0.0], [1e4, -1e4, 0.0, 5.0]])


def check_rates(win_rates):
    rates = win_rates(SCORES)
    assert rates.shape == SCORES.shape and (rates >= 0).all() and (rates <= 1).all()
    better = SCORES[..., :, None] > SCORES[..., None, :]
    assert torch.equal(rates[..., :, None] > rates[..., None, :], better), "in the order of the scores"
    torch.testing.assert_close(rates.mean(-1), torch.full((2,), 0.5))
    torch.testing.assert_close(win_rates(SCORES[:, :2] + 7), win_rates(SCORES[:, :2]))


def test_win_rates_lie_between_0_and_1():
    check_rates(critic_.win_rates)
    assert critic_.win_rates(torch.tensor([[4.0]])).tolist() == [[0.5]]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda scores: scores,
        lambda scores: scores - scores.mean(-1, keepdim=True),
        lambda scores: 1 - critic_.win_rates(scores),
        lambda scores: critic_.win_rates(scores) * scores.shape[-1],
        lambda scores: scores.sigmoid(),
        lambda scores: scores.softmax(-1),
    ],
)
def test_other_rates_are_found_out(wrong):
    with pytest.raises(AssertionError):
        check_rates(wrong)


def test_a_reward_of_a_critic_is_weighted_and_capped_as_all_are(tokenizer):
    conversation, paid = bought(tokenizer), RLConfig(reward=(("verdict", 1.0), ("critic", 0.5)))
    assert rewards.reward(spoil(conversation), paid, 0.75) == {
        "verdict": 0.0,
        "critic": 0.375,
        "total": 0.375,
        "passed": 0.0,
    }
    assert rewards.reward(conversation, RLConfig(reward=(("critic", 4.0),)), 0.75)["total"] == 1.0
    with pytest.raises(KimiError, match="needs a judge"):
        rewards.reward(conversation, paid)


def test_a_round_is_paid_by_its_judge(tokenizer):
    """The judge sees whole groups, its rates become rewards, and success stays the verifier's."""
    groups = [[bought(tokenizer, seed) for _ in range(2)] for seed in range(2)]
    rates, given = torch.tensor([[0.25, 0.75], [0.5, 0.5]]), []
    paid = RLConfig(reward=(("critic", 1.0),), attempts=2, updates=1, ptx=0.0)
    judge = lambda groups: given.append(groups) or rates
    model = tiny_model()
    measured = rounds.update(model, _Still(), groups, 1.0, paid, judge=judge)
    assert given == [groups] and measured.reward == 0.5 and measured.success == 1.0
    assert any(p.grad is not None and p.grad.any() for p in model.parameters()), (
        "equal verdicts, but other rates: there is something to learn"
    )


class _Still:
    """In place of an optimizer: keeps the gradients."""

    def step(self): ...

    def zero_grad(self, set_to_none=True): ...


# ---- the closed loop ------------------------------------------------------------------------------------------


def mixed_group(tokenizer):
    """Two right attempts and two that were spoiled, and say so."""
    group = [bought(tokenizer) for _ in range(4)]
    word = tokenizer.token_id("x")
    for conversation in group[2:]:
        spoil(conversation).ids = [*conversation.ids, word]
    return group


def weights(critic):
    return torch.cat([p.detach().flatten() for p in critic.model.parameters()]).clone()


def check_refresh(critic, tokenizer, refresh):
    group, before = mixed_group(tokenizer), weights(critic)
    pairs = critic_.verifiable([group])
    margin = lambda: (
        critic.score(group, "right")[:2].mean() - critic.score(group, "right")[2:].mean()
    ).item()
    start = margin()
    assert refresh(critic, optimizer_of(critic), [group], [], 6, 0) == len(pairs) == 2
    assert not torch.equal(weights(critic), before) and margin() > start + 0.1


def test_a_refresh_moves_the_critic_towards_the_verdicts(critic, tokenizer):
    check_refresh(critic, tokenizer, critic_.refresh)


def test_a_refresh_that_moves_nothing_is_found_out(critic, tokenizer, monkeypatch):
    monkeypatch.setattr(critic_, "train_critic", lambda *given, **more: [])
    with pytest.raises(AssertionError):
        check_refresh(critic, tokenizer, critic_.refresh)


def test_attempts_that_all_pass_teach_a_critic_nothing(critic, tokenizer):
    before = weights(critic)
    group = [bought(tokenizer) for _ in range(3)]
    assert critic_.refresh(critic, optimizer_of(critic), [group], [], 3, 0) == 0
    assert torch.equal(weights(critic), before)


def test_verifiable_pairs_are_those_of_the_verdict(tokenizer):
    group = mixed_group(tokenizer)
    pairs = critic_.verifiable([group[::-1]]) + critic_.verifiable([group])
    assert all(pair.one.verdict().passed and not pair.other.verdict().passed for pair in pairs)
    assert all(pair.better == {"right": True} for pair in pairs)
    assert len(critic_.verifiable([group], most=1)) == 1


def check_order(reward, tokenizer):
    """It judges with what it knew before this round."""
    groups, before = [mixed_group(tokenizer)], copy.copy(reward.critic)
    before.model = copy.deepcopy(reward.critic.model)
    expected = CriticReward(before, reward.rubrics)(groups)
    torch.testing.assert_close(reward(groups), expected)
    assert (weights(reward.critic) - weights(before)).any(), "and then it learns"
    assert expected.shape == (1, 4) and 0 <= expected.min() and expected.max() <= 1


def test_it_judges_before_it_learns(critic, tokenizer):
    check_order(CriticReward(critic, ("right", "brief"), optimizer_of(critic)), tokenizer)


class LearnsFirst(CriticReward):
    """Trained on the verdicts of the very attempts that it is about to judge."""

    def __call__(self, groups):
        critic_.refresh(self.critic, self.optimizer, groups, self.kept, self.steps, self.rounds)
        return super().__call__(groups)


def test_a_critic_that_learns_before_it_judges_is_found_out(critic, tokenizer):
    with pytest.raises(AssertionError):
        check_order(LearnsFirst(critic, ("right",), optimizer_of(critic)), tokenizer)


def test_a_frozen_critic_stays(critic, tokenizer):
    before = weights(critic)
    CriticReward(critic, ("right",))([mixed_group(tokenizer)])
    assert torch.equal(weights(critic), before)


# ---- styles ---------------------------------------------------------------------------------------------------


def work(mistake=None, level=3, seed=0):
    return loop.play(worlds.generate(random.Random(seed), "cheapest", level), random.Random(seed), mistake)


@pytest.mark.parametrize("padding", range(3))
@pytest.mark.parametrize("polite", MANNERS)
@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("invented", [False, True])
def test_the_truth_of_a_report_is_how_it_was_made(padding, polite, shuffled, invented):
    done, rng = work(), random.Random(1)
    dressed = dress(done, Style(padding, shuffled, polite, invented), rng)
    found = {name: truth(dressed) for name, truth in TRUTHS.items()}
    expected = (1 - padding / 2, float(not shuffled), polite, float(not invented))
    assert found == pytest.approx(dict(zip(TRUTHS, expected)))
    assert dressed.verdict().passed and not report(done), "the work is the same, and its verdict"


def test_no_truth_asks_for_a_verdict(monkeypatch):
    dressed = dress(work("slip"), Style(0, False, 1.0, False), random.Random(0))
    monkeypatch.setattr(type(dressed), "verdict", lambda self: pytest.fail("asked"))
    assert [truth(dressed) for truth in TRUTHS.values()] == [1.0] * 4


def test_who_says_nothing_has_no_style():
    silent = work()
    assert [truth(silent) for truth in TRUTHS.values()] == [0.0] * 4
    cut = dress(work(), Style(0, False, 1.0, False), random.Random(0))
    cut.finish = "turns"
    assert [truth(cut) for truth in TRUTHS.values()] == [0.0] * 4


def test_style_pairs_are_of_equal_work_and_differ_in_every_quality():
    pairs = pairs_of(style_pair, (2, 3), 40, 0)
    for pair in pairs:
        assert pair.one.messages[:-1] == pair.other.messages[:-1] and not pair.one.task.held_out
        assert pair.one.messages[-1]["content"] == pair.other.messages[-1]["content"]
        for rubric, better in pair.better.items():
            assert (TRUTHS[rubric](pair.one) > TRUTHS[rubric](pair.other)) is better
    assert all(pair.better.keys() >= {"brief", "polite", "grounded"} for pair in pairs)
    assert sum("in order" in pair.better for pair in pairs) > 20  # a single call has no order
    assert all(
        len({pair.better[rubric] for pair in pairs if rubric in pair.better}) == 2 for rubric in TRUTHS
    )


def test_verified_pairs_say_nothing_of_style():
    pairs = pairs_of(verified_pair, (2, 3), 60, 0, held_out=True)
    answers = [(p.one.messages[-1]["content"], p.one.task.data["answer"]) for p in pairs]
    assert all(said == right for said, right in answers) and all(p.one.task.held_out for p in pairs)
    for name in ("brief", "polite", "grounded"):
        gaps = [TRUTHS[name](pair.one) - TRUTHS[name](pair.other) for pair in pairs]
        assert min(gaps) < 0 < max(gaps), f"the right ones are not the {name} ones"


def test_an_agent_learns_to_report_from_some_who_err(tokenizer):
    examples = reports(tokenizer, 2, 20, 0.5)
    texts = [tokenizer.decode(example.ids) for example in examples]
    assert all(" so " in text for text in texts) and all(example.mask.any() for example in examples)
    assert len({len(example.ids) for example in examples}) > 3
