"""Thoughts that are cut: what is learned of them, what counts as an answer, and what the claims stand on."""

import random

import numpy as np
import pytest
from digits import to_five
from drawn import written

from kimi_mini import worlds
from kimi_mini.base.evidence import FAILS, HOLDS, Log
from kimi_mini.base.files import read_json
from kimi_mini.base.paths import RESULTS
from kimi_mini.experiments.thinking import stopped
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.worlds.chain import MODULUS, OPERATIONS

TOKENIZER = Tokenizer.load()


def cut(seed, level=4):
    """A cut thought: its task, the thought that is left, and the text that is learned."""
    rng = random.Random(seed)
    task = worlds.generate(rng, "chain", level)
    example = stopped.cut_thought(TOKENIZER, task, rng)
    text = TOKENIZER.decode(list(example.ids))
    learned = TOKENIZER.decode([int(one) for one in example.ids[example.mask]])
    return task, text.partition("<think>")[2].partition("</think>")[0], learned


def results(task):
    """The number that the chain starts with, and those that it comes to."""
    found = [task.data["start"]]
    for _, operation, operand in task.data["steps"]:
        found.append(OPERATIONS[operation](found[-1], operand) % MODULUS)
    return found


@pytest.mark.parametrize("seed", range(40, 80))
def test_only_the_number_that_was_reached_is_learned_behind_a_cut(seed):
    task, thought, learned = cut(seed)
    done = sum(len(part.partition("=")[2]) == 2 for part in thought.split())
    assert learned == f"{results(task)[done]:02d}<|im_end|>"
    assert thought, "without a thought it would be a reflex, whose answer is the chain's"
    assert "end" not in thought, "a thought that has come to its end was not cut"


def test_thoughts_are_cut_everywhere():
    reached = {sum(len(part.partition("=")[2]) == 2 for part in cut(seed)[1].split()) for seed in range(60)}
    assert reached == {0, 1, 2, 3, 4}


def test_the_lessons_hold_no_held_out_task_and_the_replay_is_even():
    made = stopped.lessons(TOKENIZER, 20_000, 0.4, 0)
    shares = {}
    for source, _ in made:
        shares[source.family] = shares.get(source.family, 0.0) + source.share
    per_level = {(source, level): source.share for source, level in made}
    assert len(per_level) == len(made)
    alone = stopped.lessons(TOKENIZER, 20_000, 0.0, 0)
    assert all(np.asarray(one.mask).any() for pool in (*made.values(), *alone.values()) for one in pool)
    cuts = [source for source, _ in made if source.length == stopped.LENGTH and source.family == "chain"]
    assert cuts and not any(source.length == stopped.LENGTH and source.share == 0.4 for source, _ in alone)


def log_of(tmp_path, **measures):
    log = Log("stopped", seeds=[0, 1, 2], folder=tmp_path)
    for seed in log.seeds:
        for arm in (stopped.BEFORE, *stopped.ARMS):
            row = dict.fromkeys(stopped.MEASURES, 0.5 if arm == stopped.BEFORE else 0.98)
            log.row(seed=seed, arm=arm, **row | (measures if arm == "stopped" else {}))
    stopped.report(log, 8)
    return log


def test_claims_stand_on_the_arm_that_was_taught(tmp_path):
    log = log_of(tmp_path, reached=0.7, whole=0.4)
    found = {claim["name"].removeprefix("stopped/"): claim for claim in log.claims}
    said = {name: claim["verdict"] for name, claim in found.items()}
    assert said == {
        "answered": HOLDS,
        "hurried": HOLDS,
        "reached": FAILS,
        "kept/whole": FAILS,
        "kept/elsewhere": HOLDS,
    }
    assert found["kept/whole"]["value"] == pytest.approx(-0.1)
    assert all(f"{arm}/whole" in written(stopped.draw(log.as_dict())) for arm in ("before", *stopped.ARMS))


def test_the_committed_log_claims_what_its_rows_say(tmp_path):
    kept = read_json(RESULTS / "stopped.json")
    log = Log("stopped", folder=tmp_path, seeds=kept["seeds"])
    log.rows = kept["rows"]
    stopped.report(log, stopped.TASKS)
    assert to_five(log.claims) == to_five(kept["claims"])


@pytest.mark.slow
def test_a_short_lesson_teaches_the_shipped_agent_to_answer(tmp_path):
    """A tenth of the experiment's tokens, and a tenth of its tasks: more thoughts are answered than before."""
    from kimi_mini.agent.folder import load_agent, shipped_agent

    before = stopped.measure(*load_agent(shipped_agent()), 8, 0)
    model, _ = stopped.taught(shipped_agent(), "stopped", 60_000, 0)
    after = stopped.measure(model, TOKENIZER, 8, 0)
    assert after["answered"] > before["answered"] and after["reached"] >= before["reached"]
