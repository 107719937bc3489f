"""Longer than trained: what is put otherwise asks the same, what is hidden is hidden for training too, and gaps are gaps."""

import random
import re
import string

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from tiny import tiny_model

from kimi_mini import worlds
from kimi_mini.agent import loop
from kimi_mini.agent.conversation import begin, opening
from kimi_mini.base.errors import KimiError
from kimi_mini.base.paths import CHECKPOINTS
from kimi_mini.experiments.thinking.length import (
    beyond,
    beyond_rows,
    context,
    context_rows,
    lists,
    places,
    tuning,
)
from kimi_mini.experiments.thinking.length.typed import Typed, played
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training.batch import Example, collate, micro_batches, token_losses
from kimi_mini.worlds import WORLDS
from kimi_mini.worlds.rows import Limits

TOKENIZER = Tokenizer.load()
CHAIN = worlds.generate(random.Random(0), "chain", 8)


# ---- lists ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [lists.relabelled, lists.padded])
def test_a_list_put_otherwise_asks_the_same(change):
    for seed in range(20):
        task = change(CHAIN, random.Random(seed))
        found = re.search(r"Start with (\d+), (.+), end\.", task.prompt)
        steps = [(step[-2], int(step[-1])) for step in found[2].split(", ")]
        value = int(found[1])
        for sign, number in steps:
            value = lists.after(value, sign, number)
        assert value == task.data["answer"] == CHAIN.data["answer"] and len(steps) == 8


def test_letters_stand_in_any_order_and_never_twice():
    drawn = [lists.relabelled(CHAIN, random.Random(seed)).data["steps"] for seed in range(30)]
    names = ["".join(step[0] for step in steps) for steps in drawn]
    assert all(len(set(name)) == 8 for name in names) and len(set(names)) == 30
    assert sum(name in string.ascii_lowercase for name in names) == 0  # not the alphabet in a row


def test_words_around_a_list_move_it():
    starts = {lists.padded(CHAIN, random.Random(seed)).prompt.index("Start with") for seed in range(20)}
    ends = {
        len(prompt) - prompt.index(", end.")
        for prompt in (lists.padded(CHAIN, random.Random(seed)).prompt for seed in range(20))
    }
    assert len(starts) > 4 and len(ends) > 4


def test_the_plain_thought_is_the_experts():
    expert = WORLDS["chain"].expert(CHAIN, random.Random(0))
    assert next(expert)["reasoning_content"] == lists.plain(CHAIN)


def test_a_thought_that_restates_loses_a_step_at_a_time():
    thought = lists.restated(CHAIN)
    left = [
        part.count(",") + 1 for part in re.findall(r"((?:[a-z] [-+*]\d, )*[a-z] [-+*]\d), end\.", thought)
    ]
    assert left == list(range(8, 0, -1))
    assert re.findall(r"=(\d\d)", thought)[-1] == f"{CHAIN.data['answer']:02d}"


def test_what_is_drawn_for_training_is_held_out_in_no_form():
    """Mutant: only the task before the change is looked at. One in sixteen would be a task of the other side."""
    tasks = [lists.drawn(random.Random(seed), 1 + seed % 3, (lists.relabelled,)) for seed in range(120)]
    assert not any(task.held_out for task in tasks)


def test_one_step_at_a_time_needs_no_list():
    """24 steps in the context of 320 tokens; the list is not in it, and the answer is right."""
    task = worlds.generate(random.Random(1), "chain", 24)
    talk = lists.stepwise(task)
    begin(talk, TOKENIZER)
    limits = Limits(48, 40, 320, manage=True)
    loop.converse(Typed(lambda _: lists.one_by_one(task), TOKENIZER), [talk], TOKENIZER, limits)
    assert talk.verdict().passed and talk.calls == 25 and len(talk.ids) <= 320
    listed = [f"{label} {sign}{number}" for label, sign, number in task.data["steps"]]
    assert not any(step in message["content"] for message in talk.messages[:2] for step in listed)


# ---- typed ----------------------------------------------------------------------------------------------------

MADE = worlds.generate(random.Random(2), "follow", 20)


def rows(hide, first_call=0):
    talk, script = opening(MADE), WORLDS["shop"].expert(MADE, random.Random(0))
    limits = Limits(48, 60, 500, manage=True, hide=hide)
    found = played(talk, script, TOKENIZER, limits, first_call)
    talk.environment.close()
    return [TOKENIZER.decode(row.ids.tolist()) for row in found], found


@pytest.mark.parametrize("hide", ["turns", "results"])
def test_windows_hide_for_training_what_the_loop_hides(hide):
    texts, _ = rows(hide)
    later = texts[1]
    calls, results = (
        re.findall(mark + r" ?functions\.next:(\d+)", later) for mark in (r"begin\|>", "Return of")
    )
    assert len(texts) > 1 and calls == sorted(calls, key=int)
    assert (calls[0] == "0") == (hide == "results") and results[0] != "0"


def test_a_dialogue_in_its_middle_counts_on_and_teaches_no_first_number():
    """Mutant: the first turn is learned, whose number comes out of the blue."""
    texts, found = rows("turns", first_call=97)
    for text, row in zip(texts, found):
        numbers = [int(number) for number in re.findall(r"call_begin\|>functions\.next:(\d+)", text)]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers))) and numbers[0] >= 97
        learned = TOKENIZER.decode([token for token, own in zip(row.ids.tolist(), row.mask) if own])
        assert f"functions.next:{numbers[0]}<" not in learned and f"functions.next:{numbers[-1]}<" in learned
    assert "functions.next:97<" in texts[0] and "functions.next:100<" in texts[0]
    assert found[0].mask.sum() < rows("turns")[1][0].mask.sum()


def test_a_turn_that_no_model_may_write_is_refused():
    talk = opening(MADE)
    with pytest.raises(ValueError, match="a turn of"):
        played(talk, WORLDS["shop"].expert(MADE, random.Random(0)), TOKENIZER, Limits(8, 10, 500))


# ---- tuning ---------------------------------------------------------------------------------------------------


def batch_of(count=64, length=30):
    rng = np.random.default_rng(0)
    return collate([Example(rng.integers(0, 50, length), np.ones(length, bool)) for _ in range(count)])


def test_gaps_keep_the_order_and_stand_where_they_may():
    """And every row has some: one without would be told by that."""
    batch, before = batch_of(), range(0, 50, 2)
    positions = tuning.gapped(batch, np.random.default_rng(1), 8192, before).positions
    steps = positions.diff(dim=1)
    assert steps.min() == 1 and steps.max() == 1 + max(tuning.MOST)
    assert (steps > 1).any(1).all() and len(positions.unique(dim=0)) == len(positions)
    assert not ((steps > 1) & ~torch.isin(batch.ids[:, 1:], torch.tensor(before))).any()


def test_steps_begin_alike_in_the_list_and_in_the_thought():
    ids = lists.answered(TOKENIZER, CHAIN, lists.plain(CHAIN)).ids.tolist()
    names = [TOKENIZER.decode([token]).strip() for token in ids if token in lists.step_starts(TOKENIZER)]
    labels = [step[0] for step in CHAIN.data["steps"]]
    assert names == [*labels, "end", *labels[1:], "end"]


def test_gaps_end_where_the_model_does():
    assert tuning.gapped(batch_of(), np.random.default_rng(1), 40, range(50)).positions.max() == 39


def test_the_loss_is_that_of_the_positions():
    """Mutants: the batch forgets its positions, when it is cut or when its loss is taken."""
    model = tiny_model().eval()
    batch = tuning.gapped(batch_of(6), np.random.default_rng(2), 2048, range(9))
    wanted = model(batch.ids, positions=batch.positions).logits[:, :-1].log_softmax(-1)
    wanted = -wanted.gather(-1, batch.ids[:, 1:, None])[..., 0]
    torch.testing.assert_close(token_losses(model, batch), wanted.flatten(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        token_losses(model, batch.rows(2, 4)), wanted[2:4].flatten(), atol=1e-4, rtol=1e-4
    )
    assert batch.to("cpu").positions is not None and micro_batches([], 10) == []


def test_every_example_is_seen_once():
    examples = tuning.until(
        900, tuning.forever(lambda rng, n: [Example(np.full(20, n), np.ones(20, bool))], "x")
    )
    steps = tuning.steps_of(examples, 100, seed=0)
    seen = [int(example.ids[0]) for step in steps for example in step]
    assert sorted(seen) == list(range(45)) and seen != sorted(seen) and {len(step) for step in steps} == {5}


# ---- where it looks -------------------------------------------------------------------------------------------


def test_moments_stand_before_the_sign_and_point_at_the_step():
    for level in (1, 8, 16):
        task = worlds.generate(random.Random(level), "chain", level)
        ids, before, listed = places.moments(TOKENIZER, task)
        for place, span, (label, sign, number) in zip(before, listed, task.data["steps"], strict=True):
            assert TOKENIZER.decode([ids[i] for i in span]) == f" {label} {sign}{number}"
            assert TOKENIZER.decode([ids[place + 1]]).strip() == sign
        assert before == sorted(before) and before[0] > listed[-1].stop


def test_looks_are_shares_of_all_attention():
    seen = places.look(tiny_model(vocab_size=1024).eval(), TOKENIZER, [CHAIN])
    right, every = torch.tensor(seen["right"]), torch.tensor(seen["list"])
    assert (
        right.shape == (8, 2, 2) and (right <= every + 1e-3).all() and (every <= 1).all() and every.min() > 0
    )
    layer, head = places.keeper([[[0.0, 0.1], [0.3, 0.2]]] * 9, 8)
    assert (layer, head) == (1, 0)


# ---- what is reported -----------------------------------------------------------------------------------------


def test_budgets_are_equal_in_all_ways():
    parts = [part for part in context.parts(8192) if part.budget <= context_rows.BUDGET]
    for budget in (context_rows.TODAY, context_rows.BUDGET):
        limits = {part.way: part.limits(30) for part in parts if part.budget == budget}
        assert len({(each.context, each.turns, each.turn_tokens) for each in limits.values()}) == 1
        assert [limits[way].manage for way in context.WAYS] == [True, True, True, False]


def curves(fig):
    return [
        [tuple(map(tuple, line.get_xydata())) for line in ax.lines if line.get_marker() != "None"]
        for ax in fig.axes
    ]


def test_equal_curves_stand_side_by_side():
    made = [
        dict(part="success", arm=arm, seed=seed, steps=steps, n=4, right=2)
        for arm in (*beyond.FIXES, beyond_rows.WINDOWS)
        for steps in beyond_rows.STEPS
        for seed in (0, 1)
    ]
    left, _ = curves(beyond_rows.draw({"rows": made}))
    assert len({point for line in left for point in line}) == len(left) * len(beyond_rows.STEPS)
    assert beyond_rows.difference(made, "labels", beyond_rows.CONTROL, 16)["value"] == 0
    calls = [
        dict(
            part="calls",
            agent=part.agent,
            way=part.way,
            budget=part.budget,
            seed=seed,
            calls=n,
            n=4,
            passed=2,
        )
        | {"made": 10, "numbered": 4 + seed}
        for part in context.parts(8192)
        for n in (10, 30)
        for seed in (0, 1)
    ]
    assert len(context_rows.draw({"rows": calls}).axes) == 2
    assert context_rows.numbered(calls, context_rows.SHIPPED, 10)["value"] == pytest.approx(0.45)


def test_agents_of_their_own_seeds_are_not_one():
    """Of three agents one loses count: over seeds, not over 48 tasks of one agent; and where all agree, over tasks."""
    part = context_rows.DROPPED
    where = {"part": "calls", "agent": part.agent, "budget": part.budget, "way": part.way, "calls": 200}
    rows = [where | {"seed": seed, "n": 16, "passed": passed} for seed, passed in enumerate((16, 4, 16))]
    found = context_rows.passed_tuned(rows, part, 200)
    assert found["value"] == 0.75 and found["low"] == 0.0 and found["high"] == 1.0
    found = context_rows.passed_tuned([row | {"passed": 16} for row in rows], part, 200)
    assert found["value"] == 1.0 and 0.9 < found["low"] < 0.95


def test_a_whisker_goes_down_to_nothing():
    """An interval that begins at 0 is none that is not there."""
    part = context_rows.DROPPED
    where = {"part": "calls", "agent": part.agent, "budget": part.budget, "way": part.way, "calls": 10}
    rows = [
        where | {"seed": seed, "n": 10, "passed": 10, "made": 100, "numbered": 100 * seed} for seed in (0, 1)
    ]
    fig, ax = plt.subplots()
    context_rows._lines(
        ax, rows, lambda rows, part, calls: {"value": 0.5, "low": 0.0, "high": None} if rows else {}
    )
    ends = [segment[:, 1] for lines in ax.collections for segment in lines.get_segments()]
    assert ends and all(np.allclose(sorted(pair), (0.0, 0.5)) for pair in ends)
    plt.close(fig)


@pytest.mark.parametrize("experiment", [beyond, context])
def test_a_rehearsal_of_another_size_begins_anew(experiment, monkeypatch, tmp_path):
    monkeypatch.setattr(experiment.harness, "REHEARSAL", tmp_path)
    monkeypatch.setattr(experiment, "rows_of", lambda *args: [])
    monkeypatch.setattr(experiment, "report", lambda log: None)
    monkeypatch.setattr(experiment.harness, "finish", lambda log, **draws: None)
    for scale in ("0.01", "0.02"):
        monkeypatch.setattr("sys.argv", ["x", "--scale", scale, "--folder", str(tmp_path / "logs")])
        experiment.main()


@pytest.mark.parametrize("experiment", [beyond, context])
def test_what_was_measured_of_other_weights_is_refused(experiment, monkeypatch, tmp_path):
    """Kept rows are of one agent; asked of another, they would be reported as its own."""
    monkeypatch.setattr(experiment.harness, "REHEARSAL", tmp_path)
    monkeypatch.setattr(experiment, "rows_of", lambda *args: [])
    monkeypatch.setattr(experiment, "report", lambda log: None)
    monkeypatch.setattr(experiment.harness, "finish", lambda log, **draws: None)
    option = "--tuned" if experiment is beyond else "--checkpoint"
    for agent in ("tuned", "tuned", "final"):
        argv = ["x", "--scale", "0.1", option, str(CHECKPOINTS / agent), "--folder", str(tmp_path / "logs")]
        monkeypatch.setattr("sys.argv", argv)
        if agent == "tuned":
            experiment.main()
        else:
            with pytest.raises(KimiError, match="weights"):
                experiment.main()
