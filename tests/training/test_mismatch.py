"""Mismatch: formats are rounded as they say, the experts of a rollout are those that it chose, replay gives each token
its own, and a weight is cut above."""

import random
from functools import partial

import pytest
import torch
from tiny import tiny_model

from kimi_mini import worlds
from kimi_mini.agent import loop
from kimi_mini.agent.conversation import training_rows
from kimi_mini.model import moe
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training.rl import mismatch, rounds
from kimi_mini.training.rl.objective import Scale, Written
from kimi_mini.worlds.rows import Limits

LIMITS = Limits(turn_tokens=10, turns=3, context=400)


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.load()


# ---- formats ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "levels"), [("int8", 255), ("int4", 15)])
def test_whole_numbers_have_a_scale_for_each_output_row(name, levels):
    weight = torch.randn(3, 5, 400) * torch.tensor([0.01, 1.0, 100.0])[:, None, None]
    weight[0, 0] = 0.0
    found = mismatch.FORMATS[name](weight)
    scale = weight.abs().amax(-1, keepdim=True) / (levels // 2)
    assert ((found - weight).abs() <= 0.5001 * scale + 1e-12).all()
    assert max(len(row.unique()) for row in found.flatten(0, 1)) <= levels
    torch.testing.assert_close(mismatch.FORMATS[name](found), found)


def test_a_rounded_model_keeps_routers_and_norms_and_the_model_keeps_all():
    model = tiny_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    other = mismatch.rounded(model, "bf16")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    for name, value in other.state_dict().items():
        kept = "norm" in name or ".gate." in name
        assert torch.equal(value, before[name] if kept else before[name].bfloat16().float()), name
        assert kept or not torch.equal(value, before[name]), name


# ---- replay -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rollout(tokenizer):
    """Attempts of different lengths and turns by a model, and the policy that knows their experts."""
    model = tiny_model(n_routed_experts=8, num_hidden_layers=3)
    policy = mismatch.Recording(model, tokenizer, 1.0, seed=4)
    drawn = [(0, "buy"), (1, "chain"), (2, "add"), (3, "buy"), (3, "buy")]  # two attempts at the last
    tasks = [worlds.generate(random.Random(n), family, 2) for n, family in drawn]
    conversations = [loop.begun(task, tokenizer, LIMITS) for task in tasks]
    policy.open(conversations, LIMITS.context)
    for turn in range(3):  # places are given up on the way
        active = conversations[turn:]
        for conversation, reply in zip(active, policy.reply(active, LIMITS.turn_tokens)):
            loop.state.write(conversation, reply.ids, reply.own, reply.logprobs)
            loop.state.observe(conversation, [turn + 5] * (3 + conversation.task.level))
            conversation.turns += 1
        if turn == 1:
            loop.state.hide_old_turns(conversations[-1], 0)
    return model, conversations, policy


def prepared(rollout):
    model, conversations, policy = rollout
    rows = [training_rows(c) for c in conversations]
    return model, rows, [mismatch.row_experts(c, policy.experts[c]) for c in conversations]


def other_routers(model):
    """A copy that chooses other experts; all else is the same."""
    other = mismatch.copy.deepcopy(model)
    for router in other.routers():
        router.e_score_correction_bias += torch.randn(8, generator=torch.Generator().manual_seed(0))
    return other


def off(model, rows, given=None):
    """The largest |log-ratio| to the rollout, of a model that replays the given experts."""
    routers = model.routers() if given is not None else []
    with torch.no_grad(), moe.replayed(routers, [] if given is None else given):
        return rounds.written_by(model, rows, 1.0).log_ratio.abs().max().item()


def test_a_trainer_with_other_routers_replays_the_rollout(rollout):
    """Rows of several turns, one of them begun anew: log-probabilities are those of the sampler, whatever the trainer
    would choose; and they are not when a row gets the experts of another one, or of its neighbour token."""
    model, rows, experts = prepared(rollout)
    assert [len(one) for one in rows] == [1, 1, 1, 1, 2] and len({len(r[0]) for one in rows for r in one}) > 2
    assert [len(one) for one in experts] == [1, 1, 1, 1, 2]
    assert off(model, rows) < 1e-4, "the same model needs no replay"
    trainer = other_routers(model)
    flat = [row for one in experts for row in one]
    given = mismatch.replay(flat)
    assert off(trainer, rows, given) < 1e-4 < 0.05 < off(trainer, rows)
    swapped = given[:, [0, 2, 1, 3, 4, 5]]
    shifted = given.roll(1, 2)
    layers = given.flip(0)
    for wrong in (swapped, shifted, layers):
        assert off(trainer, rows, wrong) > 0.05


def test_experts_are_those_that_a_pass_over_the_row_chooses(rollout):
    model, rows, experts = prepared(rollout)
    for one, chosen in zip(rows, experts):
        for (ids, _, _), kept in zip(one, chosen):
            with moe.choices(model.routers()) as calls, torch.no_grad():
                model(torch.tensor([ids]))
            found = torch.stack([call for (call,) in calls])[:, :-1]
            assert torch.equal(found.sort(-1).values, kept.sort(-1).values)


def test_without_a_tap_nothing_changes_and_none_stays(rollout):
    model, rows, experts = prepared(rollout)
    ids = torch.tensor([rows[0][0][0]])
    with torch.no_grad():
        before = model(ids).logits
        with moe.replayed(model.routers(), [torch.full((1, len(ids[0]), 2), -1)] * len(model.routers())):
            inside = model(ids).logits
        with (
            pytest.raises(ValueError, match="cannot be replayed"),
            moe.replayed(model.routers(), experts[0][0]),
        ):
            model(ids)
        assert torch.equal(model(ids).logits, before) and torch.equal(inside, before)
    assert all(router.tap is None for router in model.routers())


def test_gate_weights_of_replayed_experts_are_the_trainers_and_learn(rollout):
    model, rows, experts = prepared(rollout)
    given = mismatch.replay([row for one in experts for row in one])
    with moe.replayed(model.routers(), given):
        rounds.written_by(model, rows, 1.0).new.sum().backward()
    assert all(router.weight.grad.abs().sum() > 0 for router in model.routers())
    model.zero_grad()


# ---- repairs of the loss ----------------------------------------------------------------------------------------


def weights(loss):
    """What stands before -A grad log pi of each token: log-ratios -2, -0.3, 0, 0.3, 2, in two attempts."""
    new = torch.tensor([-2.0, -0.3, 0.0, 0.3, 2.0]).requires_grad_()
    written = Written(new, torch.zeros(5), torch.tensor([0, 0, 0, 1, 1]), 2)
    gain = torch.tensor([1.0, -0.5])
    (gradient,) = torch.autograd.grad(loss(written, gain, Scale(2, 1.0, 9)), new)
    return (-gradient / gain[written.attempt]).tolist()


CUT = torch.tensor([-2.0, -0.3, 0.0, 0.3]).exp().tolist()
WANTED = {
    "none": [1.0] * 5,
    "mask": [0.0, *CUT[1:], 0.0],  # on both sides, whatever the sign of the advantage
    "truncated": [*CUT, 2.0],  # above, and not below
    "exact": [torch.tensor(-2.3).exp().item()] * 3
    + [torch.tensor(2.3).exp().item()] * 2,  # an attempt, not a token
}


@pytest.mark.parametrize("name", WANTED)
def test_weights_of_tokens(name):
    loss = mismatch.LOSSES.get(name, mismatch.exact)
    assert weights(loss) == pytest.approx(WANTED[name], rel=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [
        partial(mismatch.objective.cispo, tau=0.0, clip=(1.0, mismatch.MOST)),
        lambda w, gain, scale: mismatch.LOSSES["truncated"](
            Written(w.old, w.new, w.attempt, w.count), gain, scale
        ),
        lambda w, gain, scale: -(w.log_ratio.exp().clamp(min=2.0).detach() * gain[w.attempt] * w.new).sum(),
    ],
    ids=["cut too high", "mu / pi", "cut below"],
)
def test_a_truncation_the_wrong_way_is_found_out(wrong):
    try:
        found = weights(wrong)
    except RuntimeError:  # nothing to differentiate
        return
    assert found != pytest.approx(WANTED["truncated"], rel=1e-5)


def test_whole_weights_bring_the_on_policy_mean_back():
    """Two tokens of two choices each, all outcomes counted: the mean under mu of the exact gradient is that under pi of
    the plain one; of the weights a token it is not."""
    logits = torch.tensor(
        [0.3, -0.4, 0.9], dtype=torch.float64
    ).requires_grad_()  # second token: by the first
    mu, worth = (
        torch.tensor([0.9, 0.4, -0.5], dtype=torch.float64),
        torch.tensor([1.0, 0.0, 0.2, 2.0]).double(),
    )
    signs = torch.tensor([[1, 1], [1, -1], [-1, 1], [-1, -1]]).double()

    def logprobs(of):
        second = torch.where(signs[:, 0] > 0, of[1], of[2])
        return torch.stack([(signs[:, 0] * of[0]), signs[:, 1] * second], 1).sigmoid().log()

    def mean(loss, policy):
        total, chance = 0.0, logprobs(policy).sum(1).exp().detach()
        for outcome in range(4):
            new, old = logprobs(logits)[outcome], logprobs(policy)[outcome].detach()
            one = Written(new, old, torch.tensor([0, 0]), 1)
            total = total + chance[outcome] * loss(one, worth[outcome : outcome + 1], Scale(1, 1.0, 2))
        return torch.autograd.grad(total, logits)[0]

    wanted = mean(mismatch.LOSSES["none"], logits.detach())
    torch.testing.assert_close(mean(mismatch.exact, mu), wanted)
    for name in mismatch.LOSSES:
        assert (mean(mismatch.LOSSES[name], mu) - wanted).norm() > 0.02 * wanted.norm()
