"""The experiment with constrained calls: how turns are judged, and that a copy is the same turn without masks."""

import json
import random

from tiny import tiny_model

from kimi_mini.agent.conversation import act, opening
from kimi_mini.agent.held import HeldPolicy
from kimi_mini.base.evidence import Log
from kimi_mini.course.figures.deployment.constrained import calls_held_to_schemas
from kimi_mini.experiments.deployment import constrained as experiment
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.worlds import registry
from kimi_mini.worlds.tools import FIND
from kimi_mini.worlds.tools.schema import compile_schema

TOKENIZER = Tokenizer.load()
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


def call(call_id: str, arguments: str) -> dict:
    name = call_id.rpartition(":")[0].removeprefix("functions.")
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def test_each_fault_of_a_call_has_its_count():
    calls = [
        call("functions.f:0", '{"a":1}'),
        call("functions.f:2", '{"a":1}'),  # the counter
        call("functions.f:2", '{"a":"1"}'),
        call("functions.g:3", "{}"),
        call("functions.f:4", '{"a":1'),
        call("functions.f:5", '"{\\"a\\":1}"'),
    ]
    checkers = {"f": compile_schema(SCHEMA)}
    found = experiment.judged({"tool_calls": calls}, "stop", checkers)
    faults = {"id": 1, "schema": 1, "undeclared": 1, "bad_json": 1, "double_encoded": 1}
    assert +found == {"turns": 1, "ended": 1, "calls": 6, "valid": 1, **faults}
    assert experiment.judged({"tool_calls": calls[:1]}, "stop", checkers)["right_turns"] == 1
    assert experiment.judged({"tool_calls": calls[:1]}, "length", checkers)["right_turns"] == 0
    assert experiment.judged({}, "stop", checkers)["right_turns"] == 0


def test_schemas_are_drawn_by_seed_and_all_of_them_can_be_kept():
    boxes = experiment.toolboxes(20, 0)
    assert boxes == experiment.toolboxes(20, 0) != experiment.toolboxes(20, 1)
    assert len({json.dumps(tool) for box in boxes for tool in box}) == 40
    for tools in boxes:
        experiment.Constraint(TOKENIZER, tools)


def test_what_a_search_has_found_may_be_called():
    conversation = opening(registry.generate(random.Random(1), "finder", 1))
    policy = HeldPolicy(tiny_model().eval(), TOKENIZER)
    policy.open([conversation], 512)
    assert policy._row(conversation, 9).allowed.names == (FIND,)
    hidden = next(iter(conversation.environment.toolbox.hidden.values()))
    words = json.dumps({"words": f"{hidden.name} {hidden.description}"})
    found = {"type": "function", "id": None, "function": {"name": FIND, "arguments": words}}
    act(conversation, {"role": "assistant", "content": "", "tool_calls": [found]})
    may = policy._row(conversation, 9).allowed
    assert hidden.name in may.names and set(may.names) == set(conversation.environment.toolbox.tools)


def test_rows_with_the_constraint_are_valid_and_a_copy_is_the_same(monkeypatch):
    monkeypatch.setattr(experiment, "MOST", 60)
    model, boxes = tiny_model().eval(), experiment.toolboxes(2, 0)
    found = experiment.turns_of(model, TOKENIZER, boxes, 0, True)
    assert found["turns"] == 48 and found["calls"] == found["valid"] > 0
    assert experiment.turns_of(model, TOKENIZER, boxes, 0, False).get("valid", 0) == 0
    rows = experiment.run(experiment.begun(model, TOKENIZER, boxes[:1], 0, 3, True))
    copy = experiment.run(
        experiment.Copyist(experiment.begun(model, TOKENIZER, boxes[:1], 0, 3, False), rows)
    )
    assert [row.ids for row in copy] == [row.ids for row in rows]
    assert all(row.allowed is None for row in copy)
    assert experiment.cost(model, TOKENIZER, boxes, 2, 2)["tokens"] > 0


def test_the_report_says_what_the_rows_say(tmp_path):
    log = Log("constrained", folder=tmp_path)
    counts = {"turns": 100, "ended": 90, "calls": 120, "tokens": 9}
    for name in experiment.MODELS:
        log.row(what="calls", model=name, held=True, start=0, **counts, valid=120, right_turns=90)
        log.row(what="calls", model=name, held=False, start=0, **counts, valid=40, schema=80, right_turns=10)
        log.row(what="cost", model=name, places=8, share=0.1, low=0.08, high=0.12)
    log.row(what="tasks", model="final", family="buy", held=[True, False], free=[True, False])
    experiment.report(log)
    claims = {claim["name"]: claim for claim in log.claims}
    assert claims["constrained/invalid"]["value"] == 0 and "360" in claims["constrained/invalid"]["claim"]
    assert abs(claims["constrained/gain_final"]["value"] - 0.8) < 1e-9
    assert claims["constrained/own_tasks"]["value"] == 0 and claims["constrained/cost"]["verdict"] == "holds"
    assert {claim["verdict"] for claim in claims.values()} == {"holds"}
    log.rows[0]["valid"] = 119  # one invalid call
    log.claims.clear()
    experiment.report(log)
    assert log.claims[0]["value"] == 1 and log.claims[0]["verdict"] == "does not hold"
    calls_held_to_schemas({"rows": log.rows})
