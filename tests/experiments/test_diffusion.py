"""Refining against writing: what both learn from, what is measured of them, and what the log claims."""

import json

import numpy as np
import pytest
import torch
from tiny import tiny_model

from kimi_mini.agent import loop
from kimi_mini.base.evidence import Log
from kimi_mini.experiments.diffusion import measures, runs, versus
from kimi_mini.experiments.diffusion.measures import Refining
from kimi_mini.experiments.diffusion.runs import ARMS, LENGTH, Recipe
from kimi_mini.inference.diffusion import Refined, Style
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training.synthesis import trajectory
from kimi_mini.worlds.registry import held_out_tasks


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.load()


@pytest.fixture(scope="module")
def turns(tokenizer):
    return runs.held_out(tokenizer, "times", 6, 0)


def text(tokenizer, ids):
    return tokenizer.decode([int(i) for i in ids])


def test_a_canvas_holds_the_turn_and_room_and_asked_also_the_question(tokenizer, turns):
    end = tokenizer.token_id("<|im_end|>")
    for turn in turns:
        own = turn.ids[turn.mask].tolist()
        row = runs.canvas_of(turn, tokenizer)
        assert row.ids[row.mask].tolist() == own + [end] * (LENGTH - len(own))
        longer = runs.canvas_of(turn, tokenizer, asked=True)
        canvas = text(tokenizer, longer.ids[longer.mask])
        assert canvas.startswith("Multiply ") and longer.ids.tolist() == row.ids.tolist()


def test_both_arms_learn_the_same_tokens(tokenizer, turns):
    """The one that refines learns its room besides; which rows are learned with their question is the same for both."""
    model, recipe = tiny_model(), Recipe(micro_tokens=512)
    end = tokenizer.token_id("<|im_end|>")

    def rows(arm):
        made = runs.batches(arm, turns * 8, model, tokenizer, recipe, np.random.default_rng(4))
        found = []
        for batch in made:
            for ids, mask in zip(batch.ids, batch.mask):
                learned = ids[mask].tolist()
                found.append(
                    tuple(
                        learned[
                            : learned.index(end, learned.index(end) + 1) + 1
                            if len(learned) > 60
                            else learned.index(end) + 1
                        ]
                    )
                )
        return sorted(found)

    writing, refining = rows("writing"), rows("refining")
    assert len(writing) == len(refining) == 48
    asked = [sum(text(tokenizer, row).startswith("Multiply") for row in arm) for arm in (writing, refining)]
    assert asked[0] == asked[1] and 0 < asked[0] < 24
    short = [
        [row for row in arm if not text(tokenizer, row).startswith("Multiply")] for arm in (writing, refining)
    ]
    assert short[0] == short[1]


def test_a_turn_ends_at_its_first_end_and_without_one_it_is_cut_off(tokenizer, monkeypatch):
    """What counts is the world's verdict on the tokens before the end: nobody looks at the answer."""
    tasks = held_out_tasks("add", (2,), 3, 0)
    end, rest = tokenizer.token_id("<|im_end|>"), tokenizer.encode_plain("7")[0]

    def typed(model, contexts, canvas, style, seed):
        assert (canvas == model.config.vocab_size - 1).all(), "the canvas says nothing"
        rows = []
        for number, task in enumerate(tasks):
            answer = task.data["answer"] + (number == 1)
            own = [tokenizer.token_id("<think>"), tokenizer.token_id("</think>")]
            own += [*tokenizer.encode_plain(str(answer)), *([end] if number < 2 else [])]
            rows.append(own + [rest] * (LENGTH - len(own)))
        ids = torch.tensor(rows)
        when, each = torch.arange(LENGTH).expand(3, -1) // 8, torch.tensor([6, 9, 3])
        return Refined(ids, when, torch.zeros(ids.shape), 9, each)

    monkeypatch.setattr(measures, "refine", typed)
    done = loop.run(Refining(tiny_model(), tokenizer, Style()), tokenizer, tasks, measures.LIMITS)
    assert [one.verdict().passed for one in done] == [True, False, False]
    assert [one.finish for one in done] == ["stop", "stop", "length"]
    assert measures.solved(tiny_model(), tokenizer, tasks, measures.ONE) == (pytest.approx(1 / 3), 6)


def test_gaps_hold_digits_of_the_question_or_the_middle_of_the_thought(tokenizer, turns):
    for turn in turns:
        places = measures.question_gaps(turn, tokenizer)
        assert text(tokenizer, turn.ids[places]).isdigit() and not turn.mask[places].any()
        middle = measures.thought_gaps(turn, tokenizer)
        whole = text(tokenizer, turn.ids[turn.mask]).split("</think>")[0]
        assert text(tokenizer, turn.ids[middle]) in whole and turn.mask[middle].all()
        assert len(middle) * 3 > len(turn.ids[turn.mask]) / 2


def test_what_is_given_around_a_gap_is_seen_and_the_gap_is_not(tokenizer, turns, monkeypatch):
    seen = []

    def look(model, contexts, canvas, style=None):
        seen.append((contexts, canvas.clone()))
        return Refined(torch.zeros_like(canvas), canvas, canvas, 1)

    monkeypatch.setattr(measures, "refine", look)
    monkeypatch.setattr(
        measures, "generate", lambda model, ids, count, eos_token_id: torch.cat([ids, ids[:, :1]], 1)
    )
    monkeypatch.setattr(measures, "held_out", lambda tokenizer, family, count, seed: turns[:1])
    found = measures.filled(tiny_model(), tiny_model(), tokenizer, "question", 1, 0)
    assert found == {"refining": [False] * 2, "writing": [False] * 2}
    [(contexts, canvas), _] = seen
    row = runs.canvas_of(turns[0], tokenizer, asked=True)
    places = measures.question_gaps(turns[0], tokenizer) - row.mask.argmax()
    given = np.delete(np.arange(canvas.shape[1]), places)
    assert (canvas[0, places] == 1023).all()
    assert canvas[0, given].tolist() == row.ids[row.mask][given].tolist()
    assert contexts[0] == row.ids[~row.mask].tolist()


def test_the_one_that_writes_sees_nothing_behind(tokenizer, turns, monkeypatch):
    seen = []
    monkeypatch.setattr(
        measures,
        "generate",
        lambda model, ids, count, eos_token_id: (
            seen.append(ids[0].tolist()),
            torch.cat([ids, torch.full((1, 1), 5)], 1),
        )[1],
    )
    ids = turns[0].ids.tolist()
    places = measures.question_gaps(turns[0], tokenizer)
    assert measures._written(tiny_model(), ids, places) == [5] * len(places)
    for number, (place, left) in enumerate(zip(places.tolist(), seen)):
        wanted = list(ids[:place])
        for before in places[:number].tolist():
            wanted[before] = 5
        assert left == wanted


def part(seed, bound=0.2, half=0.95, question=True):
    """What one seed leaves behind."""
    styles = [
        dict(style=name, family=family, success=half, steps=24 if "2" in name else 48, tasks=6, seconds=1.0)
        for name in measures.STYLES
        for family in runs.LEVELS
    ]
    gaps = {kind: {"refining": [question] * 4, "writing": [False] * 4} for kind in measures.GAPS}
    nats = {family: {"bound": bound, "loss": 0.1} for family in runs.LEVELS}
    speed = {"style": measures.HALF, "many": 0.5, "one": 1.5, "frozen": 1.2, "context": 1.4}
    return dict(
        seed=seed,
        training={arm: {"seconds": 1.0, "tokens": 10} for arm in ARMS},
        nats=nats,
        writing=dict.fromkeys(runs.LEVELS, 1.0),
        styles=styles,
        gaps=gaps,
        speed=speed,
    )


def reported(tmp_path, *parts):
    log = Log("diffusion_versus", seeds=[0, 1, 2], folder=tmp_path)
    log.more["parts"] = json.loads(json.dumps(list(parts)))
    versus.report(log)
    return log, {claim["name"]: claim for claim in log.claims}


def test_claims_follow_the_numbers(tmp_path):
    log, claims = reported(tmp_path, part(0), part(1, bound=0.21), part(2, bound=0.22))
    assert claims["diffusion/bound"]["value"] == pytest.approx(0.11)
    assert claims["diffusion/bound"]["verdict"] == "holds"
    assert claims["diffusion/filling"]["value"] == 1 and claims["diffusion/filling"]["verdict"] == "holds"
    assert claims["diffusion/speed"]["verdict"] == "does not hold"
    assert claims["diffusion/speed_one"]["value"] == 1.5 and claims["diffusion/frozen_speed"]["value"] == 1.2
    later = {name for name, claim in claims.items() if claim["claim"].endswith(versus.LATER)}
    assert later == {"diffusion/speed_one", "diffusion/frozen_speed"}
    assert claims["diffusion/others"]["value"] == pytest.approx(-0.05)
    assert claims["diffusion/surely_steps"]["verdict"] == "does not hold", "all 48 steps"
    assert len(log.rows) == 3 * len(runs.LEVELS) * (len(measures.STYLES) + 1)
    log, claims = reported(tmp_path, *(part(seed, bound=0.9, half=0.1, question=False) for seed in range(3)))
    names = ("bound", "half_the_steps", "surely", "surely_in_blocks", "filling", "filling_thoughts", "others")
    assert all(claims[f"diffusion/{name}"]["verdict"] == "does not hold" for name in names)


@pytest.mark.parametrize(
    ("rates", "says"),
    [((0.99, 0.98), "at equal success"), ((0.99, 0.9), "most successful style (success 0.90 to 0.99, the")],
)
def test_seconds_are_called_those_of_equal_success_where_every_seed_has_it(tmp_path, rates, says):
    _, claims = reported(tmp_path, *(part(seed, half=rate) for seed, rate in enumerate(rates)))
    told = [claims[f"diffusion/{name}"]["claim"] for name in ("speed", "speed_one")]
    assert all(says in one for one in told) and all(
        ("the writer's 1.00" in one) == ("most" in says) for one in told
    )


def test_turns_that_do_not_fit_are_left_out_and_the_others_have_all_before_them(tokenizer):
    """What is learned of an example is one turn; what stood before it is given."""
    for family in ("follow", "repair"):
        item = trajectory(tokenizer, "x/1", family, 2, "think", 0.0, True)
        found = runs.turns_of(item.example)
        starts = [int(turn.mask.argmax()) for turn in found]
        assert starts == sorted(set(starts)) and len(found) >= 2 - (family == "repair")
        for turn in found:
            assert turn.mask.sum() <= LENGTH and turn.mask[turn.mask.argmax() :].all()
            assert turn.ids.tolist() == item.example.ids[: len(turn.ids)].tolist()
            assert item.example.mask[turn.mask.nonzero()[0]].all()
    assert len(runs.turns_of(trajectory(tokenizer, "x/3", "repair", 4, "think", 0.0, True).example)) == 1


def test_only_sums_are_learned_with_their_question(tokenizer, turns):
    def asked(sums):
        rng, recipe = np.random.default_rng(0), Recipe(micro_tokens=512)
        made = runs.batches("writing", turns * 8, tiny_model(), tokenizer, recipe, rng, sums)
        rows = [text(tokenizer, ids[mask]) for batch in made for ids, mask in zip(batch.ids, batch.mask)]
        return sum(row.startswith("Multiply") for row in rows)

    assert asked([False] * 48) == 0 < asked([True] * 24 + [False] * 24) < asked([True] * 48) == asked(None)


def test_every_style_stands_on_a_curve_and_the_end_waits_unless_it_is_free(tokenizer):
    assert len({measures.kind_of(name) for name in measures.STYLES}) <= 9, "as many as there are colours"
    end = tokenizer.token_id("<|im_end|>")
    assert Refining(tiny_model(), tokenizer, Style()).style.closing == end
    assert Refining(tiny_model(), tokenizer, Style(), free=True).style.closing is None
    assert {measures.ONE, measures.HALF, measures.SURELY, measures.IN_BLOCKS, measures.FROZEN} <= set(
        measures.STYLES
    )


def test_equal_success_takes_the_fewest_steps():
    rows = part(0)["styles"]
    for row in rows:
        row["steps"], row["success"] = {"surest, 4 at once": (6, 0.5), "left, 2 at once": (24, 0.99)}.get(
            row["style"], (48, 1.0)
        )
    assert measures.equal(rows, {"add": 1.0, "times": 1.0}) == "left, 2 at once"
    for row in rows:
        row["success"] *= 0.5
    assert measures.equal(rows, {"add": 1.0, "times": 1.0}) != "surest, 4 at once"


def test_the_figures_are_drawn_from_the_log(tmp_path):
    log, _ = reported(tmp_path, part(0), part(1))
    assert versus.draw_bounds(log.as_dict()).axes and versus.draw_steps(log.as_dict()).axes


@pytest.mark.slow
def test_the_seconds_of_a_training_that_was_stopped_count(tmp_path, monkeypatch):
    """Stopped behind the last step: the second start trains none, and tells of those of the first."""
    recipe = Recipe(tokens=3000, step_tokens=1024, micro_tokens=512)

    def stop(model, folder, habits):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(runs, "save_agent", stop)
        runs.learned("writing", versus.TUNED, recipe, 90, tmp_path)
    earlier = torch.load(tmp_path / "writing-90.pt")["history"]["processor_seconds"]
    _, _, note = runs.learned("writing", versus.TUNED, recipe, 90, tmp_path)
    assert note["processor_seconds"] == pytest.approx(earlier, abs=0.05) and earlier > 0.3


@pytest.mark.slow
def test_a_tiny_run_ends_goes_on_and_measures_everything(tmp_path, tokenizer):
    recipe = Recipe(tokens=3000, step_tokens=1024, micro_tokens=512)
    models = [runs.learned(arm, versus.TUNED, recipe, 90, tmp_path) for arm in ARMS]
    assert all(note["tokens"] > 3000 for _, _, note in models)
    again = runs.learned("refining", versus.TUNED, recipe, 90, tmp_path)
    assert again[2] == models[0][2] and not list(tmp_path.glob("*.pt"))
    for mine, kept in zip(models[0][0].state_dict().values(), again[0].state_dict().values()):
        torch.testing.assert_close(mine, kept)
    found = json.loads(json.dumps(versus.measured(90, models, scale=0.01)))
    assert {row["style"] for row in found["styles"]} == set(measures.STYLES)
    assert all(value > 0 for name, value in found["speed"].items() if name != "style")
    log, claims = reported(tmp_path, found, found)
    assert versus.draw_steps(log.as_dict()).axes and len(claims) == 13
