"""Device, number format and micro-batch choose themselves; a full device gets smaller batches and the same step."""

import contextlib

import numpy as np
import pytest
import torch
from tiny import tiny_model

from kimi_mini import MuonClip
from kimi_mini.base.errors import KimiError
from kimi_mini.model.kimi import KimiMini
from kimi_mini.model.statistics import Statistics
from kimi_mini.training import loop
from kimi_mini.training.batch import Example, collate, token_losses
from kimi_mini.training.loop import History, evaluate_loss, train_step
from kimi_mini.training.machine import placement
from kimi_mini.training.machine.placement import Placement, matmul_rate, peak_memory, rounded, training_flops

CPU = torch.device("cpu")


def batch(rows=8, length=12, seed=0):
    rng = np.random.default_rng(seed)
    return collate(
        [
            Example(rng.integers(0, 64, length).astype(np.uint16), rng.random(length) < 0.6)
            for _ in range(rows)
        ]
    )


# ---- out of memory -------------------------------------------------------------------------------------------


class SmallDevice:
    """A device that holds `tokens` tokens: refuses in the forward pass, or in the middle of the backward pass."""

    def __init__(self, model, tokens, when):
        self.tokens, self.when, self.refused = tokens, when, 0
        self.forward = model.hidden_states
        model.hidden_states = self

    def __call__(self, ids, **options):
        hidden = self.forward(ids, **options)
        if ids.numel() > self.tokens and torch.is_grad_enabled():
            if self.when == "forward":
                self.refuse()
            hidden.register_hook(lambda grad: self.refuse())
        return hidden

    def refuse(self):
        self.refused += 1
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def two_steps(tokens=10**9, when="forward", place=None, first_rows=2):
    """Two steps; the first batch of each is small enough for every device, so that something was added up before."""
    model = tiny_model(vocab_size=64).train()
    device = SmallDevice(model, tokens, when)
    optimizer, history = MuonClip(model, lr=0.02, tau=1.0), History()
    for step in range(2):
        batches = [batch(first_rows, seed=step), batch(8, seed=10 + step)]
        train_step(model, optimizer, batches, 0.05, history, place=place or Placement())
    weights = torch.cat([value.flatten() for value in model.state_dict().values()])
    return history, weights, device.refused


def check_same_step(when):
    """A device for 24 tokens (two rows of twelve) ends where one without limits ends."""
    place = Placement()
    want, want_weights, _ = two_steps()
    got, weights, refused = two_steps(24, when, place)
    for name in ("loss", "gradient_norm", "max_logit", "max_violation"):
        np.testing.assert_allclose(getattr(got, name), getattr(want, name), rtol=1e-4, atol=1e-5)
    assert got.tokens == want.tokens and got.clipped_heads == want.clipped_heads
    torch.testing.assert_close(weights, want_weights, atol=2e-3, rtol=0)  # AdamW's first steps are signs
    assert sum(want.clipped_heads) > 0
    assert place.micro_tokens == 24 and refused == 2  # 8 rows, 4 rows; the second step knows


@pytest.mark.parametrize("when", ["forward", "backward"])
def test_out_of_memory_is_answered_by_smaller_micro_batches(when, caplog):
    check_same_step(when)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert "out of memory at 96 tokens at once: going on with micro-batches of 48" in said[0]
    assert "48 tokens" in said[1] and "of 24" in said[1]


@pytest.mark.parametrize("kept", ["gradients", "statistics"])
def test_what_the_failed_attempt_left_is_found_out(monkeypatch, kept):
    """Mutants: gradients of the first attempt stay and count twice; loads of the first attempt stay."""
    if kept == "gradients":
        monkeypatch.setattr(KimiMini, "zero_grad", lambda self, set_to_none=True: None)
    else:
        monkeypatch.setattr(Statistics, "forget", lambda self: None)
    with pytest.raises(AssertionError):
        check_same_step("forward")


def test_a_single_row_that_does_not_fit_is_one_line():
    with pytest.raises(KimiError, match="single row of 12 tokens: take a shorter window"):
        two_steps(11, place=Placement(), first_rows=1)


def test_other_errors_are_not_taken_for_it():
    model = tiny_model(vocab_size=64)
    model.hidden_states = lambda ids, **options: torch.zeros(2, 3) @ torch.zeros(4, 5)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        train_step(model, MuonClip(model), [batch()], 0.0, History())
    assert placement.is_out_of_memory(
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ...")
    )


def test_cutting_keeps_every_row_in_order():
    whole = batch(7, 10)
    for tokens in (1, 10, 25, 70, None):
        parts = Placement(micro_tokens=tokens).cut([whole, batch(1, 10)])
        assert torch.equal(torch.cat([part.ids for part in parts])[:7], whole.ids)
        assert sum(part.learned for part in parts[:-1]) == whole.learned
        assert all(len(part.ids) == 1 or tokens is None or part.ids.numel() <= tokens for part in parts)


# ---- number format -------------------------------------------------------------------------------------------


def gradients(model, place, items):
    model.zero_grad(set_to_none=True)
    loss = place.run(token_losses, model, items).mean()
    loss.backward()
    return loss.item(), {name: param.grad for name, param in model.named_parameters()}


def check_bf16(run):
    """bf16 in the middle: the loss within 2%, fp32 gradients in the same direction, fp32 weights, exact biases."""
    model, items = tiny_model(vocab_size=64).train(), batch()
    want, want_gradients = gradients(model, Placement(), items)
    seen = []
    for module in (model.model.layers[1].mlp.experts, model.model.layers[0].self_attn.o_proj):
        module.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].dtype))
    loss, found = run(model, items)
    assert seen == [torch.bfloat16] * 2 or sorted(map(str, seen)) == ["torch.bfloat16"] * 2
    assert loss == pytest.approx(want, rel=0.02) and loss != want
    for name, grad in found.items():
        assert grad.dtype == torch.float32 and model.get_parameter(name).dtype == torch.float32
        assert torch.cosine_similarity(grad.flatten(), want_gradients[name].flatten(), 0) > 0.97, name
    gate = [name for name in found if name.endswith("mlp.gate.weight")]
    assert gate and all(
        torch.equal(rounded(name, model.get_parameter(name), torch.bfloat16), model.get_parameter(name))
        for name in gate
    )


def test_bf16_works_on_rounded_copies_and_trains_fp32_weights():
    check_bf16(lambda model, items: gradients(model, Placement(dtype=torch.bfloat16), items))


def all_in_bf16(model, items):
    """Wrong: the optimizer's weights are rounded too, and lose every update smaller than half a percent."""
    return gradients(model.to(torch.bfloat16), Placement(), items)


@pytest.mark.parametrize("mutant", [all_in_bf16, lambda model, items: gradients(model, Placement(), items)])
def test_wrong_formats_are_found_out(mutant):
    with pytest.raises(AssertionError):
        check_bf16(mutant)


def check_one_rounding_a_step(monkeypatch):
    """Three micro-batches: every matrix but the routers' is rounded once, and gradients are those of three roundings."""
    model, made = tiny_model(vocab_size=64).train(), []
    monkeypatch.setattr(
        placement, "rounded", lambda *given, honest=rounded: made.append(given[0]) or honest(*given)
    )
    items, place = batch(6), Placement(dtype=torch.bfloat16, micro_tokens=24)
    loop.backward(model, [items], items.learned, place)
    found = {name: param.grad.clone() for name, param in model.named_parameters()}
    assert len(made) == len(found) == len(set(made))
    model.zero_grad(set_to_none=True)
    for part in place.cut([items]):
        (place.run(token_losses, model, part).sum() / items.learned).backward()
    assert len(place.cut([items])) == 3 and len(made) == 4 * len(found)
    for name, param in model.named_parameters():
        assert torch.equal(param.grad, found[name]), name
    optimizer = MuonClip(model, lr=0.02)
    optimizer.step()  # the next step rounds what this one has made of the weights
    before = evaluate_loss(model, [items], place)
    assert before == evaluate_loss(model, [items], Placement(dtype=torch.bfloat16, micro_tokens=24))


def test_matrices_are_rounded_once_a_step(monkeypatch):
    check_one_rounding_a_step(monkeypatch)


@pytest.mark.parametrize("mutant", ["every micro-batch", "never again", "sums in bf16"])
def test_other_roundings_are_found_out(monkeypatch, mutant):
    if mutant == "every micro-batch":
        monkeypatch.setattr(Placement, "step", lambda self, model: contextlib.nullcontext())
    elif mutant == "never again":

        def forever(self, model):
            self._copies = self._copies or self._rounded(model)
            return contextlib.nullcontext()

        monkeypatch.setattr(Placement, "step", forever)
    else:

        def hand_on(param, copy):
            grad, copy.grad = copy.grad, None
            param.grad = (grad if param.grad is None else param.grad.bfloat16() + grad).float()

        def each(param, copy):  # one micro-batch at a time is right
            return honest(param, copy) if place_has_no_copies[0] else hand_on(param, copy)

        honest, place_has_no_copies = placement._hand_on, [False]
        run = Placement.run

        def watched(self, *given):
            place_has_no_copies[0] = self._copies is None
            return run(self, *given)

        monkeypatch.setattr(Placement, "run", watched)
        monkeypatch.setattr(placement, "_hand_on", each)
    with pytest.raises(AssertionError):
        check_one_rounding_a_step(monkeypatch)


def test_a_run_in_bf16_learns_and_balances():
    model = tiny_model(std=0.02, vocab_size=64)
    place = Placement(dtype=torch.bfloat16, micro_tokens=48)
    optimizer = MuonClip(model, lr=0.02, adamw_lr=0.02)
    history = loop.train(model, optimizer, lambda step: [batch()], 30, lambda step: 1.0, place=place)
    assert history.loss[-1] < 0.3 * history.loss[0]
    assert any(router.e_score_correction_bias.abs().sum() > 0 for router in model.routers())
    assert evaluate_loss(model, [batch()], place) == pytest.approx(evaluate_loss(model, [batch()]), rel=0.05)


# ---- choosing ------------------------------------------------------------------------------------------------


def test_a_machine_without_a_gpu_chooses_fp32_on_its_processor(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    place = Placement.choose()
    assert (place.device, place.dtype, place.micro_tokens) == (CPU, torch.float32, placement.CPU_MICRO_TOKENS)
    assert Placement.choose(dtype="bf16", micro_tokens=64).micro_tokens == 64
    assert str(place) == "CPU, float32, micro-batches: 2,048 tokens"


@pytest.mark.parametrize(
    ("capability", "dtype"), [((7, 5), torch.float32), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)]
)
def test_a_gpu_is_chosen_with_bf16_where_it_has_it(monkeypatch, capability, dtype):
    """Without one here: what the choice asks torch is answered by hand."""
    monkeypatch.setattr(placement, "has_triton", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch, "empty", lambda *size, device: torch.ones(*size))
    place = Placement.choose()
    assert (place.device, place.dtype, place.micro_tokens) == (torch.device("cuda:0"), dtype, None)
    assert place.compiled == (dtype == torch.bfloat16)  # fp32 has no grouped product that compiles
    assert not Placement.choose(dtype="fp32").compiled
    monkeypatch.setattr(placement, "has_triton", lambda: False)
    assert not Placement.choose().compiled


def test_what_is_not_there_is_one_line(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for words in (("cuda:7",), ("gpu",), ("meta",), ("cpu", "fp8")):
        with pytest.raises(KimiError) as caught:
            Placement.choose(*words)
        assert "\n" not in str(caught.value)


def test_numbers_of_this_machine_are_plausible():
    assert 50 * 2**20 < peak_memory() < 2**40
    assert matmul_rate(size=256, rounds=2) > 1e8
    config = tiny_model().config
    assert training_flops(config, 1) == 3 * config.flops_per_token(1)
    assert training_flops(config, 3) == 3 * config.flops_per_token(2)  # a window's tokens see 1, 2 and 3 keys
