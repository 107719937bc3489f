"""Masked diffusion: the bound against sums over all orders, the noise, the attention, and what may not leak."""

from itertools import permutations
from math import log

import numpy as np
import pytest
import torch
from tiny import tiny_model

from kimi_mini.model import kernels
from kimi_mini.model.kernels.both_ways import both_ways
from kimi_mini.training.batch import Example
from kimi_mini.training.diffusion import Noised, bound, canvases, hide, refined_losses

CONTEXT, CANVAS, MASK = [3, 5], [7, 8, 9], 1023


@pytest.fixture
def model():
    torch.manual_seed(0)
    made = tiny_model().eval()
    with torch.no_grad():
        made.lm_head.weight.mul_(20)  # far from uniform
    return made


def example(context=CONTEXT, canvas=CANVAS):
    return Example(np.array(context + canvas), np.array([False] * len(context) + [True] * len(canvas)))


@torch.no_grad()
def chances(model, canvas):
    """log p of every token (L, V) by a canvas with masks, all of it seen from everywhere."""
    ids = torch.tensor([CONTEXT + canvas])
    marked = torch.tensor([[False] * (len(CONTEXT) - 1) + [True] * (len(canvas) + 1)])
    with kernels.using("reference", attention=both_ways(marked)):
        return model(ids).logits[0, len(CONTEXT) - 1 : -1, :MASK].log_softmax(-1)


def any_order(model):
    """-log p(canvas) as a mean over all orders in which its tokens can be written one by one: no t, no weight."""
    total = 0.0
    for order in permutations(range(len(CANVAS))):
        canvas = [MASK] * len(CANVAS)
        for place in order:
            total -= chances(model, canvas)[place, CANVAS[place]].item()
            canvas[place] = CANVAS[place]
    return total / 6


def test_the_bound_is_the_mean_over_all_orders(model):
    """An independent derivation: by orders, where the loss goes by times."""
    [found] = bound(model, [example()], draws=6000)
    assert found == pytest.approx(any_order(model), rel=0.03)


@pytest.mark.parametrize("by", ["time", "count"])
def test_both_noises_estimate_the_same_bound(model, by):
    rng, total = np.random.default_rng(1), 0.0
    with torch.no_grad():
        for _ in range(20):
            total += refined_losses(model, hide([example()] * 300, MASK, rng, by)).sum().item() / 300
    assert total / 20 == pytest.approx(any_order(model), rel=0.06)


def test_it_is_a_bound(model):
    """log p itself, over the orders, is never above it: Jensen."""
    exact = 0.0
    for order in permutations(range(3)):
        canvas, chance = [MASK] * 3, 0.0
        for place in order:
            chance += chances(model, canvas)[place, CANVAS[place]].item()
            canvas[place] = CANVAS[place]
        exact += np.exp(chance) / 6
    assert -log(exact) <= any_order(model) + 1e-6


def test_noise_is_uniform_over_the_canvas_and_touches_nothing_else():
    rng = np.random.default_rng(0)
    longer = example(CONTEXT, [7] * 10)
    batch = hide([longer, example()] * 2000, MASK, rng)
    masked = batch.noisy != batch.ids
    assert not (masked & ~batch.mask).any(), "context and padding are never masked"
    assert (batch.weight > 0).equal(masked)
    share = masked[::2, 2:].float().mean(0)
    assert (share - 0.5).abs().max() < 0.05, "every position alike"
    # a token is masked with probability t and then counts 1/t: on average 1, wherever it stands
    assert batch.weight[::2, 2:].mean().item() == pytest.approx(1, abs=0.1)
    assert batch.learned == 2000 * 13


def test_times_of_a_batch_are_spread_evenly():
    batch = hide([example(CONTEXT, [7] * 200)] * 8, MASK, np.random.default_rng(0))
    share = (batch.weight > 0)[:, 2:].float().mean(1).sort().values
    assert (share.diff() > 0.02).all() and share[0] < 0.2 and share[-1] > 0.8


def test_what_is_masked_cannot_leak(model):
    """What the model is shown of a masked token is [MASK]; the token itself is read at the end alone."""
    batch = hide([example()] * 40, MASK, np.random.default_rng(3))
    assert not ((batch.noisy == batch.ids) & (batch.weight > 0)).any()
    other = torch.where(batch.noisy == MASK, 11, batch.ids)
    changed = Noised(other, batch.mask, batch.valid, batch.noisy, batch.weight)
    with torch.no_grad():
        losses = [refined_losses(model, one) for one in (batch, changed)]
    assert not losses[0].allclose(losses[1])
    seen = [chances(model, canvas) for canvas in ([MASK, 8, 9], [7, MASK, 9])]
    wanted = [-seen[0][0, 7].item(), -seen[1][1, 8].item()]
    alone = [(batch.weight[:, 2:] > 0).sum(1) == 1, batch.weight[:, 2:].argmax(1)]
    rows = [int((alone[0] & (alone[1] == place)).nonzero()[0]) for place in (0, 1)]
    found = [(refined_losses(model, batch.rows(r, r + 1)) / batch.weight[r].max()).item() for r in rows]
    assert found == pytest.approx(wanted, abs=1e-4)


def test_the_mask_takes_no_share_of_what_is_predicted(model):
    """However likely the head makes it, the losses stay: it is never among the tokens to choose from."""
    batch, found = hide([example()] * 4, MASK, np.random.default_rng(0)), []
    for head in (0.0, 9.0, -9.0):
        with torch.no_grad():
            model.lm_head.weight[MASK] = head
            found.append(refined_losses(model, batch))
    assert found[0].equal(found[1]) and found[0].equal(found[2])


def test_the_canvas_is_seen_from_both_sides_and_the_context_never_sees_it(model):
    def hidden(canvas):
        ids = torch.tensor([CONTEXT + canvas])
        with torch.no_grad(), kernels.using(attention=both_ways(ids >= 7)):
            return model.hidden_states(ids)[0]

    one, other = hidden([7, 8, 9]), hidden([7, 8, 12])
    torch.testing.assert_close(one[:2], other[:2])
    assert (one[2] - other[2]).abs().max() > 1e-6, "the first token of the canvas sees the last"
    causal = model.hidden_states(torch.tensor([CONTEXT + [7, 8, 9]]))[0]
    torch.testing.assert_close(one[:2], causal[:2])
    assert (one[2] - causal[2]).abs().max() > 1e-6


def test_padding_is_not_seen_and_not_counted(model):
    rng = np.random.default_rng(0)
    alone = hide([example()], MASK, rng)
    both = hide([example(), example(CONTEXT, [7] * 9)], MASK, np.random.default_rng(0))
    padded = Noised(
        *(
            torch.cat([getattr(alone, n), torch.zeros_like(getattr(alone, n))], 1)
            for n in vars(alone)
            if n != "positions"
        )
    )
    torch.testing.assert_close(refined_losses(model, padded), refined_losses(model, alone))
    assert padded.learned == alone.learned == 3 and both.learned == 12


def test_queries_have_the_largest_logit_of_what_they_may_see():
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 2, 5, 4).unbind(0)
    marked = torch.tensor([[False, False, True, True, True]] * 2)
    valid = torch.tensor([[True] * 5, [True] * 4 + [False]])
    out, largest = both_ways(marked)(q, k, v, 0.5, valid)
    logits = q @ k.transpose(-1, -2) * 0.5
    seen = torch.ones(5, 5).tril().bool() | marked[:, :, None]
    seen = (seen & valid[:, None])[:, None]
    torch.testing.assert_close(out, logits.masked_fill(~seen, float("-inf")).softmax(-1) @ v)
    counted = (seen & valid[:, None, :, None]).expand(-1, 2, -1, -1)
    torch.testing.assert_close(largest, logits.masked_fill(~counted, float("-inf")).amax((0, 2, 3)))


def test_noise_of_a_block_masks_all_behind_it_and_learns_the_block():
    rng = np.random.default_rng(0)
    batch = hide([example(CONTEXT, [7] * 16), example(CONTEXT, [7] * 24)] * 1500, MASK, rng, by="block")
    masked, learned = batch.noisy == MASK, batch.weight > 0
    assert not (masked & ~batch.mask).any() and not (learned & ~masked).any()
    for row in range(200):
        size = int(batch.mask[row].sum())
        places = (learned[row].nonzero()[:, 0] - 2).tolist()
        [block] = {place // 8 for place in places}
        hidden = (masked[row].nonzero()[:, 0] - 2).tolist()
        assert hidden == sorted({*places, *range(8 * block + 8, size)}), "clean before, masked behind"
        assert batch.weight[row].max() == pytest.approx(size / len(places))
    for start, size in ((0, 16), (1, 24)):  # each token counts 1 on average, wherever it stands
        counts = batch.weight[start::2, 2 : 2 + size].mean(0)
        assert counts.mean() == pytest.approx(1, abs=1e-4) and (counts - 1).abs().max() < 0.25


def test_a_canvas_of_a_size():
    [canvas] = canvases(example(), end=1, size=12)
    assert canvas.ids.tolist() == [3, 5, 7, 8, 9, *[1] * 9] and canvas.mask.sum() == 12
    with pytest.raises(ValueError, match="does not fit"):
        canvases(example(), end=1, size=2)


def test_every_turn_becomes_a_canvas_with_room_behind_it():
    ids = np.arange(10, 30)
    mask = np.zeros(20, bool)
    mask[3:6] = mask[9:19] = True
    first, second = canvases(Example(ids, mask), end=1)
    assert first.ids.tolist() == [*range(10, 16), 1, 1, 1, 1, 1] and first.mask.sum() == 8
    assert second.ids[:19].tolist() == [*range(10, 29)] and second.ids[19:].tolist() == [1] * 6
    assert second.mask[:9].sum() == 0 and second.mask[9:].all()
    roomy = canvases(Example(ids, mask), 1, np.random.default_rng(0))
    assert all(one.mask.sum() % 8 == 0 for one in roomy)
    rng = np.random.default_rng(0)
    sizes = {int(one.mask.sum()) for _ in range(40) for one in canvases(Example(ids, mask), 1, rng)[:1]}
    assert sizes == {8, 16, 24}, "up to two blocks more"


def test_a_batch_is_cut_and_moved_with_its_noise():
    batch = hide([example()] * 4, MASK, np.random.default_rng(0))
    part = batch.to("cpu").rows(1, 3)
    assert (
        isinstance(part, Noised)
        and part.noisy.equal(batch.noisy[1:3])
        and part.weight.equal(batch.weight[1:3])
    )
