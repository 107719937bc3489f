"""The sequence-wise balance loss against its definition in plain numbers, and its place in training."""

import pytest
import torch
from tiny import tiny_model

from kimi_mini.training.balance import balanced_by_loss, sequence_balance_loss

K = 2


def scores(batch=3, length=10, experts=5, seed=0):
    return torch.rand(
        batch, length, experts, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def literal(s, valid):
    """Equations 17 to 20, token by token, the mean over sequences."""
    found = []
    for rows, real in zip(s.tolist(), valid.tolist()):
        rows = [row for row, keep in zip(rows, real) if keep]
        experts, f, p = len(rows[0]), [0.0] * len(rows[0]), [0.0] * len(rows[0])
        for row in rows:
            for i in sorted(range(experts), key=lambda i: -row[i])[:K]:
                f[i] += experts / (K * len(rows))
            p = [old + value / sum(row) / len(rows) for old, value in zip(p, row)]
        found.append(sum(a * b for a, b in zip(f, p)))
    return sum(found) / len(found)


def check_value(loss):
    s = scores()
    s[0, :, 1] += 2  # one sequence leans on one expert, another on a different one
    s[1, :, 3] += 2
    valid = torch.ones(3, 10, dtype=torch.bool)
    valid[2, 6:] = False
    assert loss(s, K, valid).item() == pytest.approx(literal(s, valid), rel=1e-9)


def test_the_loss_is_that_of_the_report():
    check_value(sequence_balance_loss)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda s, k, v: sequence_balance_loss(s.flatten(0, 1)[None], k, v.flatten()[None]),  # over the batch
        lambda s, k, v: sequence_balance_loss(s, k),  # padding counted
        lambda s, k, v: sequence_balance_loss(s.softmax(-1), k, v),  # softmax scores
        lambda s, k, v: sequence_balance_loss(s, 1, v),  # the best alone
        lambda s, k, v: sequence_balance_loss(s, k, v) * k / s.shape[-1],  # f not scaled to 1
    ],
)
def test_wrong_losses_are_caught(wrong):
    with pytest.raises(AssertionError):
        check_value(wrong)


def test_it_is_1_in_balance_and_e_over_k_when_k_experts_take_all():
    turns = torch.eye(4, dtype=torch.float64).repeat(2, 1)[None]  # each expert in turn
    even = turns + turns.roll(1, -1) + 1e-9
    assert sequence_balance_loss(even, 2).item() == pytest.approx(1.0, abs=1e-6)
    greedy = torch.tensor([1.0, 1.0, 1e-9, 1e-9], dtype=torch.float64).expand(1, 8, 4)
    assert sequence_balance_loss(greedy, 2).item() == pytest.approx(2.0, abs=1e-6)


def test_its_gradient_lowers_the_scores_of_busy_experts():
    s = scores(1, 40)
    s[..., 2] += 1.0
    s.requires_grad_()
    sequence_balance_loss(s, K).backward()
    push = s.grad.sum((0, 1))
    assert push[2] > 0 and push.argmax() == 2


IDS = torch.arange(48).reshape(2, 24) % 40


def gradients(context, alpha_in_loss=None):
    model = tiny_model()
    model.train()
    with context(model):
        total = model(IDS).logits.square().mean()
        if alpha_in_loss is not None:
            for layer in model.model.layers:
                if layer.routed:
                    total = total + alpha_in_loss(layer.mlp)
        total.backward()
    return total.item(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


class keeping:
    """Context of the literal version: the scores of every MoE layer are kept, to be put into the loss by hand."""

    def __init__(self, model):
        self.handles = [
            layer.mlp.register_forward_hook(self._keep) for layer in model.model.layers if layer.routed
        ]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for handle in self.handles:
            handle.remove()

    @staticmethod
    def _keep(layer, arguments, output):
        layer.kept = (arguments[0] @ layer.gate.weight.T).sigmoid()


def test_attaching_it_equals_adding_it():
    alpha = 0.3
    attached, by_hook = gradients(lambda model: balanced_by_loss(model, alpha))
    added, by_hand = gradients(keeping, lambda mlp: alpha * sequence_balance_loss(mlp.kept, mlp.gate.top_k))
    assert attached < added  # the reported loss stays the language loss
    assert by_hook.keys() == by_hand.keys()
    for name, grad in by_hook.items():
        torch.testing.assert_close(grad, by_hand[name], atol=1e-6, rtol=1e-4)


def test_without_it_the_router_gets_another_gradient_and_nothing_stays_behind():
    model = tiny_model()
    before = gradients(lambda model: balanced_by_loss(model, 0.0))[1]
    after = gradients(lambda model: balanced_by_loss(model, 0.3))[1]
    name = next(name for name in before if name.endswith("mlp.gate.weight"))
    assert not torch.allclose(before[name], after[name])
    with balanced_by_loss(model, 0.3):
        pass
    assert not any(layer.mlp._forward_hooks for layer in model.model.layers)


def test_it_is_silent_outside_of_training():
    model = tiny_model().eval()
    with balanced_by_loss(model, 1.0):
        model(IDS).logits.sum().backward()
    plain = tiny_model().eval()
    plain(IDS).logits.sum().backward()
    for (name, a), b in zip(model.named_parameters(), plain.parameters()):
        assert torch.equal(a.grad, b.grad), name
