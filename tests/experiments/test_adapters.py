"""Adapting to a new world: the base stays, arms differ in one thing, the log says what was measured."""

import copy
import random
import re
from collections import Counter
from dataclasses import replace

import pytest
import torch
from digits import to_five
from tiny import tiny_model

from kimi_mini.agent import loop
from kimi_mini.agent.folder import save_agent
from kimi_mini.base.evidence import Log
from kimi_mini.base.files import read_json
from kimi_mini.base.paths import RESULTS
from kimi_mini.course.figures.deployment import adapters as drawn
from kimi_mini.experiments.deployment import adapters
from kimi_mini.experiments.deployment.adapters import Job
from kimi_mini.model.compact.lora import detach
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.worlds.base import is_held_out
from kimi_mini.worlds.desk import customer


@pytest.fixture
def tokenizer():
    return Tokenizer.load()


@pytest.fixture
def agent(tmp_path):
    save_agent(tiny_model(), tmp_path / "agent")
    return tmp_path / "agent"


def small(arm, agent, **more):
    return replace(Job(arm, 0, tokens=6000, step_tokens=2048, tasks=1, rank=4, start=agent), **more)


def test_a_lora_run_trains_its_adapter_alone_and_a_full_one_everything(tokenizer, agent):
    examples = adapters.examples_of(tokenizer, small("lora alone", agent))
    start = tiny_model()
    for arm in ("lora alone", "full"):
        model = copy.deepcopy(start)
        history = adapters.adapted(model, examples, small(arm, agent))
        assert len(history.loss) >= 3
        if arm == "lora alone":
            assert all(model.adapter[name].b.abs().max() > 0 for name in model.adapter.names)
            detach(model)
        same = [torch.equal(value, start.state_dict()[name]) for name, value in model.state_dict().items()]
        assert all(same) if arm == "lora alone" else not any(same[:5])


def test_arms_alone_have_no_replay_and_no_task_is_held_out(tokenizer, agent, monkeypatch):
    seen = []
    drawn_tasks = customer.generate
    monkeypatch.setattr(customer, "generate", lambda *a: seen.append(drawn_tasks(*a)) or seen[-1])
    alone, both = (adapters.examples_of(tokenizer, small(arm, agent)) for arm in ("lora alone", "lora"))
    assert {source.family for source, _ in alone} == {customer.FAMILY}
    assert {source.family for source, _ in both} > {customer.FAMILY, "chain", "buy"}
    shares = {source: source.share for source, _ in both}
    assert sum(shares.values()) == pytest.approx(1)
    assert sum(
        share for source, share in shares.items() if source.family != customer.FAMILY
    ) == pytest.approx(0.2)
    assert seen and not any(is_held_out(task.key) for task in seen)


def test_an_even_replay_has_as_much_of_each_family_and_as_much_of_the_new_world(tokenizer, agent):
    job = small("lora", agent)
    shares = {source: source.share for source, _ in adapters.examples_of(tokenizer, job.even())}
    by_family = Counter()
    for source, share in shares.items():
        by_family[source.family] += share
    assert by_family.pop(customer.FAMILY) == pytest.approx(0.65)
    assert set(by_family) == set(adapters.KNOWN) and min(by_family.values()) > 0.9 * 0.35 / len(by_family)
    assert job.even().tokens * 0.65 == pytest.approx(job.tokens * 0.8, rel=0.03)


def test_a_run_saves_its_adapter_and_all_are_served_in_one_batch(agent, tmp_path, monkeypatch):
    monkeypatch.setattr(adapters, "RUNS", tmp_path)
    monkeypatch.setattr(adapters, "measure", lambda model, tokenizer, tasks: {"new": 0.5})
    jobs = [small("lora alone", agent, seed=seed, lora_lr=0.02) for seed in (0, 1)]
    rows = [adapters.work(job) for job in jobs]
    assert rows[0]["bytes"] > 1000 and rows[0]["learned"] < 60_000 and rows[0]["curve"] != rows[1]["curve"]
    served = adapters.serve(jobs, rows=2, tokens=6)
    assert served["same"] == 1.0 and served["rows"] == 6 and min(served["mixed"], served["merged"]) > 0


def test_one_kind_is_taught_live_and_measured_before_and_after(agent, monkeypatch):
    monkeypatch.setattr(adapters, "START", agent)
    asked, generate = [], customer.generate
    monkeypatch.setattr(
        customer, "generate", lambda rng, kind, *a: asked.append(kind) or generate(rng, kind, *a)
    )
    models = []

    def solved(model, tokenizer, kind, tasks):
        models.append((getattr(model, "adapter", None), kind, tasks))
        return len(models) / 10

    monkeypatch.setattr(adapters, "solved", solved)
    found = adapters.live("orders", 4000, tasks=3)
    assert set(asked) == {"orders"}
    assert models == [(None, "orders", 3), (found["adapter"], "orders", 3)]
    assert (found["before"], found["after"]) == (0.1, 0.2) and len(found["history"].loss) > 1


def told(arm, seed, new, kept, **more):
    more = {"kinds": {"ask": new, "least": new, "orders": new}, "known": {"chain": kept}, **more}
    return {"arm": arm, "seed": seed, "new": new, "kept": kept, **more}


@pytest.fixture
def log(tmp_path):
    log = Log("adapters", seeds=[0, 1, 2], folder=tmp_path)
    log.row(**told("before", 0, 0.0, 0.9))
    curve = {"tokens": [10, 10], "loss": [2.0, 1.0]}
    arms = (("lora", 0.95, 0.89), ("lora even", 0.94, 0.9), ("lora alone", 0.96, 0.7), ("full", 0.97, 0.1))
    for arm, new, kept in arms:
        for seed in range(3):
            log.row(
                **told(
                    arm,
                    seed,
                    new + seed / 1000,
                    kept,
                    learned=1000,
                    curve=curve,
                    seconds=100.0,
                    core_seconds=90.0,
                )
            )
    log.more["served"] = {"same": 1.0}
    adapters.report(log, 60)
    return log


def test_claims_are_of_the_adapter_with_a_replay(log):
    found = {claim["name"]: claim for claim in log.claims}
    assert all(claim["verdict"] == "holds" for claim in found.values()) and len(found) == 10
    assert found["adapters/even/kept"]["value"] == pytest.approx(0.0), "of its own arm"
    assert found["adapters/new"]["value"] == pytest.approx(0.951)
    assert found["adapters/kept"]["value"] == pytest.approx(-0.01)
    before = found["adapters/before"]
    assert before["low"] == 0 < before["high"] < 0.03 and before["seeds"] == [0], "one agent: over its tasks"
    board = log.more["scoreboard"]
    assert board["adapters/full_kept"]["value"] == pytest.approx(-0.8)
    assert board["adapters/before"]["n"] == 180


def test_a_mean_of_families_does_not_hide_one_and_a_share_ends_at_1(tmp_path):
    log = Log("adapters", seeds=[0, 1, 2], folder=tmp_path)
    log.row(**told("before", 0, 0.0, 1.0, known={"add": 1.0, "times": 1.0}))
    for arm in (*adapters.ARMS, adapters.EVEN):
        for seed, new in enumerate((0.99, 0.98, 0.7)):
            known = {"add": 1.0, "times": 0.66 + seed / 100}
            log.row(**told(arm, seed, new, 0.99, known=known, core_seconds=90.0 + seed))
    log.more["served"] = {"same": 1.0}
    adapters.report(log, 60)
    found = {claim["name"]: claim for claim in log.claims}
    worst = found["adapters/kept/worst"]
    assert found["adapters/kept"]["verdict"] == "holds" and worst["verdict"] == "does not hold"
    assert worst["value"] == pytest.approx(-0.33) and "times" in worst["claim"]
    assert worst["floor"] == found["adapters/kept"]["floor"]
    assert found["adapters/new"]["high"] == 1.0


def test_no_two_jobs_share_a_folder(agent, tmp_path):
    """A run from another agent, or of another rank, would be served in the first one's place when that goes on."""
    save_agent(tiny_model(seed=1), tmp_path / "other")
    job = small("lora", agent)
    others = [replace(job, rank=2), replace(job, replay=0.4), replace(job, start=tmp_path / "other")]
    assert (
        len({one.folder() for one in (job, *others)}) == 4 and job.folder() == small("lora", agent).folder()
    )


def test_the_committed_log_claims_what_its_rows_say(tmp_path):
    kept = read_json(RESULTS / "adapters.json")
    log = Log("adapters", seeds=kept["seeds"], folder=tmp_path, served=kept["served"])
    log.rows = kept["rows"]
    adapters.report(log, Job("lora", 0).tasks)
    assert to_five(log.claims) == to_five(kept["claims"])


def test_the_figure_has_a_point_a_run(log):
    fig = drawn.adapted(log.as_dict())
    points = {
        c.get_label(): c.get_offsets().tolist() for c in fig.axes[0].collections if len(c.get_offsets()) == 3
    }
    assert len(points) == 4
    (lora,) = [where for label, where in points.items() if label.startswith("lora,")]
    assert lora == [[0.89, 0.95], [0.89, 0.951], [0.89, 0.952]]
    assert fig.axes[1].lines[0].get_xdata().tolist() == [10, 20]


def test_the_customers_tasks_are_his_own_and_solvable():
    """Held-out ones apart; the expert passes, another answer does not."""
    tasks = [task for kind in customer.REQUESTS for task in customer.held_out_tasks(kind, 6)]
    assert len({task.key for task in tasks}) == 24 and all(is_held_out(task.key) for task in tasks)
    assert {task.system for task in tasks} == {customer.SYSTEM}
    for task in tasks:
        played = loop.play(task, random.Random(0))
        assert played.verdict().passed
        assert {tool["function"]["name"] for tool in played.tools} == {
            "count_copies",
            "sequel_of",
            "reserve_book",
        }
        assert all(title in customer.TITLES for title in re.findall(r'"([^"]+)"', task.prompt))
        played.messages[-1]["content"] = "no such book"
        assert not played.verdict().passed
