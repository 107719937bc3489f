"""The experiment of long contexts: what is measured, on readers whose behaviour is known, and what its claims say."""

import numpy as np
import pytest
import torch
from digits import to_five
from torch import nn

from kimi_mini.base.evidence import FAILS, HOLDS, OPEN, Log
from kimi_mini.base.files import read_json
from kimi_mini.base.paths import RESULTS
from kimi_mini.experiments.attention import heads, long_context, needle_runs
from kimi_mini.model.kimi import KimiMini
from kimi_mini.model.rope import frequencies, rotations

TEXT = np.random.default_rng(5).integers(0, 900, 40_000).astype(np.uint16)


class Reader(nn.Module):
    """Looks a key up without fail, as far back as it can see; else says token 0."""

    def __init__(self, sight=10**6):
        super().__init__()
        self.sight, self.lm_head = sight, nn.Identity()

    def hidden_states(self, ids):
        out = torch.zeros(*ids.shape, 1152)
        for row, seen in enumerate(ids[:, -self.sight :]):
            earlier = (seen[:-1] == seen[-1]).nonzero().flatten()
            out[row, -1, seen[earlier[-1] + 1] if len(earlier) else 0] = 1
        return out


def asked(depth, length=512):
    return needle_runs.questions(TEXT, 0, length, depth, 10)


def check_found(found):
    """All needles are found by who sees everything, only the near ones through a window of either kind."""
    for depth, near in ((0.0, 0), (0.5, 0), (1.0, 10)):
        assert found(Reader(), asked(depth)) == 10
        assert found(Reader(), asked(depth), window=64) == near
        assert found(Reader(sight=64), asked(depth)) == near


def test_a_needle_outside_the_window_is_not_found():
    check_found(needle_runs.found)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda model, questions, window=None: needle_runs.found(model, questions),  # the window is forgotten
        lambda model, questions, window=None: needle_runs.found(
            Reader(), questions, window
        ),  # another model is asked
        lambda model, questions, window=None: sum(
            q.answer in q.ids for q in questions
        ),  # any trace of the value counts
    ],
)
def test_wrong_counts_are_caught(wrong):
    with pytest.raises(AssertionError):
        check_found(wrong)


def test_every_arm_gets_the_same_questions_and_another_seed_gets_others():
    first, again = asked(0.5), asked(0.5)
    assert all(np.array_equal(a.ids, b.ids) for a, b in zip(first, again))
    other = needle_runs.questions(TEXT, 1, 512, 0.5, 10)
    assert not any(np.array_equal(a.ids, b.ids) for a, b in zip(first, other))


def tiny():
    torch.manual_seed(0)
    return KimiMini(long_context.CONFIG.replace(initializer_range=0.2))


def check_stretched(stretched):
    """Trained positions: untouched by "as it was". Slow pairs: an eighth under YaRN. All pairs: under interpolation."""
    model, ids = tiny().eval(), torch.arange(48)[None]
    plain, cpu = frequencies(model.config), torch.device("cpu")
    with torch.no_grad():
        assert torch.equal(stretched(model, "as it was")(ids).logits, model(ids).logits)
    line = stretched(model, "interpolation").rotation(512, cpu)
    torch.testing.assert_close(line[::8], rotations(model.config, 64), atol=1e-4, rtol=0)
    yarn = stretched(model, "YaRN")
    speeds = yarn.rotation(2, cpu)[1].angle()
    turns = plain * long_context.TRAINED / (2 * torch.pi)
    torch.testing.assert_close(speeds, torch.where(turns >= 1, plain, plain / 8), atol=1e-6, rtol=1e-4)
    sharper = yarn.model.layers[0].self_attn.scale / model.model.layers[0].self_attn.scale
    assert sharper == pytest.approx((0.1 * np.log(8) + 1) ** 2)
    assert all(torch.equal(a, b) for a, b in zip(yarn.state_dict().values(), model.state_dict().values()))
    assert (
        yarn.lm_head.weight.data_ptr() != model.lm_head.weight.data_ptr()
    )  # a tune must not reach the other arms


def test_positions_are_stretched_as_their_names_say():
    check_stretched(long_context.stretched)


def no_mscale(model, kind):
    copy = long_context.stretched(model, kind)
    for layer in copy.model.layers:
        layer.self_attn.scale = model.model.layers[0].self_attn.scale
    return copy


def shared_weights(model, kind):
    copy = long_context.stretched(model, kind)
    copy.lm_head.weight = model.lm_head.weight
    return copy


@pytest.mark.parametrize(
    "wrong",
    [
        no_mscale,
        shared_weights,
        lambda model, kind: long_context.stretched(model, "interpolation" if kind == "YaRN" else kind),
        lambda model, kind: long_context.stretched(model, "as it was"),
    ],
)
def test_wrong_stretchings_are_caught(wrong):
    with pytest.raises(AssertionError):
        check_stretched(wrong)


def test_the_loss_of_a_model_that_knows_nothing_is_the_same_everywhere():
    model = tiny()
    model.lm_head.weight.data.zero_()
    losses = long_context.loss_by_position(model, TEXT, 4)
    assert len(losses) == 512 // long_context.BUCKET
    assert losses == pytest.approx([np.log(1152)] * len(losses), rel=1e-5)


def test_training_never_leaves_its_length():
    for length in (64, 512):
        for example in needle_runs.examples(np.random.default_rng(0), TEXT, length):
            assert len(example.ids) == length and example.mask.any()
    assert max(len(e.ids) for e in needle_runs.drill_examples(np.random.default_rng(0), TEXT)) == 64


def filled(tmp_path, yarn, none, tuned_only=0.5):
    """A log with given rates at the longest length."""
    log = Log("long_context", seeds=[0, 1, 2], folder=tmp_path)
    rates = {
        ("YaRN", True): yarn,
        ("as it was", False): none,
        ("as it was", True): tuned_only,
        ("interpolation", True): 0.6,
    }
    for seed in log.seeds:
        for kind in long_context.KINDS:
            for tuned in (False, True):
                log.row(seed=seed, kind=kind, tuned=tuned, loss_by_position=[4.0, 3.9 + seed])
                for length in long_context.LENGTHS:
                    for depth in long_context.DEPTHS:
                        right = round(100 * rates.get((kind, tuned), 0.3)) + seed - 1
                        log.row(
                            seed=seed, kind=kind, tuned=tuned, length=length, depth=depth, right=right, n=100
                        )
        log.row(seed=seed, window=64, right=1, n=160)
    long_context.report(log)
    return log


def test_claims_and_figures(tmp_path):
    log = filled(tmp_path, yarn=0.95, none=0.2)
    assert [claim["verdict"] for claim in log.claims] == [HOLDS] * 6
    worse = filled(tmp_path, yarn=0.85, none=0.4, tuned_only=0.9).claims
    said = {claim["name"]: claim["verdict"] for claim in worse}
    assert {said[f"long/{name}"] for name in ("yarn", "none", "yarn_over_tune_only")} == {FAILS}
    maps = long_context.draw(log.as_dict()).axes
    assert len(maps) == 6  # five maps and the colours
    assert [ax.get_title("left") for ax in maps[:2]] == ["no extension", "YaRN, no tune"]
    assert len(long_context.draw_loss(log.as_dict()).axes) == 2


def test_a_mean_of_depths_does_not_hide_an_end(tmp_path):
    log = filled(tmp_path, yarn=0.98, none=0.2)
    for row in log.rows:
        if row.get("depth") == 1.0 and row["kind"] == "YaRN":
            row["right"] -= 20
    log.claims = []
    long_context.report(log)
    found = {claim["name"]: claim for claim in log.claims}
    worst = found["long/yarn/worst"]
    assert found["long/yarn"]["verdict"] == HOLDS and worst["verdict"] == FAILS
    assert worst["value"] == pytest.approx(0.78) and "(1 of the window)" in worst["claim"]
    assert found["long/yarn"]["headline"] and not worst["headline"]


def test_the_committed_log_claims_what_its_rows_say(tmp_path):
    kept = read_json(RESULTS / "long_context.json")
    log = Log("long_context", folder=tmp_path, seeds=kept["seeds"])
    log.rows = kept["rows"]
    long_context.report(log)
    assert to_five(log.claims) == to_five(kept["claims"])


def heads_log(folder, six_heads):
    """A log in which three heads reach a loss of 4 and six heads the losses given, seed by seed."""
    log = Log("heads", seeds=[0, 1, 2], folder=folder, k2=heads.k2_flops())
    for seed, loss in zip(log.seeds, six_heads, strict=True):
        log.row(seed=seed, heads=3, loss=4.0)
        log.row(seed=seed, heads=6, loss=loss)
    heads.report(log)
    return log


@pytest.mark.parametrize(
    ("six_heads", "verdict"),
    [
        ((3.97, 3.97, 3.97), HOLDS),
        ((3.9, 3.9, 3.9), HOLDS),
        ((3.99, 3.99, 3.99), FAILS),  # a gain, but less than the report's half a per cent
        ((3.9, 3.9, 4.1), OPEN),  # its interval contains the floor
        ((3.0, 4.1, 4.1), OPEN),
        ((4.02, 4.02, 4.02), FAILS),
    ],
)
def test_the_gain_of_heads_holds_from_half_a_per_cent_and_above_zero(tmp_path, six_heads, verdict):
    claim = heads_log(tmp_path, six_heads).claims[0]
    assert claim["verdict"] == verdict and claim["floor"] == 0.5


def test_the_committed_log_of_heads_claims_what_its_rows_say(tmp_path):
    kept, log = read_json(RESULTS / "heads.json"), Log("heads", folder=tmp_path, k2=heads.k2_flops())
    log.rows, log.seeds = kept["rows"], kept["seeds"]
    heads.report(log)
    assert to_five(log.claims) == to_five(kept["claims"])


def test_k2s_heads_cost_what_the_config_says(tmp_path):
    found = heads.k2_flops()[-1]
    assert found["context"] == 131072 and 0.83 <= found["more"] < 0.9
    log = heads_log(tmp_path, (3.97, 3.97, 3.97))
    assert log.claims[0]["value"] == pytest.approx(0.75, abs=0.01)
    assert [claim["verdict"] for claim in log.claims] == [HOLDS, HOLDS]
    assert "+8" in heads.draw(log.as_dict()).axes[1].texts[0].get_text()
