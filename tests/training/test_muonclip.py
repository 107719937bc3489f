"""MuonClip on a real KimiMini: what QK-Clip may touch, when, and on what evidence; and the AdamW half."""

import copy
import io

import pytest
import torch

from kimi_mini import KimiConfig, KimiMini
from kimi_mini.training.machine import distributed
from kimi_mini.training.optim import muon
from kimi_mini.training.optim.muonclip import MuonClip, clip_factors, qk_clip_, split_parameters

TAU = 4.0
SMALL = dict(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=48,
    moe_intermediate_size=16,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=None,
    kv_lora_rank=24,
    qk_nope_head_dim=8,
    qk_rope_head_dim=8,
    v_head_dim=12,
    n_routed_experts=4,
    num_experts_per_tok=2,
    max_position_embeddings=64,
)
YARN = dict(type="yarn", factor=4.0, original_max_position_embeddings=16, mscale=1.0, mscale_all_dim=1.0)


@pytest.fixture(params=[None, 20, "yarn"], ids=["q_proj", "q_b_proj", "yarn"])
def model(request):
    variant = {None: {}, 20: dict(q_lora_rank=20), "yarn": dict(rope_scaling=YARN)}[request.param]
    return build(**variant)


def build(**overrides):
    """A small model whose heads in one layer reach very different logits: some over TAU, some under."""
    torch.manual_seed(0)
    model = KimiMini(KimiConfig.preset("nano", **{**SMALL, **overrides})).train()
    with torch.no_grad():
        for layer in attention_layers(model):
            q = layer.q_b_proj if hasattr(layer, "q_b_proj") else layer.q_proj
            size = torch.tensor([0.1, 1.0, 3.0, 6.0]).view(-1, 1, 1)
            q.weight.normal_(0, 0.3).unflatten(0, (4, -1)).mul_(size)
            layer.kv_b_proj.weight.normal_(0, 0.5)
            layer.kv_a_proj_with_mqa.weight.normal_(0, 0.3)
    return model


def attention_layers(model):
    return [layer.self_attn for layer in model.model.layers]


def batch(seed=0, rows=3, length=24):
    return torch.randint(0, 64, (rows, length), generator=torch.Generator().manual_seed(seed))


def backward(model, ids):
    logits = model(ids).logits
    torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# ---- what one clip does to one layer ----------------------------------------------------------------------


@torch.no_grad()
def look(model, ids):
    """Layer 0 from outside: scaled logits (B, H, T, T), values, the shared rope key, true maxima (H,)."""
    layer = attention_layers(model)[0]
    x = model.model.layers[0].input_layernorm(model.model.embed_tokens(ids))
    rotation = model.rotations(ids, None)
    q = torch.cat(layer.queries(x, rotation), -1).transpose(1, 2)
    latent, rope_key = layer.latents(x, rotation)
    k, v = layer.expand(latent, rope_key)
    logits = q @ k.mT * layer.scale
    future = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool).triu(1)
    return logits, v, rope_key, logits.masked_fill(future, -torch.inf).amax((0, 2, 3))


def check_clip(clip, model):
    """Every logit of a head over TAU is multiplied by TAU / S; nothing else in the layer moves."""
    ids = batch()
    logits, values, rope_key, maxima = look(model, ids)
    gamma = torch.where(maxima > TAU, TAU / maxima, 1.0)
    if not 0 < (gamma < 1).sum() < 4:
        pytest.fail("needs heads on both sides of TAU, or the check shows nothing")
    before = weights(model)
    clip(attention_layers(model)[0], maxima, TAU)
    new_logits, new_values, new_rope_key, new_maxima = look(model, ids)
    torch.testing.assert_close(new_logits, logits * gamma.view(1, -1, 1, 1), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(new_maxima, maxima.clamp(max=TAU), rtol=1e-4, atol=0)
    assert torch.equal(new_logits[:, gamma == 1], logits[:, gamma == 1])
    assert torch.equal(new_values, values) and torch.equal(new_rope_key, rope_key)
    changed = {name for name, w in weights(model).items() if not torch.equal(w, before[name])}
    assert {name.removeprefix("model.layers.0.self_attn.") for name in changed} in (
        {"q_proj.weight", "kv_b_proj.weight"},
        {"q_b_proj.weight", "kv_b_proj.weight"},
    )


def test_clip_scales_each_head_over_tau_by_its_own_gamma(model):
    check_clip(qk_clip_, model)


def parts(attention):
    """Views: query (H, nope + rope, in), key_value (H, nope + value, rank), rope rows of the shared key."""
    q = attention.q_b_proj if hasattr(attention, "q_b_proj") else attention.q_proj
    query, key_value = (m.weight.data.unflatten(0, (4, -1)) for m in (q, attention.kv_b_proj))
    return query, key_value, attention.kv_a_proj_with_mqa.weight.data[attention.rank :]


def clip_with(nope=0.5, rope=1.0, key=0.5, value=0.0, shared=0.0, gamma=clip_factors):
    """A clip that raises gamma to the given power on each part: (.5, 1, .5, 0, 0) is the right one."""

    def clip(attention, maxima, tau):
        query, key_value, shared_key = parts(attention)
        g = gamma(maxima, tau).view(-1, 1, 1)
        d = attention.d_nope
        for rows, power in (
            (query[:, :d], nope),
            (query[:, d:], rope),
            (key_value[:, :d], key),
            (key_value[:, d:], value),
        ):
            rows.mul_(g**power)
        shared_key.mul_(g.min() ** shared)

    return clip


def clip_columns(attention, maxima, tau):
    """gamma on columns: the inputs of the projection in place of the outputs of a head."""
    query, key_value, _ = parts(attention)
    for weight in (query, key_value):
        size = weight.shape[-1] // 4
        for head, g in enumerate(clip_factors(maxima, tau)):
            weight[..., head * size : (head + 1) * size] *= g.sqrt()


WRONG_CLIPS = {
    "per layer": clip_with(gamma=lambda S, tau: clip_factors(S.max().expand(4), tau)),
    "on columns": clip_columns,
    "on the shared rope key": clip_with(rope=0.5, shared=0.5),
    "on value rows": clip_with(value=0.5),
    "sqrt(gamma) on the rope part": clip_with(rope=0.5),
    "nope queries only": clip_with(nope=1.0, rope=0.0, key=0.0),
    "gamma on both sides": clip_with(nope=1.0, key=1.0),
    "also heads under tau": clip_with(gamma=lambda S, tau: tau / S),
}


def test_the_mutants_frame_is_right(model):
    check_clip(clip_with(), model)


@pytest.mark.parametrize("name", WRONG_CLIPS)
def test_wrong_clips_are_caught(name, model):
    with pytest.raises(AssertionError):
        check_clip(WRONG_CLIPS[name], model)


def test_a_clip_needs_one_maximum_a_head(model):
    with pytest.raises(ValueError, match="each of 4 heads"):
        qk_clip_(attention_layers(model)[0], torch.ones(3), TAU)


def test_negative_and_unseen_maxima_are_no_reason_to_clip():
    maxima = torch.tensor([-5.0, 0.0, -torch.inf, TAU, 2 * TAU])
    assert clip_factors(maxima, TAU).tolist() == [1, 1, 1, 1, 0.5]


# ---- on what evidence -------------------------------------------------------------------------------------


def check_evidence(model, measure):
    """After a step over two micro-batches (lr 0, so that only the clip acts) no head of layer 0 is over TAU
    on either, heads that were over it sit exactly at TAU, and the others have not moved.

    measure(model, micro-batches) -> (H,) for layer 0 replaces what the model recorded; None: the real thing.
    """
    batches = [batch(0), batch(1, rows=1, length=5)]  # the large logits are in the first
    optimizer = MuonClip(model, lr=0.0, tau=TAU)
    before = torch.stack([look(model, ids)[3] for ids in batches]).amax(0)
    for ids in batches:
        backward(model, ids)
    if measure is not None:
        model.statistics.max_logits[0] = measure(model, batches)
    optimizer.step()
    after = torch.stack([look(model, ids)[3] for ids in batches]).amax(0)
    torch.testing.assert_close(after, before.clamp(max=TAU), rtol=1e-4, atol=1e-5)


def test_evidence_is_the_largest_softmax_input_of_all_micro_batches(model):
    check_evidence(model, None)


def over_batches(statistic):
    return lambda model, batches: torch.stack([statistic(model, ids) for ids in batches]).amax(0)


WRONG_EVIDENCE = {
    "without the softmax scale": over_batches(lambda m, ids: look(m, ids)[3] / attention_layers(m)[0].scale),
    "output logits": over_batches(lambda m, ids: m(ids).logits.detach().max().expand(4)),
    "masked pairs included": over_batches(lambda m, ids: look(m, ids)[0].amax((0, 2, 3))),
    "absolute value": over_batches(lambda m, ids: look(m, ids)[0].tril().abs().amax((0, 2, 3))),
    "last micro-batch only": lambda m, batches: look(m, batches[-1])[3],
    "mean over micro-batches": lambda m, batches: torch.stack([look(m, ids)[3] for ids in batches]).mean(0),
    "largest of the layer": over_batches(lambda m, ids: look(m, ids)[3].max().expand(4)),
}


@pytest.mark.parametrize("name", WRONG_EVIDENCE)
def test_wrong_evidence_is_caught(name):
    with pytest.raises(AssertionError):
        check_evidence(build(), WRONG_EVIDENCE[name])


def test_padding_is_no_evidence():
    """Rows marked invalid may reach any logit: they were never part of the batch."""
    model, ids = build(), batch()
    valid = torch.arange(24).expand(3, 24) < 6
    model(ids, valid=valid)
    only_valid = model.statistics.max_logits[0].clone()
    torch.testing.assert_close(only_valid, look(model, ids[:, :6])[3], rtol=1e-4, atol=1e-5)
    assert (look(model, ids)[3] > only_valid + 0.1).any()


def test_maxima_are_joined_over_ranks(monkeypatch):
    """Under torchrun every rank must clip by the same gamma: the maximum of all, in one packed reduction."""
    model = build()
    backward(model, batch())
    other_rank = model.statistics.max_logits * 2

    def all_reduce(tensor, op):
        assert op == torch.distributed.ReduceOp.MAX
        tensor.copy_(torch.maximum(tensor, other_rank))

    monkeypatch.setattr(distributed, "is_on", lambda: True)
    monkeypatch.setattr(distributed.dist, "all_reduce", all_reduce)
    monkeypatch.setattr(muon, "each_its_share", lambda tensors, work: work(tensors))
    optimizer = MuonClip(model, tau=TAU)
    optimizer.step()
    assert torch.equal(optimizer.last_max_logits, other_rank.clamp(min=optimizer.last_max_logits.min()))


# ---- when -------------------------------------------------------------------------------------------------


def test_clip_comes_after_the_update_and_is_recorded(model):
    unclipped = copy.deepcopy(model)
    optimizer, plain = MuonClip(model, lr=0.02, tau=TAU), MuonClip(unclipped, lr=0.02, tau=float("inf"))
    for m in (model, unclipped):
        backward(m, batch())
    maxima = model.statistics.max_logits.clone()
    clipped_first = copy.deepcopy(unclipped)

    optimizer.step()
    plain.step()
    assert plain.last_clip == [] and not same(weights(model), weights(unclipped))
    for layer, row in zip(attention_layers(unclipped), maxima, strict=True):
        qk_clip_(layer, row, TAU)
    assert same(weights(model), weights(unclipped))

    over = (maxima > TAU).nonzero().tolist()
    assert [(clip.layer, clip.head) for clip in optimizer.last_clip] == [tuple(x) for x in over] and over
    for layer, head, gamma in optimizer.last_clip:
        assert gamma == pytest.approx(TAU / maxima[layer, head].item())
    assert torch.equal(optimizer.last_max_logits, maxima)
    assert torch.isneginf(model.statistics.max_logits).all()  # the statistic starts anew

    backward_grads = {n: p.grad for n, p in unclipped.named_parameters()}  # the mutant: clip, then update
    for name, p in clipped_first.named_parameters():
        p.grad = backward_grads[name]
    for layer, row in zip(attention_layers(clipped_first), maxima, strict=True):
        qk_clip_(layer, row, TAU)
    MuonClip(clipped_first, lr=0.02, tau=float("inf")).step()
    assert not same(weights(model), weights(clipped_first))


def test_a_step_without_a_forward_clips_nothing():
    model = build()
    optimizer = MuonClip(model, tau=TAU)
    optimizer.step()
    assert optimizer.last_clip == [] and torch.isneginf(optimizer.last_max_logits).all()


def test_evaluation_is_no_evidence():
    model = build().eval()
    with torch.no_grad():
        model(batch())
    assert torch.isneginf(model.statistics.max_logits).all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_stop_the_step_before_anything_moves(bad):
    model = build()
    optimizer = MuonClip(model, tau=TAU)
    backward(model, batch())
    model.statistics.max_logits[1, 2] = bad
    before = weights(model)
    with pytest.raises(FloatingPointError, match=r"layer 1, head 2 .*skip_step"):
        optimizer.step()
    assert same(weights(model), before) and not optimizer.state


def test_a_skipped_step_leaves_no_trace():
    with_bad, without = build(), build()
    optimizers = [MuonClip(m, lr=0.02, tau=TAU) for m in (with_bad, without)]
    for seed in range(3):
        for model, optimizer in zip((with_bad, without), optimizers, strict=True):
            if seed == 1 and model is with_bad:
                model.statistics.layer(0).see(torch.full((4,), 1e4))
                backward(model, batch(9))
                optimizer.skip_step()
            backward(model, batch(seed))
            optimizer.step()
            optimizer.zero_grad()
    assert same(weights(with_bad), weights(without))
    assert [o.skipped_steps for o in optimizers] == [1, 0]


# ---- who is updated by what -------------------------------------------------------------------------------

ADAMW_NAMES = ("embed_tokens", "lm_head", "norm")


def check_split(split):
    """Embedding, head and norms to AdamW, every other matrix (router, experts) to Muon, all exactly once."""
    model = KimiMini(KimiConfig.preset("nano", num_hidden_layers=2, q_lora_rank=24))
    names = {id(p): name for name, p in model.named_parameters()}
    for_muon, for_adamw = ({names[id(p)] for p in params} for params in split(model))
    assert for_adamw == {name for name in names.values() if any(part in name for part in ADAMW_NAMES)}
    assert for_muon == set(names.values()) - for_adamw
    assert {"model.layers.1.mlp.gate.weight", "model.layers.1.mlp.experts.up_proj"} <= for_muon


def test_split():
    check_split(split_parameters)


def split_by(rule):
    def split(model):
        named = list(model.named_parameters())
        return [p for n, p in named if rule(n, p)], [p for n, p in named if not rule(n, p)]

    return split


@pytest.mark.parametrize(
    "rule",
    [
        lambda name, p: p.ndim >= 2,
        lambda name, p: p.ndim >= 2 and "embed_tokens" not in name,
        lambda name, p: p.ndim >= 2 and "lm_head" not in name,
        lambda name, p: p.ndim == 2 and "embed_tokens" not in name and "lm_head" not in name,
        lambda name, p: p.ndim >= 2 and not any(x in name for x in ("embed_tokens", "lm_head", "mlp.gate.")),
    ],
    ids=["all matrices", "head in Muon", "embedding in Muon", "experts in AdamW", "router in AdamW"],
)
def test_wrong_splits_are_caught(rule):
    with pytest.raises(AssertionError):
        check_split(split_by(rule))


def test_frozen_and_tied_parameters():
    model = build(tie_word_embeddings=True)
    model.model.layers[0].self_attn.o_proj.weight.requires_grad_(False)
    for_muon, for_adamw = split_parameters(model)
    assert sum(p is model.lm_head.weight for p in for_adamw) == 1
    assert all(p is not model.model.layers[0].self_attn.o_proj.weight for p in for_muon)


def check_adamw_half(betas=(0.9, 0.95), decays_norms=True, eps=1e-8):
    """Three steps of the AdamW half, bit for bit those of torch.optim.AdamW with the given settings."""
    model = build()
    twin = copy.deepcopy(model)
    optimizer = MuonClip(model, lr=0.0, adamw_lr=3e-3, weight_decay=0.1, tau=float("inf"))
    tables_and_norms = split_parameters(twin)[1]
    groups = [
        dict(params=[p for p in tables_and_norms if p.ndim == 2]),
        dict(params=[p for p in tables_and_norms if p.ndim == 1], weight_decay=0.1 if decays_norms else 0.0),
    ]
    reference = torch.optim.AdamW(groups, lr=3e-3, betas=betas, eps=eps, weight_decay=0.1, fused=True)
    for seed in range(3):
        backward(model, batch(seed))
        for p, q in zip(model.parameters(), twin.parameters(), strict=True):
            q.grad = None if p.grad is None else p.grad.clone()
        optimizer.step()
        reference.step()
        optimizer.zero_grad()
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), twin.parameters(), strict=True))


def test_adamw_half_is_adamw_with_decay_on_norms():
    check_adamw_half()


@pytest.mark.parametrize(
    "wrong", [dict(betas=(0.95, 0.95)), dict(betas=(0.9, 0.999)), dict(decays_norms=False)], ids=str
)
def test_wrong_adamw_settings_are_caught(wrong):
    with pytest.raises(AssertionError):
        check_adamw_half(**wrong)


# ---- as one optimizer -------------------------------------------------------------------------------------


def train(model, optimizer, seeds):
    for seed in seeds:
        backward(model, batch(seed))
        optimizer.step()
        optimizer.zero_grad()
    return weights(model)


def test_resumed_equals_uninterrupted_bit_for_bit():
    settings = dict(lr=0.02, adamw_lr=3e-3, tau=TAU)
    uninterrupted, model = build(), build()
    expected = train(uninterrupted, MuonClip(uninterrupted, **settings), range(6))

    optimizer, file = MuonClip(model, **settings), io.BytesIO()
    train(model, optimizer, range(3))
    torch.save(dict(model=model.state_dict(), optimizer=optimizer.state_dict()), file)
    file.seek(0)
    saved = torch.load(file)
    for complete in (True, False):
        resumed = build()
        resumed.load_state_dict(saved["model"])
        optimizer = MuonClip(resumed, **settings)
        if complete:
            optimizer.load_state_dict(saved["optimizer"])
        assert same(train(resumed, optimizer, range(3, 6)), expected) == complete  # its state is needed


def test_closure():
    model = build()
    optimizer = MuonClip(model, lr=0.02, tau=TAU)

    def closure():
        optimizer.zero_grad()
        loss = model(batch()).logits.square().mean()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() > 0
    assert optimizer.last_clip  # the closure's forward is evidence too


def test_own_groups_and_adamclip():
    """QK-Clip does not need Muon: all weights under AdamW, clipped all the same."""
    model = build()
    before = look(model, batch())[3]
    groups = [dict(params=list(model.parameters()), algorithm="adamw", betas=(0.8, 0.9))]
    optimizer = MuonClip(groups, lr=0.0, tau=TAU, model=model)
    backward(model, batch())
    optimizer.step()
    assert optimizer.param_groups[0]["betas"] == (0.8, 0.9) and optimizer.last_clip
    torch.testing.assert_close(look(model, batch())[3], before.clamp(max=TAU), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: MuonClip(build(), tau=0.0), "tau must be positive"),
        (lambda: MuonClip(build(), tau=float("nan")), "tau must be positive"),
        (lambda: MuonClip(build(), lr=-1.0), "lr must not be negative"),
        (lambda: MuonClip(build(), adamw_lr=-1.0), "lr must not be negative"),
        (lambda: MuonClip(build(), betas=(0.9, 1.0)), "betas"),
        (lambda: MuonClip(build().bfloat16()), "fp32 weights"),
        (lambda: MuonClip(build().parameters()), "needs a model"),
        (lambda: MuonClip([dict(params=list(build().parameters()))]), "'algorithm'"),
        (lambda: MuonClip([dict(params=list(build().parameters()), algorithm="muon")]), "AdamW"),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# ---- defaults, copies, frozen weights -----------------------------------------------------------------------


def check_defaults(make):
    """One step with nothing but a rate is K2's: momentum 0.95 with Nesterov, decay 0.1, tau 100, AdamW's (0.9, 0.95)."""
    model, twin = build(), build()
    with torch.no_grad():
        for m in (model, twin):
            attention_layers(m)[0].q_proj.weight.mul_(20)  # heads over 100
    k2 = dict(
        weight_decay=0.1, momentum=0.95, nesterov=True, ns_steps=5, tau=100.0, betas=(0.9, 0.95), eps=1e-8
    )
    optimizers = make(model, lr=0.02), MuonClip(twin, lr=0.02, adamw_lr=0.02, **k2)
    for m, optimizer in zip((model, twin), optimizers):
        for seed in range(2):
            backward(m, batch(seed))
            optimizer.step()
            optimizer.zero_grad()
    assert same(weights(model), weights(twin)) and optimizers[1].last_clip


def test_defaults_are_those_of_k2():
    check_defaults(MuonClip)


@pytest.mark.parametrize(
    "other",
    [
        dict(weight_decay=0.01),
        dict(momentum=0.9),
        dict(nesterov=False),
        dict(ns_steps=4),
        dict(tau=50.0),
        dict(betas=(0.9, 0.999)),
        dict(adamw_lr=1e-3),
    ],
    ids=str,
)
def test_other_defaults_are_caught(other):
    with pytest.raises(AssertionError):
        check_defaults(lambda model, lr: MuonClip(model, lr=lr, **other))


@pytest.mark.parametrize("way", ["copy", "pickle"])
def test_a_copy_trains_on_as_the_original(way):
    """Model and optimizer copied in the middle of a run: the copy clips its own model by the same tau."""
    model = build()
    optimizer = MuonClip(model, lr=0.02, adamw_lr=3e-3, tau=0.5)
    train(model, optimizer, range(2))
    if way == "copy":
        twin = copy.deepcopy(optimizer)
    else:
        file = io.BytesIO()
        torch.save(optimizer, file)
        file.seek(0)
        twin = torch.load(file, weights_only=False)
    assert twin.model is not model and twin.tau == 0.5 and twin.last_clip == optimizer.last_clip
    train(twin.model, twin, range(2, 4))
    assert not same(weights(model), weights(twin.model))  # the original has not moved with it
    assert same(train(model, optimizer, range(2, 4)), weights(twin.model)) and twin.last_clip
    twin.add_param_group(dict(params=[torch.nn.Parameter(torch.zeros(3))], algorithm="adamw"))
    assert twin.param_groups[-1]["lr"] == 3e-3


def frozen(*names):
    """A model with these matrices of layer 0 frozen, a batch seen, and its step taken with lr 0: only the clip acts."""
    model = build()
    for name in names:
        getattr(attention_layers(model)[0], name).weight.requires_grad_(False)
    before, maxima = weights(model), look(model, batch())[3]
    optimizer = MuonClip(model, lr=0.0, tau=TAU)
    backward(model, batch())
    optimizer.step()
    changed = {name for name, w in weights(model).items() if not torch.equal(w, before[name])}
    return model, optimizer, {n.split(".")[-2] for n in changed if "layers.0." in n}, maxima


def test_frozen_weights_are_not_clipped():
    model, optimizer, changed, maxima = frozen("kv_b_proj")
    assert changed == {"q_proj"}  # which takes all of gamma, so that the cap holds
    torch.testing.assert_close(look(model, batch())[3], maxima.clamp(max=TAU), rtol=1e-4, atol=1e-5)
    _, optimizer, changed, _ = frozen("q_proj")
    assert changed == {"kv_b_proj"} and any(clip.layer == 0 for clip in optimizer.last_clip)
    _, optimizer, changed, _ = frozen("q_proj", "kv_b_proj")
    assert changed == set() and optimizer.last_clip and all(clip.layer == 1 for clip in optimizer.last_clip)
