"""Routed mode: no router sees an answer, practice is never what is measured, and the example that is taught is a turn."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from tiny import tiny_model

from kimi_mini.experiments.thinking import routed
from kimi_mini.inference.attempts.routed import Answered
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.worlds import Task

TOKENIZER = Tokenizer.load()
JOB = routed.Job(0, "", "", 0.02)


def wrong(task: Task) -> Task:
    """The same words, and another answer."""
    return dataclasses.replace(task, data={**task.data, "answer": task.data["answer"] + 1})


def test_a_router_sees_no_answer(monkeypatch):
    """Held-out tasks with other answers: the same turns are written, at the same cost, whatever is right."""
    model = tiny_model(max_position_embeddings=512)
    held_out = routed.held_out(0, 0.02)
    answers = {id(task): task.data["answer"] for tasks in held_out.values() for task in tasks}
    monkeypatch.setattr(routed.routed, "sureness", lambda one: -1.0)
    rows = []
    for change in (lambda task: task, wrong):
        kinds = {kind: [change(task) for task in tasks] for kind, tasks in held_out.items()}
        monkeypatch.setattr(routed, "held_out", lambda seed, scale, kinds=kinds: kinds)
        said = {
            task.prompt: answers[id(old)] for kind in kinds for task, old in zip(kinds[kind], held_out[kind])
        }
        # the tiny model says nothing that is right: every answer is taken for what the unchanged task wants
        monkeypatch.setattr(
            routed, "is_right", lambda one, task, _, said=said: said[task.prompt] == task.data["answer"]
        )
        rows.append(routed.measured(model, model, TOKENIZER, JOB, -60.0))
    first, other = ([r for r in found if r["arm"] not in ("oracle", "trials")] for found in rows)
    assert [row["right"] for row in first] == [row["n"] for row in first]
    assert [row["right"] for row in other] == [0] * len(other)
    for one, same in zip(first, other, strict=True):
        assert {**one, "right": 0} == same
    assert {row["arm"] for row in first} == {"reflex", "thinking", "surely", "itself"}


def test_practice_tasks_are_none_that_are_measured(monkeypatch):
    seen = []
    monkeypatch.setattr(routed, "is_right", lambda one, task, tokenizer: seen.append(task) or True)
    limit, _ = routed.practise(tiny_model(max_position_embeddings=512), TOKENIZER, 0, 0.02)
    assert seen and not any(task.held_out for task in seen)
    assert limit < 0  # all reflexes are right: none need be sure


def answered(ids, thought, tokens):
    return Answered(SimpleNamespace(ids=ids, logprobs=[-0.1], finish="stop"), thought, tokens)


def test_what_is_taught_is_the_right_turn_and_of_two_the_cheaper(monkeypatch):
    """Reflex right: it. Reflex wrong, thought right: the thought. A thought so long that it costs more than an answer
    is worth is no example while the reflex is wrong for nothing."""
    turns = {False: answered([1, 2, 3], False, 1), True: answered([4, 5, 6, 7], True, 40)}
    monkeypatch.setattr(routed.routed, "forced", lambda m, t, prompts, mode: [turns[mode]] * len(prompts))
    for right, kind, ids in (
        ((True, True), "reflex", [1, 2, 3]),
        ((False, True), "thought", [4, 5, 6, 7]),
        ((True, False), "reflex", [1, 2, 3]),
        ((False, False), None, None),
        ((True, True), "thought", [4, 5, 6, 7]),  # where the reflex is the longer one
    ):
        if kind == "thought" and right[0]:
            turns = {False: answered([1, 2, 3], False, 9), True: answered([4, 5, 6, 7], True, 4)}
        monkeypatch.setattr(routed, "is_right", lambda one, task, tokenizer, right=right: right[one.thought])
        _, examples = routed.practise(None, TOKENIZER, 0, 0.02)
        assert [source.family for source, _ in examples] == ([kind] if kind else [])
        for found in examples.values():
            assert all(
                one.ids[one.mask].tolist() == ids and one.ids[~one.mask][-1] != ids[0] for one in found
            )


def test_an_example_teaches_the_tags_too_and_not_the_prompt():
    found = routed.example([9, 8], answered([1, 2, 3], False, 3))
    assert found.ids.tolist() == [9, 8, 1, 2, 3] and np.array_equal(
        found.mask, [False, False, True, True, True]
    )


def test_the_curve_of_thresholds_begins_with_all_thoughts_and_ends_with_all_reflexes():
    trials = [[-0.1, True, True, 20], [-0.2, True, True, 20], [-3.0, False, True, 50]]
    tokens, right = routed.thresholds([{"arm": "trials", "trials": trials}])
    assert (tokens[0], right[0]) == (3 + 30, 1.0) and (tokens[-1], right[-1]) == (3, pytest.approx(2 / 3))
