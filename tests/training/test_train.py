"""The training loop: what is learned and what is not, and that an interruption leaves no trace."""

import itertools
from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import tiny_model

from kimi_mini import MuonClip
from kimi_mini.base.errors import KimiError
from kimi_mini.training import batch as batch_
from kimi_mini.training import loop as training
from kimi_mini.training.batch import Example, collate, micro_batches, token_losses
from kimi_mini.training.loop import History, evaluate_loss, train

SMALL = {"vocab_size": 64}


def examples(count=12, seed=0, low=4, high=40):
    """Random tokens, about half of them learned, lengths of all sizes."""
    rng = np.random.default_rng(seed)
    made = []
    for length in rng.integers(low, high, count):
        made.append(Example(rng.integers(0, 64, length).astype(np.uint16), rng.random(length) < 0.5))
    return made


def gradient(model, loss):
    """All gradients as one vector."""
    model.zero_grad(set_to_none=True)
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def step_loss(model, batches):
    """What train_step adds up."""
    return sum(token_losses(model, batch).sum() for batch in batches) / sum(
        batch.learned for batch in batches
    )


def literal_loss(model, items, learned=lambda example, t: t > 0 and example.mask[t]):
    """Mean of -log p(token | before) over learned tokens, one example and one token at a time."""
    losses = []
    for example in items:
        ids = torch.tensor(example.ids.astype(np.int64))[None]
        logprobs = model(ids).logits[0].log_softmax(-1)
        losses += [-logprobs[t - 1, ids[0, t]] for t in range(1, len(example.ids)) if learned(example, t)]
    return torch.stack(losses).mean()


# ---- the loss -------------------------------------------------------------------------------------------------


def check_loss(loss_of):
    """The same loss and gradient as the literal one, however the step is cut into micro-batches."""
    model, items = tiny_model(**SMALL).train(), examples()
    want = literal_loss(model, items)
    want_gradient = gradient(model, want)
    for tokens in (10**9, 200, 60, 1):
        loss = loss_of(model, micro_batches(items, tokens))
        assert loss.item() == pytest.approx(want.item(), abs=1e-5)
        torch.testing.assert_close(gradient(model, loss), want_gradient, atol=1e-5, rtol=1e-4)


def test_the_loss_knows_nothing_of_padding_and_micro_batches():
    check_loss(step_loss)


def mean_of_means(model, batches):
    """Mutant: every micro-batch counts the same, however few tokens it teaches."""
    kept = [batch for batch in batches if batch.learned]
    return sum(token_losses(model, batch).mean() for batch in kept) / len(kept)


def padding_counts(model, batches):
    """Mutant: divide by all positions."""
    return sum(token_losses(model, b).sum() for b in batches) / sum(b.ids.numel() for b in batches)


def everything_is_learned(model, batches):
    """Mutant: the mask is forgotten, observations are trained on."""
    full = [batch_.Batch(b.ids, b.valid, b.valid) for b in batches]
    return step_loss(model, full)


def off_by_one(model, batches):
    """Mutant: the mask says where a token is read, not where it is written."""
    shifted = [batch_.Batch(b.ids, torch.roll(b.mask, 1, 1), b.valid) for b in batches]
    return step_loss(model, shifted)


@pytest.mark.parametrize("mutant", [mean_of_means, padding_counts, everything_is_learned, off_by_one])
def test_a_wrong_loss_is_found_out(mutant):
    with pytest.raises(AssertionError):
        check_loss(mutant)


def test_what_is_not_learned_carries_no_gradient():
    """Logits before an unlearned token get exactly zero, and the first token of a row is never learned."""
    model, items = tiny_model(**SMALL).train(), examples(4)
    items = [Example(e.ids, np.concatenate([[True], e.mask[1:]])) for e in items]
    batch = collate(items)
    caught = []
    handle = model.model.norm.register_forward_hook(
        lambda module, inputs, out: caught.append(out) or out.retain_grad()
    )
    token_losses(model, batch).sum().backward()
    handle.remove()
    moved = caught[0].grad.abs().sum(-1) > 0  # (B, T): positions whose logits are in the loss
    assert torch.equal(moved[:, :-1], batch.mask[:, 1:]) and not moved[:, -1].any()
    assert batch.learned == int(moved.sum())


def test_unlearned_words_at_the_end_do_not_matter():
    model, items = tiny_model(**SMALL).train(), examples(1, low=20)
    ids, mask = items[0].ids.copy(), items[0].mask.copy()
    mask[-5:] = False
    first = gradient(model, step_loss(model, [collate([Example(ids, mask)])]))
    ids[-5:] = (ids[-5:] + 7) % 64
    other = gradient(model, step_loss(model, [collate([Example(ids, mask)])]))
    torch.testing.assert_close(first, other, atol=1e-7, rtol=0)


def test_padding_counts_for_no_expert_and_no_head():
    """Loads and the largest logits are those of the real tokens, whatever they are padded to."""
    items = examples(6)
    seen = []
    for tokens in (10**9, 1):
        model = tiny_model(**SMALL).train()
        for batch in micro_batches(items, tokens):
            token_losses(model, batch)
        seen.append((model.statistics.loads.clone(), model.statistics.max_logits.clone()))
    (load, logits), (load_alone, logits_alone) = seen
    assert torch.equal(load, load_alone) and int(load.sum()) == 2 * sum(len(e.ids) for e in items)
    torch.testing.assert_close(logits, logits_alone)


@pytest.mark.parametrize("tokens", [1, 60, 200, 10**9])
def test_micro_batches_hold_every_example_once(tokens):
    items = examples(30)
    batches = micro_batches(items, tokens)
    rows = [tuple(row[ok].tolist()) for batch in batches for row, ok in zip(batch.ids, batch.valid)]
    assert sorted(rows) == sorted(tuple(example.ids.tolist()) for example in items)
    assert all(batch.ids.numel() <= tokens or len(batch.ids) == 1 for batch in batches)
    assert sum(batch.learned for batch in batches) == sum(int(example.mask[1:].sum()) for example in items)


def test_a_look_at_the_loss_changes_nothing():
    model, batches = tiny_model(**SMALL).train(), micro_batches(examples(), 200)
    loss = evaluate_loss(model, batches)
    assert loss == pytest.approx(literal_loss(model.eval(), examples()).item(), abs=1e-5)
    model.train()
    evaluate_loss(model, batches)
    assert model.training and not model.statistics.loads.any() and model.statistics.max_logits.isinf().all()


@pytest.mark.parametrize("mode", [True, False])
def test_the_mode_of_the_model_is_restored(mode):
    """Training needs train mode (loads, maxima) whatever mode it is given; a step that fails restores it too."""
    model = tiny_model(**SMALL).train(mode)
    history = train(model, MuonClip(model), lambda step: micro_batches(examples(), 200), 1, lambda step: 1.0)
    assert model.training is mode and history.max_violation[0] > 0
    with pytest.raises(KimiError):
        train(model, MuonClip(model), lambda step: [nothing_to_learn()], 1, lambda step: 1.0)
    assert model.training is mode


def nothing_to_learn():
    return collate([Example(np.arange(5, dtype=np.uint16), np.zeros(5, bool))])


def test_a_step_without_a_token_to_learn_says_so():
    """Its mean loss would be 0 / 0: not a matter of the learning rate."""
    model = tiny_model(**SMALL)
    before = [parameter.clone() for parameter in model.parameters()]
    with pytest.raises(KimiError, match="step 0 has no token to learn from"):
        train(model, MuonClip(model), lambda step: [nothing_to_learn()], 1, lambda step: 1.0)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters()))
    batches = [
        nothing_to_learn(),
        *micro_batches(examples(), 200),
    ]  # one empty micro-batch among others is no matter
    assert train(model, MuonClip(model), lambda step: batches, 1, lambda step: 1.0).loss[0] > 0


# ---- interrupted and resumed ----------------------------------------------------------------------------------

STEPS = 6


def data(step):
    return micro_batches(examples(6, seed=step), 100)


def fresh():
    """A model and an optimizer as a new process would make them: a QK-Clip that acts, biases that move."""
    model = tiny_model(**SMALL)
    return model, MuonClip(model, lr=0.02, adamw_lr=0.02, weight_decay=0.1, tau=2.0)


def schedule(step):
    return 1 - step / (2 * STEPS)


class PowerCut(Exception):
    pass


def cut_at(last):
    def progress(step, history):
        if step == last:
            raise PowerCut

    return progress


def fingerprint(model, optimizer, history):
    """Everything that the next step would depend on."""
    state = {f"model {name}": value for name, value in model.state_dict().items()}
    for index, entry in optimizer.state_dict()["state"].items():
        state |= {f"optimizer {index} {name}": value for name, value in entry.items()}
    return (
        state,
        history.loss,
        history.tokens,
        history.clipped_heads,
        history.max_logit,
        history.max_violation,
    )


def equal(first, second):
    weights, others = first[0], second[0]
    same = weights.keys() == others.keys() and all(
        torch.equal(weights[name], others[name]) for name in weights
    )
    return same and first[1:] == second[1:]


def run(model, optimizer, file=None, **options):
    options = {"save_seconds": 0.0, "bias_rate": 0.05, **options}
    history = train(model, optimizer, options.pop("data", data), STEPS, schedule, state_file=file, **options)
    return fingerprint(model, optimizer, history)


@pytest.fixture(scope="module")
def uninterrupted():
    return run(*fresh())


def interrupted(tmp_path, cuts, before_resuming=lambda file: None, **options):
    """Cut the power in the progress report of the given steps, each time going on in a new model and optimizer."""
    file = tmp_path / "state.pt"
    for last in cuts:
        with pytest.raises(PowerCut):
            run(*fresh(), file, progress=cut_at(last))
        before_resuming(file)
    torch.manual_seed(12345)  # another process draws other numbers
    return run(*fresh(), file, **options)


def test_the_run_to_be_interrupted_exercises_everything(uninterrupted):
    state, _, _, clipped, _, _ = uninterrupted
    assert sum(clipped) > 0
    assert any("e_score_correction_bias" in name and value.abs().sum() > 0 for name, value in state.items())
    assert any("momentum" in name for name in state) and any("exp_avg_sq" in name for name in state)


@pytest.mark.parametrize("cuts", [(0,), (3,), (1, 1, 4), (STEPS - 1,)])
def test_resumed_is_uninterrupted_bit_for_bit(tmp_path, uninterrupted, cuts):
    """Weights, biases, momenta and everything measured; also when it was cut before the first save."""
    assert equal(interrupted(tmp_path, cuts), uninterrupted)


def test_a_finished_run_is_not_trained_on(tmp_path, uninterrupted):
    assert equal(interrupted(tmp_path, (2,)), uninterrupted)

    def no_data(step):
        raise AssertionError("asked for more data")

    assert equal(run(*fresh(), tmp_path / "state.pt", data=no_data), uninterrupted)


def test_the_seconds_of_every_start_are_added_up(tmp_path, monkeypatch):
    """By both clocks, here ones that tick at every look: a step cannot take less than one."""
    ticks, file = itertools.count(), tmp_path / "state.pt"
    monkeypatch.setattr(training.time, "process_time", lambda: float(next(ticks)))
    with pytest.raises(PowerCut):
        run(*fresh(), file, progress=cut_at(3))
    earlier = training.load_state(file, *fresh())
    next(ticks), next(ticks)  # work of another kind in between, which does not count
    history = train(*fresh(), data, STEPS, schedule, bias_rate=0.05, state_file=file)
    assert len(earlier.loss) == earlier.processor_seconds and history.processor_seconds == STEPS
    assert history.seconds > earlier.seconds > 0
    assert training.load_state(file, *fresh()).processor_seconds == STEPS


def edit_state(change):
    def edit(file):
        state = torch.load(file, weights_only=True)
        change(state)
        torch.save(state, file)

    return edit


def forget_bias(state):
    for name, value in state["model"].items():
        if name.endswith("e_score_correction_bias"):
            value.zero_()


def forget(*names):
    def change(state):
        for entry in state["optimizer"]["state"].values():
            for name in names:
                if name in entry:
                    entry[name].zero_()

    return change


def forget_position(state):
    """Start again with the first batch, on the trained weights."""
    for values in state["history"].values():
        if isinstance(values, list):
            values.clear()


def forget_weights(state):
    state["model"] = fresh()[0].state_dict()


MUTANTS = {
    "router bias": forget_bias,
    "Muon's momentum": forget("momentum_buffer", "momentum"),
    "AdamW's averages": forget("exp_avg", "exp_avg_sq"),
    "AdamW's step count": forget("step"),
    "data position": forget_position,
    "weights": forget_weights,
}


@pytest.mark.parametrize("what", MUTANTS)
def test_a_state_that_forgets_something_is_found_out(tmp_path, uninterrupted, what):
    """Mutants: the saved state lacks one part, and the numbers at the end are others."""
    assert not equal(interrupted(tmp_path, (3,), edit_state(MUTANTS[what])), uninterrupted)


def test_saving_is_as_rare_as_asked_for(tmp_path):
    file = tmp_path / "state.pt"
    with pytest.raises(PowerCut):
        run(*fresh(), file, progress=cut_at(STEPS - 1), save_seconds=1000.0)
    assert not file.exists()
    run(*fresh(), file, save_seconds=1000.0)
    assert file.exists() and [path.name for path in tmp_path.iterdir()] == ["state.pt"]


def test_a_run_stops_on_what_was_measured(tmp_path):
    """Not on the clock; and a resumed run stops at the same step."""
    stop = lambda history: len(history.loss) >= 4
    whole = run(*fresh(), stop_when=stop)
    assert len(whole[1]) == 4
    assert equal(interrupted(tmp_path, (1,), stop_when=stop), whole)


def test_the_rates_of_all_groups_follow_the_schedule():
    model, optimizer = fresh()
    seen = []
    rates = lambda *_: seen.append([group["lr"] for group in optimizer.param_groups])
    train(model, optimizer, data, 3, schedule, progress=rates)
    assert seen == [[pytest.approx(0.02 * schedule(step))] * 2 for step in range(3)]


def test_the_bias_follows_the_schedule_too():
    """Mutant: the router biases go on moving at full rate while the learning rates decay."""
    model, optimizer = fresh()
    seen = []
    update = type(model).update_router_bias
    with mock.patch.object(
        type(model),
        "update_router_bias",
        lambda self, rate, rule: seen.append(rate) or update(self, rate, rule),
    ):
        train(model, optimizer, data, 4, schedule, bias_rate=0.03)
    assert seen == [pytest.approx(0.03 * schedule(step)) for step in range(4)] and len(set(seen)) > 1


def test_raw_gradients_are_clipped_to_one():
    """What the optimizer gets has norm 1 at most; what is recorded is the norm before."""
    model, got = tiny_model(std=0.5, **SMALL), []
    optimizer = MuonClip(model)
    optimizer.register_step_pre_hook(
        lambda *_: got.append(torch.cat([p.grad.flatten() for p in model.parameters()]).norm().item())
    )
    history = train(model, optimizer, data, 3, lambda step: 1.0)
    assert max(history.gradient_norm) > 1.5 and got == [
        pytest.approx(min(1.0, n), rel=1e-3) for n in history.gradient_norm
    ]


@pytest.mark.slow
def test_training_learns():
    """One batch again and again: the loss falls to a tenth."""
    model = tiny_model(std=0.02, **SMALL)
    optimizer = MuonClip(model, lr=0.02, adamw_lr=0.02)
    history = train(model, optimizer, lambda step: data(0), 40, lambda step: 1.0)
    assert history.loss[-1] < 0.1 * history.loss[0]


# ---- when it goes wrong ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_in_one_line(tmp_path, value):
    """Weights, momenta and the saved state are those of the step before."""
    file = tmp_path / "state.pt"
    model, optimizer = fresh()
    with pytest.raises(PowerCut):
        run(model, optimizer, file, progress=cut_at(3))
    saved = file.read_bytes()
    calls = F.cross_entropy

    def broken(*args, **kwargs):
        return calls(*args, **kwargs) * value

    model, optimizer = fresh()
    history = training.load_state(file, model, optimizer)
    before = fingerprint(model, optimizer, history)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "cross_entropy", broken)
        with pytest.raises(KimiError, match=r"the loss is .* at step 3") as caught:
            run(model, optimizer, file)
    assert "\n" not in str(caught.value)
    assert f"the last good state is {file}, after 3 steps" in str(caught.value)
    assert equal(fingerprint(model, optimizer, history), before)
    assert file.read_bytes() == saved


def test_a_gradient_that_is_no_number_never_reaches_the_weights(tmp_path):
    """A finite loss with a broken gradient would be saved as good, and be noticed one step too late."""
    model, optimizer = fresh()
    model.lm_head.weight.register_hook(lambda grad: grad * float("nan"))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(KimiError, match="the gradient's norm is nan at step 0: .*; nothing was saved yet"):
        run(model, optimizer, tmp_path / "state.pt")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not (tmp_path / "state.pt").exists()


@pytest.mark.parametrize("kept", [0, 1, 100, 0.5, 0.99])
def test_a_truncated_state_is_one_line(tmp_path, kept):
    file = tmp_path / "state.pt"
    training.save_state(file, *fresh(), History())
    whole = file.read_bytes()
    file.write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    with pytest.raises(KimiError, match="delete it to start this stage again") as caught:
        run(*fresh(), file)
    assert "\n" not in str(caught.value) and "state.pt" in str(caught.value)


def test_wrong_bytes_in_a_state_are_one_line(tmp_path):
    """torch.load compares no checksum: of files with five wrong bytes it reads nine in ten without a word."""
    file, random = tmp_path / "state.pt", np.random.default_rng(0)
    sound, refused = run(*fresh(), file), 0
    whole = file.read_bytes()
    for _ in range(40):
        damaged = bytearray(whole)
        for place in random.integers(0, len(whole), 5):
            damaged[place] ^= int(random.integers(1, 256))
        file.write_bytes(damaged)
        model, optimizer = fresh()
        try:
            history = training.load_state(file, model, optimizer)
        except KimiError as error:
            assert "\n" not in str(error) and f"{file} cannot be read" in str(error)
            refused += 1
        else:  # between the parts of the file: nothing that is read
            assert equal(fingerprint(model, optimizer, history), sound)
    assert refused > 30


@pytest.mark.parametrize("content", [{}, {"model": {}}, [1, 2], "text"])
def test_a_file_of_another_kind_is_one_line(tmp_path, content):
    file = tmp_path / "state.pt"
    torch.save(content, file)
    with pytest.raises(KimiError, match="delete it"):
        run(*fresh(), file)


@pytest.mark.parametrize("part", ["model", "optimizer", "generator", "history"])
@pytest.mark.parametrize("content", [None, {}, [], 5])
def test_a_state_with_a_part_of_another_kind_is_one_line(tmp_path, part, content):
    file = tmp_path / "state.pt"
    training.save_state(file, *fresh(), History())
    torch.save(torch.load(file, weights_only=True) | {part: content}, file)
    if (part, content) != ("history", {}):  # a history of nothing yet
        with pytest.raises(KimiError, match="delete it") as caught:
            run(*fresh(), file)
        assert "\n" not in str(caught.value)


def test_a_state_that_was_saved_on_a_gpu_goes_on_without_one(tmp_path, monkeypatch):
    """Its storages are marked as a GPU's, as torch.save marks them there."""
    file = tmp_path / "state.pt"
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:7")
    sound = run(*fresh(), file)
    monkeypatch.undo()
    with pytest.raises((RuntimeError, AssertionError)):  # the wrong reader, where there is no such GPU
        torch.load(file, weights_only=True)
    model, optimizer = fresh()
    assert equal(fingerprint(model, optimizer, training.load_state(file, model, optimizer)), sound)


def test_a_device_that_is_full_while_a_state_is_read_costs_no_state(tmp_path, monkeypatch):
    """Not "delete it": the file is whole."""
    file = tmp_path / "state.pt"
    training.save_state(file, *fresh(), History())
    for trouble in (out_of_memory, no_array):
        model, optimizer = fresh()
        monkeypatch.setattr(model, "load_state_dict", lambda state, trouble=trouble: trouble())
        with pytest.raises(KimiError, match="out of memory while .* is read") as caught:
            training.load_state(file, model, optimizer)
        assert "delete" not in str(caught.value)


def test_a_state_of_another_model_is_one_line(tmp_path):
    file = tmp_path / "state.pt"
    training.save_state(file, *fresh(), History())
    model = tiny_model(vocab_size=64, hidden_size=48)
    with pytest.raises(KimiError, match="delete it") as caught:
        run(model, MuonClip(model), file)
    assert "\n" not in str(caught.value)


def test_a_disk_that_is_full_leaves_the_last_state(tmp_path, monkeypatch):
    file = tmp_path / "state.pt"
    training.save_state(file, *fresh(), History())
    whole = file.read_bytes()

    def full(state, part):
        part.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(KimiError, match="the disk is full"):
        training.save_state(file, *fresh(), History())
    assert file.read_bytes() == whole and [path.name for path in tmp_path.iterdir()] == ["state.pt"]


def out_of_memory():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def no_array():
    np.empty(2**58, np.uint8)


def no_number():
    raise FloatingPointError("attention logit of layer 1, head 0 is nan")


@pytest.mark.parametrize("trouble", [out_of_memory, no_array, no_number])
def test_an_optimizer_that_cannot_go_on_names_what_is_left(tmp_path, trouble):
    model = tiny_model(**SMALL)
    optimizer = MuonClip(model, lr=1e-3)
    real = optimizer.step
    optimizer.step = lambda: real() if len(steps) < 3 else trouble()
    steps = []

    def data(step):
        steps.append(step)
        return micro_batches(examples(seed=step), 200)

    with pytest.raises(KimiError) as caught:
        train(model, optimizer, data, 5, lambda step: 1.0, state_file=tmp_path / "state.pt", save_seconds=0.0)
    line = str(caught.value)
    assert "\n" not in line and f"{tmp_path / 'state.pt'}, after 2 steps" in line
