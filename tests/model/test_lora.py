"""LoRA: changes nothing at first, changes by alpha / r, learns alone, and leaves the base as it was."""

import copy

import pytest
import torch
from parity import CONFIGS, ids, ours
from tiny import tiny_model

from kimi_mini.base.errors import KimiError
from kimi_mini.inference.generation import generate
from kimi_mini.model.compact import lora
from kimi_mini.model.compact.lora import Adapter, attached, detach, unmerge
from kimi_mini.training.batch import text_batch
from kimi_mini.training.loop import train
from kimi_mini.training.optim.muonclip import MuonClip, qk_clip_


@pytest.fixture
def model():
    return tiny_model().eval()


def learned(model, rank=4, alpha=12.0, seed=1, targets=lora.TARGETS):
    """An adapter whose B is not zero."""
    adapter = Adapter.new(model, rank, alpha, targets, seed)
    generator = torch.Generator().manual_seed(seed)
    for name in adapter.names:
        torch.nn.init.normal_(adapter[name].b, 0.0, 0.1, generator=generator)
    return adapter


def prompt(rows=3, length=12):
    return torch.randint(0, 1000, (rows, length), generator=torch.Generator().manual_seed(3))


def by_hand(model, adapter):
    """W + alpha / r * B A of every adapted matrix, expert after expert."""
    state = {name: value.clone() for name, value in model.state_dict().items()}
    for name in adapter.names:
        a, b = adapter[name].a.detach(), adapter[name].b.detach()
        pairs = zip(a, b) if a.ndim == 3 else [(a, b)]
        change = torch.stack([b @ a for a, b in pairs]) * (12.0 / 4)
        state[name] += change if a.ndim == 3 else change[0]
    whole = copy.deepcopy(model)
    whole.load_state_dict(state)
    return whole


def test_a_new_adapter_changes_nothing(model):
    before = model(prompt()).logits
    with attached(model, Adapter.new(model)):
        assert torch.equal(model(prompt()).logits, before)


def test_attached_and_merged_are_the_formula(model):
    adapter = learned(model)
    expected, plain = by_hand(model, adapter)(prompt()).logits, model(prompt()).logits
    assert (expected - plain).abs().max() > 0.1
    with attached(model, adapter):
        torch.testing.assert_close(model(prompt()).logits, expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(model(prompt()).logits, plain)
    adapter.merge(model)
    torch.testing.assert_close(model(prompt()).logits, expected, atol=1e-5, rtol=1e-5)
    unmerge(model)
    assert torch.equal(model(prompt()).logits, plain)


@pytest.mark.parametrize("changes", [{}, {"q_lora_rank": 16}])
def test_decoding_uses_the_adapter_with_and_without_folding(changes, monkeypatch):
    """Absorbed attention and folded decoding take the matrices themselves."""
    model = tiny_model(**changes).eval()
    adapter = learned(model)
    expected, plain = (
        generate(one, prompt(), 20, eos_token_id=[]) for one in (by_hand(model, adapter), model)
    )
    assert not torch.equal(expected, plain)
    with attached(model, adapter):
        assert torch.equal(generate(model, prompt(), 20, eos_token_id=[]), expected)
        monkeypatch.setattr("kimi_mini.inference.decoder.foldable", lambda model: False)
        assert torch.equal(generate(model, prompt(), 20, eos_token_id=[]), expected)


def test_only_attention_and_routed_experts_are_adapted(model):
    adapter = learned(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    adapter.merge(model)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    attention, experts = ("q_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"), ("gate", "up", "down")
    wanted = {f"model.layers.{i}.self_attn.{name}.weight" for i in (0, 1) for name in attention}
    assert changed == wanted | {f"model.layers.1.mlp.experts.{name}_proj" for name in experts}


def test_targets_can_be_chosen(model):
    assert {name.split(".")[-2] for name in Adapter.new(model, targets=["q_proj"]).names} == {"q_proj"}
    assert len(Adapter.new(model, targets=["experts"]).names) == 3
    for targets, rank in (["shared_experts"], 8), (["q_b_proj"], 8), (["q_proj"], 0):
        with pytest.raises(KimiError):
            Adapter.new(model, rank, targets=targets)


def test_every_expert_has_its_own(model):
    pair = learned(model)["model.layers.1.mlp.experts.up_proj"]
    assert pair.a.shape == (4, 4, 32) and pair.b.shape == (4, 16, 4)
    assert (pair.a[0] - pair.a[1]).abs().max() > 0.01


def test_training_moves_the_adapter_alone_and_its_keys_stand_beside_those_of_the_base(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    adapter, windows = Adapter.new(model, alpha=8.0), prompt(4, 16).numpy()
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=0.02)
    with attached(model, adapter):
        assert before.keys() < model.state_dict().keys()
        added = model.state_dict().keys() - before.keys()
        assert all(name.startswith("adapter.pairs.") for name in added)
        history = train(
            model, optimizer, lambda step: [text_batch(windows)], 12, lambda step: 1.0, bias_rate=0
        )
        base = [p for name, p in model.named_parameters() if not name.startswith("adapter.")]
        assert all(param.grad is None and not param.requires_grad for param in base)
    assert history.loss[-1] < history.loss[0] - 0.5
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(param.requires_grad for param in model.parameters())
    assert all(adapter[name].b.abs().max() > 0 for name in adapter.names)


def test_gradients_of_a_and_b_are_those_of_the_formula(model):
    adapter = learned(model)
    whole = by_hand(model, adapter)
    with attached(model, adapter):
        model(prompt()).logits.square().mean().backward()
    whole(prompt()).logits.square().mean().backward()
    gradients = dict(whole.named_parameters())
    for name in adapter.names:
        pair, dense = adapter[name], gradients[name].grad
        torch.testing.assert_close(pair.a.grad, 3 * pair.b.mT @ dense, atol=1e-6, rtol=1e-4)
        torch.testing.assert_close(pair.b.grad, 3 * dense @ pair.a.mT, atol=1e-6, rtol=1e-4)


def test_qk_clip_leaves_an_adapted_model_alone_and_says_nothing_else(model):
    adapter = learned(model)
    groups = [dict(params=list(adapter.parameters()), algorithm="muon")]
    optimizer = MuonClip(groups, lr=0.0, weight_decay=0.0, tau=1e-3, model=model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    windows = prompt(4, 16).numpy()
    with attached(model, adapter):
        history = train(
            model, optimizer, lambda step: [text_batch(windows)], 1, lambda step: 1.0, bias_rate=0
        )
        assert history.max_logit[0] > 1e-3 and history.clipped_heads == [0] and optimizer.last_clip == []
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    adapter.merge(model)
    clip = MuonClip(model, lr=0.0, weight_decay=0.0, tau=1e-3)
    merged = model.attention_layers()[0].q_proj.weight.clone()
    assert train(model, clip, lambda step: [text_batch(windows)], 1, lambda step: 1.0).clipped_heads[0] > 0
    assert not torch.equal(model.attention_layers()[0].q_proj.weight, merged)


def test_qk_clip_shrinks_what_is_stored_and_not_what_an_adapter_makes_of_it(model):
    """A base that learns beside its adapter."""
    attention = model.attention_layers()[0]
    query = attention.q_proj._parameters["weight"]
    before = query.clone()
    with attached(model, learned(model)):
        for param in model.frozen:
            param.requires_grad_(True)
        qk_clip_(attention, torch.full((attention.heads,), 4.0), tau=1.0)
    head = query.shape[0] // attention.heads
    scale = torch.tensor([0.5] * attention.d_nope + [0.25] * (head - attention.d_nope))
    torch.testing.assert_close(query, before * scale.repeat(attention.heads)[:, None])


def test_twice_is_refused(model):
    adapter = learned(model)
    adapter.merge(model)
    for again in (adapter.merge, adapter.attach, learned(model, seed=2).merge):
        with pytest.raises(KimiError, match="merged into this model already"):
            again(model)
    unmerge(model)
    with pytest.raises(KimiError, match="no adapter is merged"):
        unmerge(model)
    with attached(model, adapter):
        for again in (adapter.merge, adapter.attach):
            with pytest.raises(KimiError, match="attached to this model already"):
                again(model)
    with pytest.raises(KimiError, match="no adapter is attached"):
        detach(model)


def test_an_adapter_of_another_model_is_refused(model):
    other = tiny_model(hidden_size=48)
    with pytest.raises(KimiError, match="of another model"):
        learned(model).attach(other)


def test_a_model_with_an_adapter_attached_is_not_saved_as_if_it_were_one(model, tmp_path):
    with attached(model, learned(model)), pytest.raises(KimiError, match="merge it or detach it"):
        model.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_copy_of_an_adapted_model_has_its_own_adapter(model):
    with attached(model, learned(model)):
        twin = copy.deepcopy(model)
        before = twin(prompt()).logits
        with torch.no_grad():
            for param in model.adapter.parameters():
                param.zero_()
        assert torch.equal(twin(prompt()).logits, before)


def test_all_configurations_of_attention():
    for config in ("q_lora", "everything"):
        model = ours(CONFIGS[config])
        adapter = learned(model, rank=4, alpha=12.0)
        with attached(model, adapter), torch.no_grad():
            found = model(ids()).logits
        torch.testing.assert_close(found, by_hand(model, adapter)(ids()).logits, atol=1e-4, rtol=1e-4)
