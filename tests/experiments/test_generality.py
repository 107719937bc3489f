"""The generality scoreboard: what counts as made up and as undeclared, the control that recalls, and what it proves."""

import json
import random
from dataclasses import replace
from types import SimpleNamespace

import pytest
from tiny import tiny_model

from kimi_mini.agent.conversation import act, opening
from kimi_mini.base.evidence import Log
from kimi_mini.experiments.verifiers import generality
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.worlds import registry
from kimi_mini.worlds.rows import Limits
from kimi_mini.worlds.tools import FIND


def said(text, finish="stop"):
    messages = [{"role": "user", "content": "How high?"}, {"role": "assistant", "content": text}]
    return SimpleNamespace(messages=messages, finish=finish)


def test_only_an_answer_can_be_made_up():
    assert generality.made_up(said("It is 7."))
    assert not generality.made_up(said('There is no "red lantern".'))
    assert not generality.made_up(said(""))
    assert not generality.made_up(said("It is 7.", finish="length"))


def call(name, **arguments):
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "id": None, "function": function}],
    }


def test_a_tool_that_is_found_later_was_not_declared_before():
    conversation = opening(registry.generate(random.Random(1), "finder", 1))
    box = conversation.environment.toolbox
    spec = next(iter(box.hidden.values()))
    arguments = dict.fromkeys(spec.parameters["properties"], "red lantern")
    act(conversation, call(spec.name, **arguments))
    act(conversation, call(FIND, words=f"{spec.name} {spec.description}"))
    assert spec.name in box.tools
    act(conversation, call(spec.name, unknown_argument=1))
    act(conversation, call("fly_away"))
    assert generality.calls_of(conversation.messages) == {"undeclared": 2, "ran": 1, "misfit": 1}


def test_the_control_does_what_was_done_for_the_most_similar_request():
    control = generality.Recall(16, 0)
    task = registry.generate(random.Random(3), "copy", 1)
    (conversation,) = control.work([task])
    asked = generality.grams(task.prompt)
    _, turns = max(control.known, key=lambda known: len(known[0] & asked) / len(known[0] | asked))
    ours = [message["content"] for message in conversation.messages if message["role"] == "assistant"]
    assert ours and ours == [turn["content"] for turn in turns][: len(ours)]


def test_calls_are_held_to_the_schemas_only_where_it_is_asked_for(monkeypatch):
    """Random weights write one call after another under the grammar: all of them fit."""
    row = next(row for row in generality.ROWS if row.family == "names")
    row = replace(row, limits=Limits(turn_tokens=48, turns=2, context=2048))
    model, tokenizer, control = (
        tiny_model(max_position_embeddings=4096).eval(),
        Tokenizer.load(),
        generality.Recall(16, 0),
    )
    asked = []
    held = generality.HeldPolicy
    monkeypatch.setattr(generality, "HeldPolicy", lambda *given: asked.append(1) or held(*given))
    free, _ = generality.measure(model, tokenizer, row, 2, control)
    assert not asked and free["n"] == 2
    found, done = generality.measure(model, tokenizer, row, 2, control, held=True)
    calls = sum((generality.calls_of(one.messages) for one in done), generality.Counter())
    assert asked and found["n"] == 2 and not calls["misfit"] and not calls["undeclared"]


def board(tmp_path, agent, control):
    log = Log("generality", seeds=[0], folder=tmp_path)
    for name, (ours, theirs) in enumerate(zip(agent, control, strict=True)):
        log.row(row=f"desk/{name}", above=generality.paired(ours, theirs))
    return log


def test_a_control_that_beats_the_agent_is_named_and_the_claim_falls(tmp_path):
    right, wrong = [True] * 40, [False] * 40
    log = board(tmp_path, [right, wrong], [wrong, right])
    generality.report(log, [False] * 100, generality.Counter(ran=1000, misfit=100))
    claims = {claim["name"].split("/")[1]: claim for claim in log.claims}
    assert log.more["recall_better"] == ["desk/1"]
    assert claims["above recall"]["value"] == 0 and claims["above recall"]["verdict"] == "does not hold"
    assert claims["schema"]["verdict"] == "does not hold" and claims["undeclared"]["value"] == 0
    assert claims["invented"]["low"] == 0 < claims["invented"]["high"]
    held = board(tmp_path, [right], [wrong])
    generality.report(held, [False], generality.Counter(ran=1), generality.HELD)
    assert all(claim["claim"].endswith("; calls held to the schemas") for claim in held.claims)


def test_the_interval_is_that_of_drawing_tasks_and_not_the_spread_of_rows(tmp_path):
    rng = random.Random(0)
    rows = [[rng.random() < rate for _ in range(200)] for rate in (0.2, 0.9)]
    log = board(tmp_path, rows, [[False] * 200] * 2)
    generality.above_recall(log, {"source": "this project"})
    (claim,) = log.claims
    rates = [sum(row) / 200 for row in rows]
    expected = 1.96 * (sum(rate * (1 - rate) / 199 for rate in rates)) ** 0.5 / 2
    assert claim["value"] == pytest.approx(sum(rates) / 2)
    assert claim["high"] - claim["value"] == pytest.approx(expected)
    assert claim["high"] - claim["low"] < 0.2 < rates[1] - rates[0]


def test_what_both_solve_has_no_variance():
    assert generality.paired([True, False], [True, False]) == {"value": 0, "variance": 0}
