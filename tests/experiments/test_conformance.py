"""Our endpoint against the agent alone: both are asked the same, and the claims are of the worse agent."""

import pytest

from kimi_mini.agent.outcome import Outcome
from kimi_mini.base.evidence import FAILS, HOLDS, Log
from kimi_mini.base.paths import CHECKPOINTS
from kimi_mini.evaluation import conformance as suite
from kimi_mini.experiments.evaluation import conformance


def row(agent, f1=1.0, valid=1.0, requests=100, calling=60):
    found = {"trigger_similarity": {"f1": f1}, "schema_accuracy": {"value": valid, "calling": calling}}
    return found | {"agent": agent, "requests": requests, "refused": 0}


def claims(tmp_path, *rows):
    log = Log("conformance", folder=tmp_path)
    for one in rows:
        log.row(**one)
    conformance.report(log)
    return {claim["name"].removeprefix("conformance/"): claim for claim in log.claims}


def test_claims_are_of_the_worse_agent(tmp_path):
    good = claims(tmp_path, row("final"), row("reader", requests=50, calling=30))
    assert {claim["verdict"] for claim in good.values()} == {HOLDS}
    assert "150 requests" in good["trigger"]["claim"] and "90 answers" in good["schema"]["claim"]
    assert all("final and reader" in claim["claim"] for claim in good.values())
    bad = claims(tmp_path, row("final", f1=0.9), row("reader", valid=0.8))
    assert (bad["trigger"]["value"], bad["schema"]["value"]) == (0.9, 0.8)
    assert {claim["verdict"] for claim in bad.values()} == {FAILS}


def test_an_agent_that_never_calls_shows_nothing(tmp_path):
    found = claims(tmp_path, row("final"), row("reader", f1=None, valid=None, calling=0))
    assert found["trigger"]["value"] is None and found["schema"]["verdict"] == FAILS


@pytest.mark.parametrize(("there", "f1"), [("tool_calls", 1.0), ("stop", 0.0)])
def test_the_truth_is_what_the_agent_decides_alone(monkeypatch, there, f1):
    def decided(finish):
        return lambda _, asked: [Outcome({"role": "assistant", "content": ""}, finish) for _ in asked]

    monkeypatch.setattr(suite, "decided_here", decided("tool_calls"))
    monkeypatch.setattr(suite, "decided_there", decided(there))
    found = conformance.measured(CHECKPOINTS / "final", conformance.ROWS, 8, 0)
    assert found["trigger_similarity"]["f1"] == f1 and found["unknown_to_the_reference"] == 0
    assert found["requests"] == len(suite.prompts(8, 0, conformance.ROWS)) and found["seconds"] >= 0


def test_each_agent_is_asked_what_it_was_made_for():
    fixed, desk = (suite.prompts(20, 0, rows) for rows in conformance.AGENTS.values())
    assert not {prompt.name for prompt in fixed} & {prompt.name for prompt in desk}
    assert len(desk) > 20 and all(prompt.tools for prompt in desk)
