"""Experiments of joint RL: arms differ in one thing, rows do not depend on the processes, and holes are holes."""

import random
from dataclasses import fields, replace
from statistics import fmean

import pytest
import torch
from digits import to_five
from tiny import Typist, tiny_model, typed

from kimi_mini import worlds
from kimi_mini.agent import loop
from kimi_mini.agent.folder import load_agent, save_agent
from kimi_mini.base.evidence import FAILS, Log
from kimi_mini.base.files import read_json
from kimi_mini.base.paths import RESULTS
from kimi_mini.course.figures.rl import over_rounds
from kimi_mini.experiments import harness
from kimi_mini.experiments.rl import (
    collapse,
    critic,
    hacking,
    mismatch,
    objectives,
    reading,
    safeguards,
    shared,
    toggle,
)
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training.rl import rounds
from kimi_mini.training.rl.config import OBJECTIVES, RLConfig
from kimi_mini.training.rl.rewards import reward
from kimi_mini.worlds.rows import Limits

TINY = RLConfig(
    objective="k2.5",
    tasks=(("buy", 1), ("chain", 2)),
    rounds=2,
    prompts=2,
    attempts=3,
    ptx=0.0,
    least_moderate=0.0,
    limits=Limits(turn_tokens=8, turns=2, context=400),
)


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.load()


@pytest.fixture(scope="module")
def agent(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny") / "agent"
    save_agent(tiny_model(), folder)
    return folder


def attempt(tokenizer, family="buy", level=3, spell=None, seed=0):
    task = worlds.generate(random.Random(seed), family, level)
    return loop.run(Typist(tokenizer, spell), tokenizer, [task], Limits(256, 16, 2048))[0]


def at_once(conversation, message):
    """The words of an answer, and no work before it."""
    return typed(Tokenizer.load(), {"role": "assistant", "content": "done", "reasoning_content": "end"})


# ---- arms -------------------------------------------------------------------------------------------------


def test_an_arm_differs_from_the_guarded_recipe_in_its_safeguard_alone():
    for name, guard in safeguards.GUARDS.items():
        arm = safeguards.ARMS[f"without {name}"]
        guarded = safeguards.ARMS[f"with {name}" if guard.both else "all"]
        changed = {f.name for f in fields(arm) if getattr(arm, f.name) != getattr(guarded, f.name)}
        assert changed == set(guard.off), name
    partial = safeguards.ARMS["all, partial rollouts"]
    assert partial == replace(safeguards.GUARDED, segment_tokens=safeguards.SEGMENT)
    faster, none = safeguards.ARMS["all, faster"], safeguards.ARMS["none, faster"]
    assert faster.lr == none.lr > safeguards.GUARDED.lr, "or the rate would be what collapses"
    assert {f.name for f in fields(none) if getattr(none, f.name) != getattr(faster, f.name)} == set(
        safeguards.NONE
    )


def check_cap(guarded, tokenizer):
    """A right attempt that calls is worth more than the cap, before it is capped."""
    conversation = attempt(tokenizer)
    assert conversation.verdict().passed and conversation.calls == 3
    free = replace(guarded, **safeguards.GUARDS["cap"].off)
    assert reward(conversation, guarded)["total"] == guarded.cap < reward(conversation, free)["total"]
    conversation.calls = 12  # and one that calls in every turn would be worth more than all that is right
    conversation.finish = "turns"
    assert reward(conversation, guarded)["total"] == guarded.cap
    assert reward(conversation, free)["total"] > 1.0 + dict(guarded.reward)["calls"] * 8, (
        "than a right one of 8"
    )


def test_the_cap_binds(tokenizer):
    check_cap(safeguards.ARMS["with cap"], tokenizer)
    with pytest.raises(AssertionError):
        check_cap(replace(safeguards.ARMS["with cap"], cap=5.0), tokenizer)


@pytest.mark.parametrize("name", ["temperature decay", "budget", "prioritised sampling", "tau", "PTX"])
def test_a_safeguard_is_on_in_the_guarded_recipe(name):
    """Else the arm without it would be the same run."""
    off = safeguards.GUARDS[name].off
    assert any(getattr(safeguards.GUARDED, field) != value for field, value in off.items())


def test_attempts_that_say_nothing_pull_where_the_filter_is_off(agent, tokenizer, monkeypatch):
    """All attempts are worth the same: nothing moves, or, without the filter, tau's pull alone does."""
    monkeypatch.setattr(rounds, "reward", lambda c, config: {"total": 1.0, "passed": 1.0})

    def moved(**changes):
        config, model = replace(TINY, updates=1, **changes), load_agent(agent)[0]
        groups, temperature = rounds.sample_round(
            model, tokenizer, config, rounds.Curriculum().draw(config, 0, 0), 0, 0
        )
        with torch.no_grad():  # as after another update
            model.lm_head.weight.add_(0.05 * torch.randn(model.lm_head.weight.shape))
        before = model.lm_head.weight.clone()
        rounds.update(model, torch.optim.SGD(model.parameters(), lr=1.0), groups, temperature, config)
        return not torch.equal(before, model.lm_head.weight)

    assert not moved() and moved(zero_signal=True) and not moved(zero_signal=True, tau=0.0)


# ---- runs side by side ------------------------------------------------------------------------------------


def short_run(job):
    """A run of seconds, for processes of their own, too."""
    torch.set_num_threads(1)
    start, tokenizer = load_agent(job.start)
    model, found = shared.reinforced(start, tokenizer, job.config, job.seed, {}, job.optimizer)
    weights = sum(p.double().abs().sum().item() for p in model.parameters())
    return {"arm": job.arm, "seed": job.seed, "weights": weights, "rounds": shared.curves(found)}


def jobs_of(agent, seeds=(0, 1)):
    return [shared.Job("all", seed, TINY, 4, agent) for seed in seeds]


def test_rows_do_not_depend_on_the_number_of_processes(agent, tmp_path):
    one = harness.side_by_side(jobs_of(agent), tmp_path / "one.json", 1, short_run)
    two = harness.side_by_side(jobs_of(agent), tmp_path / "two.json", 2, short_run)
    assert one == two and one[0]["weights"] != one[1]["weights"]
    assert set(one[0]["rounds"]) == {"reward", "success", "tokens", "moderate", "entropy", "kl"}
    assert one[0]["rounds"]["kl"][0] == 0 and one[0]["rounds"]["entropy"][0] > 0


def test_some_arms_try_the_same_held_out_tasks_before_every_update(agent, tokenizer, monkeypatch):
    """What is measured on the way changes nothing of the run."""
    assert set(collapse.DATED) < set(safeguards.ARMS)
    start, tried = load_agent(agent)[0], []
    solve = shared.scoreboard.solve
    monkeypatch.setattr(
        shared.scoreboard,
        "solve",
        lambda *given, **more: (tried.append([t.key for t in given[2]]), solve(*given, **more))[1],
    )
    monkeypatch.setattr(shared, "JOINT", {"buy": (1,)})
    monkeypatch.setattr(shared, "LIMITS", TINY.limits)
    plain, found = (shared.reinforced(start, tokenizer, TINY, 0, {}, each_round=n) for n in (0, 3))
    assert all(map(torch.equal, plain[0].parameters(), found[0].parameters()))
    assert (
        "held_out" not in shared.curves(plain[1]) and len(shared.curves(found[1])["held_out"]) == TINY.rounds
    )
    assert len(tried) == TINY.rounds and len({tuple(keys) for keys in tried}) == 1 and len(tried[0]) == 3
    assert all(task.held_out for task in shared.held_out_tasks("buy", [1], 3, 1))


def test_the_rule_of_collapse_is_the_same_on_both_measures():
    falls, stays = [0.8] * 4 + [0.1] * 6, [0.8] * 10
    assert collapse.dates({"success": stays}) == {"collapsed": None, "dated": None}
    told = collapse.dates({"success": stays, "held_out": falls})
    assert told["collapsed"] is None and told["dated"] == collapse.dates({"success": falls})["collapsed"] == 5


def test_what_was_run_is_not_run_again(agent, tmp_path):
    asked = []

    def work(job):
        if len(asked) == 2:
            raise KeyboardInterrupt
        asked.append(job.seed)
        return {"seed": job.seed}

    kept, jobs = tmp_path / "kept.json", jobs_of(agent, (0, 1, 2))
    with pytest.raises(KeyboardInterrupt):
        harness.side_by_side(jobs, kept, 1, work)
    assert asked == [0, 1]
    rows = harness.side_by_side(jobs, kept, 1, lambda job: asked.append(job.seed) or {"seed": job.seed})
    assert asked == [0, 1, 2] and rows == [{"seed": 0}, {"seed": 1}, {"seed": 2}]
    took, log = sum(entry["took"] for entry in read_json(kept, list)), Log("a", folder=tmp_path)
    harness.side_by_side(jobs, kept, 1, work, log)
    assert log.earlier == pytest.approx(took)  # of both starts
    other = [replace(job, config=replace(TINY, tau=0.2)) for job in jobs]
    harness.side_by_side(other, kept, 1, lambda job: asked.append("tau") or {"seed": job.seed})
    save_agent(tiny_model(seed=5), agent)
    harness.side_by_side(jobs[:1], kept, 1, lambda job: asked.append("weights") or {"seed": 0})
    save_agent(tiny_model(), agent)
    assert asked[3:] == ["tau"] * 3 + ["weights"]


def test_the_start_is_left_alone_and_every_round_has_other_tasks(agent, tokenizer, monkeypatch):
    start, seen = load_agent(agent)[0], []
    before = [p.clone() for p in start.parameters()]
    drift = shared.measures.drift
    monkeypatch.setattr(
        shared.measures,
        "drift",
        lambda *given: (seen.append({c.task.key for c in given[2]}), drift(*given))[1],
    )
    config = replace(TINY, rounds=3, lr=0.01, reward=(("critic", 1.0),))
    judge = lambda groups: torch.tensor([[float(k) for k in range(len(group))] for group in groups])
    model, _ = shared.reinforced(start, tokenizer, config, 0, {}, judge=judge)
    assert all(map(torch.equal, before, start.parameters()))
    assert not all(map(torch.equal, before, model.parameters()))
    assert len(seen) == 3 and len(set.union(*seen)) == sum(map(len, seen)), "the same tasks every round"


# ---- verdicts ---------------------------------------------------------------------------------------------


def rows_of(**changes):
    """Made-up rows: three seeds of every arm; changes: (arm, measure) -> how much it differs from the rest."""
    families = {
        "sampled": dict.fromkeys(shared.JOINT, 0.9) | {"follow": 0.5},
        "elsewhere": {"add": 1.0, "buy": 1.0},
    }
    rows = [
        {
            "arm": "before",
            "seed": None,
            **dict.fromkeys(safeguards.MEASURES, 0.5),
            "collapsed": None,
            **families,
        }
    ]
    for arm in safeguards.ARMS if changes.get("partial", True) else list(safeguards.ARMS)[:-2]:
        for seed in (2, 0, 1):
            row = dict.fromkeys(safeguards.MEASURES, 0.5 + 0.001 * seed)
            row |= {
                "rounds": {"tokens": [10.0, 20.0]},  # of 8 x 8 attempts: 1,920
                "seconds": 400.0 + 100 * seed,
                "sampled": {"follow": 0.88 + 0.01 * seed},
                "elsewhere": {"add": 0.9 + 0.01 * seed, "buy": 1.0},
            }
            row |= {name: row[name] + by for (of, name), by in changes.get("by", {}).items() if of == arm}
            rows.append(
                {
                    "arm": arm,
                    "seed": seed,
                    "collapsed": changes.get("dates", {}).get(arm),
                    "dated": changes.get("dated", {}).get(arm),
                    **row,
                }
            )
    return rows


def verdicts(tmp_path, **changes):
    log = Log("made_up", folder=tmp_path, seeds=(0, 1, 2))
    log.rows = rows_of(**changes)
    safeguards.report(log)
    return {claim["name"].removeprefix("safeguards/"): claim for claim in log.claims}


def test_verdicts_are_read_off_the_intervals(tmp_path):
    by = {("without PTX", "kept"): -0.1, ("without tau", "kl"): 0.2, ("without mask", "success"): 0.1}
    found = verdicts(tmp_path, by=by, dates={"none, faster": 9}, dated={"none, faster": 7})
    said = {name: claim["verdict"] for name, claim in found.items()}
    assert said["PTX"] == said["tau"] == "holds", "more is kept, and the policy stays nearer"
    assert found["tau"]["value"] == pytest.approx(0.2) and found["tau"]["low"] <= found["tau"]["high"]
    assert said["mask"] == "does not hold" and said["temperature decay"] == "open"
    assert said["forgetting/all"] == "holds" and said["forgetting/without PTX"] == "does not hold"
    assert said["collapse/none, faster"] == "holds"
    assert said["prevented"] == "holds" and found["prevented"]["value"] == 1, "three of three, none of three"
    assert "round 10, 10, 10" in found["collapse/none, faster"]["claim"]
    assert said["dated/none, faster"] == said["dated/all, faster"] == said["dated/all"] == "holds"
    assert "round 8, 8, 8" in found["dated/none, faster"]["claim"]
    worse = verdicts(tmp_path, by={("without PTX", "kept"): 0.1}, dates={"all, faster": 3}, dated={"all": 3})
    assert worse["dated/all"]["verdict"] == worse["dated/none, faster"]["verdict"] == "does not hold"
    assert worse["dated/all, faster"]["verdict"] == "holds"
    assert worse["PTX"]["verdict"] == "does not hold" and worse["prevented"]["verdict"] == "open"
    assert worse["collapse/none, faster"]["verdict"] == "does not hold"


def test_what_rl_wins_and_loses_has_claims_of_its_own(tmp_path):
    by = {("all, faster", "kept"): -0.1, ("all, faster", "success"): -0.2, ("none, faster", "success"): -0.3}
    found = verdicts(tmp_path, by=by, partial=False)
    assert found["bar/follow"]["value"] == pytest.approx(0.89) and found["bar/follow"]["verdict"] == "holds"
    assert "bar/repair" not in found, "began above the bar"
    assert found["longer/follow"]["value"] == pytest.approx(0.89) and "longer/repair" not in found
    assert found["longer/seconds"]["value"] == 500 and found["longer/seconds"]["verdict"] == "open"
    assert found[f"forgetting/{safeguards.ALL_LONGER}"]["value"] == pytest.approx(0.001)
    assert found["forgetting/all, faster"]["value"] == pytest.approx(-0.099)
    worst = found["forgetting/all, faster/worst"]
    assert worst["value"] == pytest.approx(-0.09) and "(add)" in worst["claim"]
    assert found["faster/all, faster"]["value"] == pytest.approx(-0.199)
    assert found["faster/none, faster"]["value"] == pytest.approx(-0.299)
    assert found["partial rollouts"]["waits"] and found["partial rollouts"]["value"] is None
    assert "waits" not in verdicts(tmp_path)["partial rollouts"]
    assert found["partial rollouts/longer"]["waits"]


def test_longer_partial_rollouts_say_how_much_they_have_learned_from(tmp_path):
    """The smallest share of the seeds; by the mean where every attempt ends in its round."""
    log = Log("made_up", folder=tmp_path, seeds=(0, 1, 2))
    log.rows = rows_of(by={(safeguards.PARTIAL_LONGER, "success"): -0.3})
    for row in log.rows:
        if row["arm"] == safeguards.PARTIAL_LONGER:
            row["learned"] = 1920 * (1.1 + 0.1 * row["seed"])
    safeguards.report(log)
    claim = next(one for one in log.claims if one["name"] == "safeguards/partial rollouts/longer")
    assert "at least 1.10 of its tokens" in claim["claim"] and claim["verdict"] == "does not hold"


def test_a_measure_at_its_ceiling_is_called_so(tmp_path):
    by = {(arm, "kept"): 0.5 for arm in ("all", "without PTX")}
    assert "ceiling" not in verdicts(tmp_path, by=by)["PTX"]["claim"], "where the start was below it"
    assert "; 1.00 in every run: a ceiling" in safeguards.at_the_ceiling([[1.0], [1.0, 1.0]])
    assert safeguards.at_the_ceiling([[1.0], [1.0, 0.99]]) == ""


MODULES = {
    "rl_safeguards": safeguards.report,
    "rl_hacking": hacking.report,
    "rl_critic": critic.report,
    "rl_toggle": toggle.report,
    "mismatch": mismatch.report,
    "rl_reading": lambda log: reading.report(log, reading.TASKS),
}


@pytest.mark.parametrize("name", MODULES)
def test_a_committed_log_claims_what_its_rows_say(name, tmp_path):
    kept = read_json(RESULTS / f"{name}.json")
    log = Log(name, folder=tmp_path, seeds=kept["seeds"])
    log.rows = kept["rows"]
    log.more |= {key: kept[key] for key in ("weights",) if key in kept}
    MODULES[name](log)
    assert to_five(log.claims) == to_five(kept["claims"])


def test_far_mismatches_are_claimed_against_the_same_dice(tmp_path):
    log = Log("made_up", folder=tmp_path, seeds=(3, 4, 5))
    for seed in log.seeds:
        for repair, share in (("none", 1.0), ("mask", 0.4), ("truncated", 0.6), ("replay", 1.0)):
            errors = dict.fromkeys(("error", "dice_error", "tokens_error"), 2.0 * share + 0.01 * seed)
            row = {"seed": seed, "mismatch": "int4", "repair": repair, "dice_cosine": 1 - share, **errors}
            log.row(**row, effective=0.1)
    mismatch.report(log)
    found = {claim["name"].removeprefix("mismatch/int4/"): claim for claim in log.claims}
    said = {name: found[name]["verdict"] for name in ("mask", "truncated", "replay", "mask/cosine")}
    assert said == {"mask": "holds", "truncated": FAILS, "replay": FAILS, "mask/cosine": "holds"}
    assert found["mismatch/mask"]["value"] is None, "no seed has enough attempts that count"


def test_what_is_left_of_a_distance_is_never_below_nothing():
    claims = [
        claim for claim in read_json(RESULTS / "mismatch.json")["claims"] if "share left" in claim["claim"]
    ]
    assert len(claims) == 10 and all(0 < claim["low"] < claim["value"] < claim["high"] for claim in claims)


# ---- losses -----------------------------------------------------------------------------------------------


def test_every_loss_is_run_at_the_best_rate_of_another_seed(agent):
    assert objectives.ARMS[:-1] == OBJECTIVES and {one for one, *_ in objectives.CLAIMS.values()} <= set(
        objectives.ARMS
    )
    row = {"arm": "k2", "seed": objectives.SEARCH_SEED}
    rows = [{**row, "arm": arm, "rate": 1e-3, "success": 0.1} for arm in objectives.ARMS]
    rows += [{**row, "rate": 4e-4, "success": 0.9}, {**row, "rate": 2e-4, "success": 0.9}]
    rows += [{**row, "seed": 0, "rate": 3e-4, "success": 1.0}]
    assert objectives.best(rows)["k2"] == 2e-4, "by the search alone; the smaller one of two"
    jobs = {arm: objectives.job(arm, 1e-3, 0, 4, 1.0, agent) for arm in objectives.ARMS}
    assert jobs["gspo"].config.objective == "gspo" and jobs["gspo"].optimizer == "muonclip"
    assert jobs[objectives.ADAMW].config.objective == "k2.5" and jobs[objectives.ADAMW].optimizer == "adamw"
    assert jobs["gspo"].config.lr == jobs[objectives.ADAMW].config.adamw_lr == 1e-3


# ---- a rubric that can be gamed ---------------------------------------------------------------------------


def test_the_rubric_has_a_hole_and_both_safeguards_close_it(tokenizer):
    """Who does nothing pleases it more than who does the work; with a safeguard it is the other way round."""
    worker, idler = attempt(tokenizer), attempt(tokenizer, spell=at_once)
    assert worker.verdict().passed and not idler.verdict().passed and idler.calls == 0
    assert hacking.style(idler) == 1.0 > hacking.style(worker) > 0.5

    def gain(worth):
        """What honest work is worth more, in the mean over many tasks and attempts."""
        made = [[attempt(tokenizer, spell=how, seed=seed) for how in (None, at_once)] for seed in range(3)]
        return fmean(worth(a, n) - worth(b, n) for a, b in made for n in range(40))

    assert gain(hacking.by_style) < -0.1
    assert gain(hacking.by_two) > 0.1 and gain(hacking.by_sample) > 0.1
    assert gain(hacking.by_verdict) == 1.0 and 0.5 < gain(hacking.by_gated) < 1.0
    assert hacking.by_gated(idler, 0) == 0.0 < hacking.by_gated(worker, 0) == hacking.style(worker)


def hacked(tmp_path, **truth):
    """The claims of made-up rows: arm -> true success at the end; two seeds."""
    log = Log("made_up", folder=tmp_path, seeds=(0, 1))
    log.row(arm="before", seed=None, proxy=0.6, truth=0.9)
    for seed in log.seeds:
        for arm, value in truth.items():
            log.row(arm=arm.replace("_", " "), seed=seed, proxy=0.7, truth=value + 0.001 * seed)
    hacking.report(log)
    return {claim["name"].removeprefix("hacking/"): claim for claim in log.claims}


def test_what_the_rate_costs_is_told_from_what_the_rubric_costs(tmp_path):
    arms = {"one_rubric": 0.1, "two_rubrics": 0.5, "verifier_on_a_sample": 0.6}
    found = hacked(tmp_path, **arms)
    waits = {name for name, claim in found.items() if claim.get("waits")}
    assert waits == {"rate", *(f"against/{arm}" for arm in hacking.AGAINST)}
    found = hacked(tmp_path, **arms, verdict_alone=0.5, style_where_right=0.4)
    assert found["rate"]["value"] == pytest.approx(-0.3995) and found["rate"]["verdict"] == FAILS
    said = {arm: found[f"against/{arm}"]["verdict"] for arm in hacking.AGAINST}
    assert said["one rubric"] == said["two rubrics"] == said["verifier on a sample"] == "holds"
    assert said["style where right"] == FAILS


def test_the_judge_keeps_the_proxy_of_every_round(tokenizer):
    judge = hacking.Judge(hacking.by_two)
    groups = [[attempt(tokenizer), attempt(tokenizer, spell=at_once)]]
    worth = judge(groups)
    assert worth.shape == (1, 2) and judge.proxy == [fmean(map(hacking.style, groups[0]))]


# ---- wordy thoughts ---------------------------------------------------------------------------------------


def test_wordy_thoughts_stand_once_or_twice_and_end_in_the_right_answer(tokenizer):
    examples = [toggle._wordy(tokenizer, "chain", 3, f"{i}") for i in range(20)]
    lengths = [int(example.mask.sum()) for example in examples]
    assert {round(length / min(lengths)) for length in lengths} == {1, 2}
    pools = toggle.wordy_pools(tokenizer, 2, 0)
    assert {(source.family, level) for source, level in pools} == {
        (family, level)
        for kinds in (toggle.KINDS, toggle.LONGEST)
        for family in kinds
        for level in kinds[family]
    }


def test_no_arm_is_left_out_of_the_figure():
    """Every arm of the committed log has a curve, in one of two rows; a row that has no colour left is an error."""
    log = read_json(RESULTS / "rl_hacking.json")
    fig = hacking.draw(log)
    drawn = [text.get_text() for ax in fig.axes if ax.get_legend() for text in ax.get_legend().get_texts()]
    assert sorted(drawn) == sorted(hacking.ARMS) and {row["arm"] for row in log["rows"]} == {
        "before",
        *hacking.ARMS,
    }
    with pytest.raises(ValueError, match="8 arms in a row, and 7 colours"):
        over_rounds({str(arm): [{"truth": [0.5, 0.6]}] for arm in range(8)}, {"truth": "truth"})
