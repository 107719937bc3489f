"""The vendor verifier's two figures, by hand; and the whole command against an engine."""

import json

import pytest
from engines import served

from kimi_mini import __main__ as command
from kimi_mini.agent.outcome import Outcome
from kimi_mini.base.files import read_json
from kimi_mini.evaluation import by_endpoint, conformance
from kimi_mini.evaluation.conformance import Prompt, accuracy, fault, similarity
from kimi_mini.worlds import Environment
from kimi_mini.worlds.registry import held_out_tasks
from kimi_mini.worlds.tools import FIND

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": SCHEMA}}]


def call(name="add", arguments='{"n": 1}'):
    return {"id": "x", "type": "function", "function": {"name": name, "arguments": arguments}}


def answer(*calls, finish="tool_calls"):
    return Outcome({"role": "assistant", "content": None, "tool_calls": list(calls)}, finish), Prompt(
        [], TOOLS
    )


# ---- trigger similarity ----------------------------------------------------------------------------------------


def table(both, only_here, only_there, neither):
    pairs = {(True, True): both, (False, True): only_here, (True, False): only_there, (False, False): neither}
    return [pair for pair, count in pairs.items() for _ in range(count)]


@pytest.mark.parametrize(
    ("cells", "precision", "recall", "f1"),
    [
        ((6, 2, 4, 88), 0.75, 0.6, 2 / 3),  # exchanged, precision would be 0.6; neither's 88 count nowhere
        ((5, 0, 0, 5), 1, 1, 1),
        ((0, 3, 2, 1), 0, 0, 0),
        ((0, 0, 2, 1), None, 0, 0),
        ((0, 3, 0, 1), 0, None, 0),
        ((0, 0, 0, 4), None, None, None),
    ],
)
def test_similarity_by_hand(cells, precision, recall, f1):
    found = similarity(table(*cells))
    assert (found["precision"], found["recall"]) == (precision, recall)
    assert found["f1"] == (None if f1 is None else pytest.approx(f1))
    assert (found["both"], found["only_here"], found["only_there"], found["neither"]) == cells


def test_a_request_leaves_no_environment_open(monkeypatch):
    opened, closed = [], []
    play = conformance.loop.play
    monkeypatch.setattr(conformance.loop, "play", lambda *how: opened.append(play(*how)) or opened[-1])
    monkeypatch.setattr(Environment, "close", lambda self: closed.append(self))
    assert conformance.prompts(12)
    assert opened and [id(one.environment) for one in opened] == [id(one) for one in closed]


# ---- schema accuracy -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "arguments", "kind"),
    [
        ("add", '{"n": 1}', None),
        ("add", '{"n": 1, "more": 2}', None),  # the schema does not close itself
        ("add", '{"n": "1"}', "schema"),
        ("add", "{}", "schema"),
        ("add", "[1]", "schema"),
        ("add", '"{\\"n\\": 1}"', "double_encoded"),
        ("add", '{"n": 1', "bad_json"),
        ("add", "", "bad_json"),
        ("sub", '{"n": 1}', "undeclared"),
        ("functions.add", '{"n": 1}', "undeclared"),
        ("", '{"n": 1}', "undeclared"),
    ],
)
def test_a_call_is_valid_or_its_fault_has_a_name(name, arguments, kind):
    assert fault(call(name, arguments), TOOLS) == kind


def test_a_tool_without_parameters_takes_an_empty_object():
    assert fault(call("now", "{}"), [{"function": {"name": "now"}}]) is None


def test_accuracy_is_of_answers_that_call_and_of_all_their_calls():
    silent = answer(finish="stop")
    answers = [answer(call())] * 2 + [answer(call(), call("sub")), answer(call(arguments="{"))] + [silent] * 6
    found = accuracy(answers)
    assert (found["value"], found["valid"], found["calling"]) == (0.5, 2, 4)
    assert found["faults"] == {"undeclared": 1, "bad_json": 1} and found["under_another_finish"] == 0
    assert accuracy([silent])["value"] is None


def test_a_finish_without_a_call_and_a_call_without_the_finish_are_seen():
    found = accuracy([answer(), answer(call(), finish="stop"), answer(call())])
    assert (found["valid"], found["calling"], found["under_another_finish"]) == (1, 2, 1)
    assert found["faults"] == {"no call": 1}


def test_what_was_found_may_be_called_as_if_it_were_declared_and_nothing_else():
    finder = {"type": "function", "function": {"name": FIND, "parameters": {"type": "object"}}}
    result = {"role": "tool", "name": FIND, "tool_call_id": "x", "content": json.dumps(TOOLS)}
    other = {**result, "name": "read"}  # says the same, and finds nothing
    outcomes = [answer(call()), answer(call(arguments="{}")), answer(call("sub"))]
    for messages, valid in (([result], 1), ([other], 0), ([], 0)):
        found = accuracy([(outcome, Prompt(messages, [finder])) for outcome, _ in outcomes])
        assert (found["valid"], found["calling"]) == (valid, 3)


# ---- requests and reference ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def asked():
    return conformance.prompts(20)


def test_the_requests_are_the_same_every_time_and_want_both_decisions(asked):
    assert [p.name for p in conformance.prompts(20)] == [p.name for p in asked]
    assert len({p.name for p in asked}) == len(asked) > 40
    assert all(p.tools and p.messages[-1]["role"] in ("user", "tool") for p in asked)
    assert {p.messages[-1]["role"] for p in asked} == {"user", "tool"}
    assert not any("thinking" in message for p in asked for message in p.messages)


@pytest.mark.slow
def test_the_committed_reference_is_what_the_shipped_agent_decides():
    """On some of its requests; a request that the file does not know would be left out of the figure."""
    reference = read_json(conformance.REFERENCE)
    asked = conformance.prompts(reference["tasks"], reference["seed"])
    assert {p.name for p in asked} == reference["decisions"].keys()
    assert {"tool_calls", "stop"} <= set(reference["decisions"].values())
    some = asked[::12]
    again = conformance.decided_here(conformance.shipped_agent(), some)
    assert [o.finish for o in again] == [reference["decisions"][p.name] for p in some]


# ---- the command -----------------------------------------------------------------------------------------------


@pytest.fixture
def engine_of_experts(asked, monkeypatch, tmp_path):
    monkeypatch.setattr(by_endpoint, "RUNS", tmp_path / "run")
    families = dict.fromkeys(row.family for row in conformance.ROWS)
    tasks = [t for f in families for t in held_out_tasks(f, conformance.FAMILIES[f].measured, 8, 0)]
    return lambda **habits: served(tasks, **{"strict": False, **habits})


def run(url, *words):
    return command.main(["conformance", "--endpoint", url, "--model", "m", "--tasks", "20", *words])


@pytest.mark.slow
def test_an_endpoint_that_agrees_and_one_that_does_not(engine_of_experts, tmp_path, capsys):
    mine = str(tmp_path / "mine.json")
    with engine_of_experts() as (_, url):
        assert run(url, "--record", mine) == 0
        assert run(url, "--reference", mine, "--out", str(tmp_path / "out.json")) == 0
    found = read_json(tmp_path / "out.json")
    assert found["trigger_similarity"]["f1"] == found["schema_accuracy"]["value"] == 1.0
    assert found["requests"] > 40 and found["refused"] == 0 == found["unknown_to_the_reference"]
    assert "trigger similarity (F1)     1.000" in capsys.readouterr().out
    with engine_of_experts(encode=json.dumps) as (_, url):
        run(url, "--reference", mine, "--out", str(tmp_path / "out.json"))
    found = read_json(tmp_path / "out.json")
    assert found["trigger_similarity"]["f1"] == 1.0 and found["schema_accuracy"]["value"] == 0.0
    with engine_of_experts(finish="stop") as (_, url):
        run(url, "--reference", mine, "--out", str(tmp_path / "out.json"))
    found = read_json(tmp_path / "out.json")
    assert found["trigger_similarity"]["f1"] == 0 and found["schema_accuracy"]["under_another_finish"] > 0
    assert not list((tmp_path / "run").rglob("*.jsonl"))


@pytest.mark.slow
def test_answers_stay_until_all_is_written(engine_of_experts, tmp_path, capsys):
    """What a typing error costs is not the answers; and a reference that is not there costs no request."""
    with engine_of_experts() as (engine, url):
        assert run(url, "--reference", str(tmp_path / "typo.json")) == 2 and not engine.requests
        (tmp_path / "file").write_text("no folder")
        assert run(url, "--out", str(tmp_path / "file" / "out.json")) == 2
        asked = len(engine.requests)
        assert asked > 40 and list((tmp_path / "run").rglob("*.jsonl"))
        assert run(url, "--out", str(tmp_path / "out.json")) == 0 and len(engine.requests) == asked
    assert not list((tmp_path / "run").rglob("*.jsonl"))


def test_without_an_endpoint_one_line_says_what_is_wanted(capsys):
    assert command.main(["conformance"]) == 2
    assert "--endpoint URL" in capsys.readouterr().err
