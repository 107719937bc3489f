"""Partial rollouts: what is paused goes on as if it had not been, what is stale is not taken for fresh, and a run that
was killed ends the same."""

import io
from dataclasses import asdict, replace

import pytest
import torch
from tiny import Typist, tiny_model

from kimi_mini import MuonClip
from kimi_mini.agent import loop
from kimi_mini.agent import policy as policy_
from kimi_mini.agent.conversation import training_rows
from kimi_mini.agent.policy import LocalPolicy, Reply
from kimi_mini.base.errors import KimiError
from kimi_mini.pipeline import Plan, Run
from kimi_mini.pipeline import reinforce as stage
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training.loop import save_state
from kimi_mini.training.rl import rounds
from kimi_mini.training.rl.config import RLConfig
from kimi_mini.training.rl.curriculum import Curriculum, Drawn
from kimi_mini.training.rl.partial import Backlog, Group, stale_share
from kimi_mini.worlds.rows import Limits

LIMITS = Limits(turn_tokens=40, turns=2, context=400)
SETTINGS = RLConfig(
    objective="k2.5",
    tasks=(("buy", 1), ("chain", 1)),
    rounds=4,
    prompts=3,
    attempts=4,
    updates=2,
    ptx=0.0,
    prioritised=True,
    segment_tokens=5,
    limits=LIMITS,
)


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.load()


@pytest.fixture
def short(monkeypatch):
    """Turns of a random model end after ten tokens or so, some sooner, some later; about half of the attempts pass."""
    monkeypatch.setattr(policy_, "stops_of", lambda model, tokenizer: frozenset(range(0, 1024, 10)))
    worth = lambda c, config: {"total": float(c.ids[-1] % 4 < 2), "passed": float(c.ids[-1] % 4 < 2)}
    monkeypatch.setattr(rounds, "reward", worth)


def drawn(*families):
    return [Drawn(family, 1, f"0/rl/0/{place}") for place, family in enumerate(families)]


# ---- a paused turn ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("segment", [1, 3, 5])
def test_a_paused_attempt_goes_on_as_if_it_had_not_been(tokenizer, short, segment):
    """Greedily, with the same weights: the same tokens, messages, turns and end; never more than a segment at a time."""
    model, tasks = tiny_model(), [one.task() for one in drawn("buy", "chain", "buy", "chain")]
    whole = loop.run(LocalPolicy(model, tokenizer), tokenizer, tasks, LIMITS)
    pieces, laps = [loop.begun(task, tokenizer, LIMITS) for task in tasks], 0
    while open_ := [c for c in pieces if c.finish is None]:
        before = [c.written for c in open_]
        loop.converse(LocalPolicy(model, tokenizer, segment=segment), open_, tokenizer, LIMITS)
        written = [c.written - start for c, start in zip(open_, before)]
        assert all(n == segment if c.finish is None else n <= segment for c, n in zip(open_, written))
        laps += 1
    assert laps > 1
    for one, other in zip(whole, pieces):
        assert one.ids == other.ids and one.messages == other.messages and one.finish == other.finish
        assert (one.turns, one.turn_starts, one.written) == (other.turns, other.turn_starts, other.written)
        ((ids, mask, logprobs),), ((*words, again),) = training_rows(one), training_rows(other)
        assert words == [ids, mask] and again == pytest.approx(logprobs, abs=1e-4)


def test_the_dice_of_what_goes_on_are_others(tokenizer, short):
    """A turn that is continued in the same round must not be thrown with the numbers that it began with."""
    model, (task,) = tiny_model(std=1e-3), [one.task() for one in drawn("chain")]  # all tokens alike
    conversation = loop.begun(task, tokenizer, LIMITS)
    for _ in range(2):
        loop.converse(LocalPolicy(model, tokenizer, 1.0, segment=3), [conversation], tokenizer, LIMITS)
    first, second = conversation.segments[:2]
    assert not first.ends and first.ids != second.ids[:3]


# ---- what is stale ----------------------------------------------------------------------------------------------


def test_a_segment_knows_the_round_it_was_sampled_in(tokenizer, short):
    config, backlog = SETTINGS, Backlog()
    done = backlog.sample(tiny_model(), tokenizer, config, drawn("chain", "chain"), (1.0, 1), 3)
    left = backlog.waiting
    done += backlog.sample(tiny_model(seed=1), tokenizer, config, [], (1.0, 2), 4)
    segments = [s for group in done for c in group.attempts for s in c.segments]
    assert left and {s.round for s in segments} == {3, 4}
    assert all(len(s.ids) <= 5 for s in segments)
    share = sum(len(s.ids) for s in segments if s.round == 3) / sum(len(s.ids) for s in segments)
    assert stale_share([group.attempts for group in done], 4) == pytest.approx(share)


class Recorder:
    """In place of an optimizer: keeps the gradient and moves nothing."""

    def __init__(self, model):
        self.model = model

    def step(self):
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.model.parameters()]
        self.gradient = torch.cat([g.flatten() for g in grads])

    def zero_grad(self, set_to_none=True):
        self.model.zero_grad(set_to_none=set_to_none)


@pytest.fixture
def two_rounds(tokenizer, short):
    """A group of which a part was sampled in round 0 by other weights, the rest in round 1; and its advantages."""
    old, model = tiny_model(seed=3), tiny_model()
    attempts = [loop.begun(one.task(), tokenizer, LIMITS) for one in drawn(*["chain"] * 4)]
    for index, weights in enumerate((old, model)):
        for c in attempts:
            c.round = index
        active = [c for c in attempts if c.finish is None]
        segment = 5 if index == 0 else None
        loop.converse(
            LocalPolicy(weights, tokenizer, 1.0, seed=index, segment=segment), active, tokenizer, LIMITS
        )
    assert len({rounds.reward(c, SETTINGS)["total"] for c in attempts}) == 2
    return model, attempts


def gradient_of(loss_of, model, attempts):
    """The gradient of the mean over all tokens written of loss_of(new, old, gain, segment), token by token."""
    rewards = torch.tensor([rounds.reward(c, SETTINGS)["total"] for c in attempts])
    total = 0.0
    for c, gain in zip(attempts, rewards - rewards.mean()):
        logprobs = model(torch.tensor([c.ids])).logits[0].log_softmax(-1)
        for s in c.segments:
            for place, (token, old) in enumerate(zip(s.ids, s.logprobs), s.start - 1):
                total = total + loss_of(logprobs[place, token], old, gain, s)
    model.zero_grad()
    (total / sum(c.written for c in attempts)).backward()
    recorder = Recorder(model)
    recorder.step()
    model.zero_grad()
    return recorder.gradient


def measured(model, attempts, index, **changes):
    config = replace(SETTINGS, **{"updates": 1, "tau": 0.0, **changes})
    recorder = Recorder(model)
    rounds.update(model, recorder, [attempts], 1.0, config, index=index)
    return recorder.gradient


@pytest.fixture(autouse=True)
def unclipped(monkeypatch):
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda parameters, size: torch.tensor(1.0))


def test_what_is_stale_is_left_out_where_nothing_bounds_its_ratio(two_rounds):
    """Fresh tokens alone have a gradient; stale ones that are counted as fresh give another one."""
    model, attempts = two_rounds
    found = measured(model, attempts, 1, objective="k2", tau=1e-4)
    want = gradient_of(lambda new, old, gain, s: -gain * new * (s.round == 1), model, attempts)
    torch.testing.assert_close(found, want, atol=5e-6, rtol=2e-3)
    as_fresh = measured(model, attempts, 0, objective="k2", tau=1e-4)
    assert (as_fresh - found).norm() > 0.1 * found.norm()


def test_what_is_stale_is_masked_by_its_own_log_ratio(two_rounds):
    """K2.5: to the log-probabilities it was sampled with. Tokens of other weights have drifted: most are masked."""
    model, attempts = two_rounds

    def loss(new, old, gain, segment):
        ratio = new - old
        return -(ratio.exp() * gain) if abs(ratio.item()) < 0.5 else 0.0 * new

    found, want = measured(model, attempts, 1), gradient_of(loss, model, attempts)
    torch.testing.assert_close(found, want, atol=5e-6, rtol=1e-3)
    fresh = lambda new, old, gain, s: -(new - (new.item() if s.round == 0 else old)).exp() * gain
    assert (gradient_of(fresh, model, attempts) - found).norm() > 0.1 * found.norm(), "counted as fresh"


# ---- groups and rounds ------------------------------------------------------------------------------------------


def test_a_group_waits_for_all_of_its_attempts(tokenizer, short):
    backlog, seen, late = Backlog(), [], 0
    for index in range(4):
        done = backlog.sample(tiny_model(), tokenizer, SETTINGS, drawn("chain", "buy"), (1.0, index), index)
        assert done and all(c.finish is not None for group in done for c in group.attempts)
        assert all(any(c.finish is None for c in group.attempts) for group in backlog.groups)
        seen += [(group.round, group.place) for group in done]
        late += sum(group.round < index for group in done)
    assert late
    assert len(set(seen)) == len(seen), "none is updated on twice"
    some = Group(
        drawn("chain")[0], 0, 0, [loop.begun(drawn("chain")[0].task(), tokenizer, LIMITS) for _ in "ab"]
    )
    some.attempts[0].finish = "stop"
    assert not some.finished


def test_attempts_of_several_rounds_have_dice_of_their_own(tokenizer, short, monkeypatch):
    """Two attempts that reach the same turn in one round must not be thrown with the same numbers."""
    given = []

    def policy(*args, numbers, **more):
        given.append(numbers)
        return LocalPolicy(*args, numbers=numbers, **more)

    monkeypatch.setattr("kimi_mini.training.rl.partial.LocalPolicy", policy)
    backlog = Backlog()
    for index in range(3):
        backlog.sample(tiny_model(), tokenizer, SETTINGS, drawn("chain", "buy"), (1.0, index), index)
    assert all(len(set(numbers)) == len(numbers) for numbers in given)
    assert max(map(max, given)) >= SETTINGS.prompts * SETTINGS.attempts


def train(settings, tokenizer, model=None, **more):
    model = tiny_model() if model is None else model
    optimizer = MuonClip(model, lr=0.01, adamw_lr=0.01)
    return model, rounds.reinforce(model, tokenizer, optimizer, settings, seed=0, **more)


def test_segments_longer_than_any_attempt_change_nothing(tokenizer, short):
    model, history = train(replace(SETTINGS, segment_tokens=None), tokenizer)
    other, again = train(replace(SETTINGS, segment_tokens=80), tokenizer)
    assert [replace(one, tasks=[]) for one in again] == history
    assert all(map(torch.equal, model.state_dict().values(), other.state_dict().values()))


def test_rounds_say_what_is_stale_and_what_waits(tokenizer, short):
    _, history = train(SETTINGS, tokenizer)
    assert history[0].stale == 0 and all(0 < one.stale < 1 for one in history[1:])
    assert any(one.waiting for one in history)
    assert all(len(one.tasks) == len(one.successes) for one in history)
    assert len({len(one.tasks) for one in history}) > 1


def test_several_processes_are_refused(tokenizer, monkeypatch):
    monkeypatch.setattr("kimi_mini.base.ranks.is_on", lambda: True)
    with pytest.raises(KimiError, match="one process"):
        Backlog().sample(tiny_model(), tokenizer, SETTINGS, drawn("chain"), (1.0, 0), 0)


def test_a_segment_of_nothing_is_refused():
    with pytest.raises(ValueError, match="segment_tokens"):
        replace(SETTINGS, segment_tokens=0)


# ---- killed and resumed -----------------------------------------------------------------------------------------


class Pausing(Typist):
    """A typist who pauses after every ten tokens, and leaves after `replies` of them."""

    def __init__(self, tokenizer, replies):
        super().__init__(tokenizer)
        self.left, self.rest = replies, []

    def reply(self, conversations, max_tokens):
        (conversation,) = conversations
        if not self.left:
            return [None]
        self.left -= 1
        ids = self.rest or super()._type(conversation, max_tokens).ids
        now, self.rest = ids[:10], ids[10:]
        return [Reply(now, [-0.25 * n for n in range(len(now))], "paused" if self.rest else "stop")]


@pytest.mark.parametrize("replies", [0, 1, 4, 9])
def test_an_attempt_is_what_its_turns_made_it(tokenizer, replies):
    """Calls and all: messages, tokens, segments with their rounds, and the shop's books."""
    config, task = replace(SETTINGS, limits=Limits(128, 8, 1024)), drawn("buy")[0]
    conversation = loop.begun(task.task(), tokenizer, config.limits)
    conversation.round = 7
    loop.converse(Pausing(tokenizer, replies), [conversation], tokenizer, config.limits)
    backlog = Backlog([Group(task, 7, 2, [conversation])])
    (group,) = Backlog.restored(backlog.saved(), tokenizer, config).groups
    (again,) = group.attempts
    assert (group.drawn, group.round, group.place) == (task, 7, 2)
    for name in (
        "messages",
        "ids",
        "mask",
        "logprobs",
        "turn_starts",
        "turns",
        "calls",
        "written",
        "finish",
        "part",
    ):
        assert getattr(again, name) == getattr(conversation, name), name
    assert [asdict(s) for s in again.segments] == [asdict(s) for s in conversation.segments]
    books = lambda c: list(c.environment.state.execute("SELECT * FROM orders"))
    assert books(again) == books(conversation)
    assert replies < 9 or conversation.calls


class PowerCut(Exception):
    pass


def plan():
    return replace(Plan.rehearsal(), rl=SETTINGS)


@pytest.fixture
def stages(tmp_path, monkeypatch, short):
    """stage.reinforce on a tiny model: run(folder, rounds until the power is cut) -> the final weights."""
    ended = {}
    monkeypatch.setattr(stage, "load_checkpoint", lambda run, name: tiny_model())
    monkeypatch.setattr(stage, "training_pools", lambda run: None)
    monkeypatch.setattr(stage.sft, "mixed", lambda *_: lambda index: ())
    monkeypatch.setattr(stage, "save_checkpoint", lambda run, model, name: ended.update(model.state_dict()))

    def run(folder, rounds=None):
        def save(file, model, optimizer, kept):
            save_state(file, model, optimizer, kept)
            if len(kept.rounds) == rounds:
                raise PowerCut

        monkeypatch.setattr(stage, "save_state", save)
        (tmp_path / folder).mkdir(exist_ok=True)
        noted = stage.reinforce(Run(tmp_path / folder, plan()))
        return noted, {name: value.clone() for name, value in ended.items()}

    return run


def test_a_run_that_was_killed_ends_the_same(stages):
    whole, weights = stages("whole")
    for cut in (1, 3):
        with pytest.raises(PowerCut):
            stages("killed", cut)
    again, others = stages("killed")
    assert again == whole and any(entry["waiting"] for entry in whole["rounds"][:3])
    assert all(torch.equal(weights[name], others[name]) for name in weights)


def test_a_run_that_forgets_what_waits_is_found_out(stages, monkeypatch):
    whole, _ = stages("whole")
    monkeypatch.setattr(Backlog, "saved", lambda self: [])
    with pytest.raises(PowerCut):
        stages("killed", 1)
    again, _ = stages("killed")
    assert again["rounds"][0] == whole["rounds"][0] and again != whole


def test_the_backlog_is_plain(tokenizer, short):
    """torch.load reads no other things from the state of a run."""
    backlog = Backlog()
    backlog.sample(tiny_model(), tokenizer, SETTINGS, drawn("chain", "buy", "chain"), (1.0, 0), 0)
    file = io.BytesIO()
    torch.save(backlog.saved(), file)
    file.seek(0)
    assert backlog.groups and torch.load(file, weights_only=True) == backlog.saved()


def test_tasks_are_drawn_by_what_was_finished(tokenizer):
    """The curriculum after a resume knows the tasks of a round by name, not by what that round drew."""
    config = replace(SETTINGS, rounds=2)
    first = [list(one) for one in Curriculum().draw(config, 5, 0)]
    learned = Curriculum()
    learned.learn([Drawn(*one) for one in first[1:]], [0.5, 0.0])
    assert Curriculum.after(config, 5, [[0.5, 0.0]], [first[1:]]) == learned
