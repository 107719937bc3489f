"""Sums alone: which families are learned, what a bar counts, and what the log claims of tokens and of seconds."""

import json
from pathlib import Path

import numpy as np
import pytest
from tiny import tiny_model

from kimi_mini.base.evidence import Log
from kimi_mini.experiments import harness
from kimi_mini.experiments.diffusion import drawings, measures, runs, sums
from kimi_mini.experiments.diffusion.runs import ARMS, LENGTH, Recipe
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training import sft


def test_shares_are_of_the_families_that_are_learned():
    assert Recipe().shares() == pytest.approx(runs.SHARES)
    assert sums.RECIPE.shares() == pytest.approx({"add": 0.45, "times": 0.55})
    assert Recipe(tokens=10**6, families=("add",)).scaled(0.5).families == ("add",)


@pytest.fixture(scope="module")
def planned():
    tokenizer, recipe = Tokenizer.load(), Recipe(tokens=12_000, step_tokens=1024, families=runs.SUMS)
    pools = runs.pools_of(tokenizer, recipe, 0)
    return tokenizer, recipe, pools, sft.make_plan(pools, recipe.tokens, recipe.step_tokens, 0, ramp=(0, 0.1))


def test_only_the_families_of_the_recipe_are_planned(planned):
    _, _, pools, steps = planned
    spent = dict.fromkeys(runs.SUMS, 0)
    for (source, level), number in (pick for step in steps for pick in step):
        spent[source.family] += len(pools[source, level][number].ids)
    assert set(spent) == set(runs.SUMS)
    assert spent["add"] / sum(spent.values()) == pytest.approx(0.45, abs=0.03)


@pytest.mark.parametrize("arm", ARMS)
def test_a_bar_counts_to_exactly_what_is_read(planned, arm):
    tokenizer, recipe, pools, steps = planned
    read = 0
    for step in steps:
        examples = [pools[key][number] for key, number in step]
        made = runs.batches(arm, examples, tiny_model(), tokenizer, recipe, np.random.default_rng(0))
        read += sum(int((batch.valid if arm == "refining" else batch.ids != 0).sum()) for batch in made)
    assert runs.tokens_of(arm, pools, steps) == pytest.approx(
        read, abs=0 if arm == "refining" else 0.02 * read
    )


def parts(bound=0.1, loss=0.02, success=0.95):
    rows = [
        dict(style=name, family=family, success=success, steps=24.0, tasks=6, seconds=1.0)
        for name in measures.FEW
        for family in runs.SUMS
    ]
    made = []
    for seed in range(3):
        training = {"tokens": 10, "examples": 8, "processor_seconds": 3.0}
        refining = dict(seed=seed, training=training, nats=dict.fromkeys(runs.SUMS, bound), styles=rows)
        writing = dict(seed=seed, training=training, nats=dict.fromkeys(runs.SUMS, loss))
        made.append(sums.joined(refining, writing | {"success": dict.fromkeys(runs.SUMS, 1.0)}))
    return made


def reported(folder, **changed):
    log = Log("diffusion_sums", seeds=[0, 1, 2], folder=folder)
    log.more["parts"] = json.loads(json.dumps(parts(**changed)))
    sums.report(log)
    return log, {claim["name"].removeprefix("diffusion/sums/"): claim for claim in log.claims}


def test_equal_seconds_are_against_a_writer_that_loses_nothing(tmp_path):
    """A loss lets the bound hold at equal tokens; at equal seconds the writer might have none."""
    _, claims = reported(tmp_path, bound=0.16, loss=0.02)
    assert claims["bound"]["value"] == pytest.approx(0.14) and claims["bound"]["verdict"] == "holds"
    strict = claims["bound_at_equal_seconds"]
    assert strict["value"] == pytest.approx(0.16) and strict["verdict"] == "does not hold"


def test_few_steps_are_the_same_three_styles_with_the_same_floor_as_of_five_families(tmp_path):
    log, claims = reported(tmp_path, success=0.8)
    few = {name: claims[name] for name in ("half_the_steps", "surely", "surely_in_blocks")}
    assert all(claim["floor"] == 0.9 and claim["verdict"] == "does not hold" for claim in few.values())
    assert all(claim["figure"] == sums.FIGURE for claim in log.claims)
    assert len(claims) == 5 and len(log.rows) == 3 * (2 * len(measures.FEW) + 2)
    assert {claim["verdict"] for claim in reported(tmp_path, success=0.97)[0].claims} == {"holds"}


def test_the_figure_is_drawn_from_the_log(tmp_path):
    log, _ = reported(tmp_path)
    near, right = drawings.sums_alone(log.as_dict()).axes
    assert len(near.patches) == 2 and len(right.patches) == len(measures.FEW) + 1


@pytest.mark.slow
def test_a_tiny_run_in_two_processes_keeps_what_it_measured(tmp_path, monkeypatch, capsys):
    jobs = [sums.Job(arm, 90, scale=0.0005, folder=tmp_path) for arm in ARMS]
    found = harness.side_by_side(jobs, tmp_path / "measured.json", 2, sums.work)
    monkeypatch.setattr(sums, "learned", None)  # nothing is trained again
    assert harness.side_by_side(jobs, tmp_path / "measured.json", 1, sums.work) == found
    refining, writing = found
    (part,) = sums.joined_by_seed(found)
    assert (
        part["seed"] == 90 and part["writing"] == writing["success"] and part["nats"].keys() == set(runs.SUMS)
    )
    assert refining["training"]["examples"] == writing["training"]["examples"] > 8000
    assert refining["training"]["tokens"] > writing["training"]["tokens"]
    assert refining["nats"]["add"] > writing["nats"]["add"]
    assert LENGTH >= max(row["steps"] for row in refining["styles"])


def test_what_decides_the_numbers_decides_what_is_kept():
    said = [
        sums.Job(arm, seed, scale=scale).said() for arm in ARMS for seed in (0, 1) for scale in (1.0, 0.5)
    ]
    assert all(said.count(one) == 1 for one in said)
    assert sums.Job("writing", 0, folder=Path("elsewhere")).said() == sums.Job("writing", 0).said()
