"""Router and experts against a slow, literal version; balancing rules; the well-known mistakes."""

import pytest
import torch
import torch.nn.functional as F

from kimi_mini import KimiConfig
from kimi_mini.model.kernels.experts import sort_by_expert
from kimi_mini.model.moe import Experts, MoE, Router, allowed_by_groups
from kimi_mini.model.statistics import Statistics

CONFIG = KimiConfig.preset("nano", routed_scaling_factor=2.5)
GROUPED = CONFIG.replace(n_group=4, topk_group=2)


def make_router(config=CONFIG, seed=0, bias=0.3):
    torch.manual_seed(seed)
    router = Router(config)
    torch.nn.init.normal_(router.weight, 0.0, 0.2)
    router.e_score_correction_bias.normal_(0.0, bias)
    return router


def make_moe(config=CONFIG, seed=0):
    torch.manual_seed(seed)
    moe = MoE(config)
    for weight in moe.parameters():
        torch.nn.init.normal_(weight, 0.0, 0.2)
    moe.gate.e_score_correction_bias.normal_(0.0, 0.3)
    return moe


def tokens(n=40, seed=1):
    return torch.randn(n, CONFIG.hidden_size, generator=torch.Generator().manual_seed(seed))


# ---- gate weights --------------------------------------------------------------------------------------


def literal_gates(router, x, indices):
    """What the report says the gate weights of these experts are, token by token in plain numbers."""
    gates = torch.zeros(indices.shape)
    for t, row in enumerate(indices):
        scores = [torch.sigmoid(router.weight[e] @ x[t]).item() for e in row]
        for j, score in enumerate(scores):
            gates[t, j] = score / sum(scores) * CONFIG.routed_scaling_factor
    return gates


def check_gates(route):
    router, x = make_router(), tokens()
    indices, weights = route(router, x)
    torch.testing.assert_close(weights, literal_gates(router, x, indices), atol=1e-5, rtol=1e-5)


def test_gate_weights_are_the_unbiased_normalised_scaled_scores():
    check_gates(lambda router, x: router(x))


def wrong_route(kind):
    """Mutants of Router.forward."""

    def route(router, x):
        logits = F.linear(x, router.weight)
        scores = logits.softmax(-1) if kind == "softmax" else logits.sigmoid()
        biased = scores + router.e_score_correction_bias
        indices = biased.topk(router.top_k, -1).indices
        weights = (biased if kind == "bias leaks" else scores).gather(1, indices)
        if kind != "no renormalisation":
            weights = weights / weights.sum(-1, keepdim=True)
        return indices, weights if kind == "no factor" else weights * router.factor

    return route


@pytest.mark.parametrize("kind", ["bias leaks", "no renormalisation", "no factor", "softmax"])
def test_wrong_gate_weights_are_caught(kind):
    with pytest.raises(AssertionError):
        check_gates(wrong_route(kind))


def test_weights_are_not_normalised_when_the_config_says_so():
    router, x = make_router(CONFIG.replace(norm_topk_prob=False)), tokens()
    indices, weights = router(x)
    expected = F.linear(x, router.weight).sigmoid().gather(1, indices) * CONFIG.routed_scaling_factor
    torch.testing.assert_close(weights, expected)


# ---- selection -----------------------------------------------------------------------------------------


def test_the_bias_chooses():
    router, x = make_router(bias=0.0), tokens()
    router.e_score_correction_bias[5] = 10.0
    assert (router(x)[0] == 5).any(-1).all()
    router.e_score_correction_bias[5] = -10.0
    assert not (router(x)[0] == 5).any()


def test_the_bias_is_a_float32_buffer_without_gradient():
    moe = make_moe()
    names = dict(moe.named_parameters())
    assert "gate.e_score_correction_bias" not in names and "gate.weight" in names
    assert "gate.e_score_correction_bias" in moe.state_dict()
    before = moe.gate.e_score_correction_bias.clone()
    moe.to(torch.bfloat16)
    assert moe.gate.e_score_correction_bias.dtype == torch.float32
    assert torch.equal(moe.gate.e_score_correction_bias, before)
    assert moe.gate.weight.dtype == torch.bfloat16
    moe.double()
    assert torch.equal(moe.gate.e_score_correction_bias, before)


def check_no_bias_gradient(forward):
    router, x = make_router(), tokens()
    router.e_score_correction_bias.requires_grad_()
    _, weights = forward(router, x)
    (gradient,) = torch.autograd.grad(
        weights.square().sum(), router.e_score_correction_bias, allow_unused=True
    )
    assert gradient is None


def test_no_gradient_can_reach_the_bias():
    check_no_bias_gradient(lambda router, x: router(x))


def test_a_bias_with_gradient_is_caught():
    with pytest.raises(AssertionError):
        check_no_bias_gradient(wrong_route("bias leaks"))


def check_bias_exists(make):
    assert make(CONFIG).e_score_correction_bias is not None


def test_the_bias_exists_at_every_width():
    check_bias_exists(Router)


def test_a_bias_only_at_7168_is_caught():
    """Mutant: DeepSeek's reference creates it only for its own hidden size."""

    class BigOnly(Router):
        def __init__(self, config):
            super().__init__(config)
            if config.hidden_size != 7168:
                self.e_score_correction_bias = None

    with pytest.raises(AssertionError):
        check_bias_exists(BigOnly)


def literal_groups(choice, n_group, topk_group, k):
    """Chosen experts of one token, by sorting."""
    size = len(choice) // n_group
    groups = [choice[g * size : (g + 1) * size] for g in range(n_group)]
    ranked = sorted(range(n_group), key=lambda g: -sum(sorted(groups[g])[-2:]))[:topk_group]
    legal = [g * size + i for g in ranked for i in range(size)]
    return sorted(sorted(legal, key=lambda e: -choice[e])[:k])


def check_groups(mask):
    choice = torch.randn(60, 16, generator=torch.Generator().manual_seed(0)) - 1.5  # mostly negative
    for row, kept in zip(choice.tolist(), mask(choice, 4, 2)):
        assert sorted(kept.topk(6).indices.tolist()) == literal_groups(row, 4, 2, 6)


def test_group_limited_selection():
    check_groups(allowed_by_groups)


def test_masking_groups_with_zero_is_caught():
    """Mutant: with negative biased scores a masked 0 beats a legal expert."""
    with pytest.raises(AssertionError):
        check_groups(lambda *a: allowed_by_groups(*a).nan_to_num(neginf=0.0))


def test_scoring_groups_by_their_single_best_is_caught():
    def best_only(choice, n_group, topk_group):
        grouped = choice.unflatten(-1, (n_group, -1))
        best = grouped.amax(-1).topk(topk_group, -1).indices
        keep = torch.zeros(grouped.shape[:2], dtype=torch.bool).scatter_(1, best, True)
        return grouped.masked_fill(~keep[..., None], float("-inf")).flatten(1)

    with pytest.raises(AssertionError):
        check_groups(best_only)


def test_grouped_router_stays_in_its_groups():
    router = make_router(GROUPED)
    indices, _ = router(tokens())
    assert all(len(set((row // 4).tolist())) <= 2 for row in indices)


# ---- experts -------------------------------------------------------------------------------------------


def every_expert(experts, x, indices, weights):
    """All experts on all tokens, then the chosen ones weighted: wasteful and plain."""
    gate, up = (torch.einsum("th,ewh->tew", x, w) for w in (experts.gate_proj, experts.up_proj))
    out = torch.einsum("tew,ehw->teh", F.silu(gate) * up, experts.down_proj)
    gates = torch.zeros(len(x), len(experts.gate_proj)).scatter(1, indices, weights)
    return torch.einsum("te,teh->th", gates, out)


@pytest.mark.parametrize("skewed", [False, True])
@pytest.mark.parametrize("n", [1, 23, 300])
def test_experts_equal_the_loop_with_gradients(skewed, n):
    moe, x = make_moe(), tokens(n)
    if skewed:  # three experts take everything, the others nothing
        moe.gate.e_score_correction_bias[[1, 4, 15]] = 9.0
    results = []
    for forward in (moe.experts, lambda *a: every_expert(moe.experts, *a)):
        moe.zero_grad()
        leaf = x.clone().requires_grad_()
        indices, weights = moe.gate(leaf)
        out = forward(leaf, indices, weights)
        out.backward(torch.randn(out.shape, generator=torch.Generator().manual_seed(3)))
        grads = [p.grad.clone() for p in (*moe.experts.parameters(), moe.gate.weight)]
        results.append([out.detach(), leaf.grad, *grads])
    for a, b in zip(*results):
        torch.testing.assert_close(a, b, atol=2e-5 * max(1.0, b.abs().max().item()), rtol=1e-4)


def test_a_sum_with_constant_gradient_works():
    """grouped_mm refuses stride-0 gradients, which y.sum().backward() produces."""
    moe = make_moe()
    moe(tokens()[None]).sum().backward()
    assert moe.experts.down_proj.grad.abs().sum() > 0


def test_sorting_is_stable_and_invertible():
    indices = torch.randint(0, 7, (50, 3), generator=torch.Generator().manual_seed(0))
    token, places, ends = sort_by_expert(indices, 7)
    flat = indices.flatten()
    order = sorted(range(150), key=lambda i: flat[i].item())  # Python's sort is stable
    assert token.tolist() == [i // 3 for i in order]
    assert all(order[places[t, j]] == 3 * t + j for t in range(50) for j in range(3))
    assert ends.tolist() == [(flat <= e).sum().item() for e in range(7)]


@pytest.mark.slow
def test_two_steps_are_equal_bit_for_bit():
    runs = []
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for _ in range(2):
            moe, x = make_moe(), tokens(700).requires_grad_()
            moe(x[None]).square().mean().backward()
            runs.append([x.grad, *(p.grad for p in moe.parameters())])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(*runs))


def test_shared_experts_see_every_token_unweighted():
    moe, x = make_moe(CONFIG.replace(n_shared_experts=2)), tokens()
    assert moe.shared_experts.gate_proj.weight.shape == (2 * CONFIG.moe_intermediate_size, CONFIG.hidden_size)
    routed = moe.experts(x, *moe.gate(x))
    torch.testing.assert_close(moe(x[None])[0], routed + moe.shared_experts(x), atol=1e-5, rtol=1e-5)


def test_no_shared_expert_is_possible():
    moe, x = make_moe(CONFIG.replace(n_shared_experts=0)), tokens()
    torch.testing.assert_close(moe(x[None])[0], moe.experts(x, *moe.gate(x)))


# ---- load and balance ----------------------------------------------------------------------------------


def load_of(moe, x, *valid, times=1):
    """What the layer leaves in the statistics' row of the first MoE layer."""
    statistics = Statistics(CONFIG)
    for _ in range(times):
        moe(x[None], *valid, tally=statistics.layer(1))
    assert not statistics.loads[1:].any()
    return statistics.loads[0]


def check_load(measure):
    moe, x = make_moe(), tokens(60)
    valid = torch.arange(60) < 45
    indices, _ = moe.gate(x)
    expected = [(indices[:45] == e).sum().item() for e in range(CONFIG.n_routed_experts)]
    assert measure(moe, x, valid).tolist() == expected


def test_load_counts_chosen_tokens_without_padding():
    check_load(lambda moe, x, valid: load_of(moe, x, valid[None]))


def test_load_from_probabilities_is_caught():
    """Mutant: the mass of the scores is not the number of tokens."""

    def measure(moe, x, valid):
        scores = F.linear(x[valid], moe.gate.weight).sigmoid()
        return (scores / scores.sum(-1, keepdim=True)).sum(0) * CONFIG.num_experts_per_tok

    with pytest.raises(AssertionError):
        check_load(measure)


def test_load_with_padding_is_caught():
    with pytest.raises(AssertionError):
        check_load(lambda moe, x, valid: load_of(moe, x))


def test_load_adds_over_micro_batches():
    x = tokens()
    assert load_of(make_moe(), x, times=2).sum() == 2 * x.shape[0] * CONFIG.num_experts_per_tok


def check_sign_rule(update):
    router = make_router(bias=0.0)
    update(router, torch.tensor([0] * 4 + [10] * 8 + [20] * 4))
    assert torch.equal(router.e_score_correction_bias, torch.tensor([0.01] * 4 + [0.0] * 8 + [-0.01] * 4))
    router = make_router(bias=0.0)  # skewed loads: the mean is 30, the median 10
    update(router, torch.tensor([10] * 12 + [20] * 2 + [160] * 2))
    assert torch.equal(router.e_score_correction_bias, torch.tensor([0.01] * 14 + [-0.01] * 2))


def test_deepseeks_rule_moves_towards_balance():
    check_sign_rule(lambda router, load: router.update_bias(load, 0.01))


def median_rule(router, load):
    router.e_score_correction_bias += 0.01 * torch.sign(load.float().median() - load.float())


@pytest.mark.parametrize(
    "wrong",
    [
        lambda r, load: r.update_bias(load, -0.01),  # the wrong direction
        lambda r, load: r.e_score_correction_bias.add_(0.001 * (10 - load)),  # no sign
        median_rule,
    ],
)
def test_wrong_balancing_is_caught(wrong):
    with pytest.raises(AssertionError):
        check_sign_rule(wrong)


def check_centred(rule):
    router = make_router(bias=0.0)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        load = torch.randint(0, 100, (16,), generator=generator) ** 2  # skewed: median < mean
        rule(router, load)
    assert abs(router.e_score_correction_bias.sum().item()) < 1e-5


def test_moonshots_rule_keeps_the_sum_at_zero():
    check_centred(lambda router, load: router.update_bias(load, 0.01, "centred"))


def test_the_plain_rule_drifts():
    with pytest.raises(AssertionError):
        check_centred(lambda router, load: router.update_bias(load, 0.01, "sign"))


def test_both_rules_choose_the_same_experts():
    """Subtracting a constant from all biases never changes the order."""
    routers = [make_router(bias=0.0) for _ in range(2)]
    for router, rule in zip(routers, ("sign", "centred")):
        router.update_bias(torch.arange(16) ** 2, 0.1, rule)
    assert torch.equal(routers[0](tokens())[0].sort(-1).values, routers[1](tokens())[0].sort(-1).values)


def test_balancing_balances():
    """A router with a strong favourite comes close to equal load within a few hundred updates."""
    moe, x = make_moe(), tokens(400)
    moe.gate.e_score_correction_bias.zero_()
    moe.gate.e_score_correction_bias[3] = 0.5

    worst = []
    for _ in range(201):
        load = load_of(moe, x)
        worst.append((load.max() / load.float().mean()).item())
        moe.gate.update_bias(load, 0.01)
    assert worst[0] > 3 and worst[-1] < 1.4


def test_unknown_rule_is_refused():
    with pytest.raises(ValueError, match="sign"):
        make_router().update_bias(torch.ones(16), 0.1, "random")


def test_experts_have_the_announced_shapes():
    shapes = {name: tuple(p.shape) for name, p in Experts(CONFIG).named_parameters()}
    assert shapes == {"gate_proj": (16, 60, 96), "up_proj": (16, 60, 96), "down_proj": (16, 96, 60)}
