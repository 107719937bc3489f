"""Our own endpoint through the real client: the same tasks are done as by the model in this process."""

import json

import pytest

from kimi_mini.agent import loop
from kimi_mini.agent.endpoint import Endpoint
from kimi_mini.agent.folder import load_agent, shipped_agent
from kimi_mini.agent.held import HeldPolicy
from kimi_mini.agent.remote import RemotePolicy
from kimi_mini.agent.serve import serving
from kimi_mini.base.files import read_json
from kimi_mini.base.paths import CHECKPOINTS
from kimi_mini.evaluation import conformance, scoreboard
from kimi_mini.worlds.registry import held_out_tasks
from kimi_mini.worlds.tools import FIND

pytestmark = pytest.mark.slow
ROWS = {row.name: row for row in scoreboard.ROWS}


@pytest.fixture(scope="module")
def url():
    with serving(shipped_agent(), strict=True) as address:
        yield address


@pytest.mark.parametrize(
    ("name", "stream"),
    [("chain/thinking", True), ("chain/reflex", False), ("shop/cheapest", True), ("repair/pass@1", False)],
)
def test_each_task_goes_as_it_does_in_this_process(url, name, stream):
    """With an endpoint that refuses a chain of calls without its thoughts."""
    row, (model, tokenizer) = ROWS[name], load_agent(shipped_agent())
    tasks = list(enumerate(held_out_tasks(row.family, row.levels, 8, 0)))
    here = scoreboard.passes(model, tokenizer, row, tasks, 0)
    endpoint = Endpoint(url, shipped_agent().name, stream=stream)
    assert scoreboard.passes(endpoint, None, row, tasks, 0) == here
    assert not (endpoint.counts["refused"] or endpoint.counts["again"])


def test_tools_that_have_to_be_found_are_called_there_as_here():
    """Declared is the search alone, in both; every call is held to a schema, in both. Of the tasks those that bring a
    system message: where none is given the endpoint puts the agent's own, and this process the template's."""
    (row,) = (row for row in scoreboard.VARIED if row.family == "finder")
    model, tokenizer = load_agent(CHECKPOINTS / "reader")
    tasks = [task for task in held_out_tasks("finder", row.levels, 9, 0) if task.system is not None][:3]
    here = loop.run(HeldPolicy(model, tokenizer), tokenizer, tasks, row.limits)
    with serving(CHECKPOINTS / "reader") as address:
        there = loop.run(RemotePolicy(Endpoint(address, "reader")), None, tasks, row.limits)

    def calls(conversation):
        made = [call["function"] for m in conversation.messages for call in m.get("tool_calls") or ()]
        return [(one["name"], one["arguments"]) for one in made]

    assert [calls(one) for one in there] == [calls(one) for one in here]
    assert {name for name, _ in calls(there[0])} - {FIND}


def test_it_decides_as_the_reference_and_its_calls_are_valid(url):
    asked = conformance.prompts(12)
    outcomes = conformance.decided_there(Endpoint(url, shipped_agent().name), asked)
    reference = {p.name: o.finish for p, o in zip(asked, conformance.decided_here(shipped_agent(), asked))}
    known = read_json(conformance.REFERENCE)["decisions"]
    assert {name: known[name] for name in reference if name in known}.items() <= reference.items()
    found = conformance.report(asked, outcomes, reference)
    assert found["schema_accuracy"]["value"] == 1.0 and found["schema_accuracy"]["calling"] > 10
    assert found["trigger_similarity"]["f1"] == 1.0, json.dumps(found)
