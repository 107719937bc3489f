"""Refining a canvas: orders, blocks, given tokens, the cache, and that nobody looks at the answer."""

import itertools

import pytest
import torch
from tiny import tiny_model

from kimi_mini.inference.diffusion import Style, refine
from kimi_mini.model import kernels
from kimi_mini.model.kernels.both_ways import both_ways

MASK = 1023
CONTEXTS = [[3, 5, 9], [4, 4], [8, 8, 2, 6, 1]]


@pytest.fixture
def model():
    return tiny_model(std=0.4).eval()


def empty(rows=3, size=6):
    return torch.full((rows, size), MASK)


def by_hand(model, context, canvas, at_once=1, order="confidence", block=None, allowed=None):
    """One row, the whole of it through the model at every step: no cache."""
    canvas, when, step = list(canvas), {}, 0
    block = block or len(canvas)
    marked = torch.tensor([[False] * (len(context) - 1) + [True] * (len(canvas) + 1)])
    while MASK in canvas:
        with torch.no_grad(), kernels.using(attention=both_ways(marked)):
            chances = model(torch.tensor([context + canvas])).logits[0, len(context) - 1 : -1].log_softmax(-1)
        chances[:, MASK] = -torch.inf
        if allowed is not None:
            chances[:, ~allowed] = -torch.inf
        first = canvas.index(MASK) // block
        open_ = [i for i in range(first * block, min((first + 1) * block, len(canvas))) if canvas[i] == MASK]
        sure, tokens = chances.log_softmax(-1).max(-1)
        rank = (-sure).tolist() if order == "confidence" else range(len(canvas))
        for place in sorted(open_, key=rank.__getitem__)[:at_once]:
            canvas[place], when[place] = tokens[place].item(), step
        step += 1
    return canvas, when


@pytest.mark.parametrize(
    "style",
    [dict(), dict(at_once=2), dict(block=2), dict(block=4, at_once=3), dict(order="left"), dict(block=1)],
)
def test_it_is_what_the_whole_model_says_step_by_step(model, style):
    found = refine(model, CONTEXTS, empty(), Style(**style))
    for row, context in enumerate(CONTEXTS):
        ids, when = by_hand(model, context, [MASK] * 6, **style)
        assert found.ids[row].tolist() == ids
        assert found.when[row].tolist() == [when[i] for i in range(6)]


def test_a_row_is_the_same_in_any_company(model):
    whole = refine(model, CONTEXTS, empty(), Style(at_once=2))
    for row, context in enumerate(CONTEXTS):
        alone = refine(model, [context], empty(1), Style(at_once=2))
        assert alone.ids[0].equal(whole.ids[row])


def test_what_is_given_stays_and_is_seen(model):
    canvas = empty()
    canvas[:, 2], canvas[:, 5] = 7, 11
    for style in (
        Style(),
        Style(at_once=3, remask=2),
        Style(order="random", temperature=1.0),
        Style(block=2),
    ):
        found = refine(model, CONTEXTS, canvas, style)
        assert (
            (found.ids[:, 2] == 7).all() and (found.ids[:, 5] == 11).all() and not (found.ids == MASK).any()
        )
        assert (found.when[:, [2, 5]] == -1).all() and (found.logprobs[:, [2, 5]] == 0).all()
    ids, _ = by_hand(model, CONTEXTS[0], canvas[0].tolist())
    assert refine(model, CONTEXTS, canvas).ids[0].tolist() == ids
    assert ids != by_hand(model, CONTEXTS[0], [MASK] * 6)[0]


def test_blocks_are_finished_from_left_to_right(model):
    found = refine(model, CONTEXTS, empty(), Style(order="random", block=2), seed=4)
    assert (found.when[:, :2].amax(1) < found.when[:, 2:4].amin(1)).all()
    assert (found.when[:, 2:4].amax(1) < found.when[:, 4:].amin(1)).all()
    assert found.steps == 6


def test_steps_are_as_few_as_asked(model):
    assert [refine(model, CONTEXTS, empty(), Style(at_once=n)).steps for n in (1, 2, 3, 4, 6)] == [
        6,
        3,
        2,
        2,
        1,
    ]


def test_orders_and_dice(model):
    draw = lambda seed, order="random": refine(model, CONTEXTS, empty(), Style(order, temperature=1.0), seed)
    assert draw(0).ids.equal(draw(0).ids) and not draw(0).ids.equal(draw(1).ids)
    assert not draw(0).when.equal(draw(1).when), "any order"
    places = torch.stack([draw(seed).when[0] for seed in range(60)]).float().mean(0)
    assert (places - 2.5).abs().max() < 0.8, "every place alike"
    assert refine(model, CONTEXTS, empty(), Style("left")).when.tolist() == [list(range(6))] * 3


def test_sampled_tokens_come_as_often_as_they_are_likely(model):
    one = torch.full((4000, 1), MASK)
    allowed = torch.zeros(1024, dtype=torch.bool)
    allowed[[5, 6, 7]] = True
    found = refine(model, [CONTEXTS[0]] * 4000, one, Style("random", temperature=0.7), 0, allowed)
    marked = torch.tensor([[False] * 2 + [True] * 2])
    with torch.no_grad(), kernels.using(attention=both_ways(marked)):
        logits = model(torch.tensor([[*CONTEXTS[0], MASK]])).logits[0, -2, [5, 6, 7]]
    wanted = (logits / 0.7).softmax(-1)
    share = torch.stack([(found.ids == token).float().mean() for token in (5, 6, 7)])
    torch.testing.assert_close(share, wanted, atol=0.03, rtol=0)
    torch.testing.assert_close(found.logprobs[:, 0].exp(), wanted[found.ids[:, 0] - 5], atol=1e-4, rtol=1e-3)


def test_only_what_is_allowed_is_written(model):
    allowed = torch.zeros(3, 6, 1024, dtype=torch.bool)
    allowed[..., 20:24] = True
    allowed[:, 3] = False
    allowed[:, 3, 99] = True
    found = refine(model, CONTEXTS, empty(), Style("random", block=2, temperature=1.0), 0, allowed)
    assert (found.ids[:, 3] == 99).all()
    rest = found.ids[:, [0, 1, 2, 4, 5]]
    assert ((rest >= 20) & (rest < 24)).all()


def test_what_is_taken_back_was_the_least_certain(model):
    seen = []
    style = Style(order="random", at_once=3, remask=1, temperature=1.0)
    found = refine(model, CONTEXTS, empty(), style, look=lambda canvas, masked: seen.append(canvas.clone()))
    left = [int((canvas[0] == MASK).sum()) for canvas in seen]
    assert left == [6, 4, 2, 0], "three put down, one taken back, all of them in the end"
    assert found.steps == 3 and not (found.ids == MASK).any()


def test_a_step_whose_tokens_are_all_taken_back_later_is_a_step(model):
    """Two down and one back: a row of six tokens needs five steps at least, and none is lost from the count."""
    style = Style(order="random", at_once=2, remask=1, temperature=1.0)
    found = [refine(model, CONTEXTS, empty(), style, seed) for seed in range(4)]
    assert all(one.steps_each.tolist() == [5] * 3 and one.steps == 5 for one in found)
    stayed = [len(set(row)) for one in found for row in one.when.tolist()]
    assert min(stayed) < 5, "some steps left nothing behind"


def test_rows_that_are_finished_wait_and_count_no_step(model):
    canvas = empty()
    canvas[1, 2:], canvas[2] = 7, 7
    found = refine(model, CONTEXTS, canvas, Style(block=2))
    assert found.steps_each.tolist() == [6, 2, 0] and found.steps == 6


def test_the_least_certain_token_goes_and_no_other(model):
    """The first step is the same with and without taking back: the same dice."""
    seen = []
    looks = dict(look=lambda canvas, masked: seen.append(masked.clone()))
    first = Style(order="random", at_once=5, temperature=1.0)
    kept = refine(model, CONTEXTS, empty(), first, **looks)
    put = ~seen[1]
    doubt = kept.logprobs.masked_fill(~put, 0.0)
    refine(model, CONTEXTS, empty(), Style(order="random", at_once=5, temperature=1.0, remask=1), **looks)
    back = put & seen[kept.steps + 2]
    assert back.sum(1).tolist() == [1, 1, 1] and back.int().argmax(1).equal(doubt.argmin(1))


def test_given_tokens_stay_where_all_are_equally_certain(model):
    """Of one allowed token the probability is 1, as certain as what was given, which stands first."""
    canvas, allowed = empty(), torch.zeros(1024, dtype=torch.bool)
    canvas[:, :2], allowed[20] = 7, True
    found = refine(model, CONTEXTS, canvas, Style(at_once=3, remask=2), allowed=allowed)
    assert found.ids.tolist() == [[7, 7, 20, 20, 20, 20]] * 3


def test_the_mask_is_never_written(model):
    """Not even where it is allowed: a step that wrote it would have written nothing."""
    allowed = torch.zeros(1024, dtype=torch.bool)
    allowed[[20, MASK]] = True
    found = refine(model, CONTEXTS, empty(), Style("random", temperature=1.0), allowed=allowed)
    assert found.steps == 6 and (found.ids == 20).all() and (found.logprobs == 0).all()


def test_taking_back_ends_where_ends_wait(model):
    """Who puts down one token only, for the others have to wait, takes none back."""
    allowed = torch.zeros(1024, dtype=torch.bool)
    allowed[[5, 9]] = True
    left = []
    style = Style(at_once=3, remask=2, closing=9)
    refine(
        model,
        CONTEXTS,
        empty(),
        style,
        allowed=allowed,
        look=lambda _, masked: left.append(masked.sum(1).tolist()),
    )
    for before, after in itertools.pairwise(left):
        assert all(now < then or then == 0 for then, now in zip(before, after))


def test_the_reader_is_shown_every_step(model):
    seen = []
    refine(
        model, CONTEXTS, empty(), look=lambda canvas, masked: seen.append((canvas.clone(), masked.clone()))
    )
    assert [int(masked.sum()) for _, masked in seen] == [18, 15, 12, 9, 6, 3, 0]


def test_frozen_blocks_are_seen_and_no_longer_change(model):
    """With one block nothing is frozen before the end; with several, what comes later sees what was kept."""
    style = dict(order="left", block=3)
    whole, frozen = (refine(model, CONTEXTS, empty(), Style(**style, freeze=f)) for f in (False, True))
    assert whole.ids[:, :3].equal(frozen.ids[:, :3]), "the first block knows of no freezing"
    assert refine(model, CONTEXTS, empty(), Style(freeze=True)).ids.equal(
        refine(model, CONTEXTS, empty()).ids
    )
    other = empty()
    other[:, 0] = 7
    assert not refine(model, CONTEXTS, other, Style(**style, freeze=True)).ids[:, 3:].equal(frozen.ids[:, 3:])
    given = [torch.tensor([[first, 9, 10, MASK, MASK, MASK]] * 3) for first in (7, 8)]
    seen = [refine(model, CONTEXTS, canvas, Style(**style, freeze=True)).logprobs[:, 3:] for canvas in given]
    assert (seen[0] != seen[1]).any(1).all(), "the whole block is remembered, not its last token alone"


@pytest.mark.parametrize(
    "style", [dict(order="best"), dict(at_once=0), dict(block=0), dict(remask=1), dict(temperature=-1.0)]
)
def test_styles_that_never_end_are_refused(style):
    with pytest.raises(ValueError):
        Style(**style)


def test_empty_contexts_and_other_counts_are_refused(model):
    for contexts in ([[1, 2], [1]], [[1, 2]]):
        with pytest.raises(ValueError, match="contexts"):
            refine(model, contexts, empty(2))


def steps_of(model, style, allowed):
    """Of every step and row: (places that were masked, places put down, chances (L, V)), by the whole model."""
    seen = []
    found = refine(
        model,
        CONTEXTS,
        empty(),
        style,
        allowed=allowed,
        look=lambda canvas, masked: seen.append((canvas.clone(), masked.clone())),
    )
    told = []
    for (canvas, masked), (_, left) in itertools.pairwise(seen):
        for row, context in enumerate(CONTEXTS):
            marked = torch.tensor([[False] * (len(context) - 1) + [True] * 7])
            with torch.no_grad(), kernels.using(attention=both_ways(marked)):
                logits = model(torch.tensor([[*context, *canvas[row].tolist()]])).logits[0]
            chances = logits[len(context) - 1 : -1].masked_fill(~allowed, -torch.inf).softmax(-1)
            places = masked[row].nonzero()[:, 0].tolist()
            if places:
                told.append((places, [place for place in places if not left[row, place]], chances))
    return found, told


def test_what_is_sure_goes_down_at_once(model):
    """Every token above the threshold, and the surest where none is; a threshold of 1 in 10^9 takes all in one step."""
    allowed = torch.arange(1024) != MASK
    found, told = steps_of(model, Style(sure=0.2), allowed)
    for places, put, chances in told:
        sure = chances.amax(-1)
        wanted = {place for place in places if sure[place] >= 0.2} | {max(places, key=sure.__getitem__)}
        assert set(put) == wanted
    assert any(len(put) > 1 for _, put, _ in told)
    assert refine(model, CONTEXTS, empty(), Style(sure=1e-9)).steps == 1
    assert refine(model, CONTEXTS, empty(), Style(sure=1.0)).ids.equal(refine(model, CONTEXTS, empty()).ids)
    each = [len({step for step in row if step >= 0}) for row in found.when.tolist()]
    assert found.steps_each.tolist() == each and max(each) == found.steps


def test_a_closing_token_waits_for_what_stands_before_it(model):
    """It is not put down while anything else is likeliest at a masked place before it; free, it is."""
    allowed = torch.zeros(1024, dtype=torch.bool)
    allowed[[5, 9]] = True

    def early(closing):
        _, told = steps_of(model, Style(closing=closing), allowed)
        likeliest = [(places, put[0], chances.argmax(-1)) for places, put, chances in told]
        return [
            any(tokens[before] != 9 for before in places if before < place)
            for places, place, tokens in likeliest
            if tokens[place] == 9
        ]

    assert any(early(None)) and early(9) and not any(early(9))


@pytest.mark.parametrize("sure", [0, 1.5, -0.1])
def test_a_threshold_is_a_probability(sure):
    with pytest.raises(ValueError, match="probability"):
        Style(sure=sure)
